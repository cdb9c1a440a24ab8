// What all middleware does: the metadata, the token of each request, the answer for whoever has none.

import { bearerOf, challengeOf, metadataUrl } from './challenge.ts'
import type { Challenge, ResourceMetadata } from './challenge.ts'
import type { VerifiedToken } from './verified.ts'
import type { Verifier } from './verifier.ts'

/** How a server is protected. */
export interface ProtectionOptions {
  verifier: Verifier
  /** The URL of this server, by which clients find its metadata. Without it, the audience of the verifier, which must be a URL then. */
  resource?: string | undefined
  /** The capabilities that can be asked for, for the metadata. */
  scopes?: readonly string[] | undefined
  /** The name of the server, for people. */
  name?: string | undefined
}

/** One protected server, whatever framework serves it. */
export class Protection {
  /** The path of the metadata. */
  readonly metadataPath: string
  readonly metadata: ResourceMetadata
  readonly #verifier: Verifier
  readonly #metadataUrl: string

  /** @throws ConfigurationError if the resource is no URL. */
  constructor({ verifier, resource = verifier.audience, scopes, name }: ProtectionOptions) {
    const url = metadataUrl(resource)
    this.#verifier = verifier
    this.#metadataUrl = url.href
    this.metadataPath = url.pathname
    this.metadata = {
      resource,
      authorization_servers: [verifier.issuer],
      bearer_methods_supported: ['header'],
      ...(scopes ? { scopes_supported: [...scopes] } : {}),
      ...(name === undefined ? {} : { resource_name: name }),
    }
  }

  /** The token of a request, verified. @throws TokenRejected and its kin, Unavailable */
  authenticate(rawHeaders: readonly string[]): Promise<{ token: string; verified: VerifiedToken }> {
    return Promise.resolve().then(async () => {
      const token = bearerOf(rawHeaders)
      return { token, verified: await this.#verifier.verify(token) }
    })
  }

  /** The answer for an error. */
  challenge(error: unknown): Challenge {
    return challengeOf(error, this.#metadataUrl)
  }
}
