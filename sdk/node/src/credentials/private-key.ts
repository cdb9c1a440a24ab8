// An Ed25519 key of the agent's own (docs/keys.md): an assertion for each request.

import { randomBytes, createPrivateKey } from 'node:crypto'
import type { KeyObject } from 'node:crypto'
import { readFile, stat } from 'node:fs/promises'
import { SignJWT } from 'jose'
import { CredentialInvalid } from '../errors.ts'
import { AssertionCredential } from './credential.ts'
import type { AssertionContext } from './credential.ts'

/** How long an assertion lives, in seconds: at most 60, and a clock may be 5 s off. */
const LIFE = 55

/** A private key. Each assertion counts once, so one is made for every request and attempt. */
export class PrivateKey extends AssertionCredential {
  readonly #source: string
  readonly #clientId: string
  readonly #kid: string | undefined
  #key: Promise<KeyObject> | undefined

  /**
   * @param source the path of a file (PKCS#8, PEM) that nobody else may read, or the PEM itself.
   * @param options `clientId` is the agent, `agent:<namespace>/<name>`; `kid` the key's name, if the Agent lists several.
   */
  constructor(source: string, options: { clientId: string; kid?: string | undefined }) {
    super()
    if (!/^agent:[^/]+\/[^/]+$/.test(options.clientId))
      throw invalid('the client id is not agent:<namespace>/<name>', 'Set COUNTERSIGN_CLIENT_ID to the Agent.')
    this.#source = source
    this.#clientId = options.clientId
    this.#kid = options.kid
  }

  describe(): string {
    const where = isPem(this.#source) ? 'in memory' : this.#source
    return `PrivateKey ${where} of ${this.#clientId}`
  }

  override agent(): string {
    return this.#clientId
  }

  async assertion({ issuer }: AssertionContext): Promise<string> {
    // A key that could not be read is read again the next time.
    this.#key ??= read(this.#source).catch((error: unknown) => {
      this.#key = undefined
      throw error
    })
    const header = { alg: 'EdDSA', typ: 'client-authentication+jwt', ...(this.#kid === undefined ? {} : { kid: this.#kid }) }
    const now = Math.floor(Date.now() / 1000)
    const claims = new SignJWT({ jti: randomBytes(16).toString('base64url') }).setProtectedHeader(header)
    return claims
      .setIssuer(this.#clientId)
      .setSubject(this.#clientId)
      .setAudience(issuer)
      .setIssuedAt(now)
      .setExpirationTime(now + LIFE)
      .sign(await this.#key)
  }
}

function isPem(source: string): boolean {
  return source.includes('-----BEGIN')
}

async function read(source: string): Promise<KeyObject> {
  const pem = isPem(source) ? source : await readPrivate(source)
  const where = isPem(source) ? 'the private key' : source
  let key: KeyObject
  try {
    key = createPrivateKey(pem)
  } catch {
    throw invalid(`${where} holds no private key in PEM`, 'Make one with `countersign keygen`.')
  }
  if (key.asymmetricKeyType !== 'ed25519') throw invalid(`${where} holds a key that is not Ed25519`, 'Make one with `countersign keygen`.')
  return key
}

async function readPrivate(path: string): Promise<string> {
  try {
    // On Windows there are no such bits.
    const isOpen = process.platform !== 'win32' && ((await stat(path)).mode & 0o077) !== 0
    if (isOpen)
      throw invalid(
        `${path} may be read by others than its owner`,
        `Run chmod 600 ${path}; if somebody may have read it, make another key.`,
      )
    return await readFile(path, 'utf8')
  } catch (error) {
    if (error instanceof CredentialInvalid) throw error
    throw invalid(`${path} cannot be read`, 'COUNTERSIGN_PRIVATE_KEY_FILE names the file with the private key.')
  }
}

function invalid(message: string, advice: string): CredentialInvalid {
  return new CredentialInvalid({ code: 'credential_invalid', message, advice })
}
