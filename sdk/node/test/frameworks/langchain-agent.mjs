// An agent of LangChain for the tests, in this process or, as a program, in one of its own. Its model is a script.

import { BaseChatModel } from '@langchain/core/language_models/chat_models'
import { AIMessage } from '@langchain/core/messages'
import { tool } from '@langchain/core/tools'
import { MemorySaver } from '@langchain/langgraph'
import { createAgent } from 'langchain'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { deserialize, serialize } from 'node:v8'
import { countersignMiddleware, pendingApprovals, resumeCommand } from '@countersign/sdk/langchain'
import { z } from 'zod'
import { agentOf, callsIn, doing } from './bench.mjs'

export const THREAD = { configurable: { thread_id: 't-1' } }

/** Calls the tools that the user names, and then repeats what they said. */
export class Script extends BaseChatModel {
  shown = []

  constructor() {
    super({})
  }

  _llmType() {
    return 'script'
  }

  bindTools(tools) {
    this.shown.push(tools.map(({ name, function: schema }) => name ?? schema.name).sort())
    return this
  }

  async _generate(messages) {
    const last = messages.at(-1)
    const answers = messages.slice(messages.findLastIndex((message) => message.getType() === 'ai') + 1).filter((message) => message.getType() === 'tool')
    const calls = last.getType() === 'human' ? callsIn(last.content) : []
    const message = new AIMessage({ content: answers.length > 0 ? JSON.stringify(answers.map(({ content }) => content)) : '', tool_calls: calls.map(({ id, name, args }, at) => ({ id: id ?? `c${messages.length}-${at}`, name, args, type: 'tool_call' })) })
    return { generations: [{ text: '', message }] }
  }
}

/** Checkpoints that another process can go on with: they are written into a file. */
export class FileSaver extends MemorySaver {
  constructor(file) {
    super()
    this.file = file
    if (existsSync(file)) Object.assign(this, deserialize(readFileSync(file)))
  }

  async put(...args) {
    const made = await super.put(...args)
    this.write()
    return made
  }

  async putWrites(...args) {
    await super.putWrites(...args)
    this.write()
  }

  write() {
    writeFileSync(this.file, serialize({ storage: this.storage, writes: this.writes }))
  }
}

export function toolsOf(journal) {
  const does = doing(journal)
  const made = (name, parameters) => tool((args) => JSON.stringify(does(name, args)), { name, description: name, schema: z.object(parameters) })
  return [
    made('read_invoice', { number: z.string() }),
    made('pay_invoice', { number: z.string(), amount: z.number(), currency: z.string() }),
    made('delete_mailbox', { user: z.string() }),
    made('wire_money', { to: z.string() }),
  ]
}

export function agentWith({ guard, journal, model = new Script(), checkpointer, tools = toolsOf(journal), middleware = [countersignMiddleware(guard)] }) {
  return createAgent({ model, tools, middleware, checkpointer })
}

/** What the model was told by the tools in the end. */
export function said({ messages }) {
  return messages.filter((message) => message.getType() === 'tool').map(({ content }) => content).at(-1) ?? ''
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const { directory, command, words, guard, say, linger, journal } = agentOf()
  const agent = agentWith({ guard, journal, checkpointer: new FileSaver(join(directory, 'checkpoints')) })
  const state = command === 'resume' || command === 'replay' ? await agent.graph.getState(THREAD) : undefined
  const input = command === 'resume' ? resumeCommand(state) : command === 'replay' ? null : { messages: [{ role: 'user', content: words }] }
  const result = await agent.invoke(input, THREAD)
  say({ said: said(result), waiting: pendingApprovals(result).map(({ request }) => request.id) })
  linger()
}
