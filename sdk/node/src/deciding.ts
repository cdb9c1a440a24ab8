// A decision and a token for one operation, for the agent itself or for whoever called it.

import type { Client } from './client.ts'
import { Sidecar } from './credentials/sidecar.ts'
import { Decision } from './decision.ts'
import { InvalidScope } from './errors.ts'
import type { Operation } from './operation.ts'
import type { AccessToken } from './token.ts'

/** On whose behalf, and who may give up. */
export interface Behalf {
  /** The token with which the agent was called. */
  subjectToken?: string | undefined
  signal?: AbortSignal | undefined
}

/** Whether the agent may do it: for itself, or in the chain that the subject token began. */
export async function decide(client: Client, operation: Operation, { subjectToken, signal }: Behalf): Promise<Decision> {
  if (subjectToken === undefined) return client.evaluate(operation, { signal })
  const token = await client.exchange(subjectToken, { audience: operation.audience, signal }).catch((error: unknown) => {
    if (error instanceof InvalidScope) return error
    throw error
  })
  if (!(token instanceof InvalidScope)) return client.evaluate(operation, { context: { access_token: token.value }, signal })
  // Nothing that all in the chain hold without approval is left. What a person could approve, the service says when it is filed, and it
  // refuses the rest then.
  const reason = { code: 'no_capability', message: token.description, rule: undefined }
  return new Decision({ allowed: false, reason, accessRequest: { requestable: true } })
}

/** A token for an operation that needs no approval: for exactly that, where it can be had. */
export async function tokenFor(client: Client, operation: Operation, { subjectToken, signal }: Behalf): Promise<AccessToken> {
  // The sidecar hands out none for one operation: there it is for the capability.
  const isSidecar = (await client.credential()) instanceof Sidecar
  const { audience } = operation
  const wanted = isSidecar ? { audience, scope: operation.capability, signal } : { audience, operation, signal }
  return subjectToken === undefined ? client.token(wanted) : client.exchange(subjectToken, wanted)
}
