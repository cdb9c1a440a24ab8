// jose, while the keys rotate: a verifier that keeps the published keys in its cache as long as it is told, and never looks for a key
// that it does not know before that. It verifies the tokens that come on standard input, one on a line.

import { createRemoteJWKSet, customFetch, jwtVerify } from 'jose'
import { createInterface } from 'node:readline'
import { check, main, setting } from './common.mjs'

await main(async () => {
  const issuer = setting('COUNTERSIGN_URL')
  const { jwks_uri } = await (await fetch(`${issuer}/.well-known/openid-configuration`)).json()
  const first = await fetch(jwks_uri)
  const maxAge = /max-age=([0-9]+)/.exec(first.headers.get('cache-control'))
  check(maxAge, 'the keys say how long they may be kept')
  const kept = Number(maxAge[1]) * 1000

  let fetches = 0
  const counted = (...request) => {
    fetches += 1
    return fetch(...request)
  }
  const keys = createRemoteJWKSet(new URL(jwks_uri), { cacheMaxAge: kept, cooldownDuration: kept, [customFetch]: counted })
  const rules = { issuer, typ: 'at+jwt', algorithms: ['EdDSA', 'ES256'] }
  const kids = new Set()
  let verified = 0
  for await (const line of createInterface({ input: process.stdin })) {
    const { protectedHeader } = await jwtVerify(line, keys, rules)
    kids.add(protectedHeader.kid)
    verified += 1
  }
  return { client: 'jose', verified, fetches, kids: [...kids], kept }
})
