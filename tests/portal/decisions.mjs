// People see what agents ask, and decide. With scripts, and with none.

import { decide, enter, isInPhase, marked, openRequest, row } from './portal.mjs'
import { scenes } from './scenes.mjs'
import { check, reached, same, until } from './steps.mjs'

/** What a 403 and a 409 write on the console; they are what is tested. */
const REFUSED = /status of 4(03|09|22)/

/** One request, from when it appears until it is decided. */
async function decided({ settings, findings, person }, button, phase) {
  findings.expect(REFUSED)
  const { javaScriptEnabled } = settings
  const page = await enter(person, settings, 'dana', { javaScriptEnabled })
  await page.locator('#empty').waitFor()
  const isSame = javaScriptEnabled ? await marked(page) : undefined
  const { uid, headline, digest, justification } = await reached('the inbox is empty')
  if (isSame) {
    await row(page, uid).waitFor()
    check(await isSame(), 'the page was not loaded again')
  } else {
    await page.reload()
  }
  same(await row(page, uid).getByRole('link').innerText(), headline, 'what it asks, in one sentence')
  await openRequest(page, uid)
  same(await page.locator('#digest').innerText(), digest, 'the digest')
  check((await page.locator('#justification').innerText()).includes(justification), "the agent's own words")
  const confirmation = await page.locator('#confirmation').innerText()
  check(confirmation.includes(headline), `what is confirmed: ${confirmation}`)
  await decide(page, button, 'seen on a page')
  // The agent waits: it may have its token before the page is there.
  await isInPhase(page, phase === 'Approved' ? /Approved|Issued/ : phase)
  check((await page.locator('#timeline').innerText()).includes('seen on a page'), 'the comment is kept')
  await reached('decided')
  if (isSame) {
    // The agent has what it waited for, and the page says so by itself.
    if (phase === 'Approved') await isInPhase(page, 'Issued')
    check((await page.getByRole('button', { name: 'Approve', exact: true }).count()) === 0, 'there is nothing more to approve')
  }
}

/** Two people, each in a browser of their own. */
async function two({ settings, findings, person }) {
  findings.expect(REFUSED)
  const { javaScriptEnabled, uid } = settings
  const [dana, erik] = [await enter(person, settings, 'dana', { javaScriptEnabled }), await enter(person, settings, 'erik', { javaScriptEnabled })]
  for (const page of [dana, erik]) {
    await openRequest(page, uid)
    await page.locator('#approvals', { hasText: '0/2' }).waitFor()
  }
  await decide(dana, 'Approve', 'one')
  await dana.locator('#approvals', { hasText: '1/2' }).waitFor()
  await isInPhase(dana, 'Pending')
  if (javaScriptEnabled) await erik.locator('#approvals', { hasText: '1/2' }).waitFor()
  // She cannot be both.
  await decide(dana, 'Approve', 'again')
  await dana.locator('#mine', { hasText: 'does not count' }).waitFor()
  await isInPhase(dana, 'Pending')
  await decide(erik, 'Approve', 'two')
  await isInPhase(erik, 'Approved')
  if (javaScriptEnabled) await isInPhase(dana, 'Approved')
}

/** Whoever owns the agent, or it is done for, or may not decide. */
async function refused({ settings, findings, person }) {
  findings.expect(REFUSED)
  const { javaScriptEnabled, cases } = settings
  for (const { name, uid, hint, outcome } of cases) {
    const page = await enter(person, settings, name, { javaScriptEnabled })
    await openRequest(page, uid)
    if (hint) await page.locator('.reason', { hasText: hint }).waitFor()
    await decide(page, 'Approve', 'let me')
    const said = page.locator('#problem, #mine', { hasText: outcome })
    await said.waitFor()
    await isInPhase(page, 'Pending')
    if (!javaScriptEnabled) continue
    // The page follows what happens to the request, and why it was refused stays.
    await page.evaluate(
      () =>
        new Promise((settled) => {
          document.body.addEventListener('htmx:afterSettle', settled, { once: true })
          globalThis.htmx.trigger('#request', 'sse:changed')
        })
    )
    check(await said.isVisible(), 'why it was refused stays')
  }
}

