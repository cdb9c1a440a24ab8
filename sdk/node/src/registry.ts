// The registration of agents over HTTP (docs/registration-api.md), with a credential for the Kubernetes API.

import { readFile } from 'node:fs/promises'
import { at, serverUrl } from './address.ts'
import { meaningless, read } from './answers.ts'
import type { Answer } from './answers.ts'
import type { Environment } from './credentials/chain.ts'
import { usable } from './credentials/credential.ts'
import { ConfigurationError, CredentialInvalid } from './errors.ts'
import { isObject } from './json.ts'
import type { Json, JsonObject } from './json.ts'
import { Deadline, insist } from './retry.ts'
import { NodeTransport } from './transport.ts'
import type { HttpRequest, Transport } from './transport.ts'

/** Where a pod has its token for the Kubernetes API. */
const POD_TOKEN = '/var/run/secrets/kubernetes.io/serviceaccount/token'
/** How many agents a page has. */
const PAGE = 100

/** How a registry is set up; what is left out comes from the environment. */
export interface RegistryOptions {
  /** The issuer's URL: `COUNTERSIGN_URL`. */
  url?: string | undefined
  /** Certificates that are trusted beside the usual ones: `COUNTERSIGN_CA`. */
  caFile?: string | undefined
  /** A token for the Kubernetes API, or what gives one. Without it, that in {@link tokenFile}. */
  token?: string | (() => string | Promise<string>) | undefined
  /** The file with the token, read anew for each call: `COUNTERSIGN_REGISTRY_TOKEN_FILE`, else that of the pod. */
  tokenFile?: string | undefined
  timeout?: number | undefined
  maxRetries?: number | undefined
  transport?: Transport | undefined
  env?: Environment | undefined
}

/** An agent as it is registered. */
export interface RegisteredAgent {
  namespace: string
  name: string
  uid: string
  /** The version; a replacement names the one that it replaces. */
  resourceVersion: string
  generation: number | undefined
  createdAt: string | undefined
  labels: Record<string, string>
  annotations: Record<string, string>
  /** `kubectl explain agent.spec` is the manual. */
  spec: JsonObject
  status: JsonObject
}

/** The agents that are registered. Who may what is a question of Kubernetes RBAC. */
export class Registry {
  readonly #options: RegistryOptions
  readonly #transport: Transport
  readonly #env: Environment

  constructor(options: RegistryOptions = {}) {
    this.#options = options
    this.#transport = options.transport ?? new NodeTransport()
    this.#env = options.env ?? process.env
  }

