// How a page looks and to whom: pictures, width, and what axe finds.

import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'

const AXE = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8')

/** By how many pixels the page is wider than the window. */
export function overflow(page) {
  return page.evaluate(() => document.scrollingElement.scrollWidth - document.documentElement.clientWidth)
}

/** What axe calls serious or critical, a line each. It is evaluated by the debugger, whatever the page's own policy. */
export async function violations(page) {
  await page.evaluate(AXE)
  const { violations } = await page.evaluate(() => globalThis.axe.run(document, { resultTypes: ['violations'] }))
  const grave = violations.filter(({ impact }) => impact === 'serious' || impact === 'critical')
  const where = ({ nodes }) => nodes.map(({ html, failureSummary }) => `${html} (${failureSummary})`).join('; ')
  return grave.map((violation) => `${violation.impact}: ${violation.id}: ${violation.help}: ${where(violation)}`)
}
