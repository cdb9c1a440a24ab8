import { AgentTool, GOOGLE_SEARCH, InMemorySessionService, LlmAgent } from '@google/adk'
import assert from 'node:assert/strict'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { CountersignPlugin, pendingApprovals, resumeMessage } from '@countersign/sdk/adk'
import { Tool } from '@countersign/sdk/guard'
import { Script, WHO, run, runnerOf, said, toolsOf } from './adk-agent.mjs'
import { DELETE, PAY, PAYMENT, READ, TOOLS, WIRE, benchOf } from './bench.mjs'

async function worldOf(t, options = {}) {
  const bench = await benchOf(t, options)
  const sessionService = new InMemorySessionService()
  await sessionService.createSession({ appName: 'billing', ...WHO })
  const model = new Script()
  const runner = (more = {}) => runnerOf({ ...bench, sessionService, model, ...more })
  return { ...bench, sessionService, model, runner }
}

function pausedFor(events) {
  const waiting = pendingApprovals(events)
  assert.equal(waiting.length, 1)
  return waiting[0].request.id
}

const PAID = [{ tool: 'pay_invoice', ...PAYMENT, permit: 'pay_invoice' }]

test('adk_registry: the model is shown the tools that its agent could come to use, and no other', async (t) => {
  const { runner, model } = await worldOf(t)
  await run(runner(), READ)
  assert.deepEqual(model.shown[0], ['pay_invoice', 'read_invoice'])
})

test('adk_allow: a tool that is allowed runs, under its permit, and nobody is asked', async (t) => {
  const { authority, runner, ran } = await worldOf(t)
  assert.match(said(await run(runner(), READ)), /done/)
  assert.deepEqual(ran(), [{ tool: 'read_invoice', number: 'INV-7', permit: 'read_invoice' }])
  assert.equal(await authority.isAsked(), false)
})

test('adk_deny: a tool that is denied does not run, the model is told, the run goes on, and nobody is asked', async (t) => {
  const { authority, runner, ran } = await worldOf(t)
  assert.match(said(await run(runner(), DELETE)), /This is not allowed\. Nothing was done\./)
  assert.match(said(await run(runner(), WIRE)), /This tool may not be used/)
  assert.deepEqual(ran(), [])
  assert.equal(await authority.isAsked(), false)
})

test('adk_jit_approve: a call that needs approval pauses the run; once it is approved it runs, exactly once', async (t) => {
  const { authority, runner, model, ran } = await worldOf(t)
  const paused = await run(runner(), PAY)
  const id = pausedFor(paused)
  assert.deepEqual(ran(), [])
  // The model was not asked to go on without the tool's result.
  assert.equal(model.shown.length, 1)
  await authority.approve(id)
  assert.match(said(await run(runner(), resumeMessage(pendingApprovals(paused)))), /done/)
  assert.deepEqual(ran(), PAID)
  await run(runner(), resumeMessage(pendingApprovals(paused)))
  assert.deepEqual(ran(), PAID)
})

test('adk_jit_deny: a call that a person denies does not run, and the model is told', async (t) => {
  const { authority, runner, ran } = await worldOf(t)
  const paused = await run(runner(), PAY)
  await authority.deny(pausedFor(paused))
  assert.match(said(await run(runner(), resumeMessage(pendingApprovals(paused)))), /A person was asked and said no/)
  assert.deepEqual(ran(), [])
})

test('adk_restart_mid_wait: a run that was paused goes on in another process after the first was killed', async (t) => {
  const { authority, life, ran } = await worldOf(t)
  const first = life(t, './adk-agent.mjs', 'start', PAY)
  const [id] = (await first.line()).waiting
  await first.kill()
  // Woken before anybody has decided, it waits on.
  assert.deepEqual((await life(t, './adk-agent.mjs', 'resume').line()).waiting, [id])
  assert.deepEqual(ran(), [])
  await authority.approve(id)
  assert.match((await life(t, './adk-agent.mjs', 'resume').line()).said, /done/)
  assert.deepEqual(ran(), PAID)
})

test('adk_backend_down: while the authority is away no tool runs, also none that was approved; the model is told', async (t) => {
  const { authority, runner, model, ran } = await worldOf(t)
  const paused = await run(runner(), PAY)
  await authority.approve(pausedFor(paused))
  await authority.down()
  assert.match(said(await run(runner(), resumeMessage(pendingApprovals(paused)))), /It cannot be checked now/)
  assert.match(said(await run(runner(), READ)), /It cannot be checked now/)
  // What is shown permits nothing: the model can try, and be told. What is in no map is not shown to it.
  assert.deepEqual(model.shown.at(-1), ['delete_mailbox', 'pay_invoice', 'read_invoice'])
  assert.deepEqual(ran(), [])
})

