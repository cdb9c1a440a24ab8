// What the calls of a client take.

import type { Environment } from './credentials/chain.ts'
import type { Credential } from './credentials/credential.ts'
import type { JsonObject } from './json.ts'
import type { Operation, OperationFields } from './operation.ts'
import type { Subject } from './service/service.ts'
import type { Transport } from './transport.ts'

/** How a client is set up; what is left out comes from the environment. */
export interface ClientOptions {
  /** The issuer's URL: `COUNTERSIGN_URL`. Not needed beside a sidecar. */
  url?: string | undefined
  /** A file with certificates, PEM, trusted beside the usual ones for that URL: `COUNTERSIGN_CA`. */
  caFile?: string | undefined
  /** What proves who the agent is. Without it the chain is gone through. */
  credential?: Credential | undefined
  /** For whom tokens are that name nobody: `COUNTERSIGN_AUDIENCE`. */
  audience?: string | undefined
  /** The agent, `agent:<namespace>/<name>`: `COUNTERSIGN_CLIENT_ID`. Needed only if nothing else says it. */
  agent?: string | undefined
  /** How long a whole call may take, in seconds, with all that is repeated. */
  timeout?: number | undefined
  /** How often a request is repeated that was not answered. */
  maxRetries?: number | undefined
  /** How requests are sent; for tests. */
  transport?: Transport | undefined
  /** The environment; for tests. */
  env?: Environment | undefined
}

/** What every call takes. */
export interface CallOptions {
  /** Ends the waiting of this caller. */
  signal?: AbortSignal | undefined
}

/** What token is wanted. */
export interface TokenOptions extends CallOptions {
  audience?: string | undefined
  /** Capabilities. Without it: all that the agent holds without approval. */
  scope?: string | Iterable<string> | undefined
  /** The one operation that it is to be good for; such a token is never kept. */
  operation?: Operation | OperationFields | undefined
  /** Whether none that is kept will do, for example because it was refused. */
  fresh?: boolean | undefined
}

/** What an exchanged token is to be. */
export interface ExchangeOptions extends CallOptions {
  /** What was shown: the access token with which the agent was called, or a user's ID token. */
  subjectTokenType?: Subject['type'] | undefined
  audience?: string | undefined
  scope?: string | Iterable<string> | undefined
  /** The one operation that it is to be good for; such a token is never kept. */
  operation?: Operation | OperationFields | undefined
}

/** Beside what a decision is asked for. */
export interface EvaluateOptions extends CallOptions {
  /** The user for whom the agent would act. */
  onBehalfOf?: string | undefined
  /** What conditions may look at beside the parameters. */
  context?: JsonObject | undefined
}

/** How a person is asked. */
export interface RequestOptions extends CallOptions {
  /** A word to whoever decides. */
  justification?: string | undefined
  /** The token with which the agent was called, if it asks for whoever called it. */
  subjectToken?: string | undefined
  /** How long the question stands, in seconds. */
  expiresIn?: number | undefined
  /** The same key is the same request. */
  idempotencyKey?: string | undefined
}

/** How the approval of an operation is got. */
export interface RequireOptions extends RequestOptions {
  /** How long to wait for a decision, in seconds. */
  timeout?: number | undefined
  /** `wait` waits; the others throw ApprovalPending as soon as the request is filed. */
  mode?: 'wait' | 'interrupt' | 'reject' | undefined
}