  /** Registers an agent. @throws Conflict if there is one of that name; AccessDenied, InvalidRequest */
  async register(
    namespace: string,
    name: string,
    spec: JsonObject,
    options: { labels?: Record<string, string>; annotations?: Record<string, string> } = {},
  ): Promise<RegisteredAgent> {
    const body = { namespace, name, spec, ...options }
    // One that arrived and was not answered is told apart by its name: there is one already.
    return agentOf(await this.#ask({ method: 'POST', path: '', body, isIdempotent: false }))
  }

  /** @throws NotFound */
  async get(namespace: string, name: string): Promise<RegisteredAgent> {
    return agentOf(await this.#ask({ method: 'GET', path: pathOf(namespace, name) }))
  }

  /** All agents, or those of a namespace, page by page. */
  async *list(namespace?: string): AsyncGenerator<RegisteredAgent> {
    let next = ''
    do {
      const query = new URLSearchParams({
        limit: String(PAGE),
        ...(namespace === undefined ? {} : { namespace }),
        ...(next === '' ? {} : { continue: next }),
      })
      const answer = await this.#ask({ method: 'GET', path: `?${query}` })
      const { items, continue: rest } = answer.members
      if (!Array.isArray(items)) throw meaningless(answer, 'has no items')
      for (const item of items) yield readAgent(item, answer)
      next = typeof rest === 'string' ? rest : ''
    } while (next !== '')
  }

  /** Puts `agent` in the place of the version that it was read as. @throws Conflict if it was changed meanwhile */
  async replace(agent: RegisteredAgent): Promise<RegisteredAgent> {
    const { namespace, name, uid, resourceVersion, labels, annotations, spec } = agent
    const body = { namespace, name, uid, resourceVersion, labels, annotations, spec }
    return agentOf(await this.#ask({ method: 'PUT', path: pathOf(namespace, name), body, isIdempotent: false }))
  }

  /** Removes an agent; its tokens are dead. @throws NotFound */
  async delete(namespace: string, name: string): Promise<void> {
    await this.#ask({ method: 'DELETE', path: pathOf(namespace, name), isIdempotent: false })
  }

  /** Closes the connections that are kept. */
  close(): void {
    this.#transport.close()
  }

  async #ask(asked: { method: HttpRequest['method']; path: string; body?: JsonObject; isIdempotent?: boolean }): Promise<Answer> {
    const { url = this.#env.COUNTERSIGN_URL, caFile = this.#env.COUNTERSIGN_CA || undefined, timeout = 30, maxRetries = 2 } = this.#options
    if (!url)
      throw new ConfigurationError({
        code: 'url_missing',
        message: 'nobody says where the service is',
        advice: 'Set COUNTERSIGN_URL to the issuer, or give url.',
      })
    const deadline = new Deadline(timeout)
    const token = await this.#token()
    const headers = { authorization: `Bearer ${token}`, ...(asked.body ? { 'content-type': 'application/json' } : {}) }
    const address = at(serverUrl(url, 'the URL of the service'), `/api/v1/agents${asked.path}`)
    const answer = await insist({ deadline, maxRetries, isIdempotent: asked.isIdempotent ?? true }, () => {
      const body = asked.body ? { body: JSON.stringify(asked.body) } : {}
      return this.#transport.send({
        method: asked.method,
        url: address,
        headers,
        ...body,
        caFile,
        within: deadline.attempt(),
        fresh: asked.isIdempotent === false,
      })
    })
    return read({ ...answer, secrets: [token] })
  }

  async #token(): Promise<string> {
    const { token } = this.#options
    if (token !== undefined) return usable(typeof token === 'string' ? token : await token(), 'the token of the registry')
    const path = this.#options.tokenFile ?? (this.#env.COUNTERSIGN_REGISTRY_TOKEN_FILE || POD_TOKEN)
    const text = await readFile(path, 'utf8').catch(() => {
      const advice = 'Set COUNTERSIGN_REGISTRY_TOKEN_FILE to a file with a token for the Kubernetes API.'
      throw new CredentialInvalid({ code: 'credential_invalid', message: `${path} cannot be read`, advice })
    })
    return usable(text, path)
  }
}

function pathOf(namespace: string, name: string): string {
  // A name with a slash or dots in it would be another address.
  for (const label of [namespace, name]) {
    if (/^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$/.test(label)) continue
    throw new ConfigurationError({
      code: 'name_invalid',
      message: 'namespace and name of an agent are RFC 1123 labels',
      advice: 'Use lower-case letters, digits and dashes.',
    })
  }
  return `/${namespace}/${name}`
}

function agentOf(answer: Answer): RegisteredAgent {
  return readAgent(answer.members, answer)
}

function readAgent(value: Json, answer: Answer): RegisteredAgent {
  const members = isObject(value) ? value : {}
  const { namespace, name, uid, resourceVersion, generation, createdAt, labels, annotations, spec, status } = members
  if (
    typeof namespace !== 'string' ||
    typeof name !== 'string' ||
    typeof uid !== 'string' ||
    typeof resourceVersion !== 'string' ||
    !isObject(spec)
  ) {
    throw meaningless(answer, 'has no Agent')
  }
  return {
    namespace,
    name,
    uid,
    resourceVersion,
    generation: typeof generation === 'number' ? generation : undefined,
    createdAt: typeof createdAt === 'string' ? createdAt : undefined,
    labels: texts(labels),
    annotations: texts(annotations),
    spec,
    status: isObject(status) ? status : {},
  }
}

function texts(value: Json | undefined): Record<string, string> {
  const entries = isObject(value) ? Object.entries(value).filter((entry): entry is [string, string] => typeof entry[1] === 'string') : []
  return Object.fromEntries(entries)
}
