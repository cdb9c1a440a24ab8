// openid-client, oauth4webapi and jose: an agent acts for a user and calls another one, by token exchange (RFC 8693), and the
// verifiers of a resource server read who acts for whom.

import { isDeepStrictEqual } from 'node:util'
import { createRemoteJWKSet, errors, jwtVerify } from 'jose'
import * as oauth from 'oauth4webapi'
import * as client from 'openid-client'
import { assertion, check, failure, main, setting, tokenIn } from './common.mjs'

const TOKEN_EXCHANGE = 'urn:ietf:params:oauth:grant-type:token-exchange'
const TYPE_JWT = 'urn:ietf:params:oauth:token-type:jwt'
const TYPE_ID_TOKEN = 'urn:ietf:params:oauth:token-type:id_token'
const TYPE_ACCESS_TOKEN = 'urn:ietf:params:oauth:token-type:access_token'

/** The actors of a token, the newest first. */
function actors(act) {
  return act ? [act.sub, ...actors(act.act)] : []
}

await main(async () => {
  const issuer = new URL(setting('COUNTERSIGN_URL'))
  const [user, first, second, audience] = ['SUBJECT', 'FIRST_AGENT', 'SECOND_AGENT', 'AUDIENCE'].map(setting)
  const own = { first: tokenIn('FIRST_TOKEN_FILE'), second: tokenIn('SECOND_TOKEN_FILE') }
  const discover = (authentication, clientId = 'not-sent') =>
    client.discovery(issuer, clientId, undefined, authentication, { algorithm: 'oauth2' })
  const config = { first: await discover(assertion(own.first)), second: await discover(assertion(own.second)) }
  const server = config.first.serverMetadata()
  check(server.grant_types_supported.includes(TOKEN_EXCHANGE), 'the metadata has the grant')
  const exchange = async (config, parameters) => {
    const response = await client.genericGrantRequest(config, TOKEN_EXCHANGE, parameters)
    check(response.token_type === 'bearer', 'token_type is Bearer')
    check(response.issued_token_type === TYPE_ACCESS_TOKEN, `issued_token_type is access_token, not ${response.issued_token_type}`)
    check(response.refresh_token === undefined, 'no refresh token')
    return response
  }

  // openid-client: the first agent comes with the user's ID token, the second with the token that it was called with.
  const fromUser = { subject_token: tokenIn('ID_TOKEN_FILE'), subject_token_type: TYPE_ID_TOKEN, audience: second }
  const called = await exchange(config.first, fromUser)
  const fromCall = { subject_token: called.access_token, subject_token_type: TYPE_ACCESS_TOKEN, audience }
  const acting = await exchange(config.second, fromCall)

  // The same with the agent's own token as actor token, and no other authentication.
  const actor = { actor_token: own.second, actor_token_type: TYPE_JWT }
  const proven = await exchange(await discover(client.None(), second), { ...fromCall, ...actor })
  check(proven.scope === acting.scope, 'an actor token proves the same agent')

  // oauth4webapi: the exchange, and then its own check of the token as a resource server (RFC 9068).
  const discovered = await oauth.discoveryRequest(issuer, { algorithm: 'oauth2' })
  const as = await oauth.processDiscoveryResponse(issuer, discovered)
  const self = { client_id: 'not-sent' }
  const parameters = new URLSearchParams(fromCall)
  const response = await oauth.genericTokenEndpointRequest(as, self, assertion(own.second), TOKEN_EXCHANGE, parameters)
  const granted = await oauth.processGenericTokenEndpointResponse(as, self, response)
  const options = { signingAlgorithms: ['EdDSA'] }
  const carrying = (token) => new Request('https://resource.example/', { headers: { authorization: `Bearer ${token}` } })
  const validate = (token, audience) => oauth.validateJwtAccessToken(as, carrying(token), audience, options)
  for (const token of [acting.access_token, proven.access_token, granted.access_token]) {
    const claims = await validate(token, audience)
    check(claims.sub === user && claims.client_id === second, 'the user is the subject, the second agent the client')
    check(isDeepStrictEqual(actors(claims.act), [second, first]), `the newest actor is outermost: ${actors(claims.act)}`)
    check(claims.scope === acting.scope, 'the token has the scope that the response names')
  }
  await failure(() => validate(called.access_token, audience), 'the token with which the second agent was called, as one for the service')

  // jose: both tokens, as the agent that is called and as a service.
  const keys = createRemoteJWKSet(new URL(server.jwks_uri))
  const verify = (token, audience) =>
    jwtVerify(token, keys, { issuer: issuer.href.replace(/\/$/, ''), audience, typ: 'at+jwt', algorithms: ['EdDSA'] })
  const parent = (await verify(called.access_token, second)).payload
  check(parent.sub === user && isDeepStrictEqual(actors(parent.act), [first]), 'the call is for the user, by the first agent')
  check(parent.may_act.sub === second, 'the second agent alone may exchange it')
  const child = (await verify(acting.access_token, audience)).payload
  check(isDeepStrictEqual(actors(child.act), [second, first]), 'jose reads the same chain')
  check(child.txn === parent.txn, 'one chain')
  check(isDeepStrictEqual(child.ancestors, [parent.jti]), 'the token names the one from which it descends')
  check(child.exp <= parent.exp, 'it ends no later')
  check(child.exp - child.iat === acting.expires_in, 'exp is what the response says')
  const elsewhere = await failure(() => verify(acting.access_token, second), 'the token for the service, as one for the agent')
  check(elsewhere instanceof errors.JWTClaimValidationFailed, `a claim, not ${elsewhere}`)

  // What a client learns when it may not.
  const refused = []
  for (const [what, error, config_, parameters] of [
    ['a token for somebody else', 'invalid_request', config.first, fromCall],
    ['an act of its own', 'invalid_request', config.second, { ...fromCall, act: JSON.stringify({ sub: first }) }],
    ['more than both hold', 'invalid_scope', config.second, { ...fromCall, scope: setting('TOO_MUCH') }],
    ['an agent that does not let itself be called', 'invalid_target', config.first, { ...fromUser, audience: first.replace(/[^/]+$/, 'nobody') }],
    ['nobody who proves to be an agent', 'invalid_request', await discover(client.None(), second), fromCall],
  ]) {
    const refusal = await failure(() => exchange(config_, parameters), what)
    check(refusal instanceof client.ResponseBodyError, `${what}: a ResponseBodyError, not ${refusal}`)
    check(refusal.status === 400 && refusal.error === error, `${what}: 400 ${error}, not ${refusal.status} ${refusal.error}`)
    check(refusal.error_description, `${what}: the refusal says why`)
    refused.push(refusal.error)
  }

  // The resource server introspects.
  const seen = await client.tokenIntrospection(await discover(assertion(tokenIn('RS_TOKEN_FILE'))), acting.access_token)
  check(seen.active === true && seen.username === user, 'the resource server finds it active, for the user')
  check(isDeepStrictEqual(seen.act, child.act), 'introspection says the same chain')
  check(isDeepStrictEqual(seen.authorization_details, child.authorization_details), 'and the same limits')
  return { client: 'delegation', actors: actors(child.act), scope: child.scope, jti: child.jti, refused }
})
