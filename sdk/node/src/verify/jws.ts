// A token taken apart, before anything in it is believed (RFC 7515, RFC 8725).

import { TokenRejected } from '../errors.ts'
import { parseObject } from '../json.ts'
import type { JsonObject } from '../json.ts'

/** Longest token that is looked at, in bytes. */
const TOKEN_MAX = 16 * 1024
/** Members of a header that say how to verify it, in the hands of whoever wrote it. */
const REFUSED = ['jwk', 'jku', 'x5u', 'x5c', 'x5t', 'x5t#S256', 'crit', 'b64', 'zip', 'enc']
/** The algorithms that sign here: with an Ed25519 key, and with one on P-256. */
const ALGORITHMS = new Set(['EdDSA', 'Ed25519', 'ES256'])

/** A token whose signature was not verified. */
export interface Unverified {
  header: JsonObject
  alg: string
  kid: string
  /** The claims, by which nothing may be decided yet. */
  claims: JsonObject
}

/** @throws TokenRejected if it is no JWT of this type, of so many bytes at most, that could be verified. */
export function parseJws(token: string, typ: string, maxLength = TOKEN_MAX): Unverified {
  // Whoever has no types may hand over the header that is not there.
  const parts = typeof token === 'string' ? token.split('.') : []
  const [head, body] = parts
  if (parts.length !== 3 || token.length > maxLength || !parts.every(isBase64url) || head === undefined || body === undefined) {
    throw rejected('token_malformed', 'the token is no JWT')
  }
  const header = decoded(head)
  if (!header || REFUSED.some((name) => Object.hasOwn(header, name)))
    throw rejected('token_malformed', 'the header of the token is none that is accepted')
  const { alg, kid } = header
  if (!isType(header.typ, typ)) throw rejected('wrong_type', `the token is not of type ${typ}`)
  if (typeof alg !== 'string' || !ALGORITHMS.has(alg))
    throw rejected('algorithm_refused', 'the token is signed with an algorithm that is not accepted')
  if (typeof kid !== 'string' || kid === '') throw rejected('unknown_key', 'the token names no key')
  const claims = decoded(body)
  if (!claims) throw rejected('token_malformed', 'the claims of the token are no JSON object that can be read in one way only')
  return { header, alg, kid, claims }
}

/** One text for each value: what else decodes to it is another token. */
function isBase64url(part: string): boolean {
  return /^[A-Za-z0-9_-]*$/.test(part) && Buffer.from(part, 'base64url').toString('base64url') === part
}

function decoded(part: string): JsonObject | undefined {
  try {
    return parseObject(new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(Buffer.from(part, 'base64url')))
  } catch {
    return undefined
  }
}

/** RFC 9068 section 4: `application/` may stand before it. */
function isType(value: unknown, typ: string): boolean {
  return typeof value === 'string' && (value === typ || value.toLowerCase() === `application/${typ}`)
}

/** @param message must say nothing of what the token holds. */
export function rejected(code: string, message: string): TokenRejected {
  return new TokenRejected({ code, message, advice: 'Get another token from the service, for this audience.' })
}
