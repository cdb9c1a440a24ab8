// openid-client and oauth4webapi: tokens that are bound to a key (DPoP, RFC 9449), with a server that demands nonces. The first asks again
// by itself when it lacks one; the second is the resource server, which takes a token only from the holder of its key.

import { calculateJwkThumbprint, decodeJwt, exportJWK } from 'jose'
import * as oauth from 'oauth4webapi'
import * as client from 'openid-client'
import { assertion, check, failure, main, setting, tokenIn } from './common.mjs'

const RESOURCE = 'https://resource.example/reports/7'

await main(async () => {
  const issuer = new URL(setting('COUNTERSIGN_URL'))
  const audience = setting('AUDIENCE')
  const token = tokenIn('TOKEN_FILE')
  const config = await client.discovery(issuer, 'not-sent', undefined, assertion(token), { algorithm: 'oauth2' })
  const server = await oauth.processDiscoveryResponse(issuer, await oauth.discoveryRequest(issuer, { algorithm: 'oauth2' }))
  const supported = config.serverMetadata().dpop_signing_alg_values_supported

  const refusal = await failure(() => client.clientCredentialsGrant(config, { audience }), 'no proof')
  check(refusal.error === 'invalid_dpop_proof' && refusal.status === 400, `400 invalid_dpop_proof, not ${refusal.error}`)

  const algorithms = []
  for (const alg of ['ES256', 'Ed25519', 'RS256']) {
    check(supported.includes(alg), `the metadata has ${alg}`)
    const keys = await client.randomDPoPKeyPair(alg)
    const DPoP = client.getDPoPHandle(config, keys)
    const granted = await client.clientCredentialsGrant(config, { audience }, { DPoP })
    check(granted.token_type === 'dpop', `${alg}: token_type is DPoP`)
    const thumbprint = await calculateJwkThumbprint(await exportJWK(keys.publicKey))
    check(decodeJwt(granted.access_token).cnf.jkt === thumbprint, `${alg}: bound to the key of the client`)
    check(await DPoP.calculateThumbprint() === thumbprint, `${alg}: as the client sees it`)
    // Once it has a nonce, one request is enough.
    await client.clientCredentialsGrant(config, { audience }, { DPoP })

    // What a resource server makes of it.
    const options = { signingAlgorithms: ['EdDSA', 'ES256', alg], requireDPoP: true }
    const requests = []
    const carry = async (with_) => {
      await oauth.protectedResourceRequest(granted.access_token, 'GET', new URL(RESOURCE), undefined, undefined, {
        DPoP: with_,
        [oauth.customFetch]: (url, init) => {
          requests.push(new Request(url, { method: init.method, headers: init.headers }))
          return new Response(null, { status: 204 })
        },
      })
      return requests.at(-1)
    }
    const self = { client_id: 'not-sent' }
    const own = oauth.DPoP(self, keys)
    const claims = await oauth.validateJwtAccessToken(server, await carry(own), audience, options)
    check(claims.cnf.jkt === thumbprint, `${alg}: the resource server knows the key`)
    const bearer = new Request(RESOURCE, { headers: { authorization: `Bearer ${granted.access_token}` } })
    for (const requireDPoP of [true, false]) {
      const take = () => oauth.validateJwtAccessToken(server, bearer, audience, { ...options, requireDPoP })
      const refused = await failure(take, `${alg}: the token as Bearer token`)
      check(/no DPoP HTTP Header/.test(refused.message), `it needs a proof, not ${refused.message}`)
    }
    const stolen = await carry(oauth.DPoP(self, await oauth.generateKeyPair('ES256')))
    const take = () => oauth.validateJwtAccessToken(server, stolen, audience, options)
    const thief = await failure(take, `${alg}: the key of a thief`)
    check(/confirmation mismatch/.test(thief.message), `it is another key, not ${thief.message}`)
    algorithms.push(alg)
  }
  return { client: 'dpop', algorithms }
})
