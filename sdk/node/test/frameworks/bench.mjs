// What the cells of every framework stand on: an authority, what each tool needs, a journal of what was done, and processes of their own.

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { appendFileSync, existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { Client } from '@countersign/sdk'
import { Guard, Tool, currentPermit } from '@countersign/sdk/guard'
import { directoryOf } from '../support.mjs'

/** Also the real operator: the path of a module that does the same. */
const { authorityOf } = await import(process.env.COUNTERSIGN_TEST_AUTHORITY ?? './authority.mjs')

/** What each tool needs. `wire_money` is in no map. */
export const TOOLS = {
  read_invoice: new Tool('invoice.read', { resource: 'invoice:{number}', parameters: null }),
  pay_invoice: new Tool('payments.authorize', { resource: 'invoice:{number}', parameters: ['amount', 'currency'] }),
  delete_mailbox: new Tool('mailbox.delete', { resource: 'mailbox:{user}' }),
}
export const PAYMENT = { number: 'INV-7', amount: 500, currency: 'EUR' }
export const PAY = `pay_invoice ${JSON.stringify(PAYMENT)}`
export const READ = 'read_invoice {"number":"INV-7"}'
export const DELETE = 'delete_mailbox {"user":"ana"}'
export const WIRE = 'wire_money {"to":"mallory"}'

/** The calls that a user names, one a line, perhaps with an id before each. A script of a model makes them. */
export function callsIn(words) {
  return [...words.matchAll(/^(?:(\S+): )?(\w+) (\{.*\})$/gm)].map(([, id, name, args]) => ({ id, name, args: JSON.parse(args) }))
}

/** What a tool does: it writes down that it ran, with what, and by which permit. */
export function doing(journal) {
  return (tool, args) => {
    appendFileSync(journal, `${JSON.stringify({ tool, ...args, permit: currentPermit()?.tool ?? null })}\n`)
    return { done: tool }
  }
}

/** An authority and an agent of it, which end with the test. `standsFor` says how long a request stands, in seconds. */
export async function benchOf(t, options = {}) {
  const authority = await authorityOf(t)
  const directory = directoryOf(t)
  const journal = join(directory, 'journal')
  const client = clientOf(t, authority, options)
  return {
    authority,
    directory,
    journal,
    guard: new Guard(client, options.tools ?? TOOLS, { mode: options.mode ?? 'interrupt', maxWait: 20 }),
    ran: () => (existsSync(journal) ? readFileSync(journal, 'utf8').trim().split('\n').map((line) => JSON.parse(line)) : []),
    life: (t, script, command, words = '') => life(t, authority, directory, script, command, words),
  }
}

function clientOf(t, authority, { standsFor }) {
  const client = new Client({ env: authority.environment, timeout: 20, maxRetries: 0 })
  t.after(() => client.close())
  if (standsFor === undefined) return client
  const ask = client.requestApproval.bind(client)
  client.requestApproval = (operation, options) => ask(operation, { ...options, expiresIn: standsFor })
  return client
}

/** One life of an agent in a process of its own: `line()` is what it says. */
function life(t, authority, directory, script, command, words) {
  const env = { ...process.env, ...authority.environment }
  const child = spawn(process.execPath, [fileURLToPath(new URL(script, import.meta.url)), directory, command, words], { env, stdio: ['ignore', 'pipe', 'inherit'] })
  t.after(() => child.kill('SIGKILL'))
  const ended = once(child, 'exit')
  let said = ''
  child.stdout.setEncoding('utf8').on('data', (text) => { said += text })
  return {
    ended,
    async kill() {
      child.kill('SIGKILL')
      await ended
    },
    async line() {
      for (;;) {
        // A framework may say something of its own before.
        const line = /^agent (.*)\n/m.exec(said)?.[1]
        if (line !== undefined) return JSON.parse(line)
        if (child.exitCode !== null) throw new Error(`the agent has ended with ${child.exitCode}`)
        await new Promise((resolve) => setTimeout(resolve, 20))
      }
    },
  }
}

/** In a process of its own: what it was told, and the guard. */
export function agentOf() {
  const [directory, command, words] = process.argv.slice(2)
  const guard = new Guard(new Client(), TOOLS, { mode: command === 'wait' || command === 'replay' ? 'wait' : 'interrupt', maxWait: 60 })
  const say = (value) => process.stdout.write(`agent ${JSON.stringify(value)}\n`)
  // It dies while it waits, not by going home.
  const linger = () => { if (command === 'start') setTimeout(() => {}, 600_000) }
  return { directory, command, words, guard, say, linger, journal: join(directory, 'journal') }
}
