// The registration of agents at a fake authority (docs/registration-api.md).

import { randomUUID } from 'node:crypto'
import { isObject } from '../json.ts'
import type { Json, JsonObject } from '../json.ts'
import { FakeRefusal, refuse } from './refusal.ts'
import type { FakeAnswer, FakeCall } from './state.ts'

/** What is registered, by namespace and name. */
export class FakeRegistry {
  readonly #agents = new Map<string, JsonObject>()
  #version = 0
  /** The token that is accepted; any without it. */
  token: string | undefined

  answer(call: FakeCall): FakeAnswer {
    const token = /^Bearer (\S+)$/.exec(call.headers.authorization ?? '')?.[1]
    if (token === undefined || (this.token !== undefined && token !== this.token))
      throw new FakeRefusal(401, 'invalid_token', 'the token is not one that the API server accepts')
    const [, namespace, name] = /^\/api\/v1\/agents\/([^/]+)\/([^/]+)$/.exec(call.path) ?? []
    if (namespace === undefined || name === undefined)
      return call.method === 'POST' ? this.#create(call.json ?? {}) : this.#list(call.query)
    const found = this.#agents.get(`${namespace}/${name}`)
    if (!found) throw new FakeRefusal(404, 'not_found', 'there is no such Agent')
    if (call.method === 'GET') return { body: found, headers: { etag: `"${String(found.resourceVersion)}"` } }
    if (call.method === 'PUT') return this.#replace(found, call.json ?? {})
    this.#agents.delete(`${namespace}/${name}`)
    return { status: 204 }
  }

  #create({ namespace, name, spec, labels = {}, annotations = {} }: JsonObject): FakeAnswer {
    if (typeof namespace !== 'string' || typeof name !== 'string' || !isObject(spec))
      throw refuse('invalid_request', 'namespace, name and spec are needed')
    if (this.#agents.has(`${namespace}/${name}`)) throw new FakeRefusal(409, 'conflict', 'there is one of that name')
    const agent = this.#store({
      namespace,
      name,
      uid: randomUUID(),
      generation: 1,
      createdAt: new Date().toISOString(),
      labels,
      annotations,
      spec,
      status: {},
    })
    return { status: 201, body: agent, headers: { location: `/api/v1/agents/${namespace}/${name}` } }
  }

  #replace(found: JsonObject, wanted: JsonObject): FakeAnswer {
    if (wanted.resourceVersion === undefined) throw new FakeRefusal(428, 'invalid_request', 'name the version that is replaced')
    if (wanted.uid !== undefined && wanted.uid !== found.uid) throw new FakeRefusal(409, 'conflict', 'it is another registration')
    if (wanted.resourceVersion !== found.resourceVersion) throw new FakeRefusal(412, 'conflict', 'it was changed meanwhile: read it again')
    const kept = (member: 'labels' | 'annotations' | 'spec'): Json => wanted[member] ?? found[member] ?? {}
    return {
      body: this.#store({
        ...found,
        labels: kept('labels'),
        annotations: kept('annotations'),
        spec: kept('spec'),
        generation: Number(found.generation) + 1,
      }),
    }
  }

  #list(query: URLSearchParams): FakeAnswer {
    const namespace = query.get('namespace')
    const all = [...this.#agents.values()].filter((agent) => namespace === null || agent.namespace === namespace)
    const [from, limit] = [Number(query.get('continue') ?? 0), Number(query.get('limit') ?? 500)]
    const rest = from + limit < all.length ? { continue: String(from + limit) } : {}
    return { body: { items: all.slice(from, from + limit), ...rest } }
  }

  #store(agent: JsonObject): JsonObject {
    this.#version += 1
    const stored = { ...agent, resourceVersion: String(this.#version) }
    this.#agents.set(`${String(agent.namespace)}/${String(agent.name)}`, stored)
    return stored
  }
}
