// What a token says once its signature was verified, and what it allows.

import { inspect } from 'node:util'
import { InsufficientScope, TokenExpired } from '../errors.ts'
import { canonicalJson, isObject } from '../json.ts'
import type { Json, JsonObject } from '../json.ts'
import { OPERATION_DETAILS } from '../operation.ts'
import { rejected } from './jws.ts'
import { isResource, matches } from './patterns.ts'

/** The type of `authorization_details` that limits the resources of a capability. */
const CAPABILITY_DETAILS = 'countersign_capability'

/** On what a decision of a resource server depends beside the capability. */
export interface Requirement {
  resource?: string | undefined
  parameters?: Record<string, unknown> | undefined
}

/** A token that was verified. It does not hold the token itself. */
export class VerifiedToken {
  /** On whose behalf: `user:<name>`, or the agent that began. */
  readonly subject: string
  /** The agent that acts. */
  readonly actor: string
  /** The agents that called one another, first the one that began. */
  readonly chain: readonly string[]
  /** The name of the user, if it is for one. */
  readonly user: string | undefined
  readonly scopes: ReadonlySet<string>
  /** `authorization_details`: what the capabilities are limited to, or the one operation. */
  readonly details: readonly JsonObject[]
  readonly jti: string
  /** The chain's id, the same in all its tokens; empty in tokens of old versions. */
  readonly txn: string
  /** When it ends, in seconds since the epoch. */
  readonly expiresAt: number
  readonly claims: Readonly<JsonObject>

  /** For the verifier: `claims` were checked by {@link checkClaims}. */
  constructor(claims: JsonObject) {
    const { sub, client_id: actor, scope, jti, txn, exp, authorization_details: details } = claims as Record<string, string> & JsonObject
    this.subject = String(sub)
    this.actor = String(actor)
    this.chain = linksOf(claims).map((link) => String(link.sub))
    this.user = this.subject.startsWith('user:') ? this.subject.slice('user:'.length) : undefined
    this.scopes = new Set(
      String(scope)
        .split(' ')
        .filter((name) => name !== ''),
    )
    this.details = (Array.isArray(details) ? details : []) as JsonObject[]
    this.jti = String(jti)
    this.txn = typeof txn === 'string' ? txn : ''
    this.expiresAt = Number(exp)
    this.claims = claims
  }

  /** Whether the token allows it. A token for one operation allows exactly that operation. */
  allows(capability: string, { resource, parameters }: Requirement = {}): boolean {
    if (capability === '' || !this.scopes.has(capability)) return false
    // What is no resource is nobody's, also where there is no limit.
    if (resource !== undefined && !isResource(resource)) return false
    const isKnown = ({ type }: JsonObject) => type === OPERATION_DETAILS || type === CAPABILITY_DETAILS
    // A limit of a kind that is not understood may be one that forbids this.
    if (!this.details.every(isKnown)) return false
    const [operation] = this.details.filter(({ type }) => type === OPERATION_DETAILS)
    if (operation) {
      const isIt = operation.capability === capability && operation.resource === resource && isSame(operation.parameters, parameters)
      return this.details.length === 1 && isIt
    }
    const limits = this.details.filter((details) => details.capability === capability)
    return limits.every(
      ({ resources }) =>
        resource !== undefined &&
        Array.isArray(resources) &&
        resources.some((pattern) => typeof pattern === 'string' && matches(pattern, resource)),
    )
  }

  /** @throws InsufficientScope unless {@link allows}. */
  require(capability: string, requirement: Requirement = {}): void {
    if (this.allows(capability, requirement)) return
    const message = this.scopes.has(capability)
      ? `the token holds ${capability}, and not for this`
      : `the token does not hold ${capability}`
    throw new InsufficientScope({
      code: 'insufficient_scope',
      message,
      scope: capability,
      advice: 'Ask the service for a token with that capability, on that resource.',
    })
  }

  [inspect.custom](): string {
    return `VerifiedToken(${this.subject} by ${this.actor}, ${[...this.scopes].join(' ')})`
  }
}

