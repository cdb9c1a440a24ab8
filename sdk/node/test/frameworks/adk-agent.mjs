// An agent of Google ADK for the tests, in this process or, as a program, in one of its own. Its model is a script.

import { BaseLlm, FunctionTool, InMemorySessionService, LlmAgent, Runner } from '@google/adk'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { CountersignPlugin, pendingApprovals, resumeMessage } from '@countersign/sdk/adk'
import { z } from 'zod'
import { agentOf, callsIn, doing } from './bench.mjs'

export const WHO = { userId: 'ana', sessionId: 's-1' }

/** Calls the tools that the user names, and then repeats what they said. */
export class Script extends BaseLlm {
  shown = []
  /** What the provider of the model would run. */
  provided = []

  constructor(model = 'script') {
    super({ model })
  }

  async *generateContentAsync({ contents, config }) {
    this.shown.push((config?.tools ?? []).flatMap(({ functionDeclarations }) => functionDeclarations ?? []).map(({ name }) => name).sort())
    this.provided.push((config?.tools ?? []).flatMap(Object.keys).filter((key) => key !== 'functionDeclarations'))
    const last = contents.at(-1)?.parts ?? []
    const answers = last.flatMap(({ functionResponse }) => functionResponse?.response ?? [])
    const calls = callsIn(last.at(-1)?.text ?? '').map((functionCall) => ({ functionCall }))
    const parts = answers.length > 0 ? [{ text: JSON.stringify(answers) }] : calls.length > 0 ? calls : [{ text: 'What now?' }]
    yield { content: { role: 'model', parts } }
  }

  connect() {
    return Promise.reject(new Error('the script is not live'))
  }
}

/** Sessions that another process can go on with: every event is written into a file. */
export class FileSessions extends InMemorySessionService {
  constructor(file) {
    super()
    this.file = file
  }

  async open() {
    const session = await this.createSession({ appName: 'billing', ...WHO })
    const past = existsSync(this.file) ? JSON.parse(readFileSync(this.file, 'utf8')) : []
    for (const event of past) await super.appendEvent({ session, event })
    return this
  }

  async appendEvent({ session, event }) {
    const made = await super.appendEvent({ session, event })
    writeFileSync(this.file, JSON.stringify((await this.getSession({ appName: 'billing', ...WHO })).events))
    return made
  }
}

export function toolsOf(journal) {
  const does = doing(journal)
  const tool = (name, parameters) => new FunctionTool({ name, description: name, parameters: z.object(parameters), execute: (args) => does(name, args) })
  return [
    tool('read_invoice', { number: z.string() }),
    tool('pay_invoice', { number: z.string(), amount: z.number(), currency: z.string() }),
    tool('delete_mailbox', { user: z.string() }),
    tool('wire_money', { to: z.string() }),
  ]
}

export function runnerOf({ guard, journal, sessionService, model = new Script(), plugins = [new CountersignPlugin(guard)], ...agent }) {
  const root = new LlmAgent({ name: 'payer', model, tools: toolsOf(journal), ...agent })
  return new Runner({ appName: 'billing', agent: root, plugins, sessionService })
}

/** Runs, and returns what was yielded. `message` is words of the user, or a message that wakes. */
export async function run(runner, message) {
  const events = []
  const newMessage = typeof message === 'string' ? { role: 'user', parts: [{ text: message }] } : message
  for await (const event of runner.runAsync({ ...WHO, newMessage })) events.push(event)
  return events
}

/** What the model has said to the user in the end: what it was told by the tools. */
export function said(events) {
  return events.flatMap(({ content }) => content?.parts ?? []).flatMap(({ text }) => text ?? []).at(-1) ?? ''
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const { directory, command, words, guard, say, linger, journal } = agentOf()
  const sessionService = await new FileSessions(join(directory, 'session.json')).open()
  const runner = runnerOf({ guard, journal, sessionService })
  const past = (await sessionService.getSession({ appName: 'billing', ...WHO })).events
  const events = await run(runner, command === 'resume' ? resumeMessage(pendingApprovals(past)) : words)
  say({ said: said(events), waiting: pendingApprovals(events).map(({ request }) => request.id) })
  linger()
}
