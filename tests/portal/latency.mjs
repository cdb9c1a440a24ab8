// How soon a new request is on a page that is open.

import { pasteToken, showNamespace } from './portal.mjs'
import { scenes } from './scenes.mjs'
import { reached, until } from './steps.mjs'

/** Before a namespace is chosen: this person may not see all of them. */
const REFUSED = /status of 403/

/** Remembers when each row was first there, and painted. */
function observe() {
  globalThis.seen = {}
  const look = () => {
    for (const { id } of document.querySelectorAll('[id^="request-"]')) {
      if (globalThis.seen[id]) continue
      globalThis.seen[id] = -1
      requestAnimationFrame(() => (globalThis.seen[id] = performance.timeOrigin + performance.now()))
    }
  }
  look()
  new MutationObserver(look).observe(document.body, { childList: true, subtree: true })
}

await scenes({
  rows: async ({ settings, findings, person }) => {
    findings.expect(REFUSED)
    const page = await person()
    await pasteToken(page, settings, settings.tokens.person)
    await showNamespace(page, settings.namespace)
    await page.evaluate(observe)
    let answer = await reached('open')
    while (answer.uid) {
      const id = `request-${answer.uid}`
      let at
      await until('the row is there', async () => (at = await page.evaluate((id) => globalThis.seen[id], id)) > 0)
      answer = await reached('shown', at)
    }
  },
})
