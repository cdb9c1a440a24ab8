import { Agent, RunState, handoff, run } from '@openai/agents'
import { SandboxAgent, shell } from '@openai/agents/sandbox'
import assert from 'node:assert/strict'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { Tool } from '@countersign/sdk/guard'
import { guardAgent, guardTools, settle } from '@countersign/sdk/openai-agents'
import { DELETE, PAY, PAYMENT, READ, TOOLS, benchOf } from './bench.mjs'
import { agentWith, scriptOf, toolsOf, wake } from './openai-agent.mjs'

async function worldOf(t, options = {}) {
  const bench = await benchOf(t, options)
  const model = scriptOf()
  const agent = agentWith({ ...bench, model, ...options.agent?.(bench) })
  return { ...bench, model, agent, say: (words) => run(agent, words), resume: (result) => run(agent, wake(result.state)) }
}

function pausedFor(authority, result) {
  assert.equal(result.interruptions.length, 1)
  return authority.oneWaiting()
}

const PAID = [{ tool: 'pay_invoice', ...PAYMENT, permit: 'pay_invoice' }]

test('openai_agents_registry: the model is shown the tools that its agent could come to use, and no other', async (t) => {
  const { model, say } = await worldOf(t)
  await say(READ)
  assert.deepEqual(model.firstCall.request.tools.map(({ name }) => name).sort(), ['pay_invoice', 'read_invoice'])
})

test('openai_agents_allow: a tool that is allowed runs, under its permit, and nobody is asked', async (t) => {
  const { authority, say, ran } = await worldOf(t)
  assert.match((await say(READ)).finalOutput, /done/)
  assert.deepEqual(ran(), [{ tool: 'read_invoice', number: 'INV-7', permit: 'read_invoice' }])
  assert.equal(await authority.isAsked(), false)
})

test('openai_agents_deny: a call that is denied does not run, the model is told, the run goes on, and nobody is asked', async (t) => {
  const { authority, say, ran } = await worldOf(t)
  const result = await say('read_invoice {"number":"SECRET-1"}')
  assert.match(result.finalOutput, /This is not allowed\. Nothing was done\./)
  assert.equal(result.interruptions.length, 0)
  assert.deepEqual(ran(), [])
  assert.equal(await authority.isAsked(), false)
})

test('openai_agents_hidden: a tool that is not shown cannot be called', async (t) => {
  const { say, ran } = await worldOf(t)
  await assert.rejects(say(DELETE), /delete_mailbox/)
  assert.deepEqual(ran(), [])
})

test('openai_agents_jit_approve: a call that needs approval interrupts the run; once it is approved it runs, exactly once', async (t) => {
  const { authority, say, resume, ran } = await worldOf(t)
  const paused = await say(PAY)
  const id = await pausedFor(authority, paused)
  assert.deepEqual(ran(), [])
  await authority.approve(id)
  assert.match((await resume(paused)).finalOutput, /done/)
  assert.deepEqual(ran(), PAID)
})

test('openai_agents_jit_deny: a call that a person denies does not run, and the model is told', async (t) => {
  const { authority, say, resume, ran } = await worldOf(t)
  const paused = await say(PAY)
  await authority.deny(await pausedFor(authority, paused))
  assert.match((await resume(paused)).finalOutput, /A person was asked and said no/)
  assert.deepEqual(ran(), [])
})

test('openai_agents_restart_mid_wait: a run that was interrupted goes on in another process after the first was killed', async (t) => {
  const { authority, life, ran } = await worldOf(t)
  const first = life(t, './openai-agent.mjs', 'start', `c-7: ${PAY}`)
  assert.equal((await first.line()).waiting, 1)
  await first.kill()
  await authority.approve(await authority.oneWaiting())
  assert.match((await life(t, './openai-agent.mjs', 'resume').line()).said, /done/)
  assert.deepEqual(ran(), PAID)
})

