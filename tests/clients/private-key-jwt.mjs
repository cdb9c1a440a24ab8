// openid-client, oauth4webapi and jose: an agent with a key of its own, unmodified (private_key_jwt). The first two call the
// algorithm Ed25519 (RFC 9864), jose calls it what it is told.

import { randomUUID } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { SignJWT, generateKeyPair, importPKCS8 } from 'jose'
import * as oauth from 'oauth4webapi'
import * as client from 'openid-client'
import { assertion, check, failure, main, setting } from './common.mjs'

/** How long the person may take, in milliseconds. */
const PATIENCE = 60_000

await main(async () => {
  const [issuer, agent, audience, kid] = ['COUNTERSIGN_URL', 'AGENT', 'AUDIENCE', 'KID'].map(setting)
  const key = await importPKCS8(readFileSync(setting('KEY_FILE'), 'utf8'), 'Ed25519')
  const { privateKey: strange } = await generateKeyPair('Ed25519')
  const headers = []
  const seen = (change) => ({
    [client.modifyAssertion]: (header, payload) => {
      change?.(header, payload)
      headers.push(header)
    },
  })
  const discover = (authentication) =>
    client.discovery(new URL(issuer), agent, undefined, authentication, { algorithm: 'oauth2' })
  const granted = async (what, request) => {
    const response = await request()
    check(response.access_token && response.token_type === 'bearer', `${what}: a token`)
    return response.access_token
  }
  const refused = async (what, request) => {
    const refusal = await failure(request, what)
    check(refusal instanceof client.ResponseBodyError, `${what}: a ResponseBodyError, not ${refusal}`)
    check(refusal.error === 'invalid_client' && refusal.status === 401, `${what}: 401 invalid_client, not ${refusal.error}`)
  }

  // openid-client, which makes a new assertion for each request.
  const config = await discover(client.PrivateKeyJwt(key, seen()))
  const server = config.serverMetadata()
  check(server.token_endpoint_auth_methods_supported.includes('private_key_jwt'), 'the metadata has private_key_jwt')
  for (const alg of ['EdDSA', 'Ed25519']) {
    check(server.token_endpoint_auth_signing_alg_values_supported.includes(alg), `the metadata has ${alg}`)
  }
  const ask = (config) => () => client.clientCredentialsGrant(config, { audience })
  const token = await granted('openid-client', ask(config))
  await granted('openid-client again', ask(config))
  await granted('openid-client with kid', ask(await discover(client.PrivateKeyJwt({ key, kid }, seen()))))
  check(headers.every(({ alg }) => alg === 'Ed25519'), 'openid-client says Ed25519')
  check(headers.every(({ typ }) => typ === undefined), 'openid-client says no typ')
  const older = seen((header) => (header.alg = 'EdDSA'))
  await granted('openid-client with EdDSA', ask(await discover(client.PrivateKeyJwt(key, older))))
  const both = seen((_, payload) => (payload.aud = [issuer, server.token_endpoint]))
  await refused('two audiences', ask(await discover(client.PrivateKeyJwt(key, both))))
  await refused('the key of somebody else', ask(await discover(client.PrivateKeyJwt(strange))))
  const { active } = await client.tokenIntrospection(config, token)
  check(active === false, 'an agent with a key is no resource server')
  await client.tokenRevocation(config, token)

  // openid-client, CIBA: each poll with another assertion.
  const capability = setting('CAPABILITY')
  const operation = { type: 'countersign_operation', capability, resource: 'invoice:2026/17', parameters: { amount: '120.00' } }
  const acknowledgement = await client.initiateBackchannelAuthentication(config, {
    scope: `openid ${capability}`,
    login_hint: agent,
    authorization_details: JSON.stringify([operation]),
    binding_message: 'invoice 17',
  })
  const approved = await client.pollBackchannelAuthenticationGrant(config, acknowledgement, undefined, {
    signal: AbortSignal.timeout(PATIENCE),
  })
  check(approved.authorization_details[0].capability === capability, 'the approved token is for the operation')
  await client.tokenRevocation(config, approved.access_token)

  // oauth4webapi, by its own discovery.
  const as = await oauth.processDiscoveryResponse(
    new URL(issuer),
    await oauth.discoveryRequest(new URL(issuer), { algorithm: 'oauth2' }),
  )
  const self = { client_id: agent }
  await granted('oauth4webapi', async () => {
    const authentication = oauth.PrivateKeyJwt({ key, kid }, { [oauth.modifyAssertion]: (header) => headers.push(header) })
    const response = await oauth.clientCredentialsGrantRequest(as, self, authentication, { audience })
    return oauth.processClientCredentialsResponse(as, self, response)
  })
  check(headers.at(-1).alg === 'Ed25519', 'oauth4webapi says Ed25519')

  // jose, which signs what it is given.
  for (const alg of ['EdDSA', 'Ed25519']) {
    const sign = new SignJWT().setProtectedHeader({ alg, kid, typ: 'client-authentication+jwt' })
    const signed = await sign
      .setIssuer(agent)
      .setSubject(agent)
      .setAudience(issuer)
      .setIssuedAt()
      .setExpirationTime('60s')
      .setJti(randomUUID())
      .sign(key)
    const once = await discover(assertion(signed))
    await granted(`jose with ${alg}`, ask(once))
    await refused(`jose with ${alg}, a second time`, ask(once))
  }
  return { client: 'private_key_jwt', assertions: headers.length, active }
})
