// The keys of a fake authority, and what it signs.

import { generateKeyPairSync, randomBytes } from 'node:crypto'
import type { KeyObject } from 'node:crypto'
import { SignJWT, calculateJwkThumbprint, compactVerify } from 'jose'
import type { JWK } from 'jose'
import { unverifiedClaims } from '../claims.ts'
import type { JsonObject } from '../json.ts'

/** With what a token can be signed. */
export type FakeAlgorithm = 'EdDSA' | 'ES256'

interface Key {
  kid: string
  alg: FakeAlgorithm
  privateKey: KeyObject
  publicKey: KeyObject
  jwk: JWK
}

/** Real keys, of each kind one. */
export class FakeKeys {
  #keys: Key[] = []
  #old: Key[] = []

  /** Makes new keys. The old ones stay published only if they are kept. */
  async rotate(keepsOld: boolean): Promise<void> {
    this.#old = keepsOld ? [...this.#old, ...this.#keys] : []
    this.#keys = [await makeKey('EdDSA'), await makeKey('ES256')]
  }

  /** The public keys (RFC 7517). */
  jwks(): { keys: JWK[] } {
    return { keys: [...this.#keys, ...this.#old].map(({ jwk }) => jwk) }
  }

  async sign(typ: string, claims: JsonObject, alg: FakeAlgorithm = 'EdDSA'): Promise<string> {
    const key = this.#keys.find((key) => key.alg === alg)
    if (!key) throw new Error('the authority has not been started')
    return new SignJWT(claims).setProtectedHeader({ alg, typ, kid: key.kid }).sign(key.privateKey)
  }

  /** The claims of a token of ours that is alive. */
  async read(token: string, now: number): Promise<JsonObject | undefined> {
    const claims = unverifiedClaims(token)
    if (!claims || typeof claims.exp !== 'number' || claims.exp <= now) return undefined
    for (const { publicKey } of [...this.#keys, ...this.#old]) {
      const isOurs = await compactVerify(token, publicKey).then(
        () => true,
        () => false,
      )
      if (isOurs) return claims
    }
    return undefined
  }
}

async function makeKey(alg: FakeAlgorithm): Promise<Key> {
  const pair = alg === 'EdDSA' ? generateKeyPairSync('ed25519') : generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const jwk = pair.publicKey.export({ format: 'jwk' }) as JWK
  const kid = await calculateJwkThumbprint(jwk)
  return { kid, alg, privateKey: pair.privateKey, publicKey: pair.publicKey, jwk: { ...jwk, kid, alg, use: 'sig' } }
}

/** A new identifier of 128 bits. */
export function newId(): string {
  return randomBytes(16).toString('base64url')
}
