// What becomes of a call that does not run, and what the model is told.

import { ApprovalRequest } from '../approval.ts'
import type { Reason } from '../decision.ts'
import {
  AccessDenied,
  AlreadyCompleted,
  ApprovalDenied,
  ApprovalExpired,
  ApprovalPending,
  ApprovalUsed,
  CountersignError,
  Refused,
  TokenRejected,
  Unavailable,
} from '../errors.ts'
import type { ErrorDetails } from '../errors.ts'

/**
 * The call must not run. `code` is the reason of the service, such as `capability_not_granted`, or one of `unmapped`, `approval_denied`,
 * `approval_expired`, `approval_used`, `approval_mismatch`, `authority_refused`, `authority_unavailable`, `guard_failed`, and of Google ADK
 * `unguarded`.
 */
export class Denied extends CountersignError {
  /** Why, as the service says it. It is for people who run the agent, not for the model. */
  readonly reason: Reason | undefined
  /** The id of the decision's record. */
  readonly evaluationId: string | undefined

  constructor(details: ErrorDetails & { reason?: Reason | undefined; evaluationId?: string | undefined }) {
    super(details)
    this.reason = details.reason
    this.evaluationId = details.evaluationId
  }

  /** What the model is told: short, without the rules behind it, and whether to try again. */
  forModel(): string {
    return WORDS[this.code] ?? 'This is not allowed. Nothing was done. Do not try again.'
  }
}

/** The call does not run yet: a person has to approve it. The same call works once somebody has. */
export class Pending extends CountersignError {
  /** The request that waits. */
  readonly request: ApprovalRequest
  /** After how many seconds it makes sense to look again. */
  readonly retryAfter: number

  constructor(details: ErrorDetails & { request: ApprovalRequest; retryAfter: number }) {
    super(details)
    this.request = details.request
    this.retryAfter = details.retryAfter
  }

  /** What the model is told, which it may tell the user. */
  forModel(): string {
    const { id } = this.request
    const how = `A person must approve this first: request ${id}, \`kubectl countersign approve ${id}\`.`
    return `${how} Nothing was done yet. Once it is approved, make the same call with the same arguments.`
  }
}

const WORDS: Readonly<Record<string, string>> = {
  unmapped: 'This tool may not be used. Do not try again.',
  approval_denied: 'A person was asked and said no. Nothing was done. Do not try again.',
  approval_expired: 'Nobody approved this in time. Nothing was done. Ask the user before trying again.',
  approval_used: 'This call was already carried out, or its approval is used up. It was not done again. Do not try again.',
  approval_mismatch: 'This call is not the one that was approved. Nothing was done.',
  authority_unavailable: 'It cannot be checked now whether this is allowed, so nothing was done. It may be tried again later.',
  guard_failed: 'It cannot be checked whether this is allowed, so nothing was done. Do not try again.',
}

/** A failure of any kind as what it means for the call: it does not run. */
export function outcomeOf(error: unknown): Denied | Pending {
  if (error instanceof Denied || error instanceof Pending) return error
  if (error instanceof ApprovalPending && error.request instanceof ApprovalRequest) {
    const { code, message, advice, request, retryAfter, requestId, status } = error
    return new Pending({ code, message, advice, request, retryAfter, requestId, status })
  }
  if (!(error instanceof CountersignError)) {
    // Errors of others may say what the arguments were. Their kind is enough.
    const kind = error instanceof Error ? error.constructor.name : 'something was thrown'
    return new Denied({ code: 'guard_failed', message: `the guard failed (${kind})` })
  }
  const { message, advice, requestId, status } = error
  return new Denied({ code: codeOf(error), message, advice, requestId, status })
}

function codeOf(error: CountersignError): string {
  if (error instanceof Unavailable) return 'authority_unavailable'
  if (error instanceof ApprovalDenied) return 'approval_denied'
  if (error instanceof ApprovalExpired) return 'approval_expired'
  if (error instanceof ApprovalUsed || error instanceof AlreadyCompleted || error instanceof TokenRejected) return 'approval_used'
  return error instanceof Refused || error instanceof AccessDenied ? 'authority_refused' : 'guard_failed'
}
