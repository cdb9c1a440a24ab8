import { tool } from '@langchain/core/tools'
import { humanInTheLoopMiddleware } from 'langchain'
import { Command } from '@langchain/langgraph'
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Tool } from '@countersign/sdk/guard'
import { countersignMiddleware, pendingApprovals, resumeCommand } from '@countersign/sdk/langchain'
import { z } from 'zod'
import { DELETE, PAY, PAYMENT, READ, WIRE } from './bench.mjs'
import { THREAD, said } from './langchain-agent.mjs'
import { pausedFor, worldOf } from './langchain-world.mjs'

const PAID = [{ tool: 'pay_invoice', ...PAYMENT, permit: 'pay_invoice' }]

test('langchain_registry: the model is shown the tools that its agent could come to use, and no other', async (t) => {
  const { invoke, model } = await worldOf(t)
  await invoke(READ)
  assert.deepEqual(model.shown[0], ['pay_invoice', 'read_invoice'])
})

test('langchain_allow: a tool that is allowed runs, under its permit, and nobody is asked', async (t) => {
  const { authority, invoke, ran } = await worldOf(t)
  assert.match(said(await invoke(READ)), /done/)
  assert.deepEqual(ran(), [{ tool: 'read_invoice', number: 'INV-7', permit: 'read_invoice' }])
  assert.equal(await authority.isAsked(), false)
})

test('langchain_deny: a tool that is denied does not run, the model is told, the run goes on, and nobody is asked', async (t) => {
  const { authority, invoke, ran } = await worldOf(t)
  const result = await invoke(DELETE)
  assert.match(said(result), /This is not allowed\. Nothing was done\./)
  const told = result.messages.find((message) => message.getType() === 'tool')
  assert.equal(told.status, 'error')
  assert.equal(told.artifact.countersign.code, 'capability_not_granted')
  assert.match(said(await invoke(WIRE)), /This tool may not be used/)
  assert.deepEqual(ran(), [])
  assert.equal(await authority.isAsked(), false)
})

test('langchain_jit_approve: a call that needs approval pauses the graph; once it is approved it runs, exactly once', async (t) => {
  const { authority, invoke, ran } = await worldOf(t)
  const paused = await invoke(PAY)
  const id = pausedFor(paused)
  assert.deepEqual(ran(), [])
  await authority.approve(id)
  assert.match(said(await invoke(resumeCommand(paused))), /done/)
  assert.deepEqual(ran(), PAID)
})

test('langchain_jit_deny: a call that a person denies does not run, and the model is told', async (t) => {
  const { authority, invoke, ran } = await worldOf(t)
  const paused = await invoke(PAY)
  await authority.deny(pausedFor(paused))
  assert.match(said(await invoke(resumeCommand(paused))), /A person was asked and said no/)
  assert.deepEqual(ran(), [])
})

test('langchain_restart_mid_wait: a graph that was paused goes on in another process after the first was killed', async (t) => {
  const { authority, life, ran } = await worldOf(t)
  const first = life(t, './langchain-agent.mjs', 'start', PAY)
  const [id] = (await first.line()).waiting
  await first.kill()
  // Woken before anybody has decided, it waits on.
  assert.deepEqual((await life(t, './langchain-agent.mjs', 'resume').line()).waiting, [id])
  assert.deepEqual(ran(), [])
  await authority.approve(id)
  assert.match((await life(t, './langchain-agent.mjs', 'resume').line()).said, /done/)
  assert.deepEqual(ran(), PAID)
})

test('langchain_killed_while_it_waits: a call that waits goes on in another process, for the same request', async (t) => {
  const { authority, life, ran } = await worldOf(t)
  const first = life(t, './langchain-agent.mjs', 'wait', PAY)
  const id = await authority.oneWaiting()
  await first.kill()
  const second = life(t, './langchain-agent.mjs', 'replay')
  await authority.approve(id)
  assert.match((await second.line()).said, /done/)
  assert.deepEqual(ran(), PAID)
})

test('langchain_backend_down: while the authority is away no tool runs, also none that was approved; the model is told', async (t) => {
  const { authority, invoke, model, ran } = await worldOf(t)
  const paused = await invoke(PAY)
  await authority.approve(pausedFor(paused))
  await authority.down()
  assert.match(said(await invoke(resumeCommand(paused))), /It cannot be checked now/)
  assert.match(said(await invoke(READ)), /It cannot be checked now/)
  // What is shown permits nothing: the model can try, and be told. What is in no map is not shown to it.
  assert.deepEqual(model.shown.at(-1), ['delete_mailbox', 'pay_invoice', 'read_invoice'])
  assert.deepEqual(ran(), [])
})

test('langchain_hook_raises: whatever throws in the guard or in the middleware, no tool runs, and the model is told nothing of its words', async (t) => {
  const throwing = () => { throw new Error('secret words') }
  const mapped = await worldOf(t, { tools: { read_invoice: new Tool('invoice.read', { resource: throwing }) } })
  const called = await worldOf(t, { agent: ({ guard }) => ({ middleware: [countersignMiddleware(guard, { subjectToken: throwing })] }) })
  for (const { invoke, ran } of [mapped, called]) {
    const text = said(await invoke(READ))
    assert.match(text, /It cannot be checked whether this is allowed/)
    assert.doesNotMatch(text, /secret words/)
    assert.deepEqual(ran(), [])
  }
})

