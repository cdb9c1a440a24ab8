// What a resource server does with a token that it is shown.

import { serverUrl } from '../address.ts'
import { Inquiry, credentialFor } from './inquiry.ts'
import type { Environment } from '../credentials/chain.ts'
import type { AssertionCredential } from '../credentials/credential.ts'
import type { Decision } from '../decision.ts'
import { decisionOf } from '../decision.ts'
import { ConfigurationError, RevocationUnknown, TokenRevoked, Unavailable } from '../errors.ts'
import { Operation } from '../operation.ts'
import type { OperationFields } from '../operation.ts'
import type { JsonObject } from '../json.ts'
import { NodeTransport } from '../transport.ts'
import type { Transport } from '../transport.ts'
import { RevocationFeed } from './feed.ts'
import { parseJws } from './jws.ts'
import { IssuerKeys } from './keys.ts'
import { checkClaims } from './verified.ts'
import type { VerifiedToken } from './verified.ts'

/** How a verifier is set up. */
export interface VerifierOptions {
  /** The issuer's URL; tokens and metadata must say exactly this. */
  issuer: string
  /** This server: `aud` must be exactly this. */
  audience: string
  /** Certificates that are trusted beside the usual ones for the issuer: `COUNTERSIGN_CA`. */
  caFile?: string | undefined
  /**
   * How it is known that a token was revoked. `feed`: by the revocation feed, without asking for each token; where nobody can tell, no token
   * is taken. `introspect`: the service is asked for each token. `none`: tokens live until they expire.
   */
  revocation?: 'feed' | 'introspect' | 'none' | undefined
  /** This server's own credential, for `introspect`, `evaluate` and `complete`. Without it the chain is gone through. */
  credential?: AssertionCredential | undefined
  /** By how much clocks may differ, in seconds. */
  leeway?: number | undefined
  /** How long a question to the service may take, in seconds. */
  timeout?: number | undefined
  transport?: Transport | undefined
  env?: Environment | undefined
  /** The time in seconds since the epoch; for tests. */
  now?: (() => number) | undefined
}

/** How long the first token waits for the feed, in milliseconds. */
const FEED_PATIENCE = 3000

/** Verifies tokens for one audience. */
export class Verifier {
  readonly issuer: string
  readonly audience: string
  readonly #options: VerifierOptions
  readonly #transport: Transport
  readonly #keys: IssuerKeys
  readonly #feed: RevocationFeed | undefined
  readonly #inquiry: Inquiry
  readonly #now: () => number

  /** @throws ConfigurationError */
  constructor(options: VerifierOptions) {
    this.issuer = serverUrl(options.issuer, 'the issuer')
    this.audience = options.audience
    if (typeof options.audience !== 'string' || options.audience === '') {
      throw new ConfigurationError({
        code: 'audience_missing',
        message: 'the verifier has no audience',
        advice: 'It is the name by which agents ask for tokens for this server.',
      })
    }
    const revocation = options.revocation ?? 'feed'
    if (!['feed', 'introspect', 'none'].includes(revocation)) {
      throw new ConfigurationError({ code: 'revocation_unknown', message: 'revocation is feed, introspect or none' })
    }
    this.#options = { ...options, revocation }
    const { env = process.env, timeout = 10 } = options
    const caFile = options.caFile ?? (env.COUNTERSIGN_CA || undefined)
    const transport = options.transport ?? new NodeTransport()
    this.#transport = transport
    this.#now = options.now ?? (() => Date.now() / 1000)
    this.#keys = new IssuerKeys({ issuer: this.issuer, caFile, transport, timeout })
    const feed = { issuer: this.issuer, keys: this.#keys, transport, caFile, now: this.#now }
    this.#feed = revocation === 'feed' ? new RevocationFeed(feed) : undefined
    this.#inquiry = new Inquiry({
      url: this.issuer,
      caFile,
      transport,
      timeout,
      credential: () => credentialFor(options.credential, env, transport),
    })
  }

  /** Begins to follow the feed, so that the first token need not wait for it. It waits until there is a state, for some seconds at most. */
  async start(): Promise<void> {
    this.#feed?.start()
    await this.#feed?.ready(FEED_PATIENCE)
  }

  /** The feed that is followed, if one is. */
  get feed(): RevocationFeed | undefined {
    return this.#feed
  }

  /**
   * What a token says, if it is one to be taken.
   *
   * @throws TokenExpired, TokenRevoked, TokenRejected; RevocationUnknown and Unavailable where nobody can tell, which is no yes.
   */
  async verify(token: string): Promise<VerifiedToken> {
    const { leeway = 5 } = this.#options
    const unverified = parseJws(token, 'at+jwt')
    await this.#keys.verify(token, unverified)
    const verified = checkClaims(unverified.claims, { issuer: this.issuer, audience: this.audience, leeway, now: this.#now() })
    await this.#alive(token, verified)
    return verified
  }

  /**
   * Asks the service whether a token allows an operation, as everything is at this moment: conditions, and what the agents may now.
   *
   * @param context what conditions may look at beside the parameters.
   * @throws Refused, Unavailable
   */
  async evaluate(
    token: string,
    operation: Operation | OperationFields,
    options: { context?: JsonObject; signal?: AbortSignal } = {},
  ): Promise<Decision> {
    const { claims } = parseJws(token, 'at+jwt')
    const asked = operation instanceof Operation ? operation : new Operation(operation)
    const subject: JsonObject = { type: 'agent', id: typeof claims.client_id === 'string' ? claims.client_id : '' }
    const question = asked.question(subject, { ...options.context, access_token: token })
    return decisionOf(await this.#inquiry.ask(question, options.signal))
  }

  /** Reports the operation of a token as done. It returns once, whoever calls: act after that alone. @throws AlreadyCompleted, TokenRejected, Unavailable */
  complete(token: string, options: { signal?: AbortSignal } = {}): Promise<void> {
    return this.#inquiry.complete(token, options.signal)
  }

  /** Ends following the feed, and closes the connections that are kept. */
  close(): void {
    this.#feed?.stop()
    this.#transport.close()
  }

  async #alive(token: string, verified: VerifiedToken): Promise<void> {
    if (this.#options.revocation === 'introspect') {
      const isActive = await this.#inquiry.isActive(token).catch((error: unknown) => {
        if (error instanceof Unavailable) throw unknown(error)
        throw error
      })
      if (!isActive) throw revoked('the service says that the token is not active')
    }
    if (!this.#feed) return
    this.#feed.start()
    if (this.#feed.reason(verified.claims) === 'unknown') await this.#feed.ready(FEED_PATIENCE)
    const reason = this.#feed.reason(verified.claims)
    if (reason === 'unknown') throw unknown()
    if (reason !== undefined) throw revoked(`the token is dead: ${reason}`)
  }
}

function unknown(error?: Unavailable): RevocationUnknown {
  const message = 'nobody can tell whether the token is still alive'
  return new RevocationUnknown({
    code: 'revocation_unknown',
    message,
    advice: 'Answer 503, and look whether the service is reached.',
    requestId: error?.requestId,
  })
}

function revoked(message: string): TokenRevoked {
  return new TokenRevoked({ code: 'token_revoked', message, advice: 'Get another one, if the agent still may.' })
}
