// Tokens that are kept: replaced early and by one request, whoever asks meanwhile.

import { debug } from './debug.ts'
import { AccessDenied, Refused, Unauthenticated } from './errors.ts'
import type { AccessToken } from './token.ts'

/** How many tokens are kept. The one that was not asked for longest goes first. */
const ENTRIES_MAX = 128
/** How long before its end a token is replaced at the latest, in seconds. */
const MARGIN = 30
/** How long a replacement that was not answered waits for the next, in seconds. */
const PAUSE = 3

interface Entry {
  token: AccessToken
  /** Until when it is handed out, in seconds since the epoch. */
  until: number
  /** From when on it is replaced, in seconds since the epoch. */
  refreshAt: number
  isRefreshing: boolean
}

/** Tokens by for whom, for what and from what they are. */
export class TokenCache {
  readonly #entries = new Map<string, Entry>()
  readonly #flights = new Map<string, Promise<AccessToken>>()
  readonly #now: () => number

  /** @param now the time in seconds since the epoch. */
  constructor(now: () => number = () => Date.now() / 1000) {
    this.#now = now
  }

  /**
   * A token that lives. However many ask at once, `obtain` is at work once for each `key`.
   *
   * @param isFresh whether none that is kept will do.
   * @param endsBy until when it is kept at the latest, in seconds since the epoch.
   */
  async get(key: string, obtain: () => Promise<AccessToken>, isFresh = false, endsBy = Infinity): Promise<AccessToken> {
    const entry = isFresh ? undefined : this.#alive(key)
    if (!entry) return this.#fly(key, obtain, isFresh, endsBy)
    if (this.#now() >= entry.refreshAt && !entry.isRefreshing) this.#refresh(key, entry, obtain, endsBy)
    return entry.token
  }

  /** Forgets all. */
  clear(): void {
    this.#entries.clear()
  }

  #alive(key: string): Entry | undefined {
    const entry = this.#entries.get(key)
    if (!entry) return undefined
    this.#entries.delete(key)
    if (this.#now() >= entry.until) return undefined
    // Last in the order of the map: asked for just now.
    this.#entries.set(key, entry)
    return entry
  }

  /** One flight for all who wait. Who gives up does not end it for the others. */
  #fly(key: string, obtain: () => Promise<AccessToken>, isFresh: boolean, endsBy: number): Promise<AccessToken> {
    const name = isFresh ? `fresh ${key}` : key
    const flying = this.#flights.get(name)
    if (flying) return flying
    const flight = this.#obtain(key, obtain, endsBy).finally(() => this.#flights.delete(name))
    this.#flights.set(name, flight)
    return flight
  }

  async #obtain(key: string, obtain: () => Promise<AccessToken>, endsBy: number): Promise<AccessToken> {
    const asked = this.#now()
    try {
      const token = await obtain()
      this.#keep(key, token, asked, endsBy)
      return token
    } catch (error) {
      this.#drop(key, error)
      throw error
    }
  }

  #refresh(key: string, entry: Entry, obtain: () => Promise<AccessToken>, endsBy: number): void {
    entry.isRefreshing = true
    const later = (error: unknown) => {
      // Who asked has a token. If it was a refusal the token is dropped, and the next one who asks hears it.
      debug('a token could not be replaced: %s', error instanceof Error ? error.name : 'unknown')
      entry.isRefreshing = false
      entry.refreshAt = this.#now() + PAUSE
    }
    this.#fly(key, obtain, false, endsBy).catch(later)
  }

  #keep(key: string, token: AccessToken, asked: number, endsBy: number): void {
    const until = Math.min(token.expiresAt, endsBy)
    const life = until - asked
    const jitter = 0.9 + Math.random() * 0.2
    const refreshAt = Math.min(asked + life * (2 / 3) * jitter, until - Math.min(MARGIN, life / 3))
    this.#entries.delete(key)
    if (life > 0) this.#entries.set(key, { token, until, refreshAt, isRefreshing: false })
    for (const oldest of this.#entries.keys()) {
      if (this.#entries.size <= ENTRIES_MAX) break
      this.#entries.delete(oldest)
    }
  }

  /** What was refused is not handed out any more; with the credential itself nothing is. */
  #drop(key: string, error: unknown): void {
    if (error instanceof Unauthenticated) this.clear()
    else if (error instanceof Refused || error instanceof AccessDenied) this.#entries.delete(key)
  }
}
