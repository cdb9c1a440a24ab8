// Express: a server that takes tokens (RFC 6750, RFC 9728).

import type { IncomingMessage, ServerResponse } from 'node:http'
import { TokenRejected } from './errors.ts'
import { Protection } from './verify/protection.ts'
import type { ProtectionOptions } from './verify/protection.ts'
import type { Requirement, VerifiedToken } from './verify/verified.ts'
import type { Challenge } from './verify/challenge.ts'

/** A request of Express, as far as it is used here. */
export interface ProtectedRequest extends IncomingMessage {
  /** The token of the request, verified: set by {@link protect}. */
  countersign?: VerifiedToken
  originalUrl?: string
}

/** What Express calls. */
export type Middleware = (request: ProtectedRequest, response: ServerResponse, next: (error?: unknown) => void) => void

/** On what a request depends: fixed, or by the request. */
export type RequirementOf<R> = Requirement | ((request: R) => Requirement)

const protections = new WeakMap<IncomingMessage, Protection>()

/**
 * Serves the metadata, and lets nothing by but requests with one good token, which it puts into `request.countersign`. Use it before all
 * that it protects.
 */
export function protect(options: ProtectionOptions): Middleware {
  const protection = new Protection(options)
  return (request, response, next) => {
    if (isMetadata(request, protection)) return respond(response, 200, {}, protection.metadata)
    protections.set(request, protection)
    protection.authenticate(request.rawHeaders).then(
      ({ verified }) => {
        request.countersign = verified
        next()
      },
      (error: unknown) => refuse(response, protection.challenge(error)),
    )
  }
}

/** Serves the metadata alone, for a server that uses {@link protect} under a path of its own. */
export function serveMetadata(options: ProtectionOptions): Middleware {
  const protection = new Protection(options)
  return (request, response, next) => {
    if (isMetadata(request, protection)) respond(response, 200, {}, protection.metadata)
    else next()
  }
}

/** Lets a request by whose token allows the capability: on the resource, with the parameters that are said. Use it behind {@link protect}. */
export function requireCapability<R extends ProtectedRequest>(
  capability: string,
  requirement: RequirementOf<R> = {},
): (request: R, response: ServerResponse, next: (error?: unknown) => void) => void {
  return (request, response, next) => {
    const protection = protections.get(request)
    // Without `protect` there is nothing that was verified, and nobody gets by.
    if (!protection || !request.countersign)
      return next(new TokenRejected({ code: 'unprotected', message: 'requireCapability is used without protect before it' }))
    try {
      request.countersign.require(capability, typeof requirement === 'function' ? requirement(request) : requirement)
    } catch (error) {
      return refuse(response, protection.challenge(error))
    }
    next()
  }
}

function isMetadata(request: ProtectedRequest, protection: Protection): boolean {
  return request.method === 'GET' && (request.originalUrl ?? request.url ?? '').split('?')[0] === protection.metadataPath
}

/** Answers with a challenge. */
export function refuse(response: ServerResponse, { status, headers, body }: Challenge): void {
  respond(response, status, { ...headers, 'cache-control': 'no-store' }, body)
}

/** Answers with JSON. */
export function respond(response: ServerResponse, status: number, headers: Record<string, string>, body: object): void {
  if (response.headersSent) {
    // Somebody has answered meanwhile, such as a timeout. An answer that was only begun must not go on.
    if (!response.writableEnded) response.destroy()
    return
  }
  response.writeHead(status, { ...headers, 'content-type': 'application/json' }).end(JSON.stringify(body))
}
