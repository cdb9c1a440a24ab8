// Fastify: a server that takes tokens (RFC 6750, RFC 9728).

import { TokenRejected } from './errors.ts'
import type { Challenge } from './verify/challenge.ts'
import { Protection } from './verify/protection.ts'
import type { ProtectionOptions } from './verify/protection.ts'
import type { Requirement, VerifiedToken } from './verify/verified.ts'

/** A request of Fastify, as far as it is used here. */
export interface ProtectedRequest {
  raw: { rawHeaders: string[]; url?: string | undefined; method?: string | undefined }
  /** The token of the request, verified: set by the plugin. */
  countersign?: VerifiedToken | null
}

/** A reply of Fastify, as far as it is used here. */
export interface Reply {
  code(status: number): Reply
  headers(values: Record<string, string>): Reply
  send(body: unknown): unknown
}

/** An instance of Fastify, as far as it is used here. */
export interface Instance {
  decorateRequest(name: string, value: null): unknown
  addHook(name: 'onRequest', hook: (request: ProtectedRequest, reply: Reply) => Promise<unknown>): unknown
}

const protections = new WeakMap<object, Protection>()

/**
 * The plugin: serves the metadata, and lets nothing by but requests with one good token, which it puts into `request.countersign`. It holds
 * for the instance on which it is registered, and for all routes of that.
 */
export async function countersign(instance: Instance, options: ProtectionOptions): Promise<void> {
  const protection = new Protection(options)
  instance.decorateRequest('countersign', null)
  // Before the body is read, and for addresses that no route has, too: the metadata is one of them.
  instance.addHook('onRequest', async (request, reply) => {
    const path = (request.raw.url ?? '').split('?')[0]
    if (path === protection.metadataPath && request.raw.method === 'GET') return reply.code(200).send(protection.metadata)
    protections.set(request, protection)
    try {
      request.countersign = (await protection.authenticate(request.raw.rawHeaders)).verified
    } catch (error) {
      return refuse(reply, protection.challenge(error))
    }
    return undefined
  })
}

// Without it Fastify would keep the hook from the routes beside the plugin (fastify-plugin does the same).
Object.assign(countersign, { [Symbol.for('skip-override')]: true, [Symbol.for('fastify.display-name')]: 'countersign' })

/** A `preHandler` that lets a request by whose token allows the capability: on the resource, with the parameters that are said. */
export function requireCapability<R extends ProtectedRequest = ProtectedRequest>(
  capability: string,
  requirement: Requirement | ((request: R) => Requirement) = {},
): (request: ProtectedRequest, reply: Reply) => Promise<unknown> {
  return async (request, reply) => {
    const protection = protections.get(request)
    // Without the plugin there is nothing that was verified, and nobody gets by.
    if (!protection || !request.countersign)
      throw new TokenRejected({ code: 'unprotected', message: 'requireCapability is used without the plugin' })
    try {
      // Which kind of request it is, the route says.
      request.countersign.require(capability, typeof requirement === 'function' ? requirement(request as R) : requirement)
    } catch (error) {
      return refuse(reply, protection.challenge(error))
    }
    return undefined
  }
}

function refuse(reply: Reply, { status, headers, body }: Challenge): unknown {
  return reply
    .code(status)
    .headers({ ...headers, 'cache-control': 'no-store' })
    .send(body)
}
