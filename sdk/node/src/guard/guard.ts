// What stands before every call of a tool. Whatever goes wrong, nothing runs.

import { ApprovalRequest } from '../approval.ts'
import type { Client } from '../client.ts'
import { decide, tokenFor } from '../deciding.ts'
import type { Decision } from '../decision.ts'
import { sha256Hex } from '../digest.ts'
import { ApprovalPending, ConfigurationError } from '../errors.ts'
import { canonicalJson } from '../json.ts'
import type { JsonObject } from '../json.ts'
import { OPERATION_DETAILS } from '../operation.ts'
import type { Operation } from '../operation.ts'
import type { AccessToken } from '../token.ts'
import { Denied, outcomeOf } from './outcome.ts'
import { Permit, usedUp } from './permit.ts'
import { Tool } from './tool.ts'
import type { Args } from './tool.ts'

/** What happens to a call that a person has to approve: it waits, or the caller hears that it is pending. */
export type GuardMode = 'wait' | 'interrupt' | 'reject'

/** How a guard is set up. */
export interface GuardOptions {
  mode?: GuardMode | undefined
  /** How long a call waits for a person, in seconds. */
  maxWait?: number | undefined
  /** A word to whoever decides. */
  justification?: string | undefined
}

/** Which call it is. */
export interface CallIdentity {
  /** The call's id, the same when the call is resumed. */
  callId: string
  /** The run or thread in which it is. */
  runId?: string | undefined
  /** The token with which the agent was called. */
  subjectToken?: string | undefined
  /** The request that was pending, when the call is resumed. */
  requestId?: string | undefined
  signal?: AbortSignal | undefined
}

/** Why a capability is not had on nothing, and may be had on something. */
const DEPENDS = new Set(['approval_required', 'resource_not_granted', 'parameters_refused', 'condition_unmet', 'condition_undecided'])

/** Decides about each call of a tool. A tool that is not mapped is denied. */
export class Guard {
  readonly mode: GuardMode
  /** What each tool needs, by name. */
  readonly tools: ReadonlyMap<string, Tool>
  readonly #client: Client
  readonly #maxWait: number
  readonly #justification: string | undefined

  /** @param tools by name: a capability, or a {@link Tool}. */
  constructor(client: Client, tools: Readonly<Record<string, string | Tool>>, options: GuardOptions = {}) {
    this.#client = client
    this.tools = new Map(Object.entries(tools).map(([name, tool]) => [name, typeof tool === 'string' ? new Tool(tool) : tool]))
    this.mode = options.mode ?? 'wait'
    if (!['wait', 'interrupt', 'reject'].includes(this.mode)) {
      throw new ConfigurationError({ code: 'mode_unknown', message: 'the mode of a guard is wait, interrupt or reject' })
    }
    this.#maxWait = options.maxWait ?? 120
    this.#justification = options.justification
  }

  /** The leave to run a call. @throws Denied, Pending, and nothing else */
  async check(tool: string, args: Args, call: CallIdentity): Promise<Permit> {
    try {
      return await this.#check(tool, args, call)
    } catch (error) {
      throw outcomeOf(error)
    }
  }

  /**
   * What {@link check} would come to, without using an approval up: the request for which the call would wait, `undefined` if it would run.
   * For frameworks that must know beforehand whether a call pauses, or whether it still does.
   *
   * @throws Denied where `check` would
   */
  async peek(tool: string, args: Args, call: CallIdentity): Promise<ApprovalRequest | undefined> {
    try {
      return await this.#peek(tool, args, call)
    } catch (error) {
      throw outcomeOf(error)
    }
  }

  /** Runs `work` if the call may run; in it {@link currentPermit} is the permit. @throws Denied, Pending, and what `work` throws */
  async run<T>(tool: string, args: Args, call: CallIdentity, work: (permit: Permit) => T | Promise<T>): Promise<T> {
    const permit = await this.check(tool, args, call)
    return permit.run(() => work(permit))
  }

  /**
   * Those of the names that are worth showing to a model: mapped, and of a capability that the agent has on something, or that a person
   * could approve. It permits nothing.
   *
   * @throws Unavailable, Refused
   */
  async visible(names: Iterable<string>): Promise<string[]> {
    return this.#those(names, ({ allowed, accessRequest, reason }) => allowed || accessRequest !== undefined || DEPENDS.has(reason?.code ?? ''))
  }

  /**
   * Those of the names that may run at once, whatever the call is: for tools that a model's provider runs, before which nobody asks.
   *
   * @throws Unavailable, Refused
   */
  async allowed(names: Iterable<string>): Promise<string[]> {
    return this.#those(names, ({ allowed, approval }) => allowed && approval === undefined)
  }