test('adk_hook_raises: whatever throws in the guard or in the plugin, no tool runs, and the model is told nothing of its words', async (t) => {
  const throwing = () => { throw new Error('secret words') }
  const mapped = await worldOf(t, { tools: { read_invoice: new Tool('invoice.read', { resource: throwing }) } })
  const called = await worldOf(t)
  const token = new CountersignPlugin(called.guard, { subjectToken: throwing })
  for (const [world, more] of [[mapped, {}], [called, { plugins: [token] }]]) {
    const text = said(await run(world.runner(more), READ))
    assert.match(text, /It cannot be checked whether this is allowed/)
    assert.doesNotMatch(text, /secret words/)
    assert.deepEqual(world.ran(), [])
  }
})

test('adk_arguments_changed: arguments that a callback of an agent changes after the check are refused', async (t) => {
  // The amount is a part of no operation here: that the operation is the same says nothing of the call.
  const tools = { ...TOOLS, pay_invoice: new Tool('payments.authorize', { resource: 'invoice:{number}', parameters: ['currency'] }) }
  const { authority, runner, ran } = await worldOf(t, { tools })
  const changing = (change) => runner({ beforeToolCallback: ({ args }) => { Object.assign(args, change) } })
  assert.match(said(await run(changing({ number: 'INV-8' }), READ)), /This call is not the one that was approved/)
  for (const change of [{ amount: 900_000 }, { currency: 'USD' }, { to: 'mallory' }]) {
    const paused = await run(runner(), PAY)
    await authority.approve(pausedFor(paused))
    assert.match(said(await run(changing(change), resumeMessage(pendingApprovals(paused)))), /This call is not the one that was approved/)
  }
  assert.deepEqual(ran(), [])
  const paused = await run(runner(), PAY)
  await authority.approve(pausedFor(paused))
  await run(changing({}), resumeMessage(pendingApprovals(paused)))
  assert.deepEqual(ran(), PAID)
})

test('adk_arguments_changed_in_the_store: arguments that somebody changes in the sessions after approval are refused', async (t) => {
  const { authority, directory, life, ran } = await worldOf(t)
  const first = life(t, './adk-agent.mjs', 'start', PAY)
  const [id] = (await first.line()).waiting
  await first.kill()
  await authority.approve(id)
  const file = join(directory, 'session.json')
  writeFileSync(file, readFileSync(file, 'utf8').replaceAll('500', '900000'))
  assert.match((await life(t, './adk-agent.mjs', 'resume').line()).said, /This call is not the one that was approved/)
  assert.deepEqual(ran(), [])
})

test('adk_approval_expired: an approval that has expired is told to the model', async (t) => {
  const { authority, runner, ran } = await worldOf(t, { standsFor: 8 })
  const paused = await run(runner(), PAY)
  await authority.expired(pausedFor(paused))
  assert.match(said(await run(runner(), resumeMessage(pendingApprovals(paused)))), /Nobody approved this in time/)
  assert.deepEqual(ran(), [])
})

test('adk_wake_up: what the framework was answered approves nothing, and asks for nothing new', async (t) => {
  const { authority, runner, model, ran } = await worldOf(t)
  let events = await run(runner(), PAY)
  const id = pausedFor(events)
  for (let times = 0; times < 2; times += 1) {
    events = await run(runner(), resumeMessage(pendingApprovals(events)))
    assert.equal(pausedFor(events), id)
  }
  assert.deepEqual(ran(), [])
  assert.equal((await authority.waiting()).length, 1)
  assert.equal(model.shown.length, 1)
  await authority.approve(id)
  // Who looks too often is told to slow down, and looks again later.
  while (pendingApprovals(events).length > 0) events = await run(runner(), resumeMessage(pendingApprovals(events)))
  assert.deepEqual(ran(), PAID)
})

test('adk_not_confirmed: a call that is not confirmed does not run although it is approved', async (t) => {
  const { authority, runner, ran } = await worldOf(t)
  const paused = await run(runner(), PAY)
  await authority.approve(pausedFor(paused))
  const no = resumeMessage(pendingApprovals(paused))
  no.parts[0].functionResponse.response = { confirmed: false }
  assert.match(said(await run(runner(), no)), /This was not confirmed/)
  assert.deepEqual(ran(), [])
})

test('adk_wait: in the mode wait a call waits for a person', async (t) => {
  const { authority, runner, ran } = await worldOf(t, { mode: 'wait' })
  const running = run(runner(), PAY)
  await authority.approve(await authority.oneWaiting())
  assert.match(said(await running), /done/)
  assert.deepEqual(ran(), PAID)
})

test('adk_reject: in the mode reject the model is told how a person approves', async (t) => {
  const { runner, ran } = await worldOf(t, { mode: 'reject' })
  const events = await run(runner(), PAY)
  assert.deepEqual(pendingApprovals(events), [])
  assert.match(said(events), /kubectl countersign approve/)
  assert.deepEqual(ran(), [])
})

