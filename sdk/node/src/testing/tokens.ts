// The tokens of a fake authority: who gets which.

import { unverifiedClaims } from '../claims.ts'
import { isObject } from '../json.ts'
import type { Json, JsonObject } from '../json.ts'
import { FAKE_ISSUER_UID } from './feed.ts'
import { FakeRefusal, refuse } from './refusal.ts'
import type { FakeRequest } from './requests.ts'
import { newId } from './signing.ts'
import type { FakeAlgorithm } from './signing.ts'
import { callerOf } from './state.ts'
import type { FakeAnswer, FakeCall, FakeState } from './state.ts'
import type { FakeAgent } from './world.ts'

/** What a token is to say. */
export interface FakeToken {
  agent: FakeAgent
  audience: string
  scope: readonly string[]
  details?: readonly JsonObject[]
  /** The user for whom it is. */
  user?: string | undefined
  /** The token with which the agent was called. */
  parent?: JsonObject | undefined
  /** In seconds. */
  expiresIn?: number
  alg?: FakeAlgorithm
  /** Put over the claims; `null` removes one. */
  claims?: JsonObject
}

/** Signs a token, with all the claims that the service writes. */
export async function mint(state: FakeState, token: FakeToken): Promise<{ value: string; claims: JsonObject }> {
  const { agent, parent, user } = token
  const now = Math.floor(state.now())
  const own = { sub: agent.id, agent_uid: agent.uid, epoch: agent.epoch, sa: agent.id.split('/')[1] ?? '' }
  const before = Array.isArray(parent?.links) ? parent.links : []
  const links: Json[] = [...before, own]
  const userLink: Json | undefined = parent
    ? parent.user
    : user === undefined
      ? undefined
      : { issuer: { name: 'users', uid: FAKE_ISSUER_UID }, epoch: 0 }
  const names = links.filter(isObject).map((link) => String(link.sub))
  const subject = parent ? String(parent.sub) : user === undefined ? agent.id : `user:${user}`
  const claims: JsonObject = {
    iss: state.issuer,
    sub: subject,
    aud: token.audience,
    client_id: agent.id,
    scope: token.scope.join(' '),
    iat: now,
    exp: Math.min(now + (token.expiresIn ?? state.tokenLife), typeof parent?.exp === 'number' ? parent.exp : Infinity),
    jti: newId(),
    txn: typeof parent?.txn === 'string' ? parent.txn : newId(),
    agent_uid: agent.uid,
    links,
  }
  const actors = userLink === undefined ? names.slice(1) : names
  const act = actors.reduce<JsonObject | undefined>(
    (inner, sub) => ({ iss: state.issuer, sub, sub_profile: 'ai_agent', ...(inner && { act: inner }) }),
    undefined,
  )
  if (act) claims.act = act
  if (userLink !== undefined) claims.user = userLink
  if (parent) claims.ancestors = [...(Array.isArray(parent.ancestors) ? parent.ancestors : []), String(parent.jti)]
  if (token.details && token.details.length > 0) claims.authorization_details = [...token.details]
  for (const [name, value] of Object.entries(token.claims ?? {})) {
    if (value === null) delete claims[name]
    else claims[name] = value
  }
  return { value: await state.keys.sign('at+jwt', claims, token.alg), claims }
}

/** `POST /oauth2/token`. */
export async function tokenEndpoint(state: FakeState, call: FakeCall): Promise<FakeAnswer> {
  const grant = call.form.get('grant_type') ?? ''
  const agent = callerOf(state, call)
  if (grant === 'urn:openid:params:grant-type:ciba') return poll(state, call, agent)
  if (grant === 'client_credentials') return grantToken(state, agent, call.form, undefined, undefined)
  if (grant !== 'urn:ietf:params:oauth:grant-type:token-exchange') throw refuse('unsupported_grant_type', 'grant_type is not known')
  const subject = call.form.get('subject_token') ?? ''
  if (call.form.get('subject_token_type') === 'urn:ietf:params:oauth:token-type:id_token') {
    const user = unverifiedClaims(subject)?.email
    if (typeof user !== 'string') throw refuse('invalid_request', 'the ID token names no user')
    return grantToken(state, agent, call.form, user, undefined)
  }
  const parent = await state.keys.read(subject, state.now())
  if (!parent || parent.aud !== agent.id || isRevoked(state, parent))
    throw refuse('invalid_request', 'the subject token is none that this agent can exchange')
  return grantToken(state, agent, call.form, undefined, parent)
}

/** A token for an agent, as `client_credentials`, an exchange, or the sidecar asks for it. */
export async function grantToken(
  state: FakeState,
  agent: FakeAgent,
  asked: URLSearchParams,
  user: string | undefined,
  parent: JsonObject | undefined,
): Promise<FakeAnswer> {
  const operation = operationIn(asked.get('authorization_details'))
  const audience = audienceOf(state, asked.get('audience') ?? textOf(operation?.audience))
  if (operation) {
    const capability = textOf(operation.capability) ?? ''
    const no = state.world.judge(agent, capability, textOf(operation.resource))
    if (no) throw refuse(no.code === 'resource_not_granted' ? 'invalid_authorization_details' : 'invalid_scope', no.message)
    return issued(
      state,
      { agent, audience, scope: [capability], details: [withoutAudience(operation)], user, parent },
      parent !== undefined,
    )
  }
  const inherited = parent ? String(parent.scope).split(' ') : undefined
  const standing = state.world.standing().filter((name) => inherited?.includes(name) ?? true)
  const wanted = asked.get('scope')?.split(' ')
  const missing = wanted?.find((name) => !standing.includes(name))
  if (missing !== undefined) throw refuse('invalid_scope', `${missing} is not granted to ${agent.id}`)
  const scope = wanted ?? standing
  if (scope.length === 0) throw refuse('invalid_scope', 'nothing is granted without approval')
  return issued(state, { agent, audience, scope, details: limitsOf(state, scope), user, parent }, parent !== undefined)
}

