/**
 * LangChain: a middleware for `createAgent` that asks the authority before each call of a tool.
 *
 * @packageDocumentation
 */

import { ToolMessage } from '@langchain/core/messages'
import { Command, interrupt } from '@langchain/langgraph'
import { createMiddleware } from 'langchain'
import type { ToolCallRequest } from 'langchain'
import { ApprovalRequest } from '../approval.ts'
import { ConfigurationError } from '../errors.ts'
import type { Guard } from '../guard/guard.ts'
import { Denied, Pending } from '../guard/outcome.ts'
import { Permit } from '../guard/permit.ts'
import { isObject } from '../json.ts'
import { attempt, shown } from './attempt.ts'

/** The `type` of the value with which a graph is interrupted. */
const APPROVAL = 'countersign_approval'
/** Where LangGraph keeps the checkpointer of the graph that runs. There is no public name for it, and an interrupt without one is lost. */
const CHECKPOINTER = '__pregel_checkpointer'

/** How the middleware is set up. */
export interface CountersignMiddlewareOptions {
  /** The token with which the agent was called, if it acts on somebody's behalf. It must not come from the graph's state, which is stored. */
  subjectToken?: ((request: ToolCallRequest) => string | undefined | Promise<string | undefined>) | undefined
}

/**
 * Shows the model the tools that its agent could come to use, and asks the guard before each call.
 *
 * List it last: what comes after it could still change the arguments, or call the tool twice. With the guard's mode `interrupt` a call that
 * a person must approve pauses the graph. Resuming is a wake-up and nothing else: the guard asks the authority again, and the graph pauses
 * again while nobody has decided. Where a pause could not be resumed, without a checkpointer, the model is told that a person must approve.
 *
 * A call that is denied, or waits, is answered with a ToolMessage of status `error`; its `artifact` has the details for the application.
 */
export function countersignMiddleware(guard: Guard, options: CountersignMiddlewareOptions = {}) {
  return createMiddleware({
    name: 'CountersignMiddleware',
    wrapModelCall: async (request, handler) => {
      const names = await shown(guard, request.tools.map(nameOf))
      return handler({ ...request, tools: request.tools.filter((tool) => names.has(nameOf(tool))) })
    },
    wrapToolCall: async (request, handler) => {
      let resumed: unknown
      for (;;) {
        const outcome = await attempt(guard, () => asked(request, resumed, options))
        if (outcome instanceof Permit) return outcome.run(() => handler(request))
        if (!(outcome instanceof Pending && guard.mode === 'interrupt' && canPause(request))) return refused(request, outcome)
        resumed = interrupt(payload(request, outcome))
      }
    },
  })
}

/** A call for which a graph has paused. */
export interface PendingApproval {
  interruptId: string
  tool: string
  callId: string
  request: ApprovalRequest
}

/** The calls that wait for a person, in what `invoke` has returned, or in a state of `getState`. */
export function pendingApprovals(paused: unknown): PendingApproval[] {
  if (!isObject(paused)) return []
  const tasks = Array.isArray(paused.tasks) ? paused.tasks : []
  const found: unknown = paused.__interrupt__ ?? tasks.flatMap((task) => (isObject(task) && Array.isArray(task.interrupts) ? task.interrupts : []))
  return Array.isArray(found) ? found.flatMap(read) : []
}

/**
 * What wakes a graph that has paused: `agent.invoke(resumeCommand(result), config)`, in any process, as often as you like. It approves
 * nothing: a call of which nobody has decided pauses again, and one whose arguments were changed meanwhile is refused.
 *
 * @throws ConfigurationError if it does not wait.
 */
export function resumeCommand(paused: unknown): Command {
  const waiting = pendingApprovals(paused)
  if (waiting.length === 0) throw new ConfigurationError({ code: 'not_paused', message: 'this graph does not wait for an approval of Countersign' })
  const requests = Object.fromEntries(waiting.map(({ callId, request }) => [callId, request.id]))
  return new Command({ resume: Object.fromEntries(waiting.map(({ interruptId }) => [interruptId, { type: APPROVAL, requests }])) })
}

async function asked(request: ToolCallRequest, resumed: unknown, options: CountersignMiddlewareOptions) {
  const { id, name, args } = request.toolCall
  const thread = configurableOf(request).thread_id
  // The same call in another thread is another call.
  const runId = thread === undefined ? undefined : String(thread)
  const requests = isObject(resumed) && isObject(resumed.requests) ? resumed.requests : {}
  const requestId = id !== undefined && typeof requests[id] === 'string' ? requests[id] : undefined
  return { tool: name, args, call: { callId: id ?? '', runId, requestId, subjectToken: await options.subjectToken?.(request) } }
}

function canPause(request: ToolCallRequest): boolean {
  return configurableOf(request)[CHECKPOINTER] !== undefined
}

function configurableOf({ runtime }: ToolCallRequest): Record<string, unknown> {
  const { configurable } = runtime as { configurable?: Record<string, unknown> }
  return configurable ?? {}
}

/** The answer to the model, which goes on with it; an error would end the run. */
function refused({ toolCall }: ToolCallRequest, why: Denied | Pending): ToolMessage {
  const details = why instanceof Pending ? { request: why.request.toJSON() } : { evaluationId: why.evaluationId }
  const artifact = { countersign: { code: why.code, ...details } }
  return new ToolMessage({ content: why.forModel(), tool_call_id: toolCall.id ?? '', name: toolCall.name, status: 'error', artifact })
}

/** What whoever sees the pause is told. It is kept in the checkpoint: nothing in it is secret, but the arguments are there. */
function payload({ toolCall }: ToolCallRequest, waiting: Pending) {
  return { type: APPROVAL, tool: toolCall.name, call_id: toolCall.id, request: waiting.request.toJSON(), message: waiting.forModel() }
}

function read(found: unknown): PendingApproval[] {
  if (!isObject(found) || typeof found.id !== 'string' || !isObject(found.value) || found.value.type !== APPROVAL) return []
  const { tool, call_id: callId, request } = found.value
  return [{ interruptId: found.id, tool: String(tool), callId: String(callId), request: ApprovalRequest.fromJSON(request) }]
}

/** A tool's name. One that the provider of the model runs has at least a type: it is filtered, which is all that can be done here. */
function nameOf(tool: unknown): string {
  if (!isObject(tool)) return ''
  const { name, type } = tool as { name?: unknown; type?: unknown }
  return typeof name === 'string' ? name : typeof type === 'string' ? type : ''
}
