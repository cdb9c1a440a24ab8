// oauth4webapi: discovery, a token, and its own check of that token by RFC 9068.

import * as oauth from 'oauth4webapi'
import { assertion, check, failure, main, setting, tokenIn } from './common.mjs'

await main(async () => {
  const issuer = new URL(setting('COUNTERSIGN_URL'))
  const audience = setting('AUDIENCE')
  const token = tokenIn('TOKEN_FILE')
  // The library wants a client_id in its own records; the assertion sends none.
  const client = { client_id: 'not-sent' }

  const discovered = await oauth.discoveryRequest(issuer, { algorithm: 'oauth2' })
  const server = await oauth.processDiscoveryResponse(issuer, discovered)

  const response = await oauth.clientCredentialsGrantRequest(server, client, assertion(token), { audience })
  const { access_token, scope } = await oauth.processClientCredentialsResponse(server, client, response)

  // As a resource server would, for a request that carries the token.
  const options = { signingAlgorithms: ['EdDSA'] }
  const carrying = (token) => new Request('https://resource.example/', { headers: { authorization: `Bearer ${token}` } })
  const claims = await oauth.validateJwtAccessToken(server, carrying(access_token), audience, options)
  check(claims.sub === claims.client_id, 'the agent is the client and the subject of its token')
  check(claims.scope === scope, 'the token has the scope that the response names')

  await failure(
    () => oauth.validateJwtAccessToken(server, carrying(access_token), `${audience}.evil.example`, options),
    'another audience',
  )
  await failure(
    () => oauth.validateJwtAccessToken(server, carrying(token), audience, options),
    'the ServiceAccount token itself',
  )
  return { client: 'oauth4webapi', sub: claims.sub, scope: claims.scope }
})