test('openai_agents_killed_while_it_waits: a call that waits is the same call in another process', async (t) => {
  const { authority, life, ran } = await worldOf(t)
  const first = life(t, './openai-agent.mjs', 'wait', `c-7: ${PAY}`)
  const id = await authority.oneWaiting()
  await first.kill()
  const second = life(t, './openai-agent.mjs', 'wait', `c-7: ${PAY}`)
  await authority.approve(id)
  assert.match((await second.line()).said, /done/)
  assert.deepEqual(ran(), PAID)
})

test('openai_agents_backend_down: while the authority is away no tool runs, also none that was approved; the model is told', async (t) => {
  const { authority, model, say, resume, ran } = await worldOf(t)
  const paused = await say(PAY)
  await authority.approve(await pausedFor(authority, paused))
  await authority.down()
  assert.match((await resume(paused)).finalOutput, /It cannot be checked now/)
  assert.match((await say(READ)).finalOutput, /It cannot be checked now/)
  // What is shown permits nothing: the model can try, and be told. What is in no map is not shown to it.
  assert.deepEqual(model.lastCall.request.tools.map(({ name }) => name).sort(), ['delete_mailbox', 'pay_invoice', 'read_invoice'])
  assert.deepEqual(ran(), [])
})

test('openai_agents_hook_raises: whatever throws in the guard or in the adapter, no tool runs, and the model is told nothing of its words', async (t) => {
  const throwing = () => { throw new Error('secret words') }
  const mapped = await worldOf(t, { tools: { read_invoice: new Tool('invoice.read', { resource: throwing }) } })
  const token = await worldOf(t, { agent: () => ({ options: { subjectToken: throwing } }) })
  const runId = await worldOf(t, { agent: () => ({ options: { runId: throwing } }) })
  for (const { say, ran } of [mapped, token, runId]) {
    const { finalOutput } = await say(READ)
    assert.match(finalOutput, /It cannot be checked whether this is allowed/)
    assert.doesNotMatch(finalOutput, /secret words/)
    assert.deepEqual(ran(), [])
  }
})

test('openai_agents_arguments_changed: arguments that are changed in the stored run after approval are refused', async (t) => {
  const { authority, directory, life, ran } = await worldOf(t)
  const first = life(t, './openai-agent.mjs', 'start', `c-7: ${PAY}`)
  await first.line()
  await first.kill()
  await authority.approve(await authority.oneWaiting())
  const file = join(directory, 'state')
  writeFileSync(file, readFileSync(file, 'utf8').replaceAll('500', '900000'))
  const { said } = await life(t, './openai-agent.mjs', 'resume').line()
  assert.match(said, /A person must approve this first/)
  assert.deepEqual(ran(), [])
})

test('openai_agents_guardrail_that_changes: arguments that another guardrail changes after the check are refused', async (t) => {
  let seen = 0
  const meddling = { name: 'meddling', run: ({ toolCall }) => { seen += 1; toolCall.arguments = toolCall.arguments.replace('500', '900000'); return Promise.resolve({ behavior: { type: 'allow' } }) } }
  const { authority, say, resume, ran } = await worldOf(t, { agent: ({ journal }) => ({ tools: toolsOf(journal, { inputGuardrails: [meddling] }) }) })
  const paused = await say(PAY)
  await authority.approve(await pausedFor(authority, paused))
  await resume(paused)
  assert.ok(seen > 0)
  assert.deepEqual(ran().filter(({ amount }) => amount !== 500), [])
})

test('openai_agents_approval_expired: an approval that has expired is told to the model', async (t) => {
  const { authority, say, resume, ran } = await worldOf(t, { standsFor: 8 })
  const paused = await say(PAY)
  await authority.expired(await pausedFor(authority, paused))
  assert.match((await resume(paused)).finalOutput, /Nobody approved this in time/)
  assert.deepEqual(ran(), [])
})

test('openai_agents_wake_up: what the SDK was told approves nothing', async (t) => {
  const { authority, say, resume, ran } = await worldOf(t)
  const paused = await say(PAY)
  await pausedFor(authority, paused)
  assert.match((await resume(paused)).finalOutput, /A person must approve this first/)
  assert.deepEqual(ran(), [])
})

