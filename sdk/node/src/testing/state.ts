// What the endpoints of a fake authority share.

import type { IncomingHttpHeaders } from 'node:http'
import { unverifiedClaims } from '../claims.ts'
import type { JsonObject } from '../json.ts'
import type { FakeFeed } from './feed.ts'
import { FakeRefusal } from './refusal.ts'
import type { FakeRequests } from './requests.ts'
import type { FakeKeys } from './signing.ts'
import type { FakeAgent, FakeWorld } from './world.ts'

/** A request that was read. */
export interface FakeCall {
  method: string
  path: string
  query: URLSearchParams
  headers: IncomingHttpHeaders
  form: URLSearchParams
  json: JsonObject | undefined
}

/** An answer. */
export interface FakeAnswer {
  status?: number
  headers?: Record<string, string>
  body?: JsonObject
}

/** All that a fake authority knows. */
export interface FakeState {
  issuer: string
  /** For whom tokens can be, the usual one first. */
  audiences: string[]
  /** How long tokens live, in seconds. */
  tokenLife: number
  /** How far apart polls must be, in seconds. */
  interval: number
  /** The authority's clock, in seconds since the epoch. */
  now: () => number
  world: FakeWorld
  keys: FakeKeys
  requests: FakeRequests
  feed: FakeFeed
  /** Whether credentials are refused. */
  refusesCredentials: boolean
  /** Assertions that were used. */
  used: Set<string>
}

const REFUSED = 'the credential was not accepted'

/** Who calls, and stands: by the assertion in the form, or the Bearer credential. @throws FakeRefusal */
export function callerOf(state: FakeState, call: FakeCall): FakeAgent {
  const agent = identify(state, call)
  if (agent.isSuspended) throw new FakeRefusal(401, 'invalid_client', REFUSED)
  return agent
}

/** The same of whoever may be suspended: a question is answered. @throws FakeRefusal */
export function identify(state: FakeState, call: FakeCall): FakeAgent {
  const bearer = /^Bearer (\S+)$/.exec(call.headers.authorization ?? '')?.[1]
  const credential = call.form.get('client_assertion') ?? bearer
  if (credential === undefined || credential === '') throw new FakeRefusal(401, 'invalid_client', 'the caller must authenticate')
  if (state.refusesCredentials) throw new FakeRefusal(401, 'invalid_client', REFUSED)
  return state.world.agent(agentOf(state, credential))
}

/** The agent of a credential: a ServiceAccount token, or an assertion by a key of its own, which counts once (docs/keys.md). */
function agentOf(state: FakeState, credential: string): string {
  const claims = unverifiedClaims(credential)
  const subject = typeof claims?.sub === 'string' ? claims.sub : ''
  const account = /^system:serviceaccount:([^:]+):([^:]+)$/.exec(subject)
  const isForUs = claims?.aud === state.issuer || (Array.isArray(claims?.aud) && claims.aud.includes(state.issuer))
  if (!claims || !isForUs) throw new FakeRefusal(401, 'invalid_client', REFUSED)
  if (account) return `agent:${account[1]}/${account[2]}`
  if (!subject.startsWith('agent:') || claims.iss !== subject || typeof claims.jti !== 'string' || typeof claims.exp !== 'number') {
    throw new FakeRefusal(401, 'invalid_client', REFUSED)
  }
  const isUsable = claims.exp > state.now() - 5 && claims.exp <= state.now() + 65 && !state.used.has(claims.jti)
  state.used.add(claims.jti)
  if (!isUsable) throw new FakeRefusal(401, 'invalid_client', REFUSED)
  return subject
}
