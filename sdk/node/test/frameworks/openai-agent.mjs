// An agent of the OpenAI Agents SDK for the tests, in this process or, as a program, in one of its own. Its model is a script.

import { Agent, RunState, run, setTracingDisabled, tool } from '@openai/agents'
import { ScriptedModel, assistantMessage, functionCall, modelResponder } from '@openai/agents-core/testing'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { guardAgent } from '@countersign/sdk/openai-agents'
import { z } from 'zod'
import { agentOf, callsIn, doing } from './bench.mjs'

setTracingDisabled(true)

/** Calls the tools that the user names, and then repeats what they said. */
function answer({ index, request }) {
  const input = typeof request.input === 'string' ? [{ type: 'message', role: 'user', content: request.input }] : request.input
  const last = input.at(-1)
  if (last.type === 'function_call_result') {
    const said = input.filter(({ type }) => type === 'function_call_result').map(({ output }) => output.text ?? output)
    return [assistantMessage(JSON.stringify(said.slice(-1)))]
  }
  const words = typeof last.content === 'string' ? last.content : last.content.map(({ text }) => text).join('')
  return callsIn(words).map(({ id, name, args }, at) => functionCall(name, args, { callId: id ?? `c${index}-${at}` }))
}

export function scriptOf() {
  return new ScriptedModel(Array.from({ length: 20 }, () => modelResponder(answer)))
}

export function toolsOf(journal, more = {}) {
  const does = doing(journal)
  const made = (name, parameters) => tool({ name, description: name, parameters: z.object(parameters), execute: (args) => JSON.stringify(does(name, args)), ...more })
  return [
    made('read_invoice', { number: z.string() }),
    made('pay_invoice', { number: z.string(), amount: z.number(), currency: z.string() }),
    made('delete_mailbox', { user: z.string() }),
    made('wire_money', { to: z.string() }),
  ]
}

export function agentWith({ guard, journal, model = scriptOf(), tools = toolsOf(journal), options = {} }) {
  return guardAgent(new Agent({ name: 'payer', model, tools }), guard, options)
}

/** Approves, as far as the SDK is concerned, whatever a run waits for. */
export function wake(state) {
  for (const item of state.getInterruptions()) state.approve(item)
  return state
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const { directory, command, words, guard, say, linger, journal } = agentOf()
  const agent = agentWith({ guard, journal })
  const file = join(directory, 'state')
  const input = command === 'resume' && existsSync(file) ? wake(await RunState.fromString(agent, readFileSync(file, 'utf8'))) : words
  const result = await run(agent, input)
  writeFileSync(file, result.state.toString())
  say({ said: result.finalOutput ?? '', waiting: result.interruptions.length })
  linger()
}