/** No parameters are the same as empty ones. */
function isSame(granted: Json | undefined, asked: Record<string, unknown> | undefined): boolean {
  return canonicalJson(granted ?? {}) === canonicalJson(asked ?? {})
}

/** What a verifier insists on. */
export interface ClaimRules {
  issuer: string
  audience: string
  /** By how much clocks may differ, in seconds. */
  leeway: number
  /** The time in seconds since the epoch. */
  now: number
}

/** Checks the claims of a token whose signature was verified. @throws TokenExpired, TokenRejected */
export function checkClaims(claims: JsonObject, { issuer, audience, leeway, now }: ClaimRules): VerifiedToken {
  const { iss, aud, exp, iat, nbf } = claims
  if (iss !== issuer) throw rejected('wrong_issuer', 'the token is of another issuer')
  if (aud !== audience) throw rejected('wrong_audience', 'the token is for another audience')
  if (!isTime(exp) || !isTime(iat) || (nbf !== undefined && !isTime(nbf)) || !isConsistent(claims)) {
    throw rejected('claims_malformed', 'the claims of the token are none that the issuer writes')
  }
  if (now >= exp + leeway) throw new TokenExpired({ code: 'token_expired', message: 'the token has expired', advice: 'Get another one.' })
  if (iat > now + leeway || (nbf ?? iat) > now + leeway) throw rejected('not_yet_valid', 'the token is not valid yet: look at the clocks')
  if (claims.cnf !== undefined) throw rejected('proof_required', 'the token is bound to a key, and is taken with a proof alone (RFC 9449)')
  return new VerifiedToken(claims)
}

function isTime(value: Json | undefined): value is number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0
}

/** Whether the claims that belong together fit: subject, client, actors, and the agents on whom the token depends. */
function isConsistent(claims: JsonObject): boolean {
  const { sub, client_id: client, scope, jti, txn, links, user, authorization_details: details } = claims
  const isText = (value: Json | undefined) => typeof value === 'string' && value !== ''
  if (!isText(sub) || !isText(client) || !isText(jti) || typeof scope !== 'string') return false
  if (txn !== undefined && typeof txn !== 'string') return false
  if (details !== undefined && !(Array.isArray(details) && details.every(isObject))) return false
  if (!Array.isArray(links) || links.length === 0 || !links.every(isLink)) return false
  if (!isIdList(claims.ancestors) || !isUser(user) || (user !== undefined) !== (sub as string).startsWith('user:')) return false
  const agents = linksOf(claims).map((link) => link.sub)
  // Who began is the subject, unless there is a user; everybody else is an actor, the newest outermost (RFC 8693 section 4.1).
  const expected = (user === undefined ? agents.slice(1) : agents).toReversed()
  if (user === undefined && agents[0] !== sub) return false
  return agents.at(-1) === client && canonicalJson(actorsOf(claims.act)) === canonicalJson(expected)
}

function linksOf(claims: JsonObject): JsonObject[] {
  return Array.isArray(claims.links) ? claims.links.filter(isObject) : []
}

function isLink(link: Json): boolean {
  if (!isObject(link) || typeof link.sub !== 'string' || typeof link.agent_uid !== 'string' || !Number.isSafeInteger(link.epoch))
    return false
  return link.issuer === undefined || (isObject(link.issuer) && typeof link.issuer.uid === 'string')
}

function isUser(user: Json | undefined): boolean {
  return (
    user === undefined ||
    (isObject(user) && Number.isSafeInteger(user.epoch) && isObject(user.issuer) && typeof user.issuer.uid === 'string')
  )
}

function isIdList(value: Json | undefined): boolean {
  return value === undefined || (Array.isArray(value) && value.every((id) => typeof id === 'string'))
}

/** The subjects of `act`, the outermost first; something that no chain is if it is malformed. */
function actorsOf(act: Json | undefined): Json[] {
  const actors: Json[] = []
  for (let actor = act; actor !== undefined; actor = actor.act) {
    if (!isObject(actor) || typeof actor.sub !== 'string' || actors.length > 64) return [null]
    actors.push(actor.sub)
  }
  return actors
}
