// The keys of the issuer: its own metadata says where they are, and no other key ever counts.

import { compactVerify, importJWK } from 'jose'
import type { CryptoKey } from 'jose'
import { at } from '../address.ts'
import { meaningless, read } from '../answers.ts'
import { Unavailable } from '../errors.ts'
import { isObject } from '../json.ts'
import type { Json, JsonObject } from '../json.ts'
import { Deadline, insist } from '../retry.ts'
import type { Transport } from '../transport.ts'
import { rejected } from './jws.ts'
import type { Unverified } from './jws.ts'

/** How long keys are kept at most, in milliseconds. */
const KEPT_MAX = 300_000
/** How far apart readings are that an unknown key causes, in milliseconds. */
const AGAIN_AFTER = 5000

/** A public key, and the algorithm for which it is. */
interface Key {
  alg: 'EdDSA' | 'ES256'
  key: CryptoKey
}

/** What the metadata of the issuer says (RFC 8414). */
export interface Metadata {
  issuer: string
  jwksUri: string
  revocationsEndpoint: string | undefined
}

/** Where keys are read. */
export interface KeysOptions {
  issuer: string
  caFile: string | undefined
  transport: Transport
  timeout: number
}

/** The issuer's keys, read when they are needed. */
export class IssuerKeys {
  readonly #options: KeysOptions
  #metadata: Promise<Metadata> | undefined
  #keys: Map<string, Key> | undefined
  #until = 0
  #readAt = -Infinity
  #flight: Promise<void> | undefined

  constructor(options: KeysOptions) {
    this.#options = options
  }

  /** @throws Unavailable if it cannot be read, or is of another issuer. */
  metadata(): Promise<Metadata> {
    this.#metadata ??= this.#discover().catch((error: unknown) => {
      this.#metadata = undefined
      throw error
    })
    return this.#metadata
  }

  /** @throws TokenRejected if the signature is not one of the issuer's; Unavailable if its keys cannot be read. */
  async verify(token: string, { alg, kid }: Unverified): Promise<void> {
    const key = await this.#find(kid)
    if (!key) throw rejected('unknown_key', 'the token is signed with a key that the issuer does not publish')
    if (key.alg !== (alg === 'Ed25519' ? 'EdDSA' : alg))
      throw rejected('algorithm_refused', 'the token is signed with another algorithm than that of its key')
    const isGood = await compactVerify(token, key.key, { algorithms: [alg] }).then(
      () => true,
      () => false,
    )
    if (!isGood) throw rejected('bad_signature', 'the signature of the token is not good')
  }

  async #find(kid: string): Promise<Key | undefined> {
    if (!this.#keys || performance.now() >= this.#until) await this.#readOnce()
    if (!this.#keys?.has(kid) && performance.now() - this.#readAt >= AGAIN_AFTER) await this.#readOnce()
    return this.#keys?.get(kid)
  }

  /** One reading for all who wait. */
  #readOnce(): Promise<void> {
    this.#flight ??= this.#read().finally(() => (this.#flight = undefined))
    return this.#flight
  }

  async #read(): Promise<void> {
    const { jwksUri } = await this.metadata()
    // A reading that failed counts too: an unknown key must not make many.
    this.#readAt = performance.now()
    const answer = read(await this.#get(jwksUri))
    if (!Array.isArray(answer.members.keys)) throw meaningless(answer, 'has no keys')
    this.#keys = await keysOf(answer.members.keys)
    this.#until = performance.now() + keptFor(answer.headers['cache-control'] ?? '')
  }

  async #discover(): Promise<Metadata> {
    const { issuer } = this.#options
    const answer = read(await this.#get(at(issuer, '/.well-known/oauth-authorization-server')))
    const { issuer: said, jwks_uri: jwksUri, countersign_revocations_endpoint: revocationsEndpoint } = answer.members
    if (said !== issuer) throw foreign('the metadata is that of another issuer')
    const isOwn = (url: Json | undefined): url is string =>
      typeof url === 'string' && URL.canParse(url) && new URL(url).origin === new URL(issuer).origin
    if (!isOwn(jwksUri)) throw foreign('the keys in the metadata are at another server than the issuer')
    if (revocationsEndpoint !== undefined && !isOwn(revocationsEndpoint))
      throw foreign('the revocations in the metadata are at another server than the issuer')
    return { issuer, jwksUri, revocationsEndpoint }
  }

  #get(url: string) {
    const { transport, caFile, timeout } = this.#options
    const deadline = new Deadline(timeout)
    return insist({ deadline, maxRetries: 2, isIdempotent: true }, () =>
      transport.send({ method: 'GET', url, caFile, within: deadline.attempt() }),
    )
  }
}

function foreign(message: string): Unavailable {
  return new Unavailable({
    code: 'wrong_issuer',
    message,
    advice: 'The issuer is compared byte by byte with the one that the verifier was given.',
  })
}

/** In milliseconds, by Cache-Control (RFC 9111 section 5.2). */
function keptFor(cacheControl: string): number {
  if (/\bno-(store|cache)\b/i.test(cacheControl)) return 0
  const seconds = /\bmax-age=(\d{1,9})\b/i.exec(cacheControl)?.[1]
  return seconds === undefined ? KEPT_MAX : Math.min(KEPT_MAX, Number(seconds) * 1000)
}

/** The keys by name. What is no key for signatures of a kind that is known is left out. */
async function keysOf(list: Json[]): Promise<Map<string, Key>> {
  const keys = new Map<string, Key>()
  for (const jwk of list) {
    if (!isObject(jwk) || typeof jwk.kid !== 'string' || (jwk.use !== undefined && jwk.use !== 'sig')) continue
    const alg = algorithmOf(jwk)
    const key = alg && (await importJWK(publicPart(jwk), alg).catch(() => undefined))
    if (key && !(key instanceof Uint8Array)) keys.set(jwk.kid, { alg, key })
  }
  return keys
}

/** The one algorithm of a key: its kind and its own `alg` must agree. */
function algorithmOf({ kty, crv, alg }: JsonObject): Key['alg'] | undefined {
  if (kty === 'OKP' && crv === 'Ed25519' && (alg === undefined || alg === 'EdDSA' || alg === 'Ed25519')) return 'EdDSA'
  return kty === 'EC' && crv === 'P-256' && (alg === undefined || alg === 'ES256') ? 'ES256' : undefined
}

function publicPart({ kty, crv, x, y }: JsonObject): Record<string, string> {
  const members = Object.entries({ kty, crv, x, y }).filter((entry): entry is [string, string] => typeof entry[1] === 'string')
  return Object.fromEntries(members)
}
