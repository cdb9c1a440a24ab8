// An MCP server over HTTP that takes tokens (the authorization chapter of the Model Context Protocol), with the official SDK.

import { InvalidTokenError, ServerError } from '@modelcontextprotocol/sdk/server/auth/errors.js'
import type { OAuthTokenVerifier } from '@modelcontextprotocol/sdk/server/auth/provider.js'
import type { AuthInfo } from '@modelcontextprotocol/sdk/server/auth/types.js'
import type { ServerResponse } from 'node:http'
import { ConfigurationError, InsufficientScope, RevocationUnknown, TokenRejected } from './errors.ts'
import { refuse, respond } from './express.ts'
import type { ProtectedRequest } from './express.ts'
import { Tool } from './guard/tool.ts'
import type { Args } from './guard/tool.ts'
import { isObject } from './json.ts'
import { Protection } from './verify/protection.ts'
import type { ProtectionOptions } from './verify/protection.ts'
import { VerifiedToken } from './verify/verified.ts'
import type { Verifier } from './verify/verifier.ts'

/** A request as the transport of the SDK takes it. */
export interface McpRequest extends ProtectedRequest {
  /** What handlers of tools get as `extra.authInfo`. */
  auth?: AuthInfo
  /** The body, read as JSON before: `express.json()`. */
  body?: unknown
}

/** How an MCP server is protected. */
export interface McpProtectionOptions extends ProtectionOptions {
  /**
   * The capability of each tool. A call of a tool whose capability the token does not hold is answered with 403 and the scope that is
   * needed, and so is a call of a tool that is not among them.
   */
  tools?: Readonly<Record<string, string | Tool>> | undefined
}

/** Serves the metadata, and lets nothing by to the transport but requests with one good token, and calls that it allows. */
export function protectMcp(
  options: McpProtectionOptions,
): (request: McpRequest, response: ServerResponse, next: (error?: unknown) => void) => void {
  const protection = new Protection(options)
  const tools =
    options.tools && new Map(Object.entries(options.tools).map(([name, tool]) => [name, typeof tool === 'string' ? new Tool(tool) : tool]))
  return (request, response, next) => {
    if (request.method === 'GET' && (request.originalUrl ?? request.url ?? '').split('?')[0] === protection.metadataPath) {
      return respond(response, 200, {}, protection.metadata)
    }
    const admit = async () => {
      const { token, verified } = await protection.authenticate(request.rawHeaders)
      if (tools) requireTools(request, tools, verified)
      request.countersign = verified
      request.auth = authInfo(token, verified)
    }
    admit().then(
      () => next(),
      (error: unknown) => (error instanceof ConfigurationError ? next(error) : refuse(response, protection.challenge(error))),
    )
  }
}

/**
 * For `requireBearerAuth` of the SDK. Where nobody can tell whether a token is alive, that answers 500; {@link protectMcp} answers 503.
 */
export function tokenVerifier(verifier: Verifier): OAuthTokenVerifier {
  return {
    async verifyAccessToken(token) {
      try {
        return authInfo(token, await verifier.verify(token))
      } catch (error) {
        if (error instanceof TokenRejected && !(error instanceof RevocationUnknown)) throw new InvalidTokenError(error.message)
        throw new ServerError('it cannot be told now whether the token is alive')
      }
    },
  }
}

/** The verified token of a call, in a handler of a tool. @throws TokenRejected if there is none */
export function verifiedOf(info: AuthInfo | undefined): VerifiedToken {
  const verified = info?.extra?.countersign
  if (verified instanceof VerifiedToken) return verified
  throw new TokenRejected({ code: 'token_missing', message: 'the call has no verified token' })
}

function authInfo(token: string, verified: VerifiedToken): AuthInfo {
  const info: AuthInfo = {
    token,
    clientId: verified.actor,
    scopes: [...verified.scopes],
    expiresAt: verified.expiresAt,
    extra: { countersign: verified },
  }
  // It is there for whoever asks for it, and not for whoever writes the whole into a log.
  return Object.defineProperty(info, 'token', { value: token, enumerable: false })
}

/** @throws InsufficientScope for a call that the token does not allow, ConfigurationError if the body was not read before. */
function requireTools(request: McpRequest, tools: ReadonlyMap<string, Tool>, verified: VerifiedToken): void {
  if (request.method !== 'POST') return
  if (request.body === undefined) {
    throw new ConfigurationError({
      code: 'body_missing',
      message: 'the body of the request was not read',
      advice: 'Use express.json() before protectMcp.',
    })
  }
  for (const message of Array.isArray(request.body) ? (request.body as unknown[]) : [request.body]) {
    if (!isObject(message) || message.method !== 'tools/call') continue
    const { name, arguments: args = {} } = isObject(message.params) ? message.params : {}
    const tool = typeof name === 'string' ? tools.get(name) : undefined
    if (!tool) throw new InsufficientScope({ code: 'insufficient_scope', message: 'no token allows this tool', scope: '' })
    const { capability, resource, parameters } = operationOf(tool, args)
    // A token for one operation allows that one alone; one for capabilities says nothing of parameters.
    verified.require(capability, { resource, parameters })
  }
}

function operationOf(tool: Tool, args: unknown) {
  try {
    return tool.operation(args as Args)
  } catch {
    throw new InsufficientScope({
      code: 'insufficient_scope',
      message: 'the arguments name nothing that a token could allow',
      scope: tool.capability,
    })
  }
}