test('adk_parallel: the calls of one turn are asked about each for itself', async (t) => {
  const { authority, runner, ran } = await worldOf(t)
  const other = `pay_invoice ${JSON.stringify({ ...PAYMENT, amount: 1 })}`
  const waiting = pendingApprovals(await run(runner(), [PAY, other, READ, DELETE].join('\n')))
  assert.equal(new Set(waiting.map(({ request }) => request.id)).size, 2)
  assert.deepEqual(ran().map(({ tool }) => tool), ['read_invoice'])
  await authority.approve(waiting[0].request.id)
  await authority.deny(waiting[1].request.id)
  await run(runner(), resumeMessage(waiting))
  assert.deepEqual(ran().filter(({ tool }) => tool === 'pay_invoice').map(({ amount }) => amount), [500])
})

test('adk_unasked: a tool that ran by permit once runs by permit only, also where somebody has forgotten the plugin', async (t) => {
  const { runner, journal, ran } = await worldOf(t)
  const [tool] = toolsOf(journal)
  await run(runner({ tools: [tool] }), READ)
  assert.match(said(await run(runner({ tools: [tool], plugins: [] }), READ)), /not the one that was approved/)
  assert.equal(ran().length, 1)
})

test('adk_agent_as_tool: an agent that is a tool does not run, as ADK runs its tools without the plugin, and is not shown', async (t) => {
  const inner = new Tool('invoice.read', { resource: () => 'invoice:INV-7', parameters: null })
  const { runner, model, journal, ran } = await worldOf(t, { tools: { ...TOOLS, inner } })
  const agent = new LlmAgent({ name: 'inner', model: new Script(), tools: toolsOf(journal) })
  const words = said(await run(runner({ tools: [new AgentTool({ agent })] }), `inner ${JSON.stringify({ request: DELETE })}`))
  assert.deepEqual(ran(), [])
  assert.match(words, /This is not allowed\. Nothing was done\./)
  assert.deepEqual(model.shown[0], [])
})

const NEEDS = {
  granted: [new Tool('invoice.read', { resource: 'invoice:INV-7' }), ['googleSearch']],
  'needs approval': [new Tool('payments.authorize', { resource: 'invoice:INV-7' }), []],
  'depends on the resource': [new Tool('invoice.read', { resource: 'invoice:{number}' }), []],
  'not granted': ['mailbox.delete', []],
}
for (const [name, [needs, provided]] of Object.entries(NEEDS)) {
  test(`adk_provider: a tool that the provider of the model runs is left in only if it is allowed at once: ${name}`, async (t) => {
    const { runner, journal } = await worldOf(t, { tools: { ...TOOLS, google_search: needs } })
    const model = new Script('gemini-2.5-flash')
    await run(runner({ model, tools: [...toolsOf(journal), GOOGLE_SEARCH] }), 'hello')
    assert.deepEqual(model.provided, [provided])
    assert.deepEqual(model.shown, [['pay_invoice', 'read_invoice']])
  })
}

test('adk_provider: no tool that the provider of the model runs is left in if it is in no map, or while the authority is away', async (t) => {
  const unmapped = await worldOf(t)
  const away = await worldOf(t, { tools: { ...TOOLS, google_search: NEEDS.granted[0] } })
  await away.authority.down()
  for (const { runner } of [unmapped, away]) {
    const model = new Script('gemini-2.5-flash')
    await run(runner({ model, tools: [GOOGLE_SEARCH] }), 'hello')
    assert.deepEqual(model.provided, [[]])
  }
})

test('adk_sub_agent: an agent that another hands over to is guarded as that', async (t) => {
  const transfer = new Tool('invoice.read', { resource: () => 'invoice:INV-7', parameters: null })
  const { runner, journal, ran } = await worldOf(t, { tools: { ...TOOLS, transfer_to_agent: transfer } })
  const model = new Script()
  const inner = new LlmAgent({ name: 'inner', model, tools: toolsOf(journal), description: 'Does the rest.' })
  const runs = runner({ subAgents: [inner] })
  await run(runs, 'transfer_to_agent {"agentName":"inner"}')
  assert.ok(model.shown.length > 0)
  assert.match(said(await run(runs, DELETE)), /This is not allowed/)
  assert.deepEqual(ran(), [])
})

test('adk_session_of_another: the same words in another session are another call', async (t) => {
  const { authority, guard, journal } = await worldOf(t)
  for (const sessionId of ['s-1', 's-2']) {
    const sessionService = new InMemorySessionService()
    await sessionService.createSession({ appName: 'billing', userId: 'ana', sessionId })
    const runner = runnerOf({ guard, journal, sessionService })
    for await (const _ of runner.runAsync({ userId: 'ana', sessionId, newMessage: { role: 'user', parts: [{ text: `c-7: ${PAY}` }] } })) { /* it pauses */ }
  }
  assert.equal((await authority.waiting()).length, 2)
})
