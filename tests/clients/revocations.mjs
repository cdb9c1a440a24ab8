// The offline verifier of revocation-feed.mjs beside introspection. One line per look: it is told a name and a token on standard input, and
// says whether that is alive, and why not.

import { createInterface } from 'node:readline'
import { createRemoteJWKSet, jwtVerify } from 'jose'
import { check, main, setting } from './common.mjs'
import { Revocations } from './revocation-feed.mjs'

await main(async () => {
  const issuer = setting('COUNTERSIGN_URL')
  const metadata = await (await fetch(`${issuer}/.well-known/oauth-authorization-server`)).json()
  const keys = createRemoteJWKSet(new URL(metadata.jwks_uri))
  const feed = new Revocations(issuer, metadata.countersign_revocations_endpoint, keys)
  const following = feed.follow()
  let looks = 0
  for await (const token of createInterface({ input: process.stdin })) {
    looks += 1
    const { payload } = await jwtVerify(token, keys, { issuer, typ: 'at+jwt', algorithms: ['EdDSA'] })
    const reason = feed.reason(payload)
    console.log(JSON.stringify({ alive: reason === undefined, reason, id: feed.state?.id, as_of: feed.state?.as_of }))
  }
  check(looks > 0, 'it was asked')
  feed.close()
  await following
  return { client: 'revocations', looks }
})
