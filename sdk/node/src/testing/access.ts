// The check of a fake authority (AuthZEN 1.0), and questions in plain words.

import { randomUUID } from 'node:crypto'
import { isObject } from '../json.ts'
import type { Json, JsonObject } from '../json.ts'
import { FakeRefusal, refuse } from './refusal.ts'
import type { FakeAnswer, FakeState } from './state.ts'
import { isRevoked } from './tokens.ts'
import type { FakeAgent, FakeNo } from './world.ts'

/** Answers a question to one of the endpoints; `caller` is who asks. */
export async function access(state: FakeState, path: string, body: JsonObject, caller: FakeAgent): Promise<FakeAnswer> {
  switch (path) {
    case '/access/v1/evaluation':
      return { body: await evaluate(state, body, caller) }
    case '/access/v1/evaluations':
      return { body: { evaluations: await Promise.all(items(body).map((item) => evaluate(state, item, caller).catch(asItem))) } }
    case '/access/v1/search/action':
      return { body: await search(state, body, caller) }
    case '/ask':
      return { body: ask(state, body, caller) }
    default:
      throw new FakeRefusal(404, 'invalid_request', 'there is no such endpoint')
  }
}

/** What is wrong with one of several is its own answer. */
function asItem(error: unknown): JsonObject {
  if (!(error instanceof FakeRefusal)) throw error
  return { decision: false, context: { error: { status: 400, message: error.message } } }
}

/** The items with the defaults: what an item has takes the place of a default as a whole. */
function items({ evaluations, ...defaults }: JsonObject): JsonObject[] {
  return (Array.isArray(evaluations) ? evaluations : []).map((item) => ({ ...defaults, ...(isObject(item) ? item : {}) }))
}

async function evaluate(state: FakeState, body: JsonObject, caller: FakeAgent): Promise<JsonObject> {
  const action = objectOf(body.action, 'action')
  const capability = textOf(action.name, 'action.name')
  const resource = resourceOf(body.resource)
  const operation: JsonObject = { type: 'countersign_operation', capability }
  if (resource !== undefined) operation.resource = resource
  if (action.properties !== undefined) operation.parameters = action.properties
  const context = isObject(body.context) ? body.context : {}
  const evaluation = { evaluation_id: randomUUID() }
  const no =
    typeof context.access_token === 'string'
      ? await byToken(state, context.access_token, body, capability, resource)
      : byName(state, body, caller, capability, resource)
  if (!no) return { decision: true, context: { ...evaluation, reason: { code: 'allowed' } } }
  const approved = no.code === 'approval_required' ? state.requests.approved(caller.id, operation) : undefined
  if (approved) {
    const reason = { code: 'approved', message: 'a person has approved it' }
    return {
      decision: true,
      context: { ...evaluation, reason, approval: { auth_req_id: approved.id, token_endpoint: `${state.issuer}/oauth2/token` } },
    }
  }
  const { isRequestable, ...reason } = no
  const access_request: JsonObject = {
    requestable: true,
    endpoint: `${state.issuer}/oauth2/bc-authorize`,
    authorization_details: [operation],
  }
  return { decision: false, context: { ...evaluation, reason: { ...reason }, ...(isRequestable ? { access_request } : {}) } }
}

function byName(state: FakeState, body: JsonObject, caller: FakeAgent, capability: string, resource: string | undefined): FakeNo | undefined {
  const subject = objectOf(body.subject, 'subject')
  if (subject.type !== 'agent') return { code: 'subject_unknown', message: 'subject is no agent' }
  if (subject.id !== caller.id) return { code: 'caller_may_not_evaluate', message: 'the caller is not that agent' }
  return state.world.judge(caller, capability, resource)
}

async function byToken(
  state: FakeState,
  token: string,
  body: JsonObject,
  capability: string,
  resource: string | undefined,
): Promise<FakeNo | undefined> {
  const claims = await state.keys.read(token, state.now())
  if (!claims || isRevoked(state, claims)) return { code: 'token_unknown_or_expired', message: 'the token is not alive' }
  const subject = objectOf(body.subject, 'subject')
  if (subject.id !== claims.client_id && subject.id !== claims.sub)
    return { code: 'subject_mismatch', message: 'subject is not the agent of the token' }
  const no = state.world.judge(state.world.agent(String(claims.client_id)), capability, resource)
  const isHeld = String(claims.scope).split(' ').includes(capability)
  return no ?? (isHeld ? undefined : { code: 'capability_not_granted', message: `${capability} is not in the token` })
}

async function search(state: FakeState, body: JsonObject, caller: FakeAgent): Promise<JsonObject> {
  const resource = resourceOf(body.resource)
  const names = state.world.standing().filter((name) => byName(state, body, caller, name, resource) === undefined)
  const page = isObject(body.page) ? body.page : {}
  const from = Number(page.token ?? 0)
  const limit = typeof page.limit === 'number' ? page.limit : PAGE
  const rest = from + limit < names.length ? String(from + limit) : ''
  return { results: names.slice(from, from + limit).map((name) => ({ name })), page: { next_token: rest } }
}

/** How many capabilities a page has. */
const PAGE = 50

/** A question is understood if it names capabilities, and nothing else but words of no meaning. */
function ask(state: FakeState, body: JsonObject, caller: FakeAgent): JsonObject {
  const words = textOf(body.question, 'question').replace(/[?.]$/, '').split(/\s+/)
  const known = words.filter((word) => word.includes('.'))
  const unknown = words.filter((word) => !word.includes('.') && !FILLERS.has(word.toLowerCase()))
  const parts = known.map((capability) => ({ capability, no: state.world.judge(caller, capability, undefined) }))
  const isAllowed = unknown.length === 0 && parts.length > 0 && parts.every(({ no }) => no === undefined)
  return {
    decision: isAllowed,
    reason: {
      code: isAllowed
        ? 'allowed'
        : unknown.length > 0 || parts.length === 0
          ? 'not_understood'
          : (parts.find(({ no }) => no)?.no?.code ?? 'denied'),
      message: '',
    },
    interpretation: parts.map(({ capability, no }) => ({
      capability,
      resource: null,
      subject: caller.id,
      parameters: {},
      decision: no === undefined,
      requestable: no?.isRequestable ?? false,
    })),
    unresolved: unknown.map((text) => ({ text, nearest: [] })),
    evaluation_id: randomUUID(),
  }
}

const FILLERS = new Set(['can', 'may', 'i', 'we', 'and', 'do'])

function resourceOf(value: Json | undefined): string | undefined {
  if (value === null) return undefined
  const resource = objectOf(value, 'resource')
  return `${textOf(resource.type, 'resource.type')}:${textOf(resource.id, 'resource.id')}`
}

function objectOf(value: Json | undefined, name: string): JsonObject {
  if (isObject(value)) return value
  throw refuse('invalid_request', `${name} is missing`)
}

function textOf(value: Json | undefined, name: string): string {
  if (typeof value === 'string' && value !== '') return value
  throw refuse('invalid_request', `${name} is missing`)
}
