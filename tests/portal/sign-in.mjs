// Signing in, and out.

import { COOKIE, enter, isInbox, isSignIn, logIn, offerToken, pasteToken, sessionCookie } from './portal.mjs'
import { scenes } from './scenes.mjs'
import { check, reached, same, until } from './steps.mjs'

/** What a 401 and a 403 write on the console; they are what is tested. */
const REFUSED = /status of 40[13]/

/** Who is signed in. */
const user = (page) => page.locator('#user').innerText()

/** What pages can read of what a browser keeps. */
const kept = () => [document.cookie, JSON.stringify({ ...localStorage }), JSON.stringify({ ...sessionStorage }), location.href]

async function signsOut({ settings, findings, person }, javaScriptEnabled) {
  findings.expect(REFUSED)
  const page = await enter(person, settings, 'dana', { javaScriptEnabled })
  const stolen = await sessionCookie(page)
  const other = await page.context().newPage()
  await other.goto(page.url())
  await isInbox(other)
  await page.getByRole('button', { name: 'Sign out' }).click()
  await isSignIn(page)
  const left = await page.context().cookies()
  check(!left.some(({ name }) => name === COOKIE), 'the cookie is gone')
  await page.goBack()
  await isSignIn(page)
  await other.reload()
  await isSignIn(other)

  // Somebody else has copied the cookie before.
  const thief = await person({ javaScriptEnabled })
  await thief.context().addCookies([stolen])
  await thief.goto(other.url())
  await isSignIn(thief)
}

await scenes({
  'with a token': async ({ settings, findings, person }) => {
    findings.expect(REFUSED)
    const page = await person()
    await page.goto(`${settings.portal}/portal`)
    await isSignIn(page)
    const field = page.getByLabel('Kubernetes token')
    check((await field.getAttribute('autocomplete')) === 'off', 'the browser is asked not to keep the token')
    await offerToken(page, settings, 'of.no.worth')
    await page.locator('#problem').waitFor()
    check(!(await page.content()).includes('of.no.worth'), 'a refused token is not shown again')

    // Somebody has planted a session, to be there when she signs in.
    const planted = { name: COOKIE, value: 'A'.repeat(43), url: settings.portal, secure: true, httpOnly: true, sameSite: 'Lax' }
    await page.context().addCookies([planted])
    const token = settings.tokens.dana
    await pasteToken(page, settings, token)
    same(await user(page), settings.user, 'she is who the API server says')
    const cookie = await sessionCookie(page)
    const { secure, httpOnly, sameSite, path } = cookie
    same({ secure, httpOnly, sameSite, path }, { secure: true, httpOnly: true, sameSite: 'Lax', path: '/' }, 'the cookie')
    check(cookie.value !== planted.value && cookie.value.length >= 43, 'the session is new')
    const readable = [await page.content(), ...(await page.evaluate(kept))].join('\n')
    check(!readable.includes(cookie.value) && !readable.includes(token), 'no script can read the session or the token')

    // A stranger with another cookie is nobody.
    const stranger = await person()
    await stranger.context().addCookies([{ ...cookie, value: 'B'.repeat(cookie.value.length) }])
    await stranger.goto(`${settings.portal}/portal`)
    await isSignIn(stranger)
  },

  'at the identity provider': async ({ settings, findings, person }) => {
    findings.expect(REFUSED)
    for (const javaScriptEnabled of [true, false]) {
      const page = await person({ javaScriptEnabled })
      await logIn(page, settings, 'dana')
      same(await user(page), settings.user, 'she is who the API server says')
      const before = await sessionCookie(page)
      check(page.url().startsWith(`${settings.portal}/portal`) && !page.url().includes('code='), `no code stays in ${page.url()}`)
      // What she wanted to see before she signed in, she sees then.
      await page.getByRole('button', { name: 'Sign out' }).click()
      await isSignIn(page)
      await page.goto(`${settings.portal}/portal?show=all`)
      await isSignIn(page)
      await page.getByRole('link', { name: 'Sign in at' }).click()
      await isInbox(page)
      check(new URL(page.url()).searchParams.get('show') === 'all', `she is where she wanted to be: ${page.url()}`)
      check((await sessionCookie(page)).value !== before.value, 'the session is new')
    }
    // Whom the API server does not know, the portal does not let in.
    const page = await person()
    await page.goto(`${settings.portal}/portal`)
    await page.getByRole('link', { name: 'Sign in at' }).click()
    await page.getByLabel('Account').fill('mallory')
    await page.getByRole('button', { name: 'Sign in' }).click()
    await page.locator('#problem').waitFor()
    check(!(await page.context().cookies()).some(({ name }) => name === COOKIE), 'there is no session')
  },

  'and out': (stage) => signsOut(stage, true),
  'and out without scripts': (stage) => signsOut(stage, false),

  'a page that is open is told nothing more': async ({ settings, findings, person }) => {
    findings.expect(REFUSED)
    const page = await enter(person, settings, 'dana')
    const other = await page.context().newPage()
    await other.goto(page.url())
    await isInbox(other)
    const requests = []
    await page.getByRole('button', { name: 'Sign out' }).click()
    await isSignIn(page)
    other.on('response', (response) => requests.push(response.status()))
    const { uid } = await reached('signed out')
    await until('the other page asks again', async () => requests.length > 0 || (await other.getByRole('heading', { name: 'Sign in' }).count()) > 0, 60_000)
    check((await other.locator(`#request-${uid}`).count()) === 0, 'what was asked after that is not shown')
  },
})
