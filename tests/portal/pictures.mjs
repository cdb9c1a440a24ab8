// Every page in light and dark, on a desk and on a phone: a picture of each, nothing that axe calls serious, nothing to scroll sideways.

import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { overflow, violations } from './looks.mjs'
import { isSignIn, pasteToken } from './portal.mjs'
import { scenes } from './scenes.mjs'
import { check } from './steps.mjs'

const SIZES = { desk: { width: 1280, height: 800 }, phone: { width: 390, height: 844 } }

async function look(page, name, settings, complaints) {
  const { scheme, size } = settings
  const picture = join(settings.pictures, `${name} ${scheme} ${size}.png`)
  await page.screenshot({ path: picture, fullPage: true })
  const wide = await overflow(page)
  if (wide > 0) complaints.push(`${name} (${scheme}, ${size}) is ${wide} px wider than the window`)
  for (const line of await violations(page)) complaints.push(`${name} (${scheme}, ${size}): ${line}`)
}

async function all({ settings, findings, person }) {
  const { portal, pages, scheme, size } = settings
  mkdirSync(settings.pictures, { recursive: true })
  // Some of the pages say no.
  findings.expect(/status of 4\d\d/)
  const complaints = []
  const page = await person({ colorScheme: scheme, viewport: SIZES[size] })
  await page.goto(`${portal}/portal`)
  await isSignIn(page)
  await look(page, 'sign-in', settings, complaints)
  await pasteToken(page, settings, settings.tokens.alice)
  for (const { name, path, status, open } of pages) {
    const reply = await page.goto(`${portal}${path}`)
    check(reply.status() === (status ?? 200), `${name}: ${reply.status()}`)
    for (const selector of open ?? []) await page.locator(selector).first().click()
    await look(page, name, settings, complaints)
  }
  // The review of a new agent, which is no page of its own.
  await page.goto(`${portal}/portal/agents/new`)
  for (const [label, value] of [['Namespace', settings.namespace], ['Name', 'new-bot'], ['Owner', 'team@example.com'], ['Capabilities', 'document.read']]) {
    await page.getByLabel(label, { exact: true }).fill(value)
  }
  await page.getByRole('button', { name: 'Review' }).click()
  await page.getByLabel('Manifest').waitFor()
  await look(page, 'review', settings, complaints)
  check(complaints.length === 0, complaints.join('\n'))
}

await scenes({ 'every page': all })
