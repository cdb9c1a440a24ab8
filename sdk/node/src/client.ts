// What an agent asks: tokens, decisions, a person's approval.

import { randomUUID } from 'node:crypto'
import { serverUrl } from './address.ts'
import { meaningless } from './answers.ts'
import { Approvals, ApprovalRequest, readRequest } from './approval.ts'
import { TokenCache } from './cache.ts'
import { expiryOf } from './claims.ts'
import type { CallOptions, ClientOptions, EvaluateOptions, ExchangeOptions, RequestOptions, RequireOptions, TokenOptions } from './client-options.ts'
import { findCredential } from './credentials/chain.ts'
import type { Environment } from './credentials/chain.ts'
import { AssertionCredential } from './credentials/credential.ts'
import type { Credential } from './credentials/credential.ts'
import { Sidecar } from './credentials/sidecar.ts'
import { answeredOf, decisionOf, decisionsOf } from './decision.ts'
import type { Answered, Decision } from './decision.ts'
import { decide, tokenFor } from './deciding.ts'
import { sha256Base64url } from './digest.ts'
import { ApprovalPending, ConfigurationError } from './errors.ts'
import { isObject } from './json.ts'
import type { JsonObject } from './json.ts'
import { Operation, resourceOf } from './operation.ts'
import type { OperationFields } from './operation.ts'
import { Registry } from './registry.ts'
import { Deadline, until } from './retry.ts'
import { DirectService } from './service/direct.ts'
import type { Call, Service, Subject, Target } from './service/service.ts'
import { SidecarService } from './service/sidecar.ts'
import type { AccessToken } from './token.ts'
import { NodeTransport } from './transport.ts'
import type { Transport } from './transport.ts'

/** Most questions in one request. */
const TOGETHER_MAX = 100

/** An agent's client. It can be shared by all of a process. */
export class Client {
  readonly #options: ClientOptions
  readonly #env: Environment
  readonly #transport: Transport
  readonly #cache = new TokenCache()
  #connected: Promise<Connected> | undefined
  #registry: Registry | undefined

  constructor(options: ClientOptions = {}) {
    this.#options = options
    this.#env = options.env ?? process.env
    this.#transport = options.transport ?? new NodeTransport()
    if (options.credential && !(options.credential instanceof Sidecar) && !(options.credential instanceof AssertionCredential)) {
      const advice = 'Use Sidecar, TokenFile, PrivateKey or Cloud, or extend AssertionCredential.'
      throw new ConfigurationError({ code: 'credential_unknown', message: 'the credential is of no known kind', advice })
    }
  }

