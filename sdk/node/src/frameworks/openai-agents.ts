/**
 * OpenAI Agents SDK: function tools that ask the authority before they run.
 *
 * @packageDocumentation
 */

import { Agent } from '@openai/agents'
import type { FunctionTool, RunContext, RunState, RunToolApprovalItem, Tool, ToolInputGuardrailDefinition } from '@openai/agents'
import type { ApprovalRequest } from '../approval.ts'
import { ConfigurationError } from '../errors.ts'
import type { CallIdentity, Guard } from '../guard/guard.ts'
import { Denied, Pending } from '../guard/outcome.ts'
import { Permit } from '../guard/permit.ts'
import { canonicalJson, isObject, parseObject } from '../json.ts'
import { attempt, shown } from './attempt.ts'
import type { Outcome } from './attempt.ts'

/** How tools are guarded. */
export interface GuardToolsOptions {
  /** What the ids of calls are unique in, for models that count them anew. It must be the same when a run is resumed. */
  runId?: ((context: RunContext<any>) => string | undefined) | undefined
  /** The token with which the agent was called, if it acts on somebody's behalf. It must not be in the state of the run, which is stored. */
  subjectToken?: ((context: RunContext<any>) => string | undefined | Promise<string | undefined>) | undefined
}

type AnyTool = FunctionTool<any, any, any>

/**
 * The agent with all its tools guarded. The agent that was given is left as it is.
 *
 * @throws ConfigurationError for what does not go through the guard: tools that are no function tools, MCP servers, the capabilities of a
 *   sandbox, and agents that are not guarded behind handoffs or `asTool()`. Guard those first, and use what that returns.
 */
export function guardAgent<TAgent extends Agent<any, any>>(agent: TAgent, guard: Guard, options: GuardToolsOptions = {}): TAgent {
  if (agent.mcpServers.length > 0) throw unguarded('tools of MCP servers: list them as function tools')
  // Each of them brings tools of its own into a run, such as a shell.
  const { capabilities } = agent as { capabilities?: unknown }
  if (capabilities !== undefined && !(Array.isArray(capabilities) && capabilities.length === 0)) throw unguarded('the capabilities of a sandbox: take an agent without')
  if (agent.handoffs.some((handoff) => !(handoff instanceof Agent && guardedAgents.has(handoff)))) throw unguarded('handoffs to agents that are not guarded: guard those first')
  const made = agent.clone({ tools: guardTools(agent.tools, guard, options) }) as TAgent
  guardedAgents.add(made)
  const asTool = made.asTool.bind(made) as (options: object) => AnyTool
  // The SDK does not say of a tool which agent is behind it.
  Object.defineProperty(made, 'asTool', {
    value: (settings: object) => {
      const tool = asTool(settings)
      agentTools.set(tool, () => asTool(settings))
      return tool
    },
  })
  return made
}

const guardedAgents = new WeakSet<Agent<any, any>>()
const guardedTools = new WeakSet<AnyTool>()
/** Of the tools that are guarded agents: how another such is made. */
const agentTools = new WeakMap<AnyTool, () => AnyTool>()

/**
 * The tools, each of which asks the guard before it runs, and is hidden from a model that could not come to use it.
 *
 * With the guard's mode `interrupt` a call that a person must approve interrupts the run. `state.approve` is a wake-up and nothing else: the
 * guard asks the authority again before the tool runs, and the model is told if nobody has decided.
 *
 * @throws ConfigurationError for a tool that is no function tool, which is not run on this side, and for one that `asTool()` made of an agent
 *   that is not guarded.
 */
export function guardTools(tools: readonly Tool<any>[], guard: Guard, options: GuardToolsOptions = {}): AnyTool[] {
  const functions = tools.map((tool) => {
    if (tool.type !== 'function') throw unguarded(`the tool ${tool.name}: it is no function tool`)
    // By its events one is known that is an agent.
    if ('on' in tool && !agentTools.has(tool) && !guardedTools.has(tool)) throw unguarded(`the agent behind the tool ${tool.name}: write guardAgent(agent, guard).asTool(…)`)
    return tool
  })
  const listed = new Listed(guard, functions.map(({ name }) => name))
  return functions.map((tool) => (guardedTools.has(tool) ? tool : guardTool(tool, guard, listed, options)))
}

