// How often a request may be looked at: `interval`, and longer once the service says `slow_down` (CIBA Core section 11).

import type { ApprovalPending } from './errors.ts'
import type { Deadline } from './retry.ts'

/** How much longer the pause becomes with each `slow_down`, in seconds. */
const SLOW_DOWN = 5
const INTERVAL_MAX = 60
/** For how many requests it is remembered. */
const REQUESTS_MAX = 1024

/** The pace of one request. */
export class Pace {
  /** How far apart looks are, in seconds. */
  interval: number
  #next = 0
  #last: Promise<unknown> = Promise.resolve()
  #waiting = 0

  constructor(interval: number) {
    this.interval = interval
  }

  /** In how many milliseconds the next look may begin. */
  get pause(): number {
    return Math.max(0, this.#next - performance.now())
  }

  /** A look begins. */
  begin(): void {
    this.#next = performance.now() + this.interval * 1000
  }

  /** An answer that nobody has decided has come, after it was held for so many seconds. When the look had arrived, the service alone knows. */
  answered(hold: number): void {
    this.#next = Math.max(this.#next, performance.now() + (this.interval - hold) * 1000)
  }

  /** The service wants it slower from now on. */
  slowDown(): void {
    this.interval = Math.min(INTERVAL_MAX, this.interval + SLOW_DOWN)
    this.#next = performance.now() + this.interval * 1000
  }

  /** One look at a time: two at once would be one too soon. Whoever does not get a turn until `until` hears `pending`. */
  async alone<T>(until: Deadline, pending: () => ApprovalPending, work: () => Promise<T>): Promise<T> {
    const before = this.#last
    const isFree = this.#waiting === 0
    this.#waiting += 1
    let release = () => {}
    const mine = new Promise<void>((resolve) => (release = resolve))
    this.#last = before.then(() => mine)
    try {
      if (!isFree) await withinTime(before, until, pending)
      return await work()
    } finally {
      this.#waiting -= 1
      release()
    }
  }
}

async function withinTime(turn: Promise<unknown>, until: Deadline, pending: () => ApprovalPending): Promise<void> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(pending()), until.left)
  })
  await Promise.race([turn, late]).finally(() => clearTimeout(timer))
}

/** The paces of all requests that are looked at. */
export class Paces {
  readonly #paces = new Map<string, Pace>()

  of(id: string, interval: number): Pace {
    const known = this.#paces.get(id)
    if (known) return known
    for (const oldest of this.#paces.keys()) {
      if (this.#paces.size < REQUESTS_MAX) break
      this.#paces.delete(oldest)
    }
    const pace = new Pace(interval)
    this.#paces.set(id, pace)
    return pace
  }

  forget(id: string): void {
    this.#paces.delete(id)
  }
}
