/**
 * OpenAI Agents SDK: function tools that ask the authority before they run.
 *
 * @packageDocumentation
 */

import { Agent } from '@openai/agents'
import type { FunctionTool, RunContext, Tool, ToolInputGuardrailDefinition } from '@openai/agents'
import { ConfigurationError } from '../errors.ts'
import type { Guard } from '../guard/guard.ts'
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
 * @throws ConfigurationError for what does not go through the guard: tools that are no function tools, MCP servers, and handoffs, whose agents
 *   have tools of their own. Guard those first, and hand over to what that returns.
 */
export function guardAgent<TAgent extends Agent<any, any>>(agent: TAgent, guard: Guard, options: GuardToolsOptions = {}): TAgent {
  if (agent.mcpServers.length > 0) throw unguarded('tools of MCP servers: list them as function tools')
  if (agent.handoffs.some((handoff) => !(handoff instanceof Agent && guarded.has(handoff)))) throw unguarded('handoffs to agents that are not guarded: guard those first')
  const made = agent.clone({ tools: guardTools(agent.tools, guard, options) }) as TAgent
  guarded.add(made)
  return made
}

const guarded = new WeakSet<Agent<any, any>>()

/**
 * The tools, each of which asks the guard before it runs, and is hidden from a model that could not come to use it.
 *
 * With the guard's mode `interrupt` a call that a person must approve interrupts the run. `state.approve` is a wake-up and nothing else: the
 * guard asks the authority again before the tool runs, and the model is told if nobody has decided.
 *
 * @throws ConfigurationError for a tool that is no function tool: it is not run on this side.
 */
export function guardTools(tools: readonly Tool<any>[], guard: Guard, options: GuardToolsOptions = {}): AnyTool[] {
  const functions = tools.map((tool) => {
    if (tool.type !== 'function') throw unguarded(`the tool ${tool.name}: it is no function tool`)
    return tool
  })
  const listed = new Listed(guard, functions.map(({ name }) => name))
  return functions.map((tool) => guardTool(tool, guard, listed, options))
}

function guardTool(tool: AnyTool, guard: Guard, listed: Listed, options: GuardToolsOptions): AnyTool {
  const answers = new Answers()
  const ask = (context: RunContext<any>, callId: string, read: () => Record<string, unknown>, requestId?: string) =>
    attempt(guard, async () => {
      const [runId, subjectToken] = [options.runId?.(context), await options.subjectToken?.(context)]
      return { tool: tool.name, args: read(), call: { callId, runId, subjectToken, requestId } }
    })

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

  return {
    ...tool,
    isEnabled: async (context, agent) => (await tool.isEnabled(context, agent)) && (await listed.has(context, tool.name)),
    // Asked before any guardrail, so a call that is denied must be known here: nobody is asked about it.
    needsApproval: async (context, input: unknown, callId) => {
      const outcome = await ask(context, callId ?? '', () => input as Record<string, unknown>)
      answers.keep(context, callId ?? '', outcome, input)
      if (outcome instanceof Pending && guard.mode === 'interrupt') return true
      return outcome instanceof Permit && tool.needsApproval(context, input, callId)
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
