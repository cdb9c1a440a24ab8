// openid-client: a person logs in to an application, by the authorization code flow with PKCE, and the application has its
// tokens. What a browser would do is following redirects and keeping cookies. REDIRECT_URI is for an application that organisation.mjs
// does not know.

import * as client from 'openid-client'
import { check, main, setting } from './common.mjs'
import { CLIENTS } from './organisation.mjs'

const HOPS = 10

/** Follows redirects from `url` until one leads to `end`. Returns that one. */
async function browse(url, end) {
  const cookies = new Map()
  for (let hop = 0; hop < HOPS; hop++) {
    const headers = { cookie: [...cookies].map(([name, value]) => `${name}=${value}`).join('; ') }
    const response = await fetch(url, { redirect: 'manual', headers })
    for (const cookie of response.headers.getSetCookie()) {
      const [name, value] = cookie.split(';', 1)[0].split('=')
      cookies.set(name, value)
    }
    const location = response.headers.get('location')
    check(location, `${url} redirects, not ${response.status} ${await response.text()}`)
    url = new URL(location, url)
    if (url.href.startsWith(end)) return url
  }
  throw new Error(`more than ${HOPS} redirects`)
}

await main(async () => {
  const clientId = setting('CLIENT_ID')
  const redirect_uri = process.env.REDIRECT_URI ?? CLIENTS[clientId].redirect_uri
  const config = await client.discovery(new URL(setting('ISSUER')), clientId, undefined, client.None())
  const pkceCodeVerifier = client.randomPKCECodeVerifier()
  const [expectedState, expectedNonce] = [client.randomState(), client.randomNonce()]
  const request = client.buildAuthorizationUrl(config, {
    redirect_uri,
    scope: 'openid email profile groups',
    login_hint: setting('ACCOUNT'),
    code_challenge: await client.calculatePKCECodeChallenge(pkceCodeVerifier),
    code_challenge_method: 'S256',
    state: expectedState,
    nonce: expectedNonce,
  })
  const redirect = await browse(request, redirect_uri)
  const checks = { pkceCodeVerifier, expectedState, expectedNonce, idTokenExpected: true }
  const { id_token, access_token } = await client.authorizationCodeGrant(config, redirect, checks)
  return { id_token, access_token }
})
