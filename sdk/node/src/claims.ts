// What a token of one's own says. No signature is checked: nothing is decided by it.

import { parseObject } from './json.ts'
import type { JsonObject } from './json.ts'

/** The claims of a JWT, unverified; `undefined` if it is none. */
export function unverifiedClaims(token: string): JsonObject | undefined {
  const parts = token.split('.')
  return parts.length === 3 && parts[1] ? parseObject(Buffer.from(parts[1], 'base64url').toString('utf8')) : undefined
}

/** When a JWT ends, in seconds since the epoch, if it says so. */
export function expiryOf(token: string): number | undefined {
  const exp = unverifiedClaims(token)?.exp
  return typeof exp === 'number' && Number.isFinite(exp) ? exp : undefined
}

/** The agent to which an access token was issued. */
export function clientOf(accessToken: string): string | undefined {
  const client = unverifiedClaims(accessToken)?.client_id
  return typeof client === 'string' && AGENT.test(client) ? client : undefined
}

/** The agent whose ServiceAccount a token of Kubernetes is for, if it is called like that. */
export function serviceAccountAgentOf(credential: string): string | undefined {
  const subject = unverifiedClaims(credential)?.sub
  const [, namespace, name] = (typeof subject === 'string' && /^system:serviceaccount:([^:]+):([^:]+)$/.exec(subject)) || []
  const agent = `agent:${namespace}/${name}`
  return name !== undefined && AGENT.test(agent) ? agent : undefined
}

const AGENT = /^agent:[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?\/[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$/
