// jose: the token is verified with the published keys, as any service would do it.

import { createRemoteJWKSet, errors, jwtVerify } from 'jose'
import { assertion, check, failure, main, setting, tokenIn } from './common.mjs'

/** A plain client_credentials request, without a library. */
async function obtain(endpoint, token, audience) {
  const body = new URLSearchParams({ grant_type: 'client_credentials', audience })
  assertion(token)(undefined, undefined, body)
  const response = await fetch(endpoint, { method: 'POST', body })
  const answer = await response.json()
  check(response.status === 200, `status ${response.status}, ${JSON.stringify(answer)}`)
  check(response.headers.get('cache-control') === 'no-store', 'the response is not to be cached')
  return answer
}

await main(async () => {
  const issuer = setting('COUNTERSIGN_URL')
  const audience = setting('AUDIENCE')
  const metadata = await (await fetch(`${issuer}/.well-known/oauth-authorization-server`)).json()
  const answer = await obtain(metadata.token_endpoint, tokenIn('TOKEN_FILE'), audience)

  const keys = createRemoteJWKSet(new URL(metadata.jwks_uri))
  const rules = { issuer, audience, typ: 'at+jwt', algorithms: ['EdDSA'] }
  const { payload, protectedHeader } = await jwtVerify(answer.access_token, keys, rules)

  check(protectedHeader.kid, 'the header names the key')
  check(/^agent:[^/]+\/[^/]+$/.test(payload.sub), `sub names an agent, not ${payload.sub}`)
  check(payload.client_id === payload.sub, 'client_id is the agent')
  check(payload.scope === answer.scope, 'scope is what the response says')
  check(payload.aud === audience, 'aud is one string')
  check(payload.exp - payload.iat === answer.expires_in, 'exp is what the response says')
  check(payload.jti, 'jti')
  check(/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/.test(payload.agent_uid), 'agent_uid is the UID of an object')
  const [link, ...others] = payload.links
  check(others.length === 0, 'one link')
  check(link.sub === payload.sub && link.agent_uid === payload.agent_uid, 'the link is the agent')
  check(Number.isInteger(link.epoch) && link.epoch >= 0, 'the link has an epoch')

  const wrong = { audience: `${audience}.evil.example`, issuer: `${issuer}/`, typ: 'JWT', algorithms: ['RS256'] }
  for (const [rule, value] of Object.entries(wrong)) {
    const what = `another ${rule}`
    const error = await failure(() => jwtVerify(answer.access_token, keys, { ...rules, [rule]: value }), what)
    check(error instanceof errors.JOSEError, `${what}: ${error}`)
  }
  return { client: 'jose', sub: payload.sub, scope: payload.scope, kid: protectedHeader.kid }
})
