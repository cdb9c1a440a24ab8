// openid-client: discovery, every grant, introspection, and a refusal.

import { decodeJwt } from 'jose'
import * as client from 'openid-client'
import { assertion, check, failure, main, setting, tokenIn } from './common.mjs'

const TOKEN_EXCHANGE = 'urn:ietf:params:oauth:grant-type:token-exchange'
const JWT_BEARER = 'urn:ietf:params:oauth:grant-type:jwt-bearer'
const TYPE_JWT = 'urn:ietf:params:oauth:token-type:jwt'
const TYPE_ACCESS_TOKEN = 'urn:ietf:params:oauth:token-type:access_token'

await main(async () => {
  const issuer = new URL(setting('COUNTERSIGN_URL'))
  const audience = setting('AUDIENCE')
  const token = tokenIn('TOKEN_FILE')
  // The library wants a client_id; of the methods of authentication here only None() sends it.
  const discover = (authentication, { clientId = 'not-sent', algorithm = 'oauth2' } = {}) =>
    client.discovery(issuer, clientId, undefined, authentication, { algorithm })

  const authenticated = await discover(assertion(token))
  const openid = await discover(assertion(token), { algorithm: 'oidc' })
  check(openid.serverMetadata().token_endpoint === authenticated.serverMetadata().token_endpoint, 'both documents agree')

  const granted = []
  const grant = async (name, request) => {
    const response = await request()
    check(response.token_type === 'bearer', `${name}: token_type is Bearer`)
    check(response.expires_in > 0, `${name}: expires_in`)
    check(response.scope, `${name}: scope`)
    granted.push(name)
    return response
  }

  const { access_token } = await grant('client_credentials', () =>
    client.clientCredentialsGrant(authenticated, { audience }),
  )
  await grant('client_credentials, openid discovery', () => client.clientCredentialsGrant(openid, { audience }))
  const anonymous = await discover(client.None(), { clientId: decodeJwt(access_token).client_id })
  for (const [how, config] of Object.entries({ authenticated, anonymous })) {
    const exchanged = await grant(`token-exchange, ${how}`, () =>
      client.genericGrantRequest(config, TOKEN_EXCHANGE, {
        subject_token: token,
        subject_token_type: TYPE_JWT,
        audience,
      }),
    )
    check(exchanged.issued_token_type === TYPE_ACCESS_TOKEN, `token-exchange, ${how}: issued_token_type`)
    await grant(`jwt-bearer, ${how}`, () =>
      client.genericGrantRequest(config, JWT_BEARER, { assertion: token, audience }),
    )
  }

  const refusal = await failure(
    () => client.clientCredentialsGrant(authenticated, { audience, scope: 'document.delete' }),
    'scope document.delete',
  )
  check(refusal instanceof client.ResponseBodyError, `a ResponseBodyError, not ${refusal}`)
  check(refusal.error === 'invalid_scope' && refusal.status === 400, `400 invalid_scope, not ${refusal.status} ${refusal.error}`)
  check(refusal.error_description, 'the refusal says why')

  let introspected = false
  if (process.env.RS_TOKEN_FILE) {
    const server = await discover(assertion(tokenIn('RS_TOKEN_FILE')))
    const answer = await client.tokenIntrospection(server, access_token)
    check(answer.active === true, 'the resource server finds the token active')
    check(answer.aud === audience, 'the token is for the resource server')
    const unknown = await client.tokenIntrospection(server, 'unknown')
    check(unknown.active === false, 'an unknown token is inactive')
    introspected = true
  }
  return { client: 'openid-client', granted, refused: refusal.error, introspected }
})