test('langchain_arguments_changed: arguments that are changed in the thread after approval are refused', async (t) => {
  const { authority, agent, invoke, ran } = await worldOf(t)
  const paused = await invoke(`c-7: ${PAY}`)
  await authority.approve(pausedFor(paused))
  const { values } = await agent.graph.getState(THREAD)
  const asked = values.messages.at(-1)
  asked.tool_calls[0].args.amount = 900_000
  await agent.graph.updateState(THREAD, { messages: [asked] }, 'model_request')
  const after = await invoke(resumeCommand(paused))
  // Another call than the one for which the graph had paused: it is refused, or asked about anew.
  assert.ok(pendingApprovals(after).length === 1 || /This call is not the one that was approved/.test(said(after)))
  assert.deepEqual(ran(), [])
})

test('langchain_edited: what a person edits before the call is what the guard is asked about', async (t) => {
  const { authority, invoke, ran } = await worldOf(t, { agent: ({ guard }) => ({ middleware: [humanInTheLoopMiddleware({ interruptOn: { pay_invoice: { allowedDecisions: ['edit'] } } }), countersignMiddleware(guard)] }) })
  await invoke(PAY)
  const edited = { ...PAYMENT, amount: 20 }
  const paused = await invoke(new Command({ resume: { decisions: [{ type: 'edit', editedAction: { name: 'pay_invoice', args: edited } }] } }))
  const [{ request }] = pendingApprovals(paused)
  assert.equal(request.operation.parameters.amount, 20)
  await authority.approve(request.id)
  await invoke(resumeCommand(paused))
  assert.deepEqual(ran().map(({ amount }) => amount), [20])
})

test('langchain_approval_expired: an approval that has expired is told to the model', async (t) => {
  const { authority, invoke, ran } = await worldOf(t, { standsFor: 8 })
  const paused = await invoke(PAY)
  await authority.expired(pausedFor(paused))
  assert.match(said(await invoke(resumeCommand(paused))), /Nobody approved this in time/)
  assert.deepEqual(ran(), [])
})

test('langchain_wake_up: what the graph is resumed with approves nothing, and asks for nothing new', async (t) => {
  const { authority, invoke, ran } = await worldOf(t)
  let paused = await invoke(PAY)
  const id = pausedFor(paused)
  paused = await invoke(new Command({ resume: { decisions: [{ type: 'approve' }] } }))
  assert.equal(pausedFor(paused), id)
  assert.deepEqual(ran(), [])
  assert.equal((await authority.waiting()).length, 1)
  await authority.approve(id)
  // Who looks too often is told to slow down, and looks again later.
  while (pendingApprovals(paused).length > 0) paused = await invoke(resumeCommand(paused))
  assert.deepEqual(ran(), PAID)
})

test('langchain_wait: in the mode wait a call waits for a person', async (t) => {
  const { authority, invoke, ran } = await worldOf(t, { mode: 'wait' })
  const running = invoke(PAY)
  await authority.approve(await authority.oneWaiting())
  assert.match(said(await running), /done/)
  assert.deepEqual(ran(), PAID)
})

test('langchain_reject: in the mode reject the same call works after a person has approved, by whatever id', async (t) => {
  const { authority, invoke, ran } = await worldOf(t, { mode: 'reject' })
  assert.match(said(await invoke(PAY)), /kubectl countersign approve/)
  await authority.approve(await authority.oneWaiting())
  await new Promise((resolve) => setTimeout(resolve, 200))
  assert.match(said(await invoke(PAY)), /done/)
  assert.deepEqual(ran(), PAID)
})

test('langchain_parallel: the calls of one turn are asked about each for itself', async (t) => {
  const { authority, invoke, ran } = await worldOf(t)
  const other = `pay_invoice ${JSON.stringify({ ...PAYMENT, amount: 1 })}`
  const paused = await invoke([PAY, other, READ, DELETE].join('\n'))
  const waiting = pendingApprovals(paused)
  assert.equal(new Set(waiting.map(({ request }) => request.id)).size, 2)
  await authority.approve(waiting[0].request.id)
  await authority.deny(waiting[1].request.id)
  await invoke(resumeCommand(paused))
  assert.equal(ran().filter(({ tool }) => tool === 'read_invoice').length, 1)
  assert.equal(ran().filter(({ tool }) => tool === 'pay_invoice').length, 1)
})

test('langchain_throwing_tool: the error of a tool is the tool’s, and is not taken for a denial', async (t) => {
  const failing = tool(() => { throw new Error('the tool broke') }, { name: 'read_invoice', schema: z.object({ number: z.string() }) })
  const { invoke } = await worldOf(t, { agent: () => ({ tools: [failing] }) })
  await assert.rejects(invoke(READ), /the tool broke/)
})
