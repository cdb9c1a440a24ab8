// What all scenarios stand on: the browser, its findings, and pictures when something goes wrong.

import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { Findings, somebody, start } from './browser.mjs'
import { check, run } from './steps.mjs'

/**
 * Runs scenarios. Each is given the settings, and `person(options)`, which opens a browser of somebody's own. It fails if anything happens
 * in one of them that must not.
 */
export function scenes(scenarios) {
  return run(scenarios, async (settings, scenario) => {
    const { directory, authorities, portal, provider, pictures } = settings
    const findings = new Findings(portal, provider ? [provider] : [])
    const browser = await start(directory, authorities)
    try {
      await scenario({
        settings,
        findings,
        browser,
        person: async (options) => (await somebody(browser, findings, options)).newPage(),
      })
      const found = findings.take()
      check(found.length === 0, found.join('\n'))
    } catch (error) {
      for (const line of findings.take()) console.error(line)
      await photograph(browser, pictures, settings.scenario).catch((failure) => console.error(failure))
      throw error
    } finally {
      await browser.close()
    }
  })
}

/** All open pages, as they are when a scenario fails. */
async function photograph(browser, directory, scenario) {
  mkdirSync(directory, { recursive: true })
  const pages = browser.contexts().flatMap((context) => context.pages())
  for (const [index, page] of pages.entries()) {
    const path = join(directory, `failed ${scenario} ${index}.png`)
    await page.screenshot({ path, fullPage: true })
    console.error(`${page.url()} is in ${path}:\n${await page.locator('body').innerText()}`)
  }
}
