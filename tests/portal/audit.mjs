// Who may read the records finds them, and sees the chain of a token.

import { pasteToken } from './portal.mjs'
import { scenes } from './scenes.mjs'
import { check, reached, same } from './steps.mjs'

/** What a 403 writes on the console; it is what is tested. */
const REFUSED = /status of 403/

async function reads({ settings, findings, person }) {
  findings.expect(REFUSED)
  const { javaScriptEnabled, jti, boxes, dropped, user } = settings
  const page = await person({ javaScriptEnabled })
  await pasteToken(page, settings, settings.tokens.alice)
  await page.getByRole('link', { name: 'Audit', exact: true }).click()
  await page.getByRole('heading', { level: 1, name: 'Audit' }).waitFor()
  await page.getByLabel('Token (jti)').fill(jti)
  await page.getByRole('button', { name: 'Search' }).click()
  const rows = page.locator('#records tbody tr')
  await rows.first().waitFor()
  const issued = rows.filter({ hasText: 'token.issue' })
  same(await issued.count(), 1, 'one record says that it was issued')
  await issued.getByText('Show').click()
  check((await issued.locator('pre').innerText()).includes(jti), 'the record itself')
  await issued.getByRole('link', { name: /^Trace/ }).click()

  await page.getByRole('heading', { level: 1, name: 'Who really did this?' }).waitFor()
  check((await page.locator('#answer').innerText()).includes(user), 'the answer names the user')
  const picture = page.locator('#chain')
  await picture.waitFor()
  // From left to right: who calls whom.
  const places = []
  for (const name of boxes) {
    const box = picture.locator('rect + text', { hasText: name }).first()
    places.push((await box.boundingBox()).x)
  }
  check(places.every((x, index) => index === 0 || x > places[index - 1]), `${boxes} from left to right: ${places}`)
  for (const name of dropped) await picture.locator('.dropped', { hasText: name }).waitFor()
  same(await fits(page), [], 'texts that do not fit into their boxes')
  for (const name of boxes) check((await page.locator('#steps').innerText()).includes(name), `the list names ${name}`)
  await reached('read')

  // Who may not, is told so.
  const other = await person({ javaScriptEnabled })
  await pasteToken(other, settings, settings.tokens.dana)
  for (const path of ['audit', `audit?jti=${jti}`, `audit/trace?subject=${jti}`]) {
    const reply = await other.goto(`${settings.portal}/portal/${path}`)
    same(reply.status(), 403, path)
    await other.locator('#problem', { hasText: 'auditrecords' }).waitFor()
    check(!(await other.content()).includes(user), `nothing is shown at ${path}`)
  }
}

/** Texts of the picture that are wider than the box they stand in. */
function fits(page) {
  return page.evaluate(() =>
    [...document.querySelectorAll('#chain g')].flatMap((group) => {
      const end = group.querySelector('rect').getBoundingClientRect().right
      return [...group.querySelectorAll('text')].filter((text) => text.getBoundingClientRect().right > end).map((text) => text.textContent)
    }),
  )
}

await scenes({ 'the chain of a token': reads })
