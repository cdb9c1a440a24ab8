// An agent of LangChain that reads an invoice, and pays it once a person has approved that. README.md says how to run it.

import { setTimeout as sleep } from 'node:timers/promises'
import { Client } from '@countersign/sdk'
import { Guard, Tool } from '@countersign/sdk/guard'
import { countersignMiddleware, pendingApprovals, resumeCommand } from '@countersign/sdk/langchain'
import { BaseChatModel } from '@langchain/core/language_models/chat_models'
import { AIMessage } from '@langchain/core/messages'
import { tool } from '@langchain/core/tools'
import { MemorySaver } from '@langchain/langgraph'
import { createAgent } from 'langchain'
import { z } from 'zod'

const readInvoice = tool(({ number }) => `${number}: 500 EUR, due today`, {
  name: 'read_invoice',
  description: 'Reads an invoice.',
  schema: z.object({ number: z.string() }),
})

const payInvoice = tool(({ number, amount, currency }) => `${number} is paid: ${amount} ${currency}`, {
  name: 'pay_invoice',
  description: 'Pays an invoice.',
  schema: z.object({ number: z.string(), amount: z.number().int(), currency: z.string() }),
})

const deleteMailbox = tool(({ user }) => `the mailbox of ${user} is gone`, {
  name: 'delete_mailbox',
  description: 'Deletes a mailbox, which nobody has granted.',
  schema: z.object({ user: z.string() }),
})

const SCRIPT = [
  { name: 'read_invoice', args: { number: 'INV-7' } },
  { name: 'delete_mailbox', args: { user: 'alice' } },
  { name: 'pay_invoice', args: { number: 'INV-7', amount: 500, currency: 'EUR' } },
]

/** Stands for a model, so that this runs without one: it says what the script says. */
class Scripted extends BaseChatModel {
  _llmType() {
    return 'scripted'
  }

  bindTools() {
    return this
  }

  async _generate(messages) {
    const said = messages.filter((message) => message.getType() === 'ai').length
    const calls = SCRIPT.slice(said, said + 1).map((call) => ({ ...call, id: `call-${said}`, type: 'tool_call' }))
    const message = new AIMessage({ content: calls.length > 0 ? '' : 'Done.', tool_calls: calls })
    return { generations: [{ text: message.text, message }] }
  }
}

const thread = { configurable: { thread_id: process.argv[2] ?? String(Date.now()) } }
const model = new Scripted({})
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
const agent = createAgent({ model, tools, middleware: [countersignMiddleware(guard)], checkpointer: new MemorySaver() })
// ANCHOR_END: guard
// ANCHOR: resume
let result = await agent.invoke({ messages: [{ role: 'user', content: 'Pay invoice INV-7.' }] }, thread)
for (let waiting; (waiting = pendingApprovals(result)).length > 0; ) {
  for (const { tool, request } of waiting) console.log(`${tool} waits for somebody to approve request ${request.id}`)
  await sleep(3000) // or wait for the notification that somebody has decided, in this process or another
  result = await agent.invoke(resumeCommand(result), thread)
}
// ANCHOR_END: resume
for (const message of result.messages) if (message.text) console.log(`${message.getType()}: ${message.text}`)
client.close()
