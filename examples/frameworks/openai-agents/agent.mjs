// An agent of the OpenAI Agents SDK that reads an invoice, and pays it once a person has approved that. README.md says how to run it.

import { setTimeout as sleep } from 'node:timers/promises'
import { Client } from '@countersign/sdk'
import { Guard, Tool } from '@countersign/sdk/guard'
import { guardAgent, settle } from '@countersign/sdk/openai-agents'
import { Agent, RunState, run, setTracingDisabled, tool } from '@openai/agents'
import { ScriptedModel, assistantMessage, functionCall } from '@openai/agents/testing'
import { z } from 'zod'

const readInvoice = tool({
  name: 'read_invoice',
  description: 'Reads an invoice.',
  parameters: z.object({ number: z.string() }),
  execute: ({ number }) => `${number}: 500 EUR, due today`,
})

const payInvoice = tool({
  name: 'pay_invoice',
  description: 'Pays an invoice.',
  parameters: z.object({ number: z.string(), amount: z.number().int(), currency: z.string() }),
  execute: ({ number, amount, currency }) => `${number} is paid: ${amount} ${currency}`,
})

/** Stands for a model, so that this runs without one: it says what is written here. */
const SCRIPT = [
  [functionCall('read_invoice', { number: 'INV-7' }, { callId: 'call-1' })],
  [functionCall('pay_invoice', { number: 'INV-7', amount: 500, currency: 'EUR' }, { callId: 'call-2' })],
  [assistantMessage('Done.')],
]

setTracingDisabled(true)
const model = new ScriptedModel(SCRIPT)
const tools = [readInvoice, payInvoice]
const client = new Client()
// ANCHOR: guard
const guard = new Guard(
  client,
  {
    read_invoice: new Tool('invoice.read', { resource: 'invoice:{number}', parameters: null }),
    pay_invoice: new Tool('payments.authorize', { resource: 'invoice:{number}', parameters: ['amount', 'currency'] }),
  },
  { mode: 'interrupt' },
)
const agent = guardAgent(new Agent({ name: 'Payments Bot', model, tools }), guard)
// ANCHOR_END: guard
// ANCHOR: resume
let result = await run(agent, 'Pay invoice INV-7.')
while (result.interruptions.length > 0) {
  const kept = result.state.toString() // to be kept, and gone on with in this process or another
  const state = await RunState.fromString(agent, kept)
  for (const { item, request } of await settle(state, guard)) {
    console.log(`${item.name} waits for somebody to approve request ${request.id}`)
    await sleep(3000) // or wait for the notification that somebody has decided
  }
  result = await run(agent, state)
}
// ANCHOR_END: resume
for (const item of result.newItems) if (item.type === 'tool_call_output_item') console.log(`tool: ${item.output}`)
console.log(result.finalOutput)
client.close()
