/**
 * Google ADK for TypeScript: a plugin that asks the authority before any tool of any agent runs.
 *
 * @packageDocumentation
 */

import { BasePlugin, generateClientFunctionCallId, getFunctionCalls, getFunctionResponses, isAgentTool } from '@google/adk'
import type { BaseTool, Context, Event, InvocationContext, LlmRequest, RunAsyncToolRequest } from '@google/adk'
import { ApprovalRequest } from '../approval.ts'
import { debug } from '../debug.ts'
import type { Guard } from '../guard/guard.ts'
import { Denied, Pending } from '../guard/outcome.ts'
import { Permit } from '../guard/permit.ts'
import { canonicalJson, isObject } from '../json.ts'
import { allowed, attempt, shown } from './attempt.ts'

/** The call by which ADK asks whoever runs the agent. */
const CONFIRMATION = 'adk_request_confirmation'
/** Said to the model if whoever was asked by the framework did not confirm. */
const DECLINED = 'This was not confirmed. Nothing was done. Do not try again.'

/** How the plugin is set up. */
export interface CountersignPluginOptions {
  /** The token with which the agent was called, if it acts on somebody's behalf. It must not come from the session's state, which is stored. */
  subjectToken?: ((context: Context) => string | undefined | Promise<string | undefined>) | undefined
  /** The plugin's name. */
  name?: string | undefined
}

/**
 * Asks the guard before a tool runs, and shows a model only the tools that its agent could come to use.
 *
 * In the guard's mode `interrupt`, a call that a person must approve pauses the run by `adk_request_confirmation`, whose payload names the
 * request. Whoever answers that with `confirmed: true` wakes the run, here or in another process with the same session service; whether it
 * was approved, the authority is asked again. In the mode `wait` the call waits; in `reject` the model is told.
 *
 * As a plugin of the runner it stands before the tools of every agent and toolset, before the callbacks of the agents. What is not run on
 * this side, such as a model's own search, it takes out of the request unless that is mapped and allowed at once. An `AgentTool` is
 * refused, mapped or not: ADK for TypeScript runs the agent behind it without the plugins of the runner. Let that agent be a sub-agent.
 */
export class CountersignPlugin extends BasePlugin {
  readonly #guard: Guard
  readonly #subjectToken: CountersignPluginOptions['subjectToken']

  constructor(guard: Guard, options: CountersignPluginOptions = {}) {
    super(options.name ?? 'countersign')
    this.#guard = guard
    this.#subjectToken = options.subjectToken
  }

