// Who and what is alive, as the feed says it (docs/revocation.md): what an event makes of it, and whether a token is dead by it.

import { sha256Base64url } from '../digest.ts'
import { isObject } from '../json.ts'
import type { Json, JsonObject } from '../json.ts'

/** The state of the feed. */
export interface FeedState {
  /** Content's name. */
  id: string
  iat: number
  /** From then on nothing may be built on it, in seconds since the epoch. */
  exp: number
  /** Everything that was stored by then is in it. */
  as_of: number
  /** The revocation epoch of each agent that stands, by UID. */
  agents: JsonObject
  /** What of them is revoked singly. */
  revoked: JsonObject
  /** Each issuer that counts, by UID. */
  issuers: JsonObject
}

/** Why a token is dead. `unknown`: nobody can tell. */
export type DeadReason = 'unknown' | 'agent_ended' | 'token_revoked' | 'issuer_ended' | 'user_revoked'

/** The types of the statements, by event (docs/revocation.md, "How to follow it"). */
export const STATEMENTS = {
  snapshot: 'revocations+jwt',
  change: 'revocations-change+jwt',
  heartbeat: 'revocations-heartbeat+jwt',
} as const

/** The events with a statement. */
export type FeedEvent = keyof typeof STATEMENTS

/** The state after an event whose statement was verified; `undefined` if something was missed, and one has to connect anew. */
export function applied(state: FeedState | undefined, event: FeedEvent, payload: JsonObject): FeedState | undefined {
  const { id, iat, exp, as_of: asOf } = payload
  if (typeof id !== 'string' || !isNumber(iat) || !isNumber(exp) || !isNumber(asOf)) return undefined
  const times = { id, iat, exp, as_of: asOf }
  if (event === 'snapshot') {
    const { agents, revoked, issuers } = payload
    return isObject(agents) && isObject(revoked) && isObject(issuers) ? { ...times, agents, revoked, issuers } : undefined
  }
  if (!state) return undefined
  if (event === 'heartbeat')
    return id === state.id ? { ...times, agents: state.agents, revoked: state.revoked, issuers: state.issuers } : undefined
  if (payload.prev !== state.id) return undefined
  const [agents, revoked, issuers] = (['agents', 'revoked', 'issuers'] as const).map((member) => merged(state[member], payload[member]))
  return agents && revoked && issuers ? { ...times, agents, revoked, issuers } : undefined
}

function isNumber(value: Json | undefined): value is number {
  return typeof value === 'number' && Number.isFinite(value)
}

/** Each entry in the place of the old one; those that are null are removed. */
function merged(old: JsonObject, change: Json | undefined): JsonObject | undefined {
  if (change === undefined) return old
  if (!isObject(change)) return undefined
  return Object.fromEntries(Object.entries({ ...old, ...change }).filter(([, value]) => value !== null))
}

/** Why a token whose signature, audience and times were verified is dead by a state; `undefined` if it is alive. */
export function deadReason(state: FeedState | undefined, claims: Readonly<JsonObject>, now: number): DeadReason | undefined {
  if (!state || now >= state.exp) return 'unknown'
  const links = Array.isArray(claims.links) ? claims.links : []
  if (links.length === 0) return 'unknown'
  const ids = [claims.jti, claims.txn, ...(Array.isArray(claims.ancestors) ? claims.ancestors : [])]
  for (const link of links) {
    if (!isObject(link) || typeof link.agent_uid !== 'string') return 'unknown'
    if (own(state.agents, link.agent_uid) !== link.epoch) return 'agent_ended'
    const revoked = own(state.revoked, link.agent_uid)
    if (revoked !== undefined && !Array.isArray(revoked)) return 'unknown'
    if (revoked !== undefined && ids.some((id) => typeof id === 'string' && revoked.includes(id))) return 'token_revoked'
    if (
      link.issuer !== undefined &&
      !(isObject(link.issuer) && typeof link.issuer.uid === 'string' && own(state.issuers, link.issuer.uid) !== undefined)
    )
      return 'issuer_ended'
  }
  return claims.user === undefined ? undefined : userReason(state, claims)
}

function userReason(state: FeedState, { user, sub }: Readonly<JsonObject>): DeadReason | undefined {
  if (!isObject(user) || !isObject(user.issuer) || typeof user.issuer.uid !== 'string' || typeof sub !== 'string') return 'unknown'
  const issuer = own(state.issuers, user.issuer.uid)
  if (!isObject(issuer)) return 'user_revoked'
  const hash = sha256Base64url(`${user.issuer.uid}:${sub.slice('user:'.length)}`)
  const count = (isObject(issuer.users) ? own(issuer.users, hash) : undefined) ?? issuer.epoch
  return count === user.epoch ? undefined : 'user_revoked'
}

function own(members: JsonObject, name: string): Json | undefined {
  return Object.hasOwn(members, name) ? members[name] : undefined
}
