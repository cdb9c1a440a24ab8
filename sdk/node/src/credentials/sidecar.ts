// The sidecar (docs/sidecar.md): it holds the credential, so that this process holds none.

import { isLoopback, serverUrl } from '../address.ts'
import { ConfigurationError } from '../errors.ts'
import { Credential } from './credential.ts'

/** Asks the sidecar beside this process, which decides nothing and keeps the tokens. */
export class Sidecar extends Credential {
  /** Its address. */
  readonly url: string

  /** @throws ConfigurationError if it is not on the loopback address: a sidecar elsewhere is none. */
  constructor(url: string) {
    super()
    this.url = serverUrl(url, 'the address of the sidecar')
    if (!isLoopback(new URL(this.url).hostname)) {
      throw new ConfigurationError({
        code: 'url_invalid',
        message: 'the address of the sidecar is not a loopback address',
        advice: 'COUNTERSIGN_SIDECAR_URL is http://127.0.0.1:7710 or alike.',
      })
    }
  }

  describe(): string {
    return `Sidecar ${this.url}`
  }
}
