// What the service answered, read with suspicion: what says nothing is no refusal, and no yes.

import {
  AccessDenied,
  Conflict,
  InvalidRequest,
  InvalidScope,
  InvalidTarget,
  NotFound,
  RateLimited,
  Refused,
  Unauthenticated,
  Unavailable,
} from './errors.ts'
import type { CountersignError, ErrorDetails } from './errors.ts'
import { parseObject } from './json.ts'
import type { JsonObject } from './json.ts'
import { redact } from './redact.ts'
import type { HttpAnswer } from './transport.ts'

/** An answer of 2xx. */
export interface Answer {
  status: number
  headers: Record<string, string>
  /** The members of the body; none if it is empty. */
  members: JsonObject
}

/** Statuses that are about this moment: the same request may be answered otherwise in a while. */
const PASSING = new Set([429, 502, 503, 504])

/** Whether the same request may be answered otherwise in a while. */
export function isPassing(status: number): boolean {
  return PASSING.has(status)
}

/** `Retry-After` in seconds, which it says as such or as a date (RFC 9110 section 10.2.3). */
export function retryAfter(headers: Record<string, string>): number | undefined {
  const text = headers['retry-after']?.trim() ?? ''
  if (/^\d+$/.test(text)) return Math.min(Number(text), Number.MAX_SAFE_INTEGER)
  // The one form in which it is written today; Date would make something of much else.
  const at = /^[A-Z][a-z]{2}, \d{2} [A-Z][a-z]{2} \d{4} \d{2}:\d{2}:\d{2} GMT$/.test(text) ? Date.parse(text) : NaN
  return Number.isNaN(at) ? undefined : Math.max(0, (at - Date.now()) / 1000)
}

/**
 * The members of an answer of 2xx.
 *
 * @throws Refused and its kin for what the service refuses, Unavailable for what means nothing.
 */
export function read(answer: HttpAnswer): Answer {
  const { status, headers, body } = answer
  if (status < 200 || status > 299) throw refusal(answer)
  const members = body.trim() === '' ? {} : parseObject(body)
  if (!members) throw meaningless(answer, 'is no JSON object that can be read in one way only')
  return { status, headers, members }
}

/** The error for an answer that is not 2xx. */
export function refusal(answer: HttpAnswer): CountersignError {
  const { status, headers, secrets } = answer
  const members = parseObject(answer.body)
  const error = typeof members?.error === 'string' ? redact(members.error, secrets).slice(0, 100) : undefined
  const said = typeof members?.error_description === 'string' ? redact(members.error_description, secrets) : undefined
  const requestId = requestIdOf(headers)
  const message = `the service answers ${status}${error === undefined ? '' : ` ${error}`}${said === undefined ? '' : `: ${said}`}`
  const details = { code: error ?? `http_${status}`, message, requestId, status }
  const later = { ...details, retryAfter: retryAfter(headers) }
  if (status < 400)
    return new Unavailable({
      ...details,
      code: 'unexpected_redirect',
      advice: 'Redirects are not followed. Look whether the address is that of the service.',
    })
  if (status === 429) return new RateLimited({ ...later, advice: 'Ask less often, or later.' })
  if (status >= 500) return new Unavailable({ ...later, advice: 'Try again shortly. Nothing is allowed meanwhile.' })
  return refused(status, { ...details, description: said })
}

function refused(status: number, details: ErrorDetails & { description: string | undefined }): CountersignError {
  const { code } = details
  if (code === 'invalid_client' || status === 401) return new Unauthenticated({ ...details, advice: ADVICE.credential })
  if (code === 'access_denied')
    return new AccessDenied({ ...details, advice: 'The description says what is missing. Asking again without a change is of no use.' })
  if (code === 'invalid_scope') return new InvalidScope({ ...details, advice: ADVICE.scope })
  if (code === 'invalid_target') return new InvalidTarget({ ...details, advice: ADVICE.target })
  if (status === 404) return new NotFound(details)
  if (status === 409 || status === 412) return new Conflict({ ...details, advice: 'Read it again, and decide anew.' })
  if (MALFORMED.has(code)) return new InvalidRequest(details)
  return new Refused(details)
}

/** Codes for a request that is wrong in itself. */
const MALFORMED = new Set([
  'invalid_request',
  'invalid_authorization_details',
  'invalid_object',
  'unsupported_grant_type',
  'unknown_user_id',
  'expired_login_hint_token',
  'invalid_binding_message',
])

const ADVICE = {
  credential:
    'The audit record with this request id names the rule. The credential must belong to an Agent that is Ready (kubectl get agents).',
  scope: 'The description names the capability and what cut it. Asking again without a change is of no use.',
  target: 'Name one audience that the Agent lists (spec.tokens.audiences).',
}

/** The error for an answer that means nothing. */
export function meaningless(answer: Pick<HttpAnswer, 'status' | 'headers'>, what: string): Unavailable {
  return new Unavailable({
    code: 'unreadable_answer',
    message: `the answer, of status ${answer.status}, ${what}`,
    advice: 'Look whether COUNTERSIGN_URL leads to the service itself. Redirects are not followed.',
    requestId: requestIdOf(answer.headers),
    status: answer.status,
  })
}

function requestIdOf(headers: Record<string, string>): string | undefined {
  const id = headers['x-request-id']
  return id !== undefined && /^[!-~]{1,128}$/.test(id) ? id : undefined
}
