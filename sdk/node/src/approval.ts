// A request that a person decides, and looking whether somebody has (CIBA Core 1.0, poll mode).

import { isPassing, meaningless, read, refusal } from './answers.ts'
import type { Answer } from './answers.ts'
import {
  ApprovalDenied,
  ApprovalExpired,
  ApprovalPending,
  ApprovalUsed,
  ConfigurationError,
  CountersignError,
  Unavailable,
} from './errors.ts'
import { isObject } from './json.ts'
import type { Json, JsonObject } from './json.ts'
import { Operation } from './operation.ts'
import { Paces } from './pace.ts'
import type { Pace } from './pace.ts'
import { Deadline, sleep, unanswered } from './retry.ts'
import type { Call, Service } from './service/service.ts'
import { readToken } from './token.ts'
import type { AccessToken } from './token.ts'
import { TransportFailure } from './transport.ts'
import type { HttpAnswer } from './transport.ts'

/** How long the service holds a look, in seconds. */
const HOLD_MAX = 25
/** How far apart looks are, in seconds, if nobody says. */
const INTERVAL = 2
/** The pause after a look that was not answered, in milliseconds; it doubles with each. */
const PAUSE = 250
const PAUSE_MAX = 5000

/** A request that a person decides. It can be kept as JSON, and another process can go on with it. */
export class ApprovalRequest {
  readonly id: string
  /** Until when it can be decided, in seconds since the epoch; unknown if only its id is known. */
  readonly expiresAt: number | undefined
  /** How far apart looks are, in seconds. */
  readonly interval: number
  /** What is asked; unknown if only its id is known. */
  readonly operation: Operation | undefined

  constructor(fields: { id: string; expiresAt?: number | undefined; interval?: number | undefined; operation?: Operation | undefined }) {
    if (!/^[A-Za-z0-9_-]{1,128}$/.test(fields.id)) {
      throw new ConfigurationError({ code: 'request_malformed', message: 'the id of a request for approval is none that was given out' })
    }
    this.id = fields.id
    this.expiresAt = fields.expiresAt
    this.interval = fields.interval ?? INTERVAL
    this.operation = fields.operation
    Object.freeze(this)
  }

  toJSON(): JsonObject {
    const operation: Json = this.operation?.toJSON() ?? null
    return { id: this.id, expires_at: this.expiresAt ?? null, interval: this.interval, operation }
  }

  /** Reads what {@link toJSON} wrote. @throws ConfigurationError if it did not. */
  static fromJSON(value: unknown): ApprovalRequest {
    if (!isObject(value) || typeof value.id !== 'string') {
      throw new ConfigurationError({ code: 'request_malformed', message: 'this is no request for approval that was written by toJSON' })
    }
    const number = (member: Json | undefined) => (typeof member === 'number' ? member : undefined)
    const operation = isObject(value.operation) ? Operation.fromJSON(value.operation) : undefined
    return new ApprovalRequest({ id: value.id, expiresAt: number(value.expires_at), interval: number(value.interval), operation })
  }
}

/** Reads the acknowledgement of a request (CIBA Core section 7.3). @throws Unavailable */
export function readRequest(answer: Answer, operation: Operation, now: number): ApprovalRequest {
  const { auth_req_id: id, expires_in: life, interval } = answer.members
  if (typeof id !== 'string' || typeof life !== 'number') throw meaningless(answer, 'has no auth_req_id and expires_in')
  return new ApprovalRequest({ id, expiresAt: now + life, interval: typeof interval === 'number' ? interval : undefined, operation })
}

/** Looks at requests, as often as the service allows each. */
export class Approvals {
  readonly #service: Service
  readonly #paces = new Paces()

  constructor(service: Service) {
    this.#service = service
  }

