// One tree of errors. What went wrong, where, and what to do about it; never a token, an assertion or a key.

import { inspect } from 'node:util'

/** What an error is made of. */
export interface ErrorDetails {
  /** A short stable name, for programs. */
  code: string
  /** What was wrong, and where. */
  message: string
  /** What to do about it. */
  advice?: string | undefined
  /** The `X-Request-Id` of the answer: by it the audit record is found. */
  requestId?: string | undefined
  /** The HTTP status of the answer, if there was one. */
  status?: number | undefined
}

/** The root of the tree: everything that this package throws on purpose. */
export class CountersignError extends Error {
  /** A short stable name, for programs. */
  readonly code: string
  /** What to do about it; may be empty. */
  readonly advice: string
  /** The `X-Request-Id` of the answer, by which the audit record is found. */
  readonly requestId: string | undefined
  /** The HTTP status of the answer, if there was one. */
  readonly status: number | undefined

  constructor(details: ErrorDetails) {
    super(details.message)
    this.name = new.target.name
    this.code = details.code
    this.advice = details.advice ?? ''
    this.requestId = details.requestId
    this.status = details.status
  }

  /** For logs that write JSON. */
  toJSON(): Record<string, unknown> {
    const { name, code, message, advice, requestId, status } = this
    return { name, code, message, advice, requestId, status }
  }

  /** The stack alone: what an error carries along, such as a request, is for programs. */
  [inspect.custom](): string {
    const request = this.requestId === undefined ? '' : ` (request ${this.requestId})`
    return `${this.stack ?? `${this.name}: ${this.message}`}\n    code: ${this.code}${request}`
  }
}

/** The settings do not fit together, or a call can not be meant as it was made. Nothing was sent. */
export class ConfigurationError extends CountersignError {}

/** No link of the credential chain is there. */
export class CredentialNotFound extends ConfigurationError {}

/** A credential is there and cannot be used: a file that cannot be read, a key that others may read. */
export class CredentialInvalid extends ConfigurationError {}

/** There is no answer that means anything: no connection, a status of 5xx, bad TLS. Whatever was to be decided is not allowed. */
export class Unavailable extends CountersignError {
  /** After how many seconds it may be asked again, if the service says so. */
  readonly retryAfter: number | undefined

  constructor(details: ErrorDetails & { retryAfter?: number | undefined }) {
    super(details)
    this.retryAfter = details.retryAfter
  }
}

/** The time for the whole call is over. */
export class DeadlineExceeded extends Unavailable {}

/** Asked more than the service takes (429). */
export class RateLimited extends Unavailable {}

/** The service refuses (4xx), with an error of RFC 6749 section 5.2 or a successor. */
export class Refused extends CountersignError {
  /** `error` of the answer. */
  readonly error: string
  /** `error_description` of the answer. */
  readonly description: string

  constructor(details: ErrorDetails & { description?: string | undefined }) {
    super(details)
    this.error = details.code
    this.description = details.description ?? details.message
  }
}

/** The credential was not accepted (`invalid_client`, 401). */
export class Unauthenticated extends Refused {}

/** A capability is not granted, or not without approval (`invalid_scope`). */
export class InvalidScope extends Refused {}

/** There is no token for that audience (`invalid_target`). */
export class InvalidTarget extends Refused {}

/** The request cannot be read, or means nothing (`invalid_request` and its kin). */
export class InvalidRequest extends Refused {}

/** There is no such thing (404). */
export class NotFound extends Refused {}

/** It was changed meanwhile, or is there already (409, 412). */
export class Conflict extends Refused {}

/** The decision is no. */
export class AccessDenied extends CountersignError {
  /** Which rule said no. */
  readonly rule: string | undefined
  /** The id of the decision's record. */
  readonly evaluationId: string | undefined

  constructor(details: ErrorDetails & { rule?: string | undefined; evaluationId?: string | undefined }) {
    super(details)
    this.rule = details.rule
    this.evaluationId = details.evaluationId
  }
}

/** Nobody has decided yet. `R` is the type of the request that waits. */
export class ApprovalPending<R = unknown> extends CountersignError {
  /** The request that waits: it can be kept and asked for again, by another process too. */
  readonly request: R
  /** After how many seconds it makes sense to look again. */
  readonly retryAfter: number

  constructor(details: ErrorDetails & { request: R; retryAfter: number }) {
    super(details)
    this.request = details.request
    this.retryAfter = details.retryAfter
  }
}

/** A person said no, the request was withdrawn, or it is not allowed any more. */
export class ApprovalDenied extends CountersignError {}

/** Nobody decided in time, or the approval was not used in time. */
export class ApprovalExpired extends CountersignError {}

/** The one token of the request was issued, or the request is not this agent's. */
export class ApprovalUsed extends CountersignError {}

/** The operation was reported as done before, or its token is dead: do not do it. */
export class AlreadyCompleted extends CountersignError {}

/** A resource server does not take the token. */
export class TokenRejected extends CountersignError {}

/** The token has expired. */
export class TokenExpired extends TokenRejected {}

/** The token was revoked, or somebody on whom it depends was stopped. */
export class TokenRevoked extends TokenRejected {}

/** The token is good, and not for this. */
export class InsufficientScope extends TokenRejected {
  /** The capability that would be needed. */
  readonly scope: string

  constructor(details: ErrorDetails & { scope: string }) {
    super(details)
    this.scope = details.scope
  }
}

/** Nobody can tell whether the token is still alive: it is not taken, and the answer is 503. */
export class RevocationUnknown extends TokenRejected {}
