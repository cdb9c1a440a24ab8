// A token in a file, such as the kubelet writes and renews.

import { readFile } from 'node:fs/promises'
import { CredentialInvalid } from '../errors.ts'
import { AssertionCredential, usable } from './credential.ts'

/** Where a pod has its token by default. */
export const DEFAULT_TOKEN_FILE = '/var/run/secrets/countersign/token'

/** A token in a file. It is read anew for each use, because the kubelet replaces it. */
export class TokenFile extends AssertionCredential {
  readonly #path: string

  constructor(path: string = DEFAULT_TOKEN_FILE) {
    super()
    this.#path = path
  }

  describe(): string {
    return `TokenFile ${this.#path}`
  }

  async assertion(): Promise<string> {
    let text: string
    try {
      text = await readFile(this.#path, 'utf8')
    } catch {
      const advice = 'Mount a projected ServiceAccount token for the issuer, or name another file with COUNTERSIGN_TOKEN_FILE.'
      throw new CredentialInvalid({ code: 'credential_invalid', message: `${this.#path} cannot be read`, advice })
    }
    return usable(text, this.#path)
  }
}