  /**
   * The token of a request, waiting for the decision for at most `wait` seconds.
   *
   * @throws ApprovalPending if nobody has decided by then; ApprovalDenied, ApprovalExpired, ApprovalUsed; Unavailable.
   */
  async look(request: ApprovalRequest, wait: number, makeCall: () => Call): Promise<AccessToken> {
    const until = new Deadline(wait)
    const pace = this.#paces.of(request.id, request.interval)
    return pace.alone(
      until,
      () => pendingOf(request, pace.interval),
      async () => {
        for (;;) {
          await turn(pace, until, request, makeCall().signal)
          // What it has waited is not of the time in which the service must answer.
          const outcome = await this.#once(request, pace, until, makeCall())
          if (!(outcome instanceof ApprovalPending)) return outcome
          if (until.left <= 0) throw outcome
        }
      },
    )
  }

  /** The same, and an answer that does not come ends nothing before `timeout` seconds are over. */
  async wait(request: ApprovalRequest, timeout: number, makeCall: () => Call): Promise<AccessToken> {
    const until = new Deadline(timeout)
    for (let pause = PAUSE; ; pause = Math.min(PAUSE_MAX, pause * 2)) {
      try {
        return await this.look(request, until.left / 1000, makeCall)
      } catch (error) {
        if (error instanceof Unavailable && until.left > 0) {
          await sleep(Math.min(until.left, Math.max(pause, (error.retryAfter ?? 0) * 1000)), makeCall().signal)
          continue
        }
        throw error instanceof Unavailable ? pendingOf(request, request.interval) : error
      }
    }
  }

  /** Forgets how often a request may be looked at: it has ended. */
  forget(id: string): void {
    this.#paces.forget(id)
  }

  async #once(request: ApprovalRequest, pace: Pace, until: Deadline, call: Call): Promise<AccessToken | ApprovalPending<ApprovalRequest>> {
    const hold = Math.min(HOLD_MAX, Math.floor(until.left / 1000))
    const asked = Date.now() / 1000
    pace.begin()
    const answer = await this.#service
      .poll(request.id, hold, { ...call, deadline: new Deadline(hold + call.deadline.left / 1000) })
      .catch((error: unknown) => {
        call.signal?.throwIfAborted()
        throw error instanceof TransportFailure ? unanswered(error, false) : error
      })
    const error = approvalError(answer, request)
    if (error instanceof ApprovalPending) {
      if (error.code === 'slow_down') pace.slowDown()
      else pace.answered(hold)
      return error
    }
    if (!isPassing(answer.status)) this.forget(request.id)
    if (error) throw error
    return readToken(read(answer), asked)
  }
}

/** Waits until the request may be looked at. @throws ApprovalPending if that is after `until`. */
async function turn(pace: Pace, until: Deadline, request: ApprovalRequest, signal: AbortSignal | undefined): Promise<void> {
  const { pause } = pace
  if (pause <= 0) return
  if (pause > until.left) {
    await sleep(until.left, signal)
    throw pendingOf(request, Math.max(0, pace.pause / 1000))
  }
  // A timer may be early by less than a millisecond.
  await sleep(Math.ceil(pause) + 1, signal)
}

function pendingOf(
  request: ApprovalRequest,
  retryAfter: number,
  code = 'authorization_pending',
  answer?: CountersignError,
): ApprovalPending<ApprovalRequest> {
  const advice = `Look again later, with the same request. A person approves with: kubectl countersign approve ${request.id}`
  const message = `nobody has decided yet about request ${request.id}`
  return new ApprovalPending({ code, message, advice, request, retryAfter, requestId: answer?.requestId, status: answer?.status })
}

/** The error for an answer to a look; `undefined` if it is 2xx. */
export function approvalError(answer: HttpAnswer, request: ApprovalRequest): CountersignError | undefined {
  if (answer.status >= 200 && answer.status <= 299) return undefined
  const error = refusal(answer)
  const { code, message, requestId, status } = error
  const details = { code, message, requestId, status }
  if (status !== 400) return error
  switch (code) {
    case 'authorization_pending':
    case 'slow_down':
      return pendingOf(request, request.interval, code, error)
    case 'access_denied':
      return new ApprovalDenied({ ...details, advice: 'Do not ask the same again without a change.' })
    case 'expired_token':
      return new ApprovalExpired({ ...details, advice: 'File another request if it is still needed.' })
    case 'invalid_grant':
      return new ApprovalUsed({ ...details, advice: 'An approval is used once. File another request if the operation was not done.' })
    default:
      return error
  }
}
