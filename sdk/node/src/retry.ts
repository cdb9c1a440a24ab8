// Asking again: what may be asked again, when, and until when.

import { isPassing, retryAfter } from './answers.ts'
import { DeadlineExceeded, Unavailable } from './errors.ts'
import type { CountersignError } from './errors.ts'
import { TransportFailure } from './transport.ts'
import type { HttpAnswer } from './transport.ts'

/** The pause before the second attempt, in milliseconds; it doubles with each. */
const PAUSE = 100
/** The longest it grows, in milliseconds. */
const PAUSE_MAX = 2000
/** How long one attempt may take, in milliseconds. The service itself gives up after 10 s. */
const ATTEMPT = 12_000

/** A moment after which nothing is begun any more. */
export class Deadline {
  readonly #until: number

  /** @param seconds from now. */
  constructor(seconds: number) {
    this.#until = performance.now() + seconds * 1000
  }

  /** Milliseconds that are left; never less than 0. */
  get left(): number {
    return Math.max(0, this.#until - performance.now())
  }

  /** How long an attempt may take, in milliseconds, which the service may hold for so many seconds. */
  attempt(hold = 0): number {
    return Math.max(1, Math.min(this.left, ATTEMPT + hold * 1000))
  }
}

/** How often and how long to try. */
export interface Patience {
  deadline: Deadline
  /** How many times more, after the first. */
  maxRetries: number
  signal?: AbortSignal | undefined
  /** Whether the request may arrive twice. If not, it is sent again only if it has certainly not arrived. */
  isIdempotent: boolean
}

/**
 * The answer to a request, asked for again while it may be answered otherwise. An answer of any status is an answer once no retry is left.
 *
 * @throws Unavailable if there is none.
 */
export async function insist(patience: Patience, attempt: () => Promise<HttpAnswer>): Promise<HttpAnswer> {
  const { deadline, maxRetries, signal } = patience
  for (let tries = 0; ; tries += 1) {
    const outcome = await attempt().catch((error: unknown) => {
      if (error instanceof TransportFailure) return error
      throw error
    })
    signal?.throwIfAborted()
    const isLast = tries >= maxRetries || !mayRepeat(outcome, patience.isIdempotent)
    const pause = pauseAfter(outcome, tries)
    if (!isLast && pause < deadline.left) {
      await sleep(pause, signal)
      continue
    }
    if (!(outcome instanceof TransportFailure)) return outcome
    throw unanswered(outcome, deadline.left <= 0)
  }
}

function mayRepeat(outcome: HttpAnswer | TransportFailure, isIdempotent: boolean): boolean {
  if (outcome instanceof TransportFailure) return isIdempotent || outcome.kind === 'unsent'
  // 429 comes before anything is done; 502 to 504 may come after.
  return isPassing(outcome.status) && (isIdempotent || outcome.status === 429)
}

/** In milliseconds: what the service says, else a pause that grows, with jitter so that not all ask again at once. */
function pauseAfter(outcome: HttpAnswer | TransportFailure, tries: number): number {
  const said = outcome instanceof TransportFailure ? undefined : retryAfter(outcome.headers)
  const grown = Math.min(PAUSE_MAX, PAUSE * 2 ** tries) * (0.5 + Math.random() / 2)
  return said === undefined ? grown : Math.max(said * 1000, grown)
}

/** The error for no answer. */
export function unanswered(failure: TransportFailure, isOver: boolean): CountersignError {
  if (isOver || failure.kind === 'timeout') {
    const message = `no answer in time: ${failure.message}`
    return new DeadlineExceeded({ code: 'deadline_exceeded', message, advice: 'Try again, or give it more time (timeout).' })
  }
  const advice = 'Look whether the service runs and the address is right. Nothing is allowed meanwhile.'
  return new Unavailable({ code: 'unanswered', message: `no answer: ${failure.message}`, advice })
}

/** Waits; with `signal`, no longer than until it is given up. */
export function sleep(milliseconds: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const given = () => {
      clearTimeout(timer)
      reject(signal?.reason)
    }
    const timer = setTimeout(() => {
      signal?.removeEventListener('abort', given)
      resolve()
    }, milliseconds)
    if (signal?.aborted) given()
    else signal?.addEventListener('abort', given, { once: true })
  })
}

/** `promise`, for one who may give up; whoever else waits for it goes on. */
export function until<T>(promise: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (!signal) return promise
  return new Promise((resolve, reject) => {
    const given = () => reject(signal.reason)
    if (signal.aborted) return given()
    signal.addEventListener('abort', given, { once: true })
    promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', given))
  })
}
