// A fake authority for the tests of agents and resource servers: a real server, with real signatures, that does what it is told.

import type { ServerResponse } from 'node:http'
import { Client } from '../client.ts'
import type { ClientOptions } from '../client-options.ts'
import { AssertionCredential } from '../credentials/credential.ts'
import type { JsonObject } from '../json.ts'
import { Verifier } from '../verify/verifier.ts'
import type { VerifierOptions } from '../verify/verifier.ts'
import { access } from './access.ts'
import { completeEndpoint, fileEndpoint, revokeEndpoint } from './approvals.ts'
import { FakeFeed } from './feed.ts'
import { FakeRefusal } from './refusal.ts'
import { FakeRegistry } from './registry.ts'
import { FakeRequests } from './requests.ts'
import type { FakeRequest } from './requests.ts'
import { FakeServer } from './server.ts'
import type { RecordedRequest } from './server.ts'
import { sidecar } from './sidecar.ts'
import { FakeKeys } from './signing.ts'
import type { FakeAlgorithm } from './signing.ts'
import { identify } from './state.ts'
import type { FakeAnswer, FakeCall, FakeState } from './state.ts'
import { introspect, mint, tokenEndpoint } from './tokens.ts'
import { FakeWorld } from './world.ts'

/** How a fake authority is set up. */
export interface FakeAuthorityOptions {
  /** The agent whose tests these are. */
  agent?: string
  /** For whom tokens can be, the usual one first. */
  audiences?: string[]
  /** How long tokens live, in seconds. */
  tokenLife?: number
  /** How far apart looks at a request must be, in seconds. */
  interval?: number
}

/** What a token is to say. */
export interface TokenFor {
  agent?: string
  audience?: string
  scope?: string
  details?: readonly JsonObject[]
  /** The user for whom it is. */
  user?: string
  expiresIn?: number
  alg?: FakeAlgorithm
  /** Put over the claims; `null` removes one. */
  claims?: JsonObject
}

/** A credential of a fake workload, which the authority knows by its name. */
class FakeCredential extends AssertionCredential {
  readonly #token: () => string
  readonly #agent: string

  constructor(agent: string, token: () => string) {
    super()
    this.#agent = agent
    this.#token = token
  }

  describe(): string {
    return `FakeCredential of ${this.#agent}`
  }

  assertion(): Promise<string> {
    return Promise.resolve(this.#token())
  }
}

/** An authority on 127.0.0.1. Nobody may anything until {@link allow} says so. */
export class FakeAuthority {
  readonly agent: string
  readonly audience: string
  readonly registry = new FakeRegistry()
  readonly #state: FakeState
  readonly #server: FakeServer
  #skew = 0
  #isStale = false