function guardTool(tool: AnyTool, guard: Guard, listed: Listed, options: GuardToolsOptions): AnyTool {
  const answers = new Answers()
  const read = async (context: RunContext<any>, callId: string, args: () => Record<string, unknown>, requestId?: string) => {
    const [runId, subjectToken] = [options.runId?.(context), await options.subjectToken?.(context)]
    return { tool: tool.name, args: args(), call: { callId, runId, subjectToken, requestId } }
  }
  const ask = (...call: Parameters<typeof read>) => attempt(guard, () => read(...call))

  const guardrail: ToolInputGuardrailDefinition<any> = {
    type: 'tool_input',
    name: 'countersign',
    async run({ context, toolCall }) {
      const { callId, arguments: text } = toolCall
      const before = answers.take(context, callId, argumentsIn(text))
      // Whatever the run was resumed with, the authority is asked again.
      const isOpen = before === undefined || (before instanceof Pending && guard.mode === 'interrupt')
      const outcome = isOpen ? await ask(context, callId, () => argumentsOf(text), before instanceof Pending ? before.request.id : undefined) : before
      if (!(outcome instanceof Permit)) return { behavior: { type: 'rejectContent', message: outcome.forModel() }, outputInfo: { countersign: outcome.code } }
      answers.keep(context, callId, outcome, argumentsIn(text))
      return { behavior: { type: 'allow' } }
    },
  }

  // By the object itself the SDK knows which agent a tool is, and finds a run again that was interrupted within.
  const made: AnyTool = Object.assign(agentTools.get(tool)?.() ?? {}, tool, {
    isEnabled: async (context, agent) => (await tool.isEnabled(context, agent)) && (await listed.has(context, tool.name)),
    // Asked before any guardrail, so a call that is denied must be known here: nobody is asked about it.
    needsApproval: async (context, input: unknown, callId) => {
      if (await tool.needsApproval(context, input, callId)) {
        // The application asks as well. An approval must not be used up before it has: whoever goes on then needs it.
        return read(context, callId ?? '', () => input as Record<string, unknown>)
          .then(({ args, call }) => guard.peek(tool.name, args, call))
          .then(() => true, () => false) // The guardrail tells the model why not.
      }
      const outcome = await ask(context, callId ?? '', () => input as Record<string, unknown>)
      answers.keep(context, callId ?? '', outcome, input)
      return outcome instanceof Pending && guard.mode === 'interrupt'
    },
    // The last, so that they are asked about what the other guardrails have let through.
    inputGuardrails: [...(tool.inputGuardrails ?? []), guardrail],
    // Whoever calls the tool past its guardrails has no permit. As a function of its own it also makes the SDK hand on the arguments as the
    // model wrote them, here and to needsApproval: a schema's transformations come after, within.
    invoke: async (context, input, details) => {
      const permit = answers.take(context, details?.toolCall?.callId ?? '', argumentsIn(input))
      if (!(permit instanceof Permit)) return new Denied({ code: 'approval_mismatch', message: 'the call is not the one that was permitted' }).forModel()
      return permit.run(() => tool.invoke(context, input, details))
    },
  } satisfies Partial<AnyTool>)
  guardedTools.add(made)
  return made
}

/** A call that waits for a person. */
export interface PendingApproval {
  item: RunToolApprovalItem
  request: ApprovalRequest
}

/**
 * The calls of a run that still wait for a person, with their requests. Interruptions of tools that are not in the map of the guard, and what
 * the application itself asks, are left to the application.
 *
 * Go on with `run(agent, state)`, in any process, as often as you like: of what somebody has decided the guard is asked again, and what still
 * waits interrupts the run again. It needs no `state.approve`, which would end a call of which nobody has decided.
 *
 * @param call `runId` and `subjectToken` as the options of {@link guardAgent} say them.
 * @throws Denied while the authority cannot be asked: later.
 */
export async function settle(state: RunState<any, any>, guard: Guard, call: Pick<CallIdentity, 'runId' | 'subjectToken'> = {}): Promise<PendingApproval[]> {
  const found = await Promise.all(state.getInterruptions().map((item) => waitingFor(item, guard, call)))
  return found.flat()
}

async function waitingFor(item: RunToolApprovalItem, guard: Guard, call: Pick<CallIdentity, 'runId' | 'subjectToken'>): Promise<PendingApproval[]> {
  const { rawItem, name } = item
  const args = rawItem.type === 'function_call' ? argumentsIn(rawItem.arguments) : undefined
  if (rawItem.type !== 'function_call' || name === undefined || !guard.tools.has(name) || !args) return []
  try {
    const request = await guard.peek(name, args, { ...call, callId: rawItem.callId })
    return request ? [{ item, request }] : []
  } catch (error) {
    if (error instanceof Denied && error.code !== 'authority_unavailable') return []
    throw error
  }
}

/** What was answered about a call, for the next step of the same call: an approval can be used once, so it is not asked for twice. */
class Answers {
  readonly #kept = new WeakMap<RunContext<any>, Map<string, { outcome: Outcome; args: string }>>()

  keep(context: RunContext<any>, callId: string, outcome: Outcome, args: unknown): void {
    const calls = this.#kept.get(context) ?? new Map<string, { outcome: Outcome; args: string }>()
    this.#kept.set(context, calls.set(callId, { outcome, args: writtenOf(args) }))
  }

  /** Once, and for the same arguments. */
  take(context: RunContext<any>, callId: string, args: unknown): Outcome | undefined {
    const kept = this.#kept.get(context)?.get(callId)
    this.#kept.get(context)?.delete(callId)
    return kept !== undefined && kept.args !== NOTHING && kept.args === writtenOf(args) ? kept.outcome : undefined
  }
}

/** How no arguments are written. */
const NOTHING = ''

function writtenOf(args: unknown): string {
  return isObject(args) ? canonicalJson(args) : NOTHING
}

/** Which tools of a list are of use. The SDK asks about one after the other in each turn: they are looked up at once, and anew in each. */
class Listed {
  readonly #guard: Guard
  readonly #names: readonly string[]
  readonly #turns = new WeakMap<RunContext<any>, { names: Promise<Set<string>>; asked: Set<string> }>()

  constructor(guard: Guard, names: readonly string[]) {
    this.#guard = guard
    this.#names = names
  }

  async has(context: RunContext<any>, name: string): Promise<boolean> {
    let turn = this.#turns.get(context)
    if (!turn || turn.asked.has(name)) {
      turn = { names: shown(this.#guard, this.#names), asked: new Set() }
      this.#turns.set(context, turn)
    }
    turn.asked.add(name)
    return (await turn.names).has(name)
  }
}

function argumentsIn(text: string): Record<string, unknown> | undefined {
  return parseObject(text === '' ? '{}' : text)
}

function argumentsOf(text: string): Record<string, unknown> {
  const args = argumentsIn(text)
  if (!args) throw new ConfigurationError({ code: 'arguments_malformed', message: 'the arguments of the call are no JSON object that reads in one way' })
  return args
}

function unguarded(what: string): ConfigurationError {
  return new ConfigurationError({ code: 'unguarded', message: `the guard does not see ${what}` })
}
