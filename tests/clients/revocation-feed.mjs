// A verifier that works offline: it follows the revocation feed, and knows within a second that a token is dead.

import { createHash } from 'node:crypto'
import { jwtVerify } from 'jose'

/** How long a stream may be silent. A heartbeat comes at least every second. */
const SILENCE = 3000
/** Pause before the stream is opened anew. */
const RETRY = 250

/** What the feed said last, and whether a token is alive by it. */
export class Revocations {
  #issuer
  #url
  #keys
  #state
  #stop = new AbortController()

  /** `keys` is what jose's createRemoteJWKSet returns. */
  constructor(issuer, url, keys) {
    this.#issuer = issuer
    this.#url = url
    this.#keys = keys
  }

  /** Follows the stream until `close`. Whatever goes wrong, the state that is there counts until it expires, and no longer. */
  async follow() {
    while (!this.#stop.signal.aborted) {
      await this.#read().catch(() => {})
      await new Promise((resolve) => setTimeout(resolve, RETRY))
    }
  }

  close() {
    this.#stop.abort()
  }

  /** Why a token whose signature, audience and times were verified is dead, or undefined if it is alive. */
  reason(claims, now = Date.now() / 1000) {
    const state = this.#state
    if (!state || now >= state.exp) return 'nobody can tell: the feed is older than it says'
    for (const link of claims.links) {
      if (state.agents[link.agent_uid] !== link.epoch) return `the tokens of ${link.sub} are dead`
      const revoked = state.revoked[link.agent_uid] ?? []
      if ([claims.jti, claims.txn, ...(claims.ancestors ?? [])].some((id) => revoked.includes(id))) return 'it is revoked'
      if (link.issuer && !state.issuers[link.issuer.uid]) return `the issuer that vouched for ${link.sub} is not trusted any more`
    }
    if (claims.user) {
      const issuer = state.issuers[claims.user.issuer.uid]
      if (!issuer) return 'the issuer that vouched for the user is not trusted any more'
      const name = claims.sub.slice('user:'.length)
      const key = createHash('sha256').update(`${claims.user.issuer.uid}:${name}`).digest('base64url')
      if ((issuer.users?.[key] ?? issuer.epoch) !== claims.user.epoch) return 'the tokens of the user are revoked'
    }
  }

  /** What is known, for whoever wants to look. */
  get state() {
    return this.#state
  }

  async #read() {
    const silence = new AbortController()
    let timer = setTimeout(() => silence.abort(), SILENCE)
    const signal = AbortSignal.any([silence.signal, this.#stop.signal])
    try {
      const response = await fetch(this.#url, { headers: { accept: 'text/event-stream' }, signal })
      if (response.status !== 200) throw new Error(`status ${response.status}`)
      let text = ''
      for await (const chunk of response.body.pipeThrough(new TextDecoderStream())) {
        clearTimeout(timer)
        timer = setTimeout(() => silence.abort(), SILENCE)
        const events = (text + chunk).split('\n\n')
        text = events.pop()
        for (const event of events) await this.#take(event)
      }
    } finally {
      clearTimeout(timer)
    }
  }

  async #take(text) {
    const event = Object.fromEntries(text.split('\n').map((line) => line.split(/: ?(.*)/s, 2)))
    const verified = async (typ) => {
      const rules = { issuer: this.#issuer, typ, algorithms: ['EdDSA'], requiredClaims: ['exp', 'as_of', 'id'] }
      return (await jwtVerify(event.data, this.#keys, rules)).payload
    }
    const state = this.#state
    if (event.event === 'snapshot') {
      this.#state = await verified('revocations+jwt')
    } else if (event.event === 'change') {
      const change = await verified('revocations-change+jwt')
      if (change.prev !== state?.id) throw new Error('a change was missed')
      const merge = (member) => {
        const merged = { ...state[member], ...change[member] }
        for (const [key, value] of Object.entries(merged)) if (value === null) delete merged[key]
        return merged
      }
      const { exp, iat, as_of, id } = change
      this.#state = { exp, iat, as_of, id, agents: merge('agents'), revoked: merge('revoked'), issuers: merge('issuers') }
    } else if (event.event === 'heartbeat') {
      const { exp, iat, as_of, id } = await verified('revocations-heartbeat+jwt')
      if (id !== state?.id) throw new Error('a change was missed')
      this.#state = { ...state, exp, iat, as_of }
    } else if (event.event === 'stale') {
      this.#state = undefined
    }
  }
}
