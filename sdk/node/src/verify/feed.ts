// Follows the revocation feed: what is dead is known within a second, and what cannot be told is not taken.

import { debug } from '../debug.ts'
import { ConfigurationError, CountersignError } from '../errors.ts'
import type { JsonObject } from '../json.ts'
import { sleep } from '../retry.ts'
import type { Transport } from '../transport.ts'
import { eventsOf } from './events.ts'
import type { ServerEvent } from './events.ts'
import { STATEMENTS, applied, deadReason } from './feed-state.ts'
import type { DeadReason, FeedEvent, FeedState } from './feed-state.ts'
import { parseJws } from './jws.ts'
import type { IssuerKeys } from './keys.ts'

/** How long a stream may be silent, in milliseconds. A heartbeat comes at least every second. */
const SILENCE = 3000
/** The pause before the stream is opened anew, in milliseconds; it doubles with each that fails. */
const RETRY = 250
const RETRY_MAX = 5000

/** What a feed needs. */
export interface FeedOptions {
  issuer: string
  keys: IssuerKeys
  transport: Transport
  caFile: string | undefined
  /** The time in seconds since the epoch. */
  now: () => number
}

/** The state of the feed, followed from {@link start} to {@link stop}. The stream keeps the process alive until then. */
export class RevocationFeed {
  readonly #options: FeedOptions
  #state: FeedState | undefined
  /** When the state ends by the clock that only grows, in milliseconds: the other may be set back. */
  #until = 0
  #stop: AbortController | undefined
  #heard: (() => void)[] = []

  constructor(options: FeedOptions) {
    this.#options = options
  }

  /** Begins to follow, if it does not yet. */
  start(): void {
    if (this.#stop) return
    this.#stop = new AbortController()
    void this.#follow(this.#stop.signal)
  }

  /** Ends following, and forgets the state: nothing may be built on it any more. */
  stop(): void {
    this.#stop?.abort()
    this.#stop = undefined
    this.#state = undefined
  }

  /** Waits until there is a state that counts, for so many milliseconds at most. */
  async ready(patience: number): Promise<boolean> {
    if (!this.#counts()) {
      let heard = () => {}
      const told = new Promise<void>((resolve) => (heard = resolve))
      this.#heard.push(heard)
      const late = setTimeout(heard, patience)
      await told
      clearTimeout(late)
      this.#heard = this.#heard.filter((other) => other !== heard)
    }
    return this.#counts()
  }

  /** Why a token whose signature, audience and times were verified is dead; `unknown` if nobody can tell, `undefined` if it is alive. */
  reason(claims: Readonly<JsonObject>): DeadReason | undefined {
    return deadReason(this.#counts() ? this.#state : undefined, claims, this.#options.now())
  }

  /** What the feed said last. */
  get state(): Readonly<FeedState> | undefined {
    return this.#state
  }

  #counts(): boolean {
    return this.#state !== undefined && performance.now() < this.#until && this.#options.now() < this.#state.exp
  }

  async #follow(signal: AbortSignal): Promise<void> {
    let pause = RETRY
    while (!signal.aborted) {
      const began = performance.now()
      // Whatever goes wrong, the state that is there counts until it ends, and no longer.
      await this.#read(signal).catch((error: unknown) =>
        debug('the revocation feed ended: %s', error instanceof Error ? error.name : 'unknown'),
      )
      pause = performance.now() - began > RETRY_MAX ? RETRY : Math.min(RETRY_MAX, pause * 2)
      await sleep(pause / 2, signal).catch(() => undefined)
    }
  }

  async #read(signal: AbortSignal): Promise<void> {
    const { keys, transport, caFile } = this.#options
    const { revocationsEndpoint: url } = await keys.metadata()
    if (url === undefined)
      throw new ConfigurationError({ code: 'feed_missing', message: 'the metadata of the issuer names no revocation feed' })
    const silence = new AbortController()
    const headers = { accept: 'text/event-stream' }
    const stream = await transport.open({
      method: 'GET',
      url,
      headers,
      caFile,
      within: SILENCE,
      signal: AbortSignal.any([signal, silence.signal]),
    })
    let timer = setTimeout(() => silence.abort(), SILENCE)
    try {
      if (stream.status !== 200)
        throw new ConfigurationError({
          code: 'feed_refused',
          message: `the revocation feed answers ${stream.status}`,
          status: stream.status,
        })
      for await (const event of eventsOf(stream.chunks)) {
        clearTimeout(timer)
        timer = setTimeout(() => silence.abort(), SILENCE)
        if (signal.aborted || !(await this.#take(event))) return
      }
    } finally {
      clearTimeout(timer)
      stream.close()
    }
  }

  /** Whether to go on reading. */
  async #take({ event, data }: ServerEvent): Promise<boolean> {
    if (event === 'stale') {
      this.#state = undefined
      return false
    }
    // One that is not known yet says nothing that is understood.
    if (!(event in STATEMENTS)) return true
    const next = applied(this.#state, event as FeedEvent, await this.#verified(data, event as FeedEvent))
    if (!next || !this.#stop) return false
    // What is dead must not live again: of a replica that is behind, or by a statement that was sent before, nothing is learnt.
    if (this.#state && this.#counts() && next.as_of < this.#state.as_of) return false
    this.#state = next
    this.#until = performance.now() + (next.exp - next.iat) * 1000
    if (this.#counts()) for (const heard of this.#heard.splice(0)) heard()
    return true
  }

  async #verified(statement: string, event: FeedEvent): Promise<JsonObject> {
    const unverified = parseJws(statement, STATEMENTS[event], STATEMENT_MAX)
    await this.#options.keys.verify(statement, unverified)
    const { claims } = unverified
    if (claims.iss === this.#options.issuer) return claims
    throw new CountersignError({ code: 'wrong_issuer', message: 'a statement of the revocation feed is of another issuer' })
  }
}

/** Longest statement, in characters. */
const STATEMENT_MAX = 64 * 1024 * 1024