  private constructor(options: FakeAuthorityOptions) {
    this.agent = options.agent ?? 'agent:test/agent'
    const audiences = options.audiences ?? ['https://api.test']
    this.audience = audiences[0] ?? ''
    const [world, keys, now] = [new FakeWorld(), new FakeKeys(), () => Date.now() / 1000 + this.#skew]
    const feed = new FakeFeed(world, keys, () => this.#state.issuer, now)
    const shared = { world, keys, feed, now, audiences, requests: new FakeRequests(), refusesCredentials: false, used: new Set<string>() }
    this.#state = { ...shared, issuer: '', tokenLife: options.tokenLife ?? 300, interval: options.interval ?? 2 }
    this.#server = new FakeServer((call, response) => this.#answer(call, response))
    world.agent(this.agent)
  }

  /** Starts one. */
  static async start(options: FakeAuthorityOptions = {}): Promise<FakeAuthority> {
    const authority = new FakeAuthority(options)
    await authority.#state.keys.rotate(false)
    await authority.#server.up()
    authority.#state.issuer = authority.url
    return authority
  }

  /** The issuer. */
  get url(): string {
    return this.#server.url
  }

  /** The sidecar of the agent: the same server, which tells requests apart by their header. */
  get sidecarUrl(): string {
    return this.#server.url
  }

  /** What was asked, in order, without credentials. */
  get requests(): readonly RecordedRequest[] {
    return this.#server.requests
  }

  /** How often a path was asked. */
  count(path: string): number {
    return this.requests.filter((request) => request.path === path).length
  }

  /** A client of the agent. */
  client(options: ClientOptions = {}): Client {
    return new Client({ url: this.url, credential: this.credential(), agent: this.agent, env: {}, ...options })
  }

  /** A verifier for the audience. */
  verifier(options: Partial<VerifierOptions> = {}): Verifier {
    return new Verifier({
      issuer: this.url,
      audience: this.audience,
      credential: this.credential('agent:test/server'),
      env: {},
      ...options,
    })
  }

  /** What the agent proves itself with. */
  credential(agent: string = this.agent): AssertionCredential {
    return new FakeCredential(agent, () => this.serviceAccountToken(agent))
  }

  /** A token as the kubelet writes it into a file. Its signature is none: the fake believes it. */
  serviceAccountToken(agent: string = this.agent): string {
    const [namespace, name] = agent.slice('agent:'.length).split('/')
    const claims = { sub: `system:serviceaccount:${namespace}:${name}`, aud: [this.url], exp: Math.floor(Date.now() / 1000) + 3600 }
    return [{ alg: 'none' }, claims].map((part) => Buffer.from(JSON.stringify(part)).toString('base64url')).join('.') + '.c2ln'
  }

  /** An ID token of a user. Its signature is none: the fake believes it. */
  idToken(user: string): string {
    return (
      [{ alg: 'none' }, { email: user, exp: Math.floor(Date.now() / 1000) + 600 }]
        .map((part) => Buffer.from(JSON.stringify(part)).toString('base64url'))
        .join('.') + '.c2ln'
    )
  }

  /** Grants a capability: on a resource, a pattern, or on everything. */
  allow(capability: string, options: { resource?: string } = {}): void {
    this.#state.world.grant(capability, options.resource, false)
  }

  /** Denies a capability, whatever was granted. */
  deny(capability: string, options: { code?: string; message?: string } = {}): void {
    const { code = 'condition_unmet', message = 'the condition is not met' } = options
    this.#state.world.deny(capability, { code, message, rule: 'Agent spec.capabilities[].when' })
  }

  /** Grants a capability, each use of which a person has to approve. */
  requireApproval(capability: string, options: { resource?: string } = {}): void {
    this.#state.world.grant(capability, options.resource, true)
  }

  /** The requests for approval that nobody has decided. */
  pending(): FakeRequest[] {
    return [...this.#state.requests.all.values()].filter(({ phase }) => phase === 'Pending')
  }

  /** A person approves. */
  approve(id: string): void {
    this.#state.requests.move(id, 'Approved')
  }

  /** A person denies. */
  denyRequest(id: string, comment?: string): void {
    this.#state.requests.move(id, 'Denied', comment)
  }

  /** Nobody decides in time. */
  expire(id: string): void {
    this.#state.requests.move(id, 'Expired')
  }

  /** Suspends an agent: all its tokens are dead. It resolves when the feed has told. */
  async suspend(agent: string = this.agent): Promise<void> {
    const known = this.#state.world.agent(agent)
    known.isSuspended = true
    known.epoch += 1
    await this.#state.feed.changed()
  }

  /** Resumes an agent; what was dead stays dead. */
  async resume(agent: string = this.agent): Promise<void> {
    this.#state.world.agent(agent).isSuspended = false
    await this.#state.feed.changed()
  }

  /** Refuses every credential, or accepts them again. */
  refuseCredentials(refuses = true): void {
    this.#state.refusesCredentials = refuses
  }

  /** Does not answer any more: connections are refused. */
  async down(): Promise<void> {
    this.#state.requests.wakeAll()
    this.#state.feed.stop()
    await this.#server.down()
  }

  /** Answers again, at the same address. */
  up(): Promise<void> {
    return this.#server.up()
  }

  /** Answers everything so many seconds later. */
  slow(seconds: number): void {
    this.#server.slow(seconds)
  }

  /** Answers the next `times` requests, of a path or of any, with a status. */
  fail(status: number, times = 1, options: { path?: string; retryAfter?: number } = {}): void {
    const headers: Record<string, string> = options.retryAfter === undefined ? {} : { 'retry-after': String(options.retryAfter) }
    this.#server.fail({ status, times, path: options.path, headers })
  }

  /** Does what the next `times` requests ask, and loses the answers. */
  loseAnswers(times = 1): void {
    this.#server.dropAnswers(times)
  }

  /** Signs with new keys. Without `keepOld` everything that was signed before is worthless. */
  rotateKeys(options: { keepOld?: boolean } = {}): Promise<void> {
    return this.#state.keys.rotate(options.keepOld ?? false)
  }

  /** Sets the authority's clock so many seconds ahead of this machine's. */
  skew(seconds: number): void {
    this.#skew = seconds
  }

  /** Cannot vouch for its view of the cluster: the feed ends, until it is said again with `false`. */
  stale(isStale = true): void {
    this.#isStale = isStale
    if (isStale) this.#state.feed.stale()
  }

  /** A token, with all the claims that the service writes. */
  async tokenFor(token: TokenFor = {}): Promise<string> {
    const { agent = this.agent, audience = this.audience, scope, ...rest } = token
    const names = scope === undefined ? this.#state.world.standing() : scope.split(' ').filter((name) => name !== '')
    const known = this.#state.world.agent(agent)
    await this.#state.feed.changed()
    return (await mint(this.#state, { agent: known, audience, scope: names, ...rest })).value
  }

  /** Ends it. */
  async close(): Promise<void> {
    await this.down()
  }

  async #answer(call: FakeCall, response: ServerResponse): Promise<FakeAnswer | undefined> {
    const answer = await this.#routed(call, response)
    // An agent that was not known before is in the feed from now on.
    await this.#state.feed.changed()
    return answer
  }

  async #routed(call: FakeCall, response: ServerResponse): Promise<FakeAnswer | undefined> {
    const state = this.#state
    if (call.headers['countersign-sidecar'] === 'true') return sidecar(state, call, state.world.agent(this.agent))
    if (call.path.startsWith('/api/v1/agents')) return this.registry.answer(call)
    switch (`${call.method} ${call.path}`) {
      case 'GET /.well-known/oauth-authorization-server':
        return { body: this.#metadata() }
      case 'GET /oauth2/jwks':
        return { body: state.keys.jwks() as unknown as JsonObject, headers: { 'cache-control': 'public, max-age=300' } }
      case 'GET /revocations':
        return this.#revocations(call, response)
      case 'POST /oauth2/token':
        return tokenEndpoint(state, call)
      case 'POST /oauth2/bc-authorize':
        return fileEndpoint(state, call)
      case 'POST /oauth2/revoke':
        return revokeEndpoint(state, call)
      case 'POST /oauth2/introspect':
        return introspect(state, call)
      case 'POST /jit/complete':
        return completeEndpoint(state, call)
      default:
        if (call.method !== 'POST') throw new FakeRefusal(404, 'invalid_request', 'there is no such endpoint')
        return access(state, call.path, call.json ?? {}, identify(state, call))
    }
  }

  async #revocations(call: FakeCall, response: ServerResponse): Promise<FakeAnswer | undefined> {
    if (this.#isStale) throw new FakeRefusal(503, 'temporarily_unavailable', 'the view is too old', { 'retry-after': '1' })
    if (call.headers.accept === 'text/event-stream') {
      this.#state.feed.follow(response)
      return undefined
    }
    const { id, statement } = await this.#state.feed.snapshot()
    if (call.headers['if-none-match'] === `"${id}"`)
      return { status: 304, headers: { 'countersign-revocations-heartbeat': await this.#state.feed.heartbeat() } }
    response.writeHead(200, { 'content-type': 'application/jwt', etag: `"${id}"` }).end(statement)
    return undefined
  }

  #metadata(): JsonObject {
    const at = (path: string) => `${this.url}${path}`
    return {
      issuer: this.url,
      token_endpoint: at('/oauth2/token'),
      jwks_uri: at('/oauth2/jwks'),
      introspection_endpoint: at('/oauth2/introspect'),
      revocation_endpoint: at('/oauth2/revoke'),
      backchannel_authentication_endpoint: at('/oauth2/bc-authorize'),
      countersign_completion_endpoint: at('/jit/complete'),
      countersign_revocations_endpoint: at('/revocations'),
      response_types_supported: ['none'],
    }
  }
}