  /** The credential that is used, for its `describe()`. @throws CredentialNotFound, ConfigurationError */
  async credential(): Promise<Credential> {
    return (await this.#connect()).credential
  }

  /** A token for the agent itself. It is kept, and replaced early. @throws Refused and its kin, Unavailable */
  async token(options: TokenOptions = {}): Promise<AccessToken> {
    const { service } = await this.#connect()
    const call = this.#call()
    const audience = options.audience ?? this.#audience()
    if (options.operation !== undefined) {
      const target = { audience, operation: operationOf(options.operation) }
      return until(service.token(target, call), options.signal)
    }
    const target = { audience, scope: scopeOf(options.scope) }
    const isFresh = options.fresh === true
    // The sidecar keeps tokens, and knows first when they are refused: here its answers are only shared by who asks at once.
    if (service instanceof SidecarService) {
      const obtain = () => (isFresh ? service.freshToken(target, call) : service.token(target, call))
      return until(this.#cache.get(keyOf(target), obtain, isFresh, 0), options.signal)
    }
    return until(
      this.#cache.get(keyOf(target), () => service.token(target, this.#call()), isFresh),
      options.signal,
    )
  }

  /** A token for whoever called the agent, or for a user, in exchange for theirs (docs/delegation.md). @throws Refused and its kin, Unavailable */
  async exchange(subjectToken: string, options: ExchangeOptions = {}): Promise<AccessToken> {
    const { service } = await this.#connect()
    const subject = { token: subjectToken, type: options.subjectTokenType ?? 'access_token' }
    const audience = options.audience ?? this.#audience()
    if (options.operation !== undefined) {
      const target = { audience, operation: operationOf(options.operation) }
      return until(service.exchange(subject, target, this.#call()), options.signal)
    }
    const target = { audience, scope: scopeOf(options.scope) }
    const endsBy = service instanceof SidecarService ? 0 : (expiryOf(subjectToken) ?? 0)
    const obtain = () => service.exchange(subject, target, this.#call())
    return until(this.#cache.get(keyOf(target, subject), obtain, false, endsBy), options.signal)
  }

  /** Gives up a token, or withdraws a request by its id. What is not known is as good as given up. */
  async revoke(token: AccessToken | string, options: CallOptions = {}): Promise<void> {
    const { service } = await this.#connect()
    // One that is kept may be the one that is given up.
    this.#cache.clear()
    await service.revoke(typeof token === 'string' ? token : token.value, this.#call(options))
  }

  /** Whether the agent may do it. A no is an answer, and no error. @throws Refused, Unavailable */
  async evaluate(operation: Operation | OperationFields, options: EvaluateOptions = {}): Promise<Decision> {
    const { service } = await this.#connect()
    const call = this.#call(options)
    const question = operationOf(operation).question(await this.#subject(service, call, options.onBehalfOf), options.context)
    return decisionOf(await service.ask('/access/v1/evaluation', question, call))
  }

  /** The same for several, in their order. What is wrong with one of them is its own no. */
  async evaluateMany(operations: Iterable<Operation | OperationFields>, options: EvaluateOptions = {}): Promise<Decision[]> {
    const { service } = await this.#connect()
    const call = this.#call(options)
    const subject = await this.#subject(service, call, options.onBehalfOf)
    const questions = [...operations].map((operation) => operationOf(operation).question(undefined, options.context))
    const decisions: Decision[] = []
    for (let from = 0; from < questions.length; from += TOGETHER_MAX) {
      const evaluations = questions.slice(from, from + TOGETHER_MAX)
      const answer = await service.ask('/access/v1/evaluations', { ...(subject && { subject }), evaluations }, call)
      decisions.push(...decisionsOf(answer, evaluations.length))
    }
    return decisions
  }

  /** The capabilities that the agent has on a resource, without approval; without one, those that need none. */
  async capabilities(resource?: string, options: CallOptions = {}): Promise<string[]> {
    const { service } = await this.#connect()
    const call = this.#call(options)
    const subject = await this.#subject(service, call)
    const names: string[] = []
    for (let token = ''; ;) {
      const page: JsonObject = token === '' ? {} : { page: { token } }
      const answer = await service.ask(
        '/access/v1/search/action',
        { ...(subject && { subject }), resource: resourceOf(resource), ...page },
        call,
      )
      const { results, page: next } = answer.members
      if (!Array.isArray(results)) throw meaningless(answer, 'has no results')
      names.push(
        ...results
          .filter(isObject)
          .map((result) => result.name)
          .filter((name) => typeof name === 'string'),
      )
      const following = isObject(next) ? next.next_token : undefined
      if (typeof following !== 'string' || following === '' || following === token) return names
      token = following
    }
  }

  /** The same in plain words. Whatever is not understood is a no. */
  async ask(question: string, options: CallOptions = {}): Promise<Answered> {
    const { service } = await this.#connect()
    return answeredOf(await service.ask('/ask', { question }, this.#call(options)))
  }

  /** Asks a person to approve one operation. @throws Refused and its kin, Unavailable */
  async requestApproval(operation: Operation | OperationFields, options: RequestOptions = {}): Promise<ApprovalRequest> {
    const { service } = await this.#connect()
    const { justification, subjectToken, expiresIn } = options
    const asked = operationOf(operation)
    const audience = asked.audience === undefined ? this.#audience() : undefined
    const filing = {
      operation: asked,
      audience,
      justification,
      subjectToken,
      expiresIn,
      idempotencyKey: options.idempotencyKey ?? randomUUID(),
    }
    return readRequest(await service.file(filing, this.#call(options)), asked, Date.now() / 1000)
  }

  /**
   * The token of a request, if somebody has approved it; waits for the decision for at most `wait` seconds.
   *
   * @throws ApprovalPending, ApprovalDenied, ApprovalExpired, ApprovalUsed; Unavailable
   */
  async approval(request: ApprovalRequest | string, options: CallOptions & { wait?: number | undefined } = {}): Promise<AccessToken> {
    const { approvals } = await this.#connect()
    return approvals.look(requestOf(request), options.wait ?? 0, () => this.#call(options))
  }

  /**
   * The same, and while the service does not answer it goes on until `timeout` seconds are over.
   *
   * @throws ApprovalPending at the end, ApprovalDenied, ApprovalExpired, ApprovalUsed
   */
  async waitForApproval(request: ApprovalRequest | string, options: CallOptions & { timeout: number }): Promise<AccessToken> {
    const { approvals } = await this.#connect()
    return approvals.wait(requestOf(request), options.timeout, () => this.#call(options))
  }

  /**
   * The token of one operation, with a person's approval where one is needed. What would be denied anyway no person is asked for.
   *
   * @throws AccessDenied, ApprovalPending, ApprovalDenied, ApprovalExpired, ApprovalUsed; Unavailable
   */
  async requireApproval(operation: Operation | OperationFields, options: RequireOptions = {}): Promise<AccessToken> {
    const { timeout = 120, mode = 'wait', signal, subjectToken } = options
    const wanted = operationOf(operation)
    const decision = await decide(this, wanted, { subjectToken, signal })
    if (!decision.allowed && !decision.accessRequest) throw decision.denied()
    if (decision.allowed && !decision.approval) return tokenFor(this, wanted, { subjectToken, signal })
    // With a key of its own it is this request or none, whatever else was approved.
    const approved = options.idempotencyKey === undefined ? decision.approval : undefined
    const request = approved ? new ApprovalRequest({ id: approved.id, operation: wanted }) : await this.requestApproval(wanted, options)
    if (mode === 'wait') return this.waitForApproval(request, { timeout, signal })
    if (approved) return this.approval(request, { signal })
    const advice = `Go on with the same request later. A person approves with: kubectl countersign approve ${request.id}`
    throw new ApprovalPending({
      code: 'authorization_pending',
      message: `request ${request.id} waits for a decision`,
      advice,
      request,
      retryAfter: request.interval,
    })
  }

  /** Reports the operation of a token as done. It returns once, whoever calls. @throws AlreadyCompleted, TokenRejected, Unavailable */
  async complete(token: AccessToken | string, options: CallOptions = {}): Promise<void> {
    const { service } = await this.#connect()
    await service.complete(typeof token === 'string' ? token : token.value, this.#call(options))
  }

  /** Withdraws a request that nobody has decided, or gives up its approval. */
  async withdraw(request: ApprovalRequest | string, options: CallOptions = {}): Promise<void> {
    const { service, approvals } = await this.#connect()
    const { id } = requestOf(request)
    await service.revoke(id, this.#call(options))
    approvals.forget(id)
  }

  /** The registration of agents, with a credential for the Kubernetes API (docs/registration-api.md). */
  get registry(): Registry {
    const { url, caFile, timeout, maxRetries } = this.#options
    this.#registry ??= new Registry({ url, caFile, timeout, maxRetries, transport: this.#transport, env: this.#env })
    return this.#registry
  }

  /** Closes the connections that are kept, and forgets the tokens. */
  close(): void {
    this.#cache.clear()
    this.#transport.close()
  }

  /** For `await using`. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.close()
  }

  #audience(): string | undefined {
    return this.#options.audience ?? (this.#env.COUNTERSIGN_AUDIENCE || undefined)
  }

  #call(options: CallOptions = {}): Call {
    return { deadline: new Deadline(this.#options.timeout ?? 30), maxRetries: this.#options.maxRetries ?? 2, signal: options.signal }
  }

  async #subject(service: Service, call: Call, onBehalfOf?: string): Promise<JsonObject | undefined> {
    if (onBehalfOf === undefined) return service.self(call)
    return { type: 'agent', id: await service.agent(call), properties: { on_behalf_of: onBehalfOf } }
  }

  #connect(): Promise<Connected> {
    // What could not be found may be there the next time.
    this.#connected ??= connect(this.#options, this.#env, this.#transport, this.#audience()).catch((error: unknown) => {
      this.#connected = undefined
      throw error
    })
    return this.#connected
  }
}

interface Connected {
  credential: Credential
  service: Service
  approvals: Approvals
}

async function connect(options: ClientOptions, env: Environment, transport: Transport, audience: string | undefined): Promise<Connected> {
  const credential = options.credential ?? (await findCredential(env, transport))
  const agent = options.agent ?? (env.COUNTERSIGN_CLIENT_ID || undefined)
  const service = serviceOf(options, env, transport, credential, agent, audience)
  return { credential, service, approvals: new Approvals(service) }
}

function serviceOf(
  options: ClientOptions,
  env: Environment,
  transport: Transport,
  credential: Credential,
  agent?: string,
  audience?: string,
): Service {
  if (credential instanceof Sidecar) return new SidecarService(credential.url, transport, agent)
  const url = options.url ?? env.COUNTERSIGN_URL
  if (!url)
    throw new ConfigurationError({
      code: 'url_missing',
      message: 'nobody says where the service is',
      advice: 'Set COUNTERSIGN_URL to the issuer, or give url.',
    })
  const caFile = options.caFile ?? (env.COUNTERSIGN_CA || undefined)
  return new DirectService({
    url: serverUrl(url, 'the URL of the service'),
    caFile,
    credential: credential as AssertionCredential,
    transport,
    agent,
    audience,
  })
}

/** An operation, from its fields too. */
export function operationOf(operation: Operation | OperationFields): Operation {
  return operation instanceof Operation ? operation : new Operation(operation)
}

function requestOf(request: ApprovalRequest | string): ApprovalRequest {
  return typeof request === 'string' ? new ApprovalRequest({ id: request }) : request
}

/** A scope as it is sent: each capability once, in order, so that the same set is the same token. */
function scopeOf(scope: string | Iterable<string> | undefined): string | undefined {
  if (scope === undefined) return undefined
  const names = [...new Set(typeof scope === 'string' ? scope.split(' ') : scope)].filter((name) => name !== '')
  if (names.length > 0) return names.sort().join(' ')
  throw new ConfigurationError({
    code: 'scope_empty',
    message: 'the scope is empty',
    advice: 'Leave it out for all that the agent holds without approval.',
  })
}

function keyOf(target: Target, subject?: Subject): string {
  return JSON.stringify([target.audience ?? null, target.scope ?? null, subject ? [subject.type, sha256Base64url(subject.token)] : null])
}
