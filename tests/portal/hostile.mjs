// What agents, owners, administrators and identity providers may write is shown, and does nothing (h15).

import { decide, isInPhase, pasteToken, showNamespace } from './portal.mjs'
import { scenes } from './scenes.mjs'
import { check, reached, same } from './steps.mjs'

/** What is not of the portal but of a text in it. */
function intruders() {
  const ours = new Set(['htmx.js', 'sse.js'])
  const strange = [...document.querySelectorAll('script, style, img, iframe, object, embed, svg image, link[rel=import], base, b, u')].filter(
    (element) => element.tagName !== 'SCRIPT' || !ours.has(element.src.split('/').at(-1)),
  )
  const acting = [...document.querySelectorAll('*')].filter((element) =>
    [...element.attributes].some(({ name, value }) => /^on|^hx-on/.test(name) || /^\s*javascript:/i.test(value)),
  )
  return [...strange, ...acting].map((element) => element.outerHTML.slice(0, 200))
}

/** Characters in what one reads, attributes included, that nobody sees and that act on others. */
function invisible() {
  const attributes = [...document.querySelectorAll('[value], [title], [placeholder], [aria-label]')].flatMap((element) =>
    ['value', 'title', 'placeholder', 'aria-label'].map((name) => element.getAttribute(name) ?? ''),
  )
  const found = [document.body.innerText, document.title, ...attributes].join('\n').match(/[\u200b-\u200f\u202a-\u202e\u2060-\u206f\u061c\ufeff]/g)
  return found?.map((character) => character.codePointAt(0).toString(16)) ?? []
}

/** Cells that do not stand from left to right, as they are written. */
function reversed() {
  const wrong = []
  for (const row of document.querySelectorAll('tr')) {
    const places = [...row.children].map((cell) => cell.getBoundingClientRect().left)
    if (places.some((x, index) => index > 0 && x < places[index - 1])) wrong.push(row.textContent.slice(0, 80))
  }
  return wrong
}

async function looks(page, path) {
  for (const [what, find] of [
    ['what a text has brought in', intruders],
    ['characters that nobody sees', invisible],
    ['reversed', reversed],
  ]) {
    same(await page.evaluate(find), [], `${path}: ${what}`)
  }
}

await scenes({
  'nothing does anything': async ({ settings, findings, person }) => {
    // She may not list in the whole cluster.
    findings.expect(/status of 403/)
    const { portal, paths, namespace, shown, request } = settings
    const page = await person()
    await pasteToken(page, settings, settings.tokens.alice)
    await showNamespace(page, namespace)
    for (const { path, texts } of paths) {
      const reply = await page.goto(`${portal}${path}`)
      check(reply.status() === 200, `${path}: ${reply.status()}`)
      // All of it is there to be read, with what is folded away.
      for (const summary of await page.locator('summary').all()) await summary.click()
      await looks(page, path)
      const words = (await page.locator('body').innerText()) + (await page.locator('textarea').evaluateAll((all) => all.map(({ value }) => value).join('\n')))
      for (const text of texts) check(words.includes(text), `${path} shows ${text}: ${words}`)
      // Whatever somebody would touch.
      for (const element of await page.locator('bdi:visible').all()) await element.hover({ trial: false, force: true, timeout: 2000 }).catch(() => {})
    }
    // A comment is a text too.
    await page.goto(`${portal}${request}`)
    await decide(page, 'Deny', shown.comment)
    await isInPhase(page, 'Denied')
    await looks(page, request)
    check((await page.locator('#timeline').innerText()).includes(shown.comment), 'the comment is shown')
    await reached('denied')
  },

  'who is called something dangerous': async ({ settings, findings, person }) => {
    findings.expect(/status of 40[13]/)
    const page = await person()
    await pasteToken(page, settings, settings.tokens.xavier)
    same(await page.locator('#user').innerText(), settings.user, 'the name as it is')
    await looks(page, '/portal')
    for (const path of ['/portal/agents', '/portal/audit', `/portal/%3Cscript%3Ealert(1)%3C/script%3E`, `/portal/requests/x/%3Cimg%20src=x%20onerror=alert(1)%3E`, '/portal/audit/trace?subject=%22%3E%3Cscript%3Ealert(1)%3C/script%3E']) {
      findings.expect(/status of 4(00|04)/)
      await page.goto(`${settings.portal}${path}`)
      await looks(page, path)
    }
  },
})
