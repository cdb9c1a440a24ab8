// An agent beside its sidecar, with nothing but fetch: a token that jose accepts, the check, and what is refused.
//
// SIDECAR_URL is the sidecar, COUNTERSIGN_URL the token service for its keys, AUDIENCE for whom the token is, AGENT who has it.

import { createRemoteJWKSet, jwtVerify } from 'jose'
import { check, main, setting } from './common.mjs'

await main(async () => {
  const [sidecar, issuer, audience, agent] = ['SIDECAR_URL', 'COUNTERSIGN_URL', 'AUDIENCE', 'AGENT'].map(setting)
  const headers = { 'Countersign-Sidecar': 'true' }

  const reply = await fetch(`${sidecar}/token?${new URLSearchParams({ audience, scope: 'document.read' })}`, { headers })
  check(reply.status === 200 && reply.headers.get('cache-control') === 'no-store', 'a token that no cache keeps')
  const { access_token: token, token_type: type, expires_in: seconds } = await reply.json()
  check(type === 'Bearer' && seconds > 0, 'a Bearer token that lives')
  const keys = createRemoteJWKSet(new URL(`${issuer}/oauth2/jwks`))
  const { payload } = await jwtVerify(token, keys, { issuer, audience, typ: 'at+jwt' })
  check(payload.sub === agent && payload.scope === 'document.read', `a token of ${agent}`)

  const may = await fetch(`${sidecar}/access/v1/evaluation`, {
    method: 'POST',
    headers: { ...headers, 'Content-Type': 'application/json' },
    body: JSON.stringify({ action: { name: 'document.read' }, resource: { type: 'document', id: 'reports/q3' } }),
  })
  check((await may.json()).decision === true, 'it may read the report')

  const unmeant = await fetch(`${sidecar}/token`)
  check(unmeant.status === 403 && !unmeant.headers.has('access-control-allow-origin'), 'without the header: 403')
  const page = await fetch(`${sidecar}/token`, { headers: { ...headers, Origin: 'https://evil.example' } })
  check(page.status === 403, 'for a page: 403')
  const refused = await fetch(`${sidecar}/token?scope=document.delete`, { headers })
  check(refused.status === 400 && (await refused.json()).error === 'invalid_scope', 'what was not granted: invalid_scope')
  return { subject: payload.sub }
})