test('openai_agents_rejected: a call that the SDK was told to reject does not run although it is approved', async (t) => {
  const { authority, agent, say, ran } = await worldOf(t)
  const paused = await say(PAY)
  await authority.approve(await pausedFor(authority, paused))
  for (const item of paused.state.getInterruptions()) paused.state.reject(item)
  await run(agent, paused.state)
  assert.deepEqual(ran(), [])
})

test('openai_agents_twice: a stored run that is resumed twice runs its call once', async (t) => {
  const { authority, agent, say, ran } = await worldOf(t)
  const paused = await say(PAY)
  const kept = paused.state.toString()
  await authority.approve(await pausedFor(authority, paused))
  for (let times = 0; times < 2; times += 1) await run(agent, wake(await RunState.fromString(agent, kept)))
  assert.deepEqual(ran(), PAID)
})

test('openai_agents_always: an approval that the SDK was told is for always is for one call', async (t) => {
  const { authority, agent, guard, say, ran } = await worldOf(t)
  const other = `pay_invoice ${JSON.stringify({ ...PAYMENT, amount: 1 })}`
  const paused = await say([PAY, other].join('\n'))
  assert.equal(paused.interruptions.length, 2)
  const waiting = await settle(paused.state, guard)
  const { request } = waiting.find(({ item }) => JSON.parse(item.arguments).amount === 1)
  await authority.approve(request.id)
  for (const item of paused.state.getInterruptions()) paused.state.approve(item, { alwaysApprove: true })
  await run(agent, paused.state)
  assert.deepEqual(ran(), [{ ...PAID[0], amount: 1 }])
})

test('openai_agents_settle: what waits is named with its request, and a run that goes on too early waits on', async (t) => {
  const { authority, agent, guard, say, ran } = await worldOf(t)
  const other = `pay_invoice ${JSON.stringify({ ...PAYMENT, amount: 1 })}`
  let { state } = await say([PAY, other, READ].join('\n'))
  const waiting = await settle(state, guard)
  assert.deepEqual(waiting.map(({ request }) => request.operation.parameters.amount), [500, 1])
  // As often as one likes: it is more than a run may have turns.
  for (let times = 0; times < 12; times += 1) ({ state } = await run(agent, await RunState.fromString(agent, state.toString())))
  assert.deepEqual(ran().map(({ tool }) => tool), ['read_invoice'])
  await authority.approve(waiting[0].request.id)
  await authority.deny(waiting[1].request.id)
  assert.deepEqual(await settle(state, guard), [])
  assert.match((await run(agent, state)).finalOutput, /A person was asked and said no/)
  assert.deepEqual(ran().slice(1), PAID)
  assert.equal((await authority.waiting()).length, 0)
})

test('openai_agents_settle_when_away: while the authority is away nothing is said of what waits, and the run is as good as before', async (t) => {
  const { authority, guard, say, ran } = await worldOf(t)
  const { state } = await say(PAY)
  await authority.approve(await authority.oneWaiting())
  const kept = state.toString()
  await authority.down()
  await assert.rejects(settle(state, guard), { code: 'authority_unavailable' })
  assert.equal(state.toString(), kept)
  assert.deepEqual(ran(), [])
})

test('openai_agents_both_ask: what the application asks too waits for both, and no answer stands for the other', async (t) => {
  const { authority, agent, guard, say, resume, ran } = await worldOf(t, { agent: ({ journal }) => ({ tools: toolsOf(journal, { needsApproval: true }) }) })
  const reading = await say(READ)
  assert.deepEqual(await settle(reading.state, guard), [])
  assert.equal((await run(agent, reading.state)).interruptions.length, 1)
  assert.deepEqual(ran(), [])
  const paused = await say(PAY)
  await authority.approve(await pausedFor(authority, paused))
  assert.deepEqual(await settle(paused.state, guard), [])
  const again = await run(agent, await RunState.fromString(agent, paused.state.toString()))
  assert.equal(again.interruptions.length, 1)
  assert.deepEqual(ran(), [])
  assert.match((await resume(again)).finalOutput, /done/)
  assert.deepEqual(ran(), PAID)
})

const ASKING = { ...TOOLS, ask: new Tool('invoice.read', { resource: () => 'invoice:INV-7', parameters: null }) }

