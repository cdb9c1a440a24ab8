// A sidecar in front of a fake authority (docs/sidecar.md). It keeps no tokens.

import type { JsonObject } from '../json.ts'
import { access } from './access.ts'
import { complete, file, revoke } from './approvals.ts'
import { FakeRefusal, refuse } from './refusal.ts'
import type { FakeAnswer, FakeCall, FakeState } from './state.ts'
import { grantToken, isRevoked, redeem } from './tokens.ts'
import type { FakeAgent } from './world.ts'

/** Answers a request that has the header of the sidecar, for the agent beside it. */
export async function sidecar(state: FakeState, call: FakeCall, agent: FakeAgent): Promise<FakeAnswer> {
  if (call.headers.origin !== undefined || call.headers['x-forwarded-for'] !== undefined)
    throw new FakeRefusal(403, 'access_denied', 'requests of web pages and through proxies are not answered')
  if (state.refusesCredentials || agent.isSuspended) throw new FakeRefusal(401, 'invalid_client', 'the credential was not accepted')
  const look = /^\/jit\/([A-Za-z0-9_-]+)$/.exec(call.path)?.[1]
  if (call.method === 'GET' && look !== undefined && look !== 'complete')
    return redeem(state, agent, look, Number(call.query.get('wait') ?? 0))
  switch (`${call.method} ${call.path}`) {
    case 'GET /token':
      return grantToken(state, agent, only(call.query, ['audience', 'scope']), undefined, undefined)
    case 'POST /token':
      return exchange(state, call, agent)
    case 'POST /jit':
      return file(state, call, agent)
    case 'POST /jit/complete':
      return complete(state, call.form.get('token') ?? '')
    case 'POST /revoke':
      return revoke(state, agent, call.form.get('token') ?? '')
    default:
      return access(state, call.path, withSubject(call, agent), agent)
  }
}

async function exchange(state: FakeState, call: FakeCall, agent: FakeAgent): Promise<FakeAnswer> {
  const asked = only(call.form, ['subject_token', 'subject_token_type', 'audience', 'scope'])
  const parent = await state.keys.read(asked.get('subject_token') ?? '', state.now())
  if (parent?.aud !== agent.id || isRevoked(state, parent))
    throw refuse('invalid_request', 'the subject token is none that this agent can exchange')
  return grantToken(state, agent, asked, undefined, parent)
}

/** Refuses what would be ignored. */
function only(form: URLSearchParams, known: readonly string[]): URLSearchParams {
  for (const name of form.keys()) if (!known.includes(name)) throw refuse('invalid_request', `the parameters are ${known.join(', ')}`)
  return form
}

/** An agent that asks about itself need not know its name. */
function withSubject(call: FakeCall, agent: FakeAgent): JsonObject {
  const body = call.json ?? {}
  return call.path === '/ask' || body.subject !== undefined ? body : { ...body, subject: { type: 'agent', id: agent.id } }
}
