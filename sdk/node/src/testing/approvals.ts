// Asking a person at a fake authority, and what is done with tokens afterwards.

import type { JsonObject } from '../json.ts'
import { FakeRefusal, refuse } from './refusal.ts'
import { callerOf } from './state.ts'
import type { FakeAnswer, FakeCall, FakeState } from './state.ts'
import { audienceOf, isRevoked, operationIn } from './tokens.ts'
import type { FakeAgent } from './world.ts'

/** How long a question stands, in seconds. */
const STANDS = 600

/** `POST /oauth2/bc-authorize`. */
export async function fileEndpoint(state: FakeState, call: FakeCall): Promise<FakeAnswer> {
  const agent = callerOf(state, call)
  const [hint, token] = [call.form.get('login_hint'), call.form.get('login_hint_token')]
  if ((hint === null) === (token === null))
    throw refuse('invalid_request', 'exactly one of login_hint and login_hint_token must say on whose behalf the agent asks')
  if (hint !== null && hint !== agent.id) throw refuse('unknown_user_id', `login_hint must be the client itself, ${agent.id}`)
  return file(state, call, agent)
}

/** Files a request, as the service or the sidecar is asked to. */
export async function file(state: FakeState, call: FakeCall, agent: FakeAgent): Promise<FakeAnswer> {
  const token = call.form.get('login_hint_token')
  const parent = token === null ? undefined : await state.keys.read(token, state.now())
  if (token !== null && (parent?.aud !== agent.id || isRevoked(state, parent)))
    throw refuse('expired_login_hint_token', 'login_hint_token is none with which this agent was called')
  const operation = operationIn(call.form.get('authorization_details'))
  if (!operation) throw refuse('invalid_request', 'authorization_details is missing')
  const no = state.world.judge(agent, String(operation.capability), typeof operation.resource === 'string' ? operation.resource : undefined)
  if (!no) throw refuse('invalid_scope', `${String(operation.capability)} needs no approval`)
  if (!no.isRequestable) throw refuse(no.code === 'resource_not_granted' ? 'invalid_authorization_details' : 'invalid_scope', no.message)
  const audience = audienceOf(state, typeof operation.audience === 'string' ? operation.audience : (call.form.get('audience') ?? undefined))
  const expiry = Number(call.form.get('requested_expiry') ?? STANDS)
  const key = call.headers['idempotency-key']
  const fields = {
    agent: agent.id,
    operation,
    audience,
    justification: call.form.get('binding_message') ?? undefined,
    decideBy: state.now() + expiry,
  }
  const request = state.requests.file(fields, typeof key === 'string' ? key : undefined)
  return { body: { auth_req_id: request.id, expires_in: Math.max(1, Math.ceil(request.decideBy - state.now())), interval: state.interval } }
}

/** `POST /jit/complete`. */
export async function completeEndpoint(state: FakeState, call: FakeCall): Promise<FakeAnswer> {
  callerOf(state, call)
  return complete(state, call.form.get('token') ?? '')
}

/** 200 exactly once. */
export async function complete(state: FakeState, token: string): Promise<FakeAnswer> {
  const claims = await state.keys.read(token, state.now())
  if (!claims) throw refuse('invalid_token', 'token is not an access token of ours, or it has expired')
  const request = [...state.requests.all.values()].find(({ jti }) => jti === claims.jti)
  if (!request) throw refuse('invalid_token', 'the token is not for an operation that was approved: there is nothing to complete')
  if (request.phase === 'Completed')
    throw new FakeRefusal(409, 'already_completed', 'the operation was reported as done before: do not do it again')
  if (request.phase !== 'Issued' || isRevoked(state, claims))
    throw new FakeRefusal(409, 'operation_ended', 'the token is not alive any more')
  state.requests.move(request.id, 'Completed')
  return { body: { completed: true, jti: String(claims.jti), completed_at: Math.floor(state.now()) } }
}

/** `POST /oauth2/revoke` (RFC 7009). */
export async function revokeEndpoint(state: FakeState, call: FakeCall): Promise<FakeAnswer> {
  return revoke(state, callerOf(state, call), call.form.get('token') ?? '')
}

/** Gives a token up, or withdraws a request. */
export async function revoke(state: FakeState, agent: FakeAgent, token: string): Promise<FakeAnswer> {
  const request = state.requests.all.get(token)
  if (request?.agent === agent.id) {
    if (request.phase === 'Issued') throw refuse('invalid_request', 'the token was issued: revoke that')
    if (request.phase === 'Pending' || request.phase === 'Approved') state.requests.move(request.id, 'Withdrawn')
    return {}
  }
  const claims: JsonObject | undefined = await state.keys.read(token, state.now())
  if (!claims) return {}
  if (claims.client_id !== agent.id) throw refuse('unauthorized_client', 'the token was issued to another agent')
  state.world.revoked.set(agent.uid, [...(state.world.revoked.get(agent.uid) ?? []), String(claims.jti)])
  await state.feed.changed()
  return {}
}
