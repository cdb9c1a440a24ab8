// What proves who the agent is.

import { inspect } from 'node:util'
import { CredentialInvalid } from '../errors.ts'
import type { Deadline } from '../retry.ts'
import type { Transport } from '../transport.ts'

/** For whom an assertion is made. */
export interface AssertionContext {
  /** The issuer's URL, which is the assertion's only audience. */
  issuer: string
  transport: Transport
  deadline: Deadline
}

/** A credential: one of {@link Sidecar}, {@link TokenFile}, {@link PrivateKey} and {@link Cloud}, or one's own. */
export abstract class Credential {
  /** Which it is, in a few words without secrets. */
  abstract describe(): string

  /** The agent, `agent:<namespace>/<name>`, if the credential itself says so. */
  agent(): string | undefined {
    return undefined
  }

  toString(): string {
    return this.describe()
  }

  toJSON(): string {
    return this.describe()
  }

  [inspect.custom](): string {
    return `Credential(${this.describe()})`
  }
}

/** A credential that is sent to the service with each request, as `client_assertion` (RFC 7523 section 2.2). */
export abstract class AssertionCredential extends Credential {
  /** A new assertion, or the token as it is now. @throws CredentialInvalid */
  abstract assertion(context: AssertionContext): Promise<string>
}

/** Longest credential, in bytes: the limit of the service. */
const CREDENTIAL_MAX = 8 * 1024

/** `text` as a credential that can be sent. `what` names where it is from. @throws CredentialInvalid */
export function usable(text: string, what: string): string {
  const token = text.trim()
  if (token !== '' && token.length <= CREDENTIAL_MAX && /^[!-~]+$/.test(token)) return token
  throw new CredentialInvalid({
    code: 'credential_invalid',
    message: `${what} holds no token`,
    advice: 'It must be one token, of at most 8 KiB of printable ASCII.',
  })
}