  /** Takes the tools out of the request that are of no use. A call of one nevertheless is denied as any other. */
  override async beforeModelCallback({ llmRequest }: { callbackContext: Context; llmRequest: LlmRequest }): Promise<undefined> {
    const tools = llmRequest.config?.tools ?? []
    const declared = tools.flatMap((tool) => ('functionDeclarations' in tool ? (tool.functionDeclarations ?? []) : []))
    const here = declared.flatMap(({ name }) => (name === undefined || isAgentTool(llmRequest.toolsDict[name]) ? [] : name))
    // Whatever else a tool has is for the provider of the model to run.
    const elsewhere = tools.flatMap(Object.keys).filter((field) => field !== 'functionDeclarations')
    const [names, others] = await Promise.all([shown(this.#guard, here), allowed(this.#guard, elsewhere.map(nameOf))])
    const left = tools.map((tool) => {
      const provided = Object.entries(tool).filter(([field]) => field !== 'functionDeclarations' && others.has(nameOf(field)))
      const functions = 'functionDeclarations' in tool ? (tool.functionDeclarations ?? []) : []
      const functionDeclarations = functions.filter(({ name }) => name !== undefined && names.has(name))
      return { ...Object.fromEntries(provided), ...(functionDeclarations.length > 0 && { functionDeclarations }) }
    })
    // A tool without anything is none that a model's API accepts.
    if (llmRequest.config) llmRequest.config.tools = left.filter((tool) => Object.keys(tool).length > 0)
  }

  /** `undefined` lets the tool run. What is returned otherwise is its result, which the model sees. */
  override async beforeToolCallback(call: { tool: BaseTool; toolArgs: Record<string, unknown>; toolContext: Context }): Promise<Record<string, unknown> | undefined> {
    const { tool, toolArgs, toolContext } = call
    if (toolContext.toolConfirmation && !toolContext.toolConfirmation.confirmed) return { error: DECLINED }
    if (isAgentTool(tool)) {
      debug(`${tool.name} is an agent whose tools the plugin would not see: hand over to it as a sub-agent`)
      return { error: new Denied({ code: 'unguarded', message: 'the guard does not see the tools of an agent that is a tool' }).forModel() }
    }
    let asked = ''
    const outcome = await attempt(this.#guard, async () => {
      asked = canonicalJson(toolArgs)
      const subjectToken = await this.#subjectToken?.(toolContext)
      const requestId = pausedFor(toolContext)?.id
      // Calls have ids of their own within a session, of whatever process. An invocation's id may change when it is resumed.
      const { appName, userId, id } = toolContext.invocationContext.session
      const runId = JSON.stringify([appName, userId, id])
      return { tool: tool.name, args: toolArgs, call: { callId: toolContext.functionCallId ?? '', runId, subjectToken, requestId } }
    })
    if (outcome instanceof Permit) {
      bind(tool)
      leaves.set(toolContext, { permit: outcome, asked })
      return undefined
    }
    if (outcome instanceof Pending && this.#guard.mode === 'interrupt') {
      toolContext.requestConfirmation({ hint: outcome.forModel(), payload: { countersign: outcome.request.toJSON() } })
      // Without it the model is asked to go on from here, and ends the run with what it makes up.
      toolContext.actions.skipSummarization = true
      // Of a call that was woken too soon ADK itself does not end the run.
      if (toolContext.toolConfirmation) toolContext.invocationContext.endInvocation = true
    }
    return { error: outcome.forModel() }
  }

  /**
   * Makes a pause whole, so that it can be resumed, and as often as it takes. Of a call that pauses for the first time ADK keeps what it asks,
   * and without the call's answer for now it refuses the resumption; of one that was woken too soon it keeps the answer, and asks nothing.
   */
  override async onEventCallback({ invocationContext, event }: { invocationContext: InvocationContext; event: Event }): Promise<Event | undefined> {
    const { events } = invocationContext.session
    const answered = new Set(events.flatMap(getFunctionResponses).map(({ id }) => id))
    const asking = new Set([...events, event].flatMap(confirmations).flatMap(({ id, callId }) => (answered.has(id) ? [] : callId)))
    const calls = new Map(events.flatMap(getFunctionCalls).map((call) => [call.id, call]))
    const missing = Object.entries(event.actions.requestedToolConfirmations).flatMap(([id, confirmation]) => {
      const call = calls.get(id)
      if (!call || !requestIn(confirmation.payload)) return []
      const isAnswered = getFunctionResponses(event).some((response) => response.id === id)
      return [
        ...(isAnswered ? [] : [{ functionResponse: { id, name: call.name ?? '', response: { error: confirmation.hint } } }]),
        ...(asking.has(id) ? [] : [{ functionCall: confirmationOf(call, confirmation) }]),
      ]
    })
    if (missing.length === 0) return undefined
    const ids = missing.flatMap((part) => ('functionCall' in part ? part.functionCall.id : []))
    const content = { ...event.content, parts: [...(event.content?.parts ?? []), ...missing] }
    return { ...event, content, longRunningToolIds: [...(event.longRunningToolIds ?? []), ...ids] }
  }
}

/** A call for which a run has paused. */
export interface PendingApproval {
  confirmationId: string
  tool: string
  callId: string
  request: ApprovalRequest
}

/** The calls that wait for a person, in what a run has yielded, or in the events of a session. */
export function pendingApprovals(events: Iterable<Event>): PendingApproval[] {
  const waiting = new Map<string, PendingApproval>()
  const answered = new Set<string>()
  for (const event of events) {
    // The answers first: an event can hold the answer for now, and what is asked instead.
    for (const response of getFunctionResponses(event)) {
      if (response.id && waiting.has(response.id)) answered.add(response.id)
      // An answer alone is not the end: whoever was woken by it may have died before the tool ran.
      for (const { confirmationId, callId } of waiting.values()) {
        if (callId === response.id && answered.has(confirmationId)) waiting.delete(confirmationId)
      }
    }
    for (const { id, callId, tool, request } of confirmations(event)) {
      if (request) waiting.set(id, { confirmationId: id, tool, callId, request })
    }
  }
  return [...waiting.values()]
}

/**
 * What wakes a run that has paused: the `newMessage` for the runner, in any process, as often as you like. It approves nothing: a call of
 * which nobody has decided pauses again, and one whose arguments were changed meanwhile is refused.
 */
export function resumeMessage(pending: Iterable<PendingApproval>): { role: 'user'; parts: { functionResponse: { id: string; name: string; response: { confirmed: true } } }[] } {
  const answer = (id: string) => ({ functionResponse: { id, name: CONFIRMATION, response: { confirmed: true as const } } })
  return { role: 'user', parts: [...pending].map(({ confirmationId }) => answer(confirmationId)) }
}

/** The name that the guard has for what a model's provider runs: `google_search` for the field `googleSearch`, as ADK names the tool. */
function nameOf(field: string): string {
  return field.replaceAll(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`)
}

/** By the context that ADK makes for each call, and gives to the plugins and to the tool: that it may run, with these arguments. */
const leaves = new WeakMap<Context, { permit: Permit; asked: string }>()
const bound = new WeakSet<BaseTool>()

/**
 * Has the tool itself look once more, when it runs, whether it is the call that may. ADK runs the callbacks of an agent after every plugin,
 * and they may change the arguments: the tool would do something else than what was allowed, or approved. From its first permit on the tool
 * runs in no other way.
 */
function bind(tool: BaseTool): void {
  if (bound.has(tool)) return
  const unbound = tool.runAsync.bind(tool)
  tool.runAsync = async (request: RunAsyncToolRequest) => {
    const leave = leaves.get(request.toolContext)
    leaves.delete(request.toolContext)
    if (!leave || !isSame(request.args, leave.asked)) return { error: new Denied({ code: 'approval_mismatch', message: 'the call is not the one that was permitted' }).forModel() }
    return leave.permit.run(() => unbound(request))
  }
  bound.add(tool)
}

function isSame(args: Record<string, unknown>, asked: string): boolean {
  try {
    return canonicalJson(args) === asked
  } catch {
    // It was JSON when it was asked about.
    return false
  }
}

/** The request for which this call was paused, as the session has it: what was answered says nothing about that. */
function pausedFor({ toolConfirmation, functionCallId, invocationContext }: Context): ApprovalRequest | undefined {
  if (!toolConfirmation || !functionCallId) return undefined
  for (const { actions } of invocationContext.session.events.toReversed()) {
    const request = requestIn(actions.requestedToolConfirmations[functionCallId]?.payload)
    if (request) return request
  }
  return undefined
}

/** What an event asks of whoever runs the agent. */
function confirmations(event: Event): { id: string; callId: string; tool: string; request: ApprovalRequest | undefined }[] {
  return getFunctionCalls(event).flatMap(({ id, name, args }) => {
    const { toolConfirmation, originalFunctionCall: call } = args ?? {}
    if (name !== CONFIRMATION || !id || !isObject(call) || typeof call.id !== 'string') return []
    return [{ id, callId: call.id, tool: String(call.name), request: isObject(toolConfirmation) ? requestIn(toolConfirmation.payload) : undefined }]
  })
}

/** The call by which ADK asks whoever runs the agent whether another call is confirmed. */
function confirmationOf(call: object, toolConfirmation: object) {
  return { id: generateClientFunctionCallId(), name: CONFIRMATION, args: { originalFunctionCall: call, toolConfirmation } }
}

/** The request that the payload of a confirmation names, if it is one of ours. */
function requestIn(payload: unknown): ApprovalRequest | undefined {
  return isObject(payload) && isObject(payload.countersign) ? ApprovalRequest.fromJSON(payload.countersign) : undefined
}
