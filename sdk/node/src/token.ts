// An access token, and how it is kept from logs.

import { inspect } from 'node:util'
import type { Answer } from './answers.ts'
import { meaningless } from './answers.ts'
import { ConfigurationError } from './errors.ts'
import { isObject } from './json.ts'
import type { JsonObject } from './json.ts'

/** Longest access token that is taken, in bytes. */
const TOKEN_MAX = 16 * 1024
/** Longest life that is believed, in seconds. */
const LIFE_MAX = 86_400

/** An access token. What writes it out, writes everything but the token; {@link value} alone has it. */
export class AccessToken {
  readonly #value: string
  /** `Bearer`, or `DPoP` if it is bound to a key. */
  readonly tokenType: string
  /** The capabilities in it. */
  readonly scope: ReadonlySet<string>
  /** When it ends, in seconds since the epoch, by the clock of this machine. */
  readonly expiresAt: number
  /** What `authorization_details` of the answer says: the resources of capabilities, or the one operation. */
  readonly details: readonly JsonObject[]

  constructor(fields: { value: string; tokenType?: string; scope?: Iterable<string>; expiresAt: number; details?: readonly JsonObject[] }) {
    this.#value = fields.value
    this.tokenType = fields.tokenType ?? 'Bearer'
    this.scope = new Set(fields.scope ?? [])
    this.expiresAt = fields.expiresAt
    this.details = fields.details ?? []
  }

  /** The token itself. It belongs into a request and nowhere else. */
  get value(): string {
    return this.#value
  }

  /**
   * The header of a request to the service for which the token is.
   *
   * @throws ConfigurationError if the token is bound to a key: such a request needs a proof too (docs/dpop.md).
   */
  headers(): { Authorization: string } {
    if (this.tokenType.toLowerCase() === 'bearer') return { Authorization: `Bearer ${this.#value}` }
    const advice = 'Have the sidecar make a proof for the request (POST /proof), and send it in the header DPoP.'
    throw new ConfigurationError({
      code: 'proof_needed',
      message: `the token is of type ${this.tokenType}, and is worth nothing without a proof`,
      advice,
    })
  }

  toString(): string {
    return `AccessToken(${[...this.scope].join(' ')}, until ${this.expiresAt})`
  }

  toJSON(): JsonObject {
    return { token: '[redacted]', tokenType: this.tokenType, scope: [...this.scope].join(' '), expiresAt: this.expiresAt }
  }

  [inspect.custom](): string {
    return this.toString()
  }
}

/**
 * Reads a reply with an access token (RFC 6749 section 5.1).
 *
 * @param now when it was asked for, in seconds since the epoch: the token lives `expires_in` from then, whatever the clock of the service says.
 * @throws Unavailable if it cannot be used.
 */
export function readToken(answer: Answer, now: number): AccessToken {
  const { access_token: value, token_type: tokenType, expires_in: life, scope, authorization_details: details } = answer.members
  if (typeof value !== 'string' || value.length > TOKEN_MAX || !/^[!-~]+$/.test(value)) throw meaningless(answer, 'has no access_token')
  if (typeof tokenType !== 'string' || !/^(bearer|dpop)$/i.test(tokenType))
    throw meaningless(answer, 'has a token_type that is neither Bearer nor DPoP')
  if (!Number.isSafeInteger(life) || (life as number) < 1 || (life as number) > LIFE_MAX)
    throw meaningless(answer, 'has no usable expires_in')
  return new AccessToken({
    value,
    tokenType,
    scope: typeof scope === 'string' ? scope.split(' ').filter((name) => name !== '') : [],
    expiresAt: now + (life as number),
    details: Array.isArray(details) ? details.filter(isObject) : [],
  })
}
