// What a resource server asks the service with its own credential.

import type { Answer } from '../answers.ts'
import { meaningless } from '../answers.ts'
import { findCredential } from '../credentials/chain.ts'
import type { Environment } from '../credentials/chain.ts'
import { AssertionCredential } from '../credentials/credential.ts'
import { ConfigurationError } from '../errors.ts'
import type { JsonObject } from '../json.ts'
import { Deadline } from '../retry.ts'
import { DirectService } from '../service/direct.ts'
import type { Call } from '../service/service.ts'
import type { Transport } from '../transport.ts'

/** Where the service is, and with what it is asked. */
export interface InquiryOptions {
  url: string
  caFile: string | undefined
  transport: Transport
  timeout: number
  credential: () => Promise<AssertionCredential>
}

/** Asks the service about tokens that were shown. The credential is looked for when it is first needed. */
export class Inquiry {
  readonly #options: InquiryOptions
  #service: Promise<DirectService> | undefined

  constructor(options: InquiryOptions) {
    this.#options = options
  }

  /** Whether a token is alive (RFC 7662). */
  async isActive(token: string): Promise<boolean> {
    const answer = await (await this.#connect()).introspect(token, this.#call())
    if (typeof answer.members.active !== 'boolean') throw meaningless(answer, 'does not say whether the token is active')
    return answer.members.active
  }

  async ask(question: JsonObject, signal?: AbortSignal): Promise<Answer> {
    return (await this.#connect()).ask('/access/v1/evaluation', question, this.#call(signal))
  }

  async complete(token: string, signal?: AbortSignal): Promise<void> {
    return (await this.#connect()).complete(token, this.#call(signal))
  }

  #call(signal?: AbortSignal): Call {
    return { deadline: new Deadline(this.#options.timeout), maxRetries: 2, signal }
  }

  #connect(): Promise<DirectService> {
    const { url, caFile, transport, credential } = this.#options
    this.#service ??= credential().then(
      (found) => new DirectService({ url, caFile, transport, credential: found }),
      (error: unknown) => {
        this.#service = undefined
        throw error
      },
    )
    return this.#service
  }
}

/** The server's own credential: the one that was given, or the first of the chain. @throws ConfigurationError if that is a sidecar, which is the agent's. */
export async function credentialFor(
  given: AssertionCredential | undefined,
  env: Environment,
  transport: Transport,
): Promise<AssertionCredential> {
  const credential = given ?? (await findCredential(env, transport))
  if (credential instanceof AssertionCredential) return credential
  const advice = 'Give the verifier a credential, for example new TokenFile(path).'
  throw new ConfigurationError({ code: 'credential_unfit', message: 'a sidecar does not introspect for a resource server', advice })
}
