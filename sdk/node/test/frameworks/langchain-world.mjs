// An agent of LangChain in the process of the test, and what the tests ask of it.

import { MemorySaver } from '@langchain/langgraph'
import assert from 'node:assert/strict'
import { pendingApprovals } from '@countersign/sdk/langchain'
import { benchOf } from './bench.mjs'
import { Script, THREAD, agentWith } from './langchain-agent.mjs'

export async function worldOf(t, options = {}) {
  const bench = await benchOf(t, options)
  const model = new Script()
  const agent = agentWith({ ...bench, model, checkpointer: new MemorySaver(), ...options.agent?.(bench) })
  const invoke = (input) => agent.invoke(typeof input === 'string' ? { messages: [{ role: 'user', content: input }] } : input, THREAD)
  return { ...bench, model, agent, invoke }
}

export function pausedFor(result) {
  const waiting = pendingApprovals(result)
  assert.equal(waiting.length, 1)
  return waiting[0].request.id
}