/** `POST /oauth2/introspect` (RFC 7662). */
export async function introspect(state: FakeState, call: FakeCall): Promise<FakeAnswer> {
  callerOf(state, call)
  const claims = await state.keys.read(call.form.get('token') ?? '', state.now())
  const isDone =
    claims !== undefined && [...state.requests.all.values()].some((request) => request.jti === claims.jti && request.phase !== 'Issued')
  if (!claims || isDone || isRevoked(state, claims)) return { body: { active: false } }
  return { body: { active: true, token_type: 'Bearer', username: claims.sub ?? '', ...claims } }
}

/** Whether somebody in a token was stopped, or it was revoked. */
export function isRevoked(state: FakeState, claims: JsonObject): boolean {
  const ids = [claims.jti, claims.txn, ...(Array.isArray(claims.ancestors) ? claims.ancestors : [])]
  return (Array.isArray(claims.links) ? claims.links : []).filter(isObject).some((link) => {
    const agent = state.world.agents.get(String(link.sub))
    const revoked = state.world.revoked.get(String(link.agent_uid)) ?? []
    return !agent || agent.isSuspended || agent.epoch !== link.epoch || ids.some((id) => revoked.includes(String(id)))
  })
}

async function poll(state: FakeState, call: FakeCall, agent: FakeAgent): Promise<FakeAnswer> {
  const preferred = Number(/wait=(\d+)/.exec(String(call.headers.prefer ?? 'wait=25'))?.[1] ?? 25)
  return redeem(state, agent, call.form.get('auth_req_id') ?? '', Math.min(25, preferred))
}

/** The token of a request, waiting for the decision. @throws FakeRefusal */
export async function redeem(state: FakeState, agent: FakeAgent, id: string, wait: number): Promise<FakeAnswer> {
  const request = state.requests.all.get(id)
  if (request?.agent !== agent.id)
    throw refuse('invalid_grant', 'auth_req_id is not that of a request of this agent which waits for its token')
  const left = request.decideBy - state.now()
  await state.requests.wait(request, Math.max(0, Math.min(wait, left)), state.interval)
  if (agent.isSuspended) throw new FakeRefusal(401, 'invalid_client', 'the credential was not accepted')
  const again = state.requests.answer(request, state.now())
  return { body: again ?? (await firstToken(state, agent, request)) }
}

async function firstToken(state: FakeState, agent: FakeAgent, request: FakeRequest): Promise<JsonObject> {
  // Before anything is awaited: of two polls one makes the token.
  state.requests.move(request.id, 'Issued')
  request.issuedAt = state.now()
  const { capability } = request.operation
  const details = [{ ...withoutAudience(request.operation), digest: 'sha256:00', jit_request: request.id }]
  const { body = {} } = await issued(state, { agent, audience: request.audience, scope: [String(capability)], details }, false)
  request.token = body
  request.jti = String(unverifiedClaims(String(body.access_token))?.jti)
  return body
}

async function issued(state: FakeState, token: FakeToken, isExchange: boolean): Promise<FakeAnswer> {
  const { value, claims } = await mint(state, token)
  const body: JsonObject = {
    access_token: value,
    token_type: 'Bearer',
    expires_in: Number(claims.exp) - Math.floor(state.now()),
    scope: claims.scope ?? '',
  }
  if (isExchange) body.issued_token_type = 'urn:ietf:params:oauth:token-type:access_token'
  if (claims.authorization_details !== undefined) body.authorization_details = claims.authorization_details
  return { body, headers: { 'cache-control': 'no-store' } }
}

/** The one operation in `authorization_details`. @throws FakeRefusal */
export function operationIn(text: string | null): JsonObject | undefined {
  if (text === null) return undefined
  const list: unknown = JSON.parse(text)
  const [operation, ...others] = Array.isArray(list) ? (list as unknown[]) : []
  const isOne =
    others.length === 0 && isObject(operation) && operation.type === 'countersign_operation' && typeof operation.capability === 'string'
  if (isOne) return operation
  throw refuse('invalid_authorization_details', 'authorization_details must have exactly one object of type countersign_operation')
}

/** @throws FakeRefusal for an audience that is not allowed. */
export function audienceOf(state: FakeState, named: string | undefined): string {
  const [usual = '', ...others] = state.audiences
  if (named === undefined && others.length > 0) throw refuse('invalid_target', 'the agent has several audiences: name one')
  const audience = named ?? usual
  if (state.audiences.includes(audience) || audience.startsWith('agent:')) return audience
  throw refuse('invalid_target', 'the audience is not among those of the agent')
}

function limitsOf(state: FakeState, scope: readonly string[]): JsonObject[] {
  return scope.flatMap((capability) => {
    const resources = state.world.limits(capability)
    return resources === undefined ? [] : [{ type: 'countersign_capability', capability, resources }]
  })
}

function withoutAudience(operation: JsonObject): JsonObject {
  const { audience: _, expiration_seconds: __, ...rest } = operation
  return rest
}

function textOf(value: Json | undefined): string | undefined {
  return typeof value === 'string' ? value : undefined
}
