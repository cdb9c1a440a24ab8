// openid-client: an operation that a person approves (CIBA, poll mode), one that a person denies, and one that nobody decides.
//
// The person is somebody else. The message of each request says what to do with it: approve, deny, or leave it.

import { isDeepStrictEqual } from 'node:util'
import { createRemoteJWKSet, jwtVerify } from 'jose'
import * as client from 'openid-client'
import { assertion, check, failure, main, setting, tokenIn } from './common.mjs'

const CIBA = 'urn:openid:params:grant-type:ciba'
/** How long the person may take, in milliseconds. */
const PATIENCE = 60_000

await main(async () => {
  const issuer = setting('COUNTERSIGN_URL')
  const agent = setting('AGENT')
  const capability = setting('CAPABILITY')
  const authentication = assertion(tokenIn('TOKEN_FILE'))
  const config = await client.discovery(new URL(issuer), agent, undefined, authentication, { algorithm: 'oauth2' })
  const server = config.serverMetadata()
  check(server.grant_types_supported.includes(CIBA), 'the metadata has the grant')
  check(server.backchannel_token_delivery_modes_supported.includes('poll'), 'the metadata has the mode poll')

  const operation = (invoice) => ({
    type: 'countersign_operation',
    capability,
    resource: `invoice:2026/${invoice}`,
    parameters: { amount: '120.00', currency: 'EUR', to: { name: 'Jürgen Große' } },
  })
  const ask = async (message, details, more = {}) => {
    const acknowledgement = await client.initiateBackchannelAuthentication(config, {
      scope: `openid ${capability}`,
      login_hint: agent,
      authorization_details: JSON.stringify([details]),
      binding_message: message,
      ...more,
    })
    check(acknowledgement.auth_req_id, `${message}: auth_req_id`)
    check(acknowledgement.expires_in > 0, `${message}: expires_in`)
    check(acknowledgement.interval === 2, `${message}: interval is 2 s, not ${acknowledgement.interval}`)
    return acknowledgement
  }
  // By itself the library gives up when the request expires, and does not hear what the service says to that.
  const poll = (acknowledgement) => {
    const options = { signal: AbortSignal.timeout(PATIENCE) }
    return client.pollBackchannelAuthenticationGrant(config, acknowledgement, undefined, options)
  }

  const approved = async () => {
    const details = operation(17)
    const acknowledgement = await ask('approve: invoice 17', details)
    const response = await poll(acknowledgement)
    check(response.token_type === 'bearer', 'token_type is Bearer')
    check(response.scope === capability, `scope is the capability, not ${response.scope}`)
    check(response.expires_in > 0 && response.expires_in <= 300, `expires_in is at most 5 minutes, not ${response.expires_in}`)
    check(response.refresh_token === undefined, 'no refresh token')
    const [{ digest, jit_request, ...rest }, ...others] = response.authorization_details
    check(others.length === 0, 'one operation')
    check(isDeepStrictEqual(rest, details), `the operation is what was asked for, not ${JSON.stringify(rest)}`)
    check(/^sha256:[0-9a-f]{64}$/.test(digest), `a digest, not ${digest}`)
    check(jit_request === acknowledgement.auth_req_id, 'the token names its request')

    const keys = createRemoteJWKSet(new URL(server.jwks_uri))
    const rules = { issuer, audience: setting('AUDIENCE'), typ: 'at+jwt', algorithms: ['EdDSA'] }
    const { payload } = await jwtVerify(response.access_token, keys, rules)
    check(payload.sub === agent && payload.client_id === agent, "the token is the agent's")
    check(payload.scope === response.scope, 'scope is what the response says')
    check(payload.exp - payload.iat === response.expires_in, 'exp is what the response says')
    check(payload.jti, 'jti')
    check(isDeepStrictEqual(payload.authorization_details, response.authorization_details), 'the token is for the operation')
    return { digest, jti: payload.jti }
  }
  const refused = async (message, details, error, more) => {
    const acknowledgement = await ask(message, details, more)
    const refusal = await failure(() => poll(acknowledgement), message)
    check(refusal instanceof client.ResponseBodyError, `${message}: a ResponseBodyError, not ${refusal}`)
    check(refusal.error === error && refusal.status === 400, `${message}: 400 ${error}, not ${refusal.status} ${refusal.error}`)
    check(refusal.error_description, `${message}: the refusal says why`)
    return refusal.error
  }

  const [token, ...refusals] = await Promise.all([
    approved(),
    refused('deny: invoice 18', operation(18), 'access_denied'),
    refused('leave: invoice 19', operation(19), 'expired_token', { requested_expiry: '4' }),
  ])
  return { client: 'openid-client', flow: 'ciba', ...token, refused: refusals }
})
