/**
 * LangChain: a middleware for `createAgent` that asks the authority before each call of a tool.
 *
 * @packageDocumentation
 */

import { ToolMessage } from '@langchain/core/messages'
import { Runnable } from '@langchain/core/runnables'
import { Command, interrupt, isGraphInterrupt } from '@langchain/langgraph'
import { createMiddleware } from 'langchain'
import type { ToolCallHandler, ToolCallRequest } from 'langchain'
import { ApprovalRequest } from '../approval.ts'
import { ConfigurationError } from '../errors.ts'
import type { Guard } from '../guard/guard.ts'
import { Denied, Pending } from '../guard/outcome.ts'
import { Permit } from '../guard/permit.ts'
import { isObject } from '../json.ts'
import { allowed, attempt, shown } from './attempt.ts'

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
 * List it last: what comes after it could still change the arguments, or the tool, or call it twice. Where other middleware for calls of
 * tools comes after it, nothing runs. With the guard's mode `interrupt` a call that a person must approve pauses the graph. Resuming is a
 * wake-up and nothing else: the guard asks the authority again, and the graph pauses again while nobody has decided. Without a checkpointer
 * a pause could not be resumed, and nothing runs in that mode.
 *
 * A call that is denied, or waits, is answered with a ToolMessage of status `error`; its `artifact` has the details for the application.
 */
export function countersignMiddleware(guard: Guard, options: CountersignMiddlewareOptions = {}) {
  return createMiddleware({
    name: 'CountersignMiddleware',
    wrapModelCall: async (request, handler) => {
      const elsewhere = request.tools.filter(runsElsewhere)
      const here = request.tools.filter((tool) => !runsElsewhere(tool))
      const [names, others] = await Promise.all([shown(guard, here.map(nameOf)), allowed(guard, elsewhere.map(nameOf))])
      return handler({ ...request, tools: request.tools.filter((tool) => (runsElsewhere(tool) ? others : names).has(nameOf(tool))) })
    },
    wrapToolCall: async (request, handler) => {
      const pauses = guard.mode === 'interrupt'
      if (pauses && configurableOf(request)[CHECKPOINTER] === undefined) {
        const advice = 'Give createAgent a checkpointer, or the guard the mode wait.'
        throw new ConfigurationError({ code: 'no_checkpointer', message: 'a guard with the mode interrupt needs a checkpointer', advice })
      }
      await mustBeLast(request, handler)
      let outcome = await attempt(guard, () => asked(request, undefined, options))
      if (pauses && outcome instanceof Pending) {
        const woken = wokenFor(request, outcome)
        outcome = await attempt(guard, () => asked(request, woken, options))
      }
      if (!(outcome instanceof Permit)) return refused(request, outcome)
      if (pauses && outcome.request) takeWakeUps()
      return outcome.run(() => handler({ ...request, tool: once(request.tool) }))
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

async function asked(request: ToolCallRequest, requestId: string | undefined, options: CountersignMiddlewareOptions) {
  const { id, name, args } = request.toolCall
  if (request.tool !== undefined && nameOf(request.tool) !== name) {
    throw new ConfigurationError({ code: 'tool_replaced', message: `${nameOf(request.tool)} would run where ${name} was called` })
  }
  const thread = configurableOf(request).thread_id
  // The same call in another thread is another call.
  const runId = thread === undefined ? undefined : String(thread)
  return { tool: name, args, call: { callId: id ?? '', runId, requestId, subjectToken: await options.subjectToken?.(request) } }
}

/**
 * Pauses, and does not return while the graph is not resumed with another request than that which waits. A graph that is resumed begins the
 * node anew, so what the guard has just said is what it says after the last wake-up.
 */
function wokenFor(request: ToolCallRequest, waiting: Pending): string {
  for (;;) {
    const resumed: unknown = interrupt(payload(request, waiting))
    const requests = isObject(resumed) && isObject(resumed.requests) ? resumed.requests : {}
    const woken = requests[request.toolCall.id ?? '']
    if (typeof woken === 'string' && woken !== waiting.request.id) return woken
  }
}

/** Takes what the graph was resumed with. It was for the pause of the guard, and answers no `interrupt` of the tool itself. */
function takeWakeUps(): void {
  try {
    for (;;) interrupt(null)
  } catch (error) {
    if (!isGraphInterrupt(error)) throw error
  }
}

/**
 * LangChain does not say what comes next. So it is handed a call that nobody can read, and a tool that nobody can run: the node of the tools
 * reaches for the tool's `invoke` before anything else, and other middleware for something else, or more than once.
 *
 * @throws ConfigurationError if what comes next is not the node itself.
 */
async function mustBeLast(request: ToolCallRequest, handler: ToolCallHandler): Promise<void> {
  const touched: unknown[] = []
  const untouchable = (name: string) => {
    const touch = (_: object, key?: unknown): never => {
      touched.push(key === 'invoke' ? `${name}.invoke` : name)
      throw new Error('only the node of the tools may touch this call')
    }
    return new Proxy({}, { get: touch, set: touch, has: touch, ownKeys: touch, getOwnPropertyDescriptor: touch })
  }
  try {
    await handler({ ...request, toolCall: untouchable('call'), tool: untouchable('tool') } as never)
  } catch {
    // Whatever it is: what was touched says who came next.
  }
  if (touched.join() !== 'tool.invoke') throw notLast()
}

/** The tool, to be run once: it is permitted to one call. */
function once(tool: ToolCallRequest['tool']): ToolCallRequest['tool'] {
  if (tool === undefined) return undefined
  let isOpen = true
  const { invoke } = tool as { invoke: (...call: unknown[]) => unknown }
  const run = (...call: unknown[]): unknown => {
    if (!isOpen) throw notLast()
    isOpen = false
    return invoke.apply(tool, call)
  }
  return Object.create(tool, { invoke: { value: run } }) as ToolCallRequest['tool']
}

function notLast(): ConfigurationError {
  const message = 'other middleware stands between the guard and the tools'
  return new ConfigurationError({ code: 'not_last', message, advice: 'List countersignMiddleware last.' })
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

/** Whether the provider of the model runs a tool: whatever is neither a tool of LangChain nor the schema of a function, of which the calls come here. */
function runsElsewhere(tool: unknown): boolean {
  if (Runnable.isRunnable(tool)) return false
  const { type, input_schema: schema, parameters } = tool as Record<string, unknown>
  return type !== 'function' && type !== 'custom' && !(type === undefined && (schema ?? parameters) !== undefined)
}

/** A tool's name. One that the provider of the model runs has at least a type. */
function nameOf(tool: unknown): string {
  const { name, type, function: schema } = tool as Record<string, unknown>
  return [name, isObject(schema) ? schema.name : undefined, type].find((found) => typeof found === 'string') ?? ''
}
