// The requests for approval at a fake authority.

import { randomUUID } from 'node:crypto'
import type { JsonObject } from '../json.ts'
import { FakeRefusal, refuse } from './refusal.ts'
import { sameOperation } from './world.ts'

/** Where a request is in its life. */
export type FakePhase = 'Pending' | 'Approved' | 'Denied' | 'Expired' | 'Withdrawn' | 'Issued' | 'Completed'

/** A request for approval. */
export interface FakeRequest {
  id: string
  agent: string
  /** `authorization_details` as they were sent. */
  operation: JsonObject
  audience: string
  justification: string | undefined
  phase: FakePhase
  /** In seconds since the epoch. */
  decideBy: number
  /** The one token, its `jti`, and when it was issued. */
  token?: JsonObject
  jti?: string
  issuedAt?: number
  /** What was said to a denial. */
  comment?: string
}

/** For how long the same token is given again, in seconds. */
const AGAIN = 10

/** The requests, by id and by idempotency key. */
export class FakeRequests {
  readonly all = new Map<string, FakeRequest>()
  readonly #keys = new Map<string, string>()
  readonly #next = new Map<string, number>()
  readonly #waiting = new Map<string, Set<() => void>>()

  /** Files one; the same key is the same request. */
  file(fields: Omit<FakeRequest, 'id' | 'phase'>, key: string | undefined): FakeRequest {
    const name = key === undefined ? undefined : `${fields.agent} ${key}`
    const known = name === undefined ? undefined : this.all.get(this.#keys.get(name) ?? '')
    if (known && !sameOperation(known.operation, fields.operation))
      throw new FakeRefusal(409, 'invalid_request', 'the Idempotency-Key was used for another request')
    if (known) return known
    const request: FakeRequest = { ...fields, id: randomUUID(), phase: 'Pending' }
    this.all.set(request.id, request)
    if (name !== undefined) this.#keys.set(name, request.id)
    return request
  }

  /** Moves a request on, and wakes who waits for it. */
  move(id: string, to: FakePhase, comment?: string): FakeRequest {
    const request = this.all.get(id)
    if (!request) throw new Error(`there is no request ${id}`)
    request.phase = to
    if (comment !== undefined) request.comment = comment
    for (const wake of this.#waiting.get(id) ?? []) wake()
    return request
  }

  /** An approval of exactly this that has no token yet. */
  approved(agent: string, operation: JsonObject): FakeRequest | undefined {
    return [...this.all.values()].find(
      (request) => request.agent === agent && request.phase === 'Approved' && sameOperation(request.operation, operation),
    )
  }

  /** Waits for the decision for so many seconds. @throws FakeRefusal for a poll that comes too soon */
  async wait(request: FakeRequest, seconds: number, interval: number): Promise<void> {
    if (request.phase !== 'Pending') return
    const now = performance.now()
    const isTooSoon = now < (this.#next.get(request.id) ?? 0) || (this.#waiting.get(request.id)?.size ?? 0) > 0
    this.#next.set(request.id, now + interval * 1000)
    if (isTooSoon) throw refuse('slow_down', 'polled too soon: pause 5 s longer between polls from now on')
    if (seconds <= 0) return
    const waiting = this.#waiting.get(request.id) ?? new Set()
    this.#waiting.set(request.id, waiting)
    await new Promise<void>((resolve) => {
      const wake = () => {
        clearTimeout(timer)
        waiting.delete(wake)
        resolve()
      }
      const timer = setTimeout(wake, seconds * 1000)
      waiting.add(wake)
    })
  }

  /** Ends all waiting. */
  wakeAll(): void {
    for (const waiting of this.#waiting.values()) for (const wake of waiting) wake()
  }

  /** What an agent that polls is told, if there is no new token for it; the token again, if it was issued a moment ago. */
  answer(request: FakeRequest, now: number): JsonObject | undefined {
    if (request.phase === 'Pending' && now >= request.decideBy) request.phase = 'Expired'
    switch (request.phase) {
      case 'Pending':
        throw refuse('authorization_pending', 'nobody has decided yet: poll again')
      case 'Denied':
      case 'Withdrawn':
        throw refuse('access_denied', request.comment ?? 'the request was denied or withdrawn')
      case 'Expired':
        throw refuse('expired_token', 'the request has expired: file another if it is still needed')
      case 'Approved':
        return undefined
      case 'Issued':
        if (request.token && now - (request.issuedAt ?? 0) <= AGAIN) return request.token
        throw refuse('invalid_grant', 'the one token of this request was issued, or the request was ended')
      case 'Completed':
        throw refuse('invalid_grant', 'the one token of this request was issued, or the request was ended')
    }
  }
}
