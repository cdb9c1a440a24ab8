// An agent of Google ADK that reads an invoice, and pays it once a person has approved that. README.md says how to run it.

import { setTimeout as sleep } from 'node:timers/promises'
import { Client } from '@countersign/sdk'
import { CountersignPlugin, pendingApprovals, resumeMessage } from '@countersign/sdk/adk'
import { Guard, Tool } from '@countersign/sdk/guard'
import { App, BaseLlm, FunctionTool, InMemorySessionService, LlmAgent, Runner, getFunctionResponses } from '@google/adk'
import { z } from 'zod'

const readInvoice = new FunctionTool({
  name: 'read_invoice',
  description: 'Reads an invoice.',
  parameters: z.object({ number: z.string() }),
  execute: ({ number }) => `${number}: 500 EUR, due today`,
})

const payInvoice = new FunctionTool({
  name: 'pay_invoice',
  description: 'Pays an invoice.',
  parameters: z.object({ number: z.string(), amount: z.number().int(), currency: z.string() }),
  execute: ({ number, amount, currency }) => `${number} is paid: ${amount} ${currency}`,
})

const deleteMailbox = new FunctionTool({
  name: 'delete_mailbox',
  description: 'Deletes a mailbox, which nobody has granted.',
  parameters: z.object({ user: z.string() }),
  execute: ({ user }) => `the mailbox of ${user} is gone`,
})

const SCRIPT = [
  { name: 'read_invoice', args: { number: 'INV-7' } },
  { name: 'delete_mailbox', args: { user: 'alice' } },
  { name: 'pay_invoice', args: { number: 'INV-7', amount: 500, currency: 'EUR' } },
]

/** Stands for a model, so that this runs without one: it says what the script says. */
class Scripted extends BaseLlm {
  async *generateContentAsync({ contents }) {
    const said = contents.filter(({ role }) => role === 'model').length
    const calls = SCRIPT.slice(said, said + 1).map((functionCall) => ({ functionCall }))
    yield { content: { role: 'model', parts: calls.length > 0 ? calls : [{ text: 'Done.' }] } }
  }

  connect() {
    return Promise.reject(new Error('the script is not live'))
  }
}

const who = { userId: 'alice', sessionId: process.argv[2] ?? String(Date.now()) }
const model = new Scripted({ model: 'scripted' })
const tools = [readInvoice, payInvoice, deleteMailbox]
const client = new Client()
// ANCHOR: guard
const guard = new Guard(
  client,
  {
    read_invoice: new Tool('invoice.read', { resource: 'invoice:{number}', parameters: null }),
    pay_invoice: new Tool('payments.authorize', { resource: 'invoice:{number}', parameters: ['amount', 'currency'] }),
    delete_mailbox: new Tool('mailbox.delete', { resource: 'mailbox:{user}' }),
  },
  { mode: 'interrupt' },
)
const agent = new LlmAgent({ name: 'payer', model, tools })
const app = new App({ name: 'billing', rootAgent: agent, plugins: [new CountersignPlugin(guard)] })
const sessionService = new InMemorySessionService()
const runner = new Runner({ app, sessionService })
// ANCHOR_END: guard
await sessionService.createSession({ appName: app.name, ...who })
// ANCHOR: resume
async function run(newMessage) {
  const events = []
  for await (const event of runner.runAsync({ ...who, newMessage })) {
    show(event)
    events.push(event)
  }
  return events
}

let events = await run({ role: 'user', parts: [{ text: 'Pay invoice INV-7.' }] })
for (let waiting; (waiting = pendingApprovals(events)).length > 0; ) {
  for (const { tool, request } of waiting) console.log(`${tool} waits for somebody to approve request ${request.id}`)
  await sleep(3000) // or wait for the notification that somebody has decided, in this process or another
  events = await run(resumeMessage(waiting))
}
// ANCHOR_END: resume
client.close()

/** Prints what the tools and the model say. */
function show(event) {
  for (const { name, response } of getFunctionResponses(event)) console.log(`${name}:`, response)
  for (const { text } of event.content?.parts ?? []) if (text) console.log(`model: ${text}`)
}