test('openai_agents_agent_as_tool: the tools of an agent that is a tool are guarded, and a call of them interrupts the run of the other', async (t) => {
  const { authority, guard, journal, ran } = await benchOf(t, { tools: ASKING })
  const inner = guardAgent(new Agent({ name: 'inner', model: scriptOf(), tools: toolsOf(journal) }), guard)
  const agent = guardAgent(new Agent({ name: 'outer', model: scriptOf(), tools: [inner.asTool({ toolName: 'ask', toolDescription: 'Asks.' })] }), guard)
  const ask = (words) => `ask ${JSON.stringify({ input: words })}`
  assert.match((await run(agent, ask('read_invoice {"number":"SECRET-1"}'))).finalOutput, /This is not allowed/)
  const { state } = await run(agent, ask(PAY))
  const [{ request }] = await settle(state, guard)
  assert.deepEqual(ran(), [])
  await authority.approve(request.id)
  assert.match((await run(agent, await RunState.fromString(agent, state.toString()))).finalOutput, /done/)
  assert.deepEqual(ran(), PAID)
})

test('openai_agents_wait: in the mode wait a call waits for a person', async (t) => {
  const { authority, say, ran } = await worldOf(t, { mode: 'wait' })
  const running = say(PAY)
  await authority.approve(await authority.oneWaiting())
  assert.match((await running).finalOutput, /done/)
  assert.deepEqual(ran(), PAID)
})

test('openai_agents_invoked: a tool that is invoked past its guardrails does not run', async (t) => {
  const { guard, journal, ran } = await worldOf(t)
  const [read] = guardTools(toolsOf(journal), guard)
  assert.match(await read.invoke({}, '{"number":"INV-7"}', { toolCall: { callId: 'c-1' } }), /not the one that was approved/)
  assert.deepEqual(ran(), [])
})

test('openai_agents_unguarded: what the guard would not see is refused when the agent is made', async (t) => {
  const { guard, journal } = await worldOf(t)
  const plain = new Agent({ name: 'other', tools: toolsOf(journal) })
  assert.throws(() => guardAgent(new Agent({ name: 'payer', handoffs: [plain] }), guard), { code: 'unguarded' })
  assert.throws(() => guardAgent(new Agent({ name: 'payer', handoffs: [handoff(plain)] }), guard), { code: 'unguarded' })
  assert.throws(() => guardTools([{ type: 'hosted_tool', name: 'web_search' }], guard), { code: 'unguarded' })
  assert.throws(() => guardAgent(new Agent({ name: 'payer', mcpServers: [{ name: 'other' }] }), guard), { code: 'unguarded' })
  const asked = { toolName: 'ask', toolDescription: 'Asks.' }
  assert.throws(() => guardAgent(new Agent({ name: 'payer', tools: [plain.asTool(asked)] }), guard), { code: 'unguarded' })
  assert.throws(() => guardTools([{ ...plain.asTool(asked) }], guard), { code: 'unguarded' })
  // It runs commands.
  assert.throws(() => guardAgent(new SandboxAgent({ name: 'payer' }), guard), { code: 'unguarded' })
  assert.throws(() => guardAgent(new SandboxAgent({ name: 'payer', capabilities: [shell()] }), guard), { code: 'unguarded' })
  guardAgent(new SandboxAgent({ name: 'payer', capabilities: [] }), guard)
  const inner = guardAgent(plain, guard)
  // A copy with other tools is another agent.
  assert.throws(() => guardTools([inner.clone({ tools: plain.tools }).asTool(asked)], guard), { code: 'unguarded' })
  guardAgent(new Agent({ name: 'payer', tools: [inner.asTool(asked)], handoffs: [inner] }), guard)
})

test('openai_agents_guarded_twice: tools that are guarded already are left as they are', async (t) => {
  const { authority, guard, agent, ran } = await worldOf(t)
  const twice = guardAgent(agent, guard)
  const paused = await run(twice, PAY)
  await authority.approve(await pausedFor(authority, paused))
  assert.match((await run(twice, paused.state)).finalOutput, /done/)
  assert.deepEqual(ran(), PAID)
})