await scenes({
  'a request appears and is approved': (stage) => decided(stage, 'Approve', 'Approved'),
  'a request appears and is denied': (stage) => decided(stage, 'Deny', 'Denied'),
  'two people approve': two,
  'who may not approve is told why': refused,

  'a page without scripts loads itself again if told so': async ({ settings, findings, person }) => {
    findings.expect(REFUSED)
    const page = await enter(person, settings, 'dana', { javaScriptEnabled: false })
    await page.getByRole('link', { name: /Load it again/ }).click()
    await page.getByRole('link', { name: 'Stop loading it again' }).waitFor()
    const { uid } = await reached('it loads itself again')
    await row(page, uid).waitFor()
  },

  'with the keyboard alone': async ({ settings, findings, person }) => {
    findings.expect(REFUSED)
    const { uid, portal, tokens, namespace } = settings
    const page = await person()
    const focused = () =>
      page.evaluate(() => {
        const element = document.activeElement
        const { outlineStyle, outlineWidth, boxShadow } = getComputedStyle(element)
        const visible = (outlineStyle !== 'none' && outlineWidth !== '0px') || boxShadow !== 'none'
        return { text: (element.labels?.[0] ?? element).textContent.trim(), id: element.id, tag: element.tagName, visible }
      })
    /** Tab until there, as somebody does who sees where the focus is. */
    const tabTo = async (what, is) => {
      for (let presses = 0; presses < 40; presses++) {
        await page.keyboard.press('Tab')
        const at = await focused()
        if (at.tag === 'BODY') continue
        check(at.visible, `one sees that the focus is on ${at.tag} "${at.text.slice(0, 40)}"`)
        if (is(at)) return
      }
      throw new Error(`not reached with the keyboard: ${what}`)
    }
    await page.goto(`${portal}/portal`)
    await tabTo('the field for the token', ({ id }) => id === 'token')
    await page.keyboard.insertText(tokens.dana)
    await tabTo('Sign in', ({ tag, text }) => tag === 'BUTTON' && text === 'Sign in')
    await page.keyboard.press('Enter')
    await page.getByRole('heading', { level: 1, name: 'Requests' }).waitFor()

    // The first stop of every page leads past what is on all of them.
    await page.keyboard.press('Tab')
    same((await focused()).text, 'Skip to the content', 'the first stop')
    await page.keyboard.press('Enter')
    await tabTo('the namespace', ({ id }) => id === 'namespace')
    await page.keyboard.insertText(namespace)
    await page.keyboard.press('Enter')
    await row(page, uid).waitFor()
    const headline = await row(page, uid).getByRole('link').innerText()
    await tabTo('the request', ({ tag, text }) => tag === 'A' && text === headline)
    await page.keyboard.press('Enter')
    await page.locator(`[data-uid="${uid}"]`).waitFor()
    await tabTo('the comment', ({ id }) => id === 'comment')
    await page.keyboard.insertText('typed')
    await tabTo('Approve', ({ tag, text }) => tag === 'BUTTON' && text === 'Approve')
    await page.keyboard.press('Space')
    await isInPhase(page, 'Approved')
  },

  'what is typed stays while the page follows': async ({ settings, findings, person }) => {
    findings.expect(REFUSED)
    const { uid } = settings
    const page = await enter(person, settings, 'dana')
    await openRequest(page, uid)
    const comment = page.getByLabel('Comment')
    await comment.fill('half a sen')
    await comment.press('End')
    const isSame = await marked(page)
    await reached('typing')
    await until('the other approval is shown', async () => (await page.locator('#approvals').innerText()).includes('1/2'))
    check(await isSame(), 'the page was not loaded again')
    await page.keyboard.type('tence')
    same(await comment.inputValue(), 'half a sentence', 'the comment and the focus stay')
  },
})
