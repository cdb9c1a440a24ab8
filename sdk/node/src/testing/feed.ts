// The revocation feed of a fake authority.

import type { ServerResponse } from 'node:http'
import { sha256Base64url } from '../digest.ts'
import { canonicalJson } from '../json.ts'
import type { Json, JsonObject } from '../json.ts'
import type { FakeKeys } from './signing.ts'
import type { FakeWorld } from './world.ts'

/** How often the feed says that nothing has changed, in milliseconds. */
const BEAT = 500
/** How long a statement counts, in seconds. */
const LIFE = 10

interface Content {
  agents: JsonObject
  revoked: JsonObject
  issuers: JsonObject
}

/** Who follows, and what they were told. */
export class FakeFeed {
  readonly #followers = new Set<ServerResponse>()
  readonly #world: FakeWorld
  readonly #keys: FakeKeys
  readonly #issuer: () => string
  readonly #now: () => number
  #told: Content | undefined
  #beat: NodeJS.Timeout | undefined
  #queue: Promise<void> = Promise.resolve()

  constructor(world: FakeWorld, keys: FakeKeys, issuer: () => string, now: () => number) {
    this.#world = world
    this.#keys = keys
    this.#issuer = issuer
    this.#now = now
  }

  /** The whole state, for whoever polls. */
  snapshot(): Promise<{ id: string; statement: string }> {
    return this.#statement('revocations+jwt', this.#content(), {})
  }

  async heartbeat(): Promise<string> {
    return (await this.#statement('revocations-heartbeat+jwt', undefined, {})).statement
  }

  /** Somebody follows the stream. */
  follow(response: ServerResponse): void {
    response.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-store' })
    response.on('close', () => this.#followers.delete(response))
    this.#beat ??= setInterval(() => this.#then(async () => this.#tell('heartbeat', await this.heartbeat())), BEAT).unref()
    this.#then(async () => {
      this.#told ??= this.#content()
      response.write(event('snapshot', (await this.#statement('revocations+jwt', this.#told, {})).statement))
      this.#followers.add(response)
    })
  }

  /** Tells what has changed. It resolves when everybody was told. */
  changed(): Promise<void> {
    return this.#then(async () => {
      const [before, now] = [this.#told, this.#content()]
      this.#told = now
      if (!before || nameOf(before) === nameOf(now)) return
      const change = { agents: difference(before.agents, now.agents), revoked: difference(before.revoked, now.revoked), issuers: {} }
      this.#tell('change', (await this.#statement('revocations-change+jwt', change, { prev: nameOf(before), id: nameOf(now) })).statement)
    })
  }

  /** The authority cannot vouch for its view: every stream ends. */
  stale(): void {
    this.#tell('stale', 'the view of the cluster is too old')
    this.stop()
  }

  stop(): void {
    clearInterval(this.#beat)
    this.#beat = undefined
    for (const response of this.#followers) response.end()
    this.#followers.clear()
  }

  /** One after the other, so that nobody hears of a change before the state that it changes. */
  #then(work: () => Promise<void>): Promise<void> {
    this.#queue = this.#queue.then(work)
    return this.#queue
  }

  #tell(name: string, data: string): void {
    for (const response of this.#followers) response.write(event(name, data))
  }

  #content(): Content {
    const alive = [...this.#world.agents.values()].filter((agent) => !agent.isSuspended)
    return {
      agents: Object.fromEntries(alive.map(({ uid, epoch }) => [uid, epoch])),
      revoked: Object.fromEntries([...this.#world.revoked].filter(([, ids]) => ids.length > 0).map(([uid, ids]) => [uid, [...ids]])),
      issuers: { [FAKE_ISSUER_UID]: { epoch: 0 } },
    }
  }

  async #statement(typ: string, content: Content | undefined, more: JsonObject): Promise<{ id: string; statement: string }> {
    const now = Math.floor(this.#now())
    const id = typeof more.id === 'string' ? more.id : nameOf(content ?? this.#told ?? this.#content())
    const claims: JsonObject = {
      iss: this.#issuer(),
      iat: now,
      exp: now + LIFE,
      as_of: now,
      ...(content ? { ...content } : {}),
      ...more,
      id,
    }
    return { id, statement: await this.#keys.sign(typ, claims) }
  }
}

/** The UID of the one TrustedIssuer of users. */
export const FAKE_ISSUER_UID = '0b2d4c0e-6a0f-4f5b-9d0d-0a6f3b1d8f11'

function nameOf(content: Content): string {
  return sha256Base64url(canonicalJson(content))
}

function difference(before: JsonObject, now: JsonObject): JsonObject {
  const gone = Object.keys(before)
    .filter((name) => !(name in now))
    .map((name): [string, Json] => [name, null])
  const other = Object.entries(now).filter(([name, value]) => canonicalJson(value) !== canonicalJson(before[name] ?? null))
  return Object.fromEntries([...gone, ...other])
}

function event(name: string, data: string): string {
  return `event: ${name}\ndata: ${data}\n\n`
}
