// Agents are registered and changed: by a manifest that is shown before anything is written.

import { pasteToken } from './portal.mjs'
import { scenes } from './scenes.mjs'
import { check, reached, same } from './steps.mjs'

/** What a 403, a 409, a 412 and a 422 write on the console; they are what is tested. */
const REFUSED = /status of 4(03|09|12|22)/

const button = (page, name) => page.getByRole('button', { name, exact: true })

async function registers({ settings, findings, person }) {
  findings.expect(REFUSED)
  const { javaScriptEnabled, namespace, capability, forbidden } = settings
  const page = await person({ javaScriptEnabled })
  await pasteToken(page, settings, settings.tokens.alice)
  await page.getByRole('link', { name: 'Agents', exact: true }).click()
  await page.getByRole('textbox', { name: 'Namespace' }).fill(namespace)
  await button(page, 'Show').click()
  await page.locator('#empty').waitFor()
  await page.getByRole('link', { name: 'Register an agent' }).click()
  same(await page.getByLabel('Namespace').inputValue(), namespace, 'the namespace')
  await page.getByLabel('Name', { exact: true }).fill('helper')
  await page.getByLabel('Name for people').fill('Helper "of" <all>')
  await page.getByLabel('Owner').fill('team@example.com')
  await page.getByLabel('ServiceAccounts of its pods').fill('helper')
  await page.getByLabel('Capabilities').fill(forbidden)
  await page.getByLabel('Services for which it may get tokens').fill('https://docs.example.com')
  await button(page, 'Review').click()

  // What she may not grant is refused before anything is written, and what it says stays to be changed.
  await page.locator('#problem', { hasText: forbidden }).waitFor()
  check((await button(page, 'Register').count()) === 0, 'it cannot be registered')
  const manifest = page.getByLabel('Manifest')
  await manifest.fill((await manifest.inputValue()).replace(forbidden, capability))
  await button(page, 'Review').click()
  await page.locator('#accepted').waitFor()
  const shown = await manifest.inputValue()
  await page.locator('#kubectl-apply summary').click()
  check((await page.locator('#kubectl-apply').innerText()).includes('kubectl'), 'the same with kubectl')
  await reached('reviewed')
  await button(page, 'Register').click()
  await page.getByRole('heading', { level: 1, name: 'helper' }).waitFor()
  await reached('registered', shown)

  await page.reload()
  await page.locator('#state', { hasText: 'Ready' }).waitFor()
  await page.getByRole('link', { name: 'Edit' }).click()
  await manifest.fill((await manifest.inputValue()).replace('team@example.com', 'other@example.com'))
  await button(page, 'Review').click()
  await page.locator('#accepted').waitFor()
  // Somebody else changes it meanwhile.
  await reached('edited')
  await button(page, 'Apply').click()
  await page.getByText(/modified|changed/).first().waitFor()
  await reached('refused')

  await page.goto(`${settings.portal}/portal/agents?namespace=${namespace}`)
  await page.getByRole('link', { name: 'helper' }).click()
  await page.getByRole('link', { name: 'Edit' }).click()
  await manifest.fill((await manifest.inputValue()).replace('team@example.com', 'third@example.com'))
  await button(page, 'Review').click()
  await button(page, 'Apply').click()
  await page.getByText('third@example.com').first().waitFor()
}

await scenes({ 'an agent is registered and changed': registers })
