// The portal's pages as a person uses them: by what is written on them.

import { check } from './steps.mjs'

export const COOKIE = '__Host-countersign-session'

/** Fills the form for a token in, and sends it. */
export async function offerToken(page, { portal }, token) {
  await page.goto(`${portal}/portal`)
  await page.getByLabel('Kubernetes token').fill(token)
  await page.getByRole('button', { name: 'Sign in' }).click()
}

/** Signs in with a Kubernetes token. */
export async function pasteToken(page, settings, token) {
  await offerToken(page, settings, token)
  await isInbox(page)
}

/** Signs in at the organisation's identity provider. */
export async function logIn(page, { portal, provider }, account) {
  await page.goto(`${portal}/portal`)
  await page.getByRole('link', { name: 'Sign in at' }).click()
  await page.waitForURL(`${provider}/**`)
  await page.getByLabel('Account').fill(account)
  await page.getByRole('button', { name: 'Sign in' }).click()
  await isInbox(page)
}

/** Waits until the page is the inbox. */
export function isInbox(page) {
  return page.getByRole('heading', { level: 1, name: 'Requests' }).waitFor()
}

/** Waits until the page asks to sign in. */
export function isSignIn(page) {
  return page.getByRole('heading', { level: 1, name: 'Sign in' }).waitFor()
}

/** Shows the requests of one namespace, as a person asks for it. */
export async function showNamespace(page, namespace) {
  await page.getByRole('textbox', { name: 'Namespace' }).fill(namespace)
  await page.getByRole('button', { name: 'Show' }).click()
  await page.waitForURL((url) => url.searchParams.get('namespace') === namespace)
  await isInbox(page)
}

/** A browser in which somebody has signed in with a token and looks at the namespace of the settings. */
export async function enter(person, settings, name, options) {
  const page = await person(options)
  // Who may not list in the whole cluster is told so, and asked for a namespace.
  await pasteToken(page, settings, settings.tokens[name])
  await showNamespace(page, settings.namespace)
  return page
}

/** The row of a request in the inbox. */
export const row = (page, uid) => page.locator(`#request-${uid}`)

/** Opens the page of a request from the inbox. */
export async function openRequest(page, uid) {
  await row(page, uid).getByRole('link').click()
  await page.locator(`[data-uid="${uid}"]`).waitFor()
}

/** Presses a button on the page of a request. */
export async function decide(page, button, comment) {
  await page.getByLabel('Comment').fill(comment)
  await page.getByRole('button', { name: button, exact: true }).click()
}

/** Waits until the request on this page is in that phase. */
export async function isInPhase(page, phase) {
  await page.locator('#phase', { hasText: phase }).waitFor()
}

/** The session's cookie. */
export async function sessionCookie(page) {
  const cookies = await page.context().cookies()
  const found = cookies.find(({ name }) => name === COOKIE)
  check(found, 'there is a session')
  return found
}

/** Marks the page; returns what says whether it is still the same, not loaded again. */
export async function marked(page) {
  await page.evaluate(() => (globalThis.marked = true))
  return () => page.evaluate(() => globalThis.marked === true)
}