  async #those(names: Iterable<string>, are: (decision: Decision) => boolean): Promise<string[]> {
    const mapped = [...names].flatMap((name) => {
      const tool = this.tools.get(name)
      return tool ? [{ name, tool }] : []
    })
    if (mapped.length === 0) return []
    const decisions = await this.#client.evaluateMany(mapped.map(({ tool }) => tool.outline()))
    return mapped.filter((_, at) => decisions[at] !== undefined && are(decisions[at])).map(({ name }) => name)
  }

  async #check(name: string, args: Args, call: CallIdentity): Promise<Permit> {
    const { tool, operation, decision } = await this.#asked(name, args, call)
    const { subjectToken, signal } = call
    const { evaluationId } = decision
    if (decision.allowed && !decision.approval) {
      return new Permit({ tool: name, operation, evaluationId, obtain: () => tokenFor(this.#client, operation, { subjectToken, signal }) })
    }
    const { request, token } = await this.#approved(name, operation, decision, call)
    if (!isFor(token.details, operation))
      throw new Denied({ code: 'approval_mismatch', message: 'the token is for another operation than the call', evaluationId })
    if (tool.sendsToken) return new Permit({ tool: name, operation, evaluationId, request, obtain: () => Promise.resolve(token) })
    // Before the tool runs: whoever resumes the call too, here or elsewhere, does not get past this.
    await this.#client.complete(token, { signal })
    return new Permit({ tool: name, operation, evaluationId, request, obtain: usedUp })
  }

  async #peek(name: string, args: Args, call: CallIdentity): Promise<ApprovalRequest | undefined> {
    const { operation, decision } = await this.#asked(name, args, call)
    if (decision.allowed && !decision.approval) return undefined
    const request = await this.#request(name, operation, decision, call)
    if (decision.approval?.id === request.id) return undefined
    try {
      // Of a request that has been denied, or has expired, a decision says nothing.
      await this.#look(request, call.signal)
    } catch (error) {
      if (error instanceof ApprovalPending) return request
      throw error
    }
    // Somebody has decided since. The service gives the same token again to the check that follows.
    return undefined
  }

  /** What a call is, and what the authority says of it. @throws Denied if no person could lift the no */
  async #asked(name: string, args: Args, call: CallIdentity): Promise<{ tool: Tool; operation: Operation; decision: Decision }> {
    const tool = this.tools.get(name)
    if (!tool) throw new Denied({ code: 'unmapped', message: 'the tool is mapped to no capability' })
    if (typeof call.callId !== 'string' || call.callId === '') throw new Denied({ code: 'guard_failed', message: 'the call has no id' })
    const operation = tool.operation(args)
    const { subjectToken, signal } = call
    const decision = await decide(this.#client, operation, { subjectToken, signal })
    const { evaluationId, reason } = decision
    if (!decision.allowed && !decision.accessRequest) throw new Denied({ ...details(decision), reason, evaluationId })
    return { tool, operation, decision }
  }

  /** The request of a call. */
  async #request(tool: string, operation: Operation, decision: Decision, call: CallIdentity): Promise<ApprovalRequest> {
    const { signal, requestId, subjectToken } = call
    // A model that was told to call again calls by another id: the approval of exactly this is what it was told to wait for.
    if (this.mode !== 'interrupt' && decision.approval && requestId === undefined) {
      return new ApprovalRequest({ id: decision.approval.id, operation })
    }
    const idempotencyKey = keyOf(tool, operation, call)
    return this.#client.requestApproval(operation, { justification: this.#justification, subjectToken, idempotencyKey, signal })
  }

  async #approved(tool: string, operation: Operation, decision: Decision, call: CallIdentity): Promise<{ request: ApprovalRequest; token: AccessToken }> {
    const { signal, requestId } = call
    const request = await this.#request(tool, operation, decision, call)
    if (requestId !== undefined && requestId !== request.id) {
      throw new Denied({ code: 'approval_mismatch', message: 'the request that was approved is not that of this call' })
    }
    const isPatient = this.mode === 'wait'
    const token = await (isPatient ? this.#client.waitForApproval(request, { timeout: this.#maxWait, signal }) : this.#look(request, signal))
    return { request, token }
  }

  /** Looks at a request once, and not too soon after the last time: that nobody has decided is said by the service, not by the pace. */
  async #look(request: ApprovalRequest, signal: AbortSignal | undefined): Promise<AccessToken> {
    return this.#client.approval(request, { signal }).catch((error: unknown) => {
      if (!(error instanceof ApprovalPending) || error.status !== undefined) throw error
      return this.#client.approval(request, { wait: error.retryAfter + 0.05, signal })
    })
  }
}

/** By which the same call is the same request, whoever files it. */
export function keyOf(tool: string, operation: Operation, call: Pick<CallIdentity, 'callId' | 'runId'>): string {
  return sha256Hex(canonicalJson([call.runId ?? null, call.callId, tool, operation.details()]))
}

function details({ reason }: Decision): { code: string; message: string } {
  return { code: reason?.code ?? 'denied', message: reason?.message ?? 'it is not allowed' }
}

/** Whether a token is for exactly this operation. */
function isFor(details: readonly JsonObject[], operation: Operation): boolean {
  const [granted, ...others] = details
  if (!granted || others.length > 0 || granted.type !== OPERATION_DETAILS) return false
  const same = (one: unknown, other: unknown) => canonicalJson(one ?? {}) === canonicalJson(other ?? {})
  return (
    granted.capability === operation.capability && granted.resource === operation.resource && same(granted.parameters, operation.parameters)
  )
}
