import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Guard, Tool } from '@countersign/sdk/guard'
import * as sdk from '@countersign/sdk'
import { authorityOf, clientOf, eventually } from './support.mjs'

const TOOLS = {
  read: new Tool('document.read', { resource: 'document:{name}', parameters: [] }),
  search: 'web.search',
  pay: new Tool('payments.authorize', { resource: 'invoice:{number}' }),
  send: new Tool('payments.authorize', {
    resource: ({ number }) => `invoice:${number}`,
    parameters: ({ amount }) => ({ amount }),
    sendsToken: true,
  }),
  remove: 'document.delete',
  broken: new Tool('document.read', {
    resource: () => {
      throw new Error('secret arguments')
    },
  }),
}
const INVOICE = { number: 'INV-7', amount: 500 }

async function worldOf(t, options = {}, tools = TOOLS) {
  const authority = await authorityOf(t)
  authority.allow('document.read', { resource: 'document:*' })
  authority.allow('web.search')
  authority.requireApproval('payments.authorize')
  const client = clientOf(t, authority)
  return { authority, client, guard: new Guard(client, tools, options) }
}

const denied = (code) => (error) => {
  assert.ok(error instanceof sdk.Denied, `${error}`)
  assert.equal(error.code, code)
  assert.ok(error.forModel().length < 300)
  return true
}

test('what is allowed has a permit, whose token is for the operation and obtained when it is asked for', async (t) => {
  const { authority, guard } = await worldOf(t)
  const permit = await guard.check('read', { name: 'q3' }, { callId: '1' })
  assert.equal(permit.operation.resource, 'document:q3')
  assert.equal(authority.count('/oauth2/token'), 0)
  const token = await permit.token()
  assert.equal(await permit.token(), token)
  assert.equal(token.details[0].resource, 'document:q3')
})

test('a tool that is not mapped is denied, and so is what every object has', async (t) => {
  const { authority, guard } = await worldOf(t)
  for (const name of ['write', 'constructor', '__proto__', 'toString', ''])
    await assert.rejects(guard.check(name, {}, { callId: '1' }), denied('unmapped'))
  assert.equal(authority.requests.length, 0)
})

test('a denial has its reason for people, and none for the model', async (t) => {
  const { guard } = await worldOf(t)
  await assert.rejects(guard.check('remove', {}, { callId: '1' }), (error) => {
    denied('capability_not_granted')(error)
    assert.ok(error.evaluationId && error.reason.rule)
    for (const internal of ['document.delete', 'agent:', 'Agent spec', error.evaluationId]) assert.ok(!error.forModel().includes(internal))
    assert.match(error.forModel(), /Do not try again/)
    return true
  })
})

test('a call that waits runs once somebody has approved, and its operation is reported as done before', async (t) => {
  const { authority, guard } = await worldOf(t)
  const running = guard.run('pay', INVOICE, { callId: '1' }, async (permit) => {
    assert.equal(sdk.currentPermit(), permit)
    await new Promise((resolve) => setTimeout(resolve, 5))
    assert.equal(sdk.currentPermit(), permit, 'in all that it awaits')
    assert.equal(authority.count('/jit/complete'), 1)
    await assert.rejects(permit.token(), { code: 'permit_completed' })
    return 'paid'
  })
  await eventually(() => authority.pending().length === 1, 'somebody is asked')
  assert.deepEqual(authority.pending()[0].operation.parameters, INVOICE)
  authority.approve(authority.pending()[0].id)
  assert.equal(await running, 'paid')
  assert.equal(sdk.currentPermit(), undefined)
})

test('the same call runs once, however often and by whomever it is resumed', async (t) => {
  const { authority, guard } = await worldOf(t, { mode: 'interrupt' })
  const call = { callId: '1', runId: 'r' }
  let request
  await assert.rejects(guard.check('pay', INVOICE, call), (error) => {
    assert.ok(error instanceof sdk.Pending)
    request = error.request
    assert.match(error.forModel(), new RegExp(`kubectl countersign approve ${request.id}`))
    return true
  })
  authority.approve(request.id)
  const others = Array.from({ length: 4 }, () => new Guard(clientOf(t, authority), TOOLS, { mode: 'interrupt' }))
  const outcomes = await Promise.allSettled([guard, ...others].map((one) => one.check('pay', INVOICE, { ...call, requestId: request.id })))
  assert.equal(outcomes.filter(({ status }) => status === 'fulfilled').length, 1)
  for (const { reason } of outcomes.filter(({ status }) => status === 'rejected')) denied('approval_used')(reason)
  await assert.rejects(guard.check('pay', INVOICE, { ...call, requestId: request.id }), denied('approval_used'))
})

test('another call of the same operation needs an approval of its own', async (t) => {
  const { authority, guard } = await worldOf(t, { mode: 'interrupt' })
  const pendingOf = (call) =>
    guard.check('pay', INVOICE, call).then(
      () => assert.fail('it ran'),
      (error) => error.request.id,
    )
  const one = await pendingOf({ callId: '1', runId: 'r' })
  authority.approve(one)
  const two = await pendingOf({ callId: '2', runId: 'r' })
  assert.notEqual(two, one)
  assert.equal(await pendingOf({ callId: '2', runId: 'r' }), two)
})

test('arguments that were changed after the approval do not run', async (t) => {
  const { authority, guard } = await worldOf(t, { mode: 'interrupt' })
  const { request } = await guard.check('pay', INVOICE, { callId: '1' }).catch((error) => error)
  authority.approve(request.id)
  await assert.rejects(guard.check('pay', { ...INVOICE, amount: 501 }, { callId: '1', requestId: request.id }), denied('approval_mismatch'))
  assert.ok(await guard.check('pay', INVOICE, { callId: '1', requestId: request.id }), 'the approval is still there for what it was for')
})

test('a model that was told to call again is heard under another id of its call', async (t) => {
  for (const options of [{ mode: 'reject' }, { mode: 'wait', maxWait: 0.3 }]) {
    const { authority, guard } = await worldOf(t, options)
    const { request } = await guard.check('pay', INVOICE, { callId: '1' }).catch((error) => error)
    authority.approve(request.id)
    assert.ok(await guard.check('pay', INVOICE, { callId: '2' }))
    await assert.rejects(guard.check('pay', INVOICE, { callId: '3' }), sdk.Pending)
  }
})

test('whether a call would wait is told without using its approval up', async (t) => {
  const { authority, guard } = await worldOf(t, { mode: 'interrupt' })
  assert.equal(await guard.peek('search', {}, { callId: '1' }), undefined)
  await assert.rejects(guard.peek('remove', {}, { callId: '1' }), denied('capability_not_granted'))
  await assert.rejects(guard.peek('unknown', {}, { callId: '1' }), denied('unmapped'))
  const call = { callId: '2' }
  const { id } = await guard.peek('pay', INVOICE, call)
  assert.equal((await guard.peek('pay', INVOICE, call)).id, id)
  authority.approve(id)
  for (let times = 0; times < 3; times += 1) assert.equal(await guard.peek('pay', INVOICE, call), undefined)
  assert.ok(await guard.check('pay', INVOICE, call))
  await assert.rejects(guard.peek('pay', INVOICE, call), denied('approval_used'))
  const other = { callId: '3' }
  authority.denyRequest((await guard.peek('pay', INVOICE, other)).id)
  // A moment after the last look, and as a no all the same.
  await assert.rejects(guard.check('pay', INVOICE, other), denied('approval_denied'))
  await authority.down()
  await assert.rejects(guard.peek('search', {}, { callId: '4' }), denied('authority_unavailable'))
})

test('a tool that sends its token has one, and the resource server completes', async (t) => {
  const { authority, guard } = await worldOf(t)
  const checking = guard.check('send', INVOICE, { callId: '1' })
  await eventually(() => authority.pending().length === 1, 'somebody is asked')
  assert.deepEqual(authority.pending()[0].operation.parameters, { amount: 500 })
  authority.approve(authority.pending()[0].id)
  const token = await (await checking).token()
  const verifier = authority.verifier({ revocation: 'none' })
  const verified = await verifier.verify(token.value)
  verified.require('payments.authorize', { resource: 'invoice:INV-7', parameters: { amount: 500 } })
  assert.throws(
    () => verified.require('payments.authorize', { resource: 'invoice:INV-7', parameters: { amount: 501 } }),
    sdk.InsufficientScope,
  )
  await verifier.complete(token.value)
  await assert.rejects(verifier.complete(token.value), sdk.AlreadyCompleted)
  verifier.close()
})

test('a person who denies, and one who never decides', async (t) => {
  const { authority, guard, client } = await worldOf(t)
  const checking = guard.check('pay', INVOICE, { callId: '1' })
  const hasFailed = assert.rejects(checking, denied('approval_denied'))
  await eventually(() => authority.pending().length === 1, 'somebody is asked')
  authority.denyRequest(authority.pending()[0].id)
  await hasFailed
  await assert.rejects(new Guard(client, TOOLS, { maxWait: 0.3 }).check('pay', INVOICE, { callId: '2' }), sdk.Pending)
})

test('whatever fails, nothing runs', async (t) => {
  const { authority, client, guard } = await worldOf(t)
  const runs = []
  const run = (tool, args, one = guard, call = { callId: '1' }) => one.run(tool, args, call, () => runs.push(tool))
  await assert.rejects(run('broken', {}), (error) => denied('guard_failed')(error) && !error.message.includes('secret arguments'))
  for (const args of [{}, { name: '' }, { name: 'a/b' }, { name: '*' }, { name: '..' }, { name: {} }, { name: 'a b' }, null, 'x'])
    await assert.rejects(run('read', args), denied('guard_failed'), JSON.stringify(args))
  await assert.rejects(run('search', { q: 1n }), denied('guard_failed'))
  await assert.rejects(run('search', {}, guard, {}), denied('guard_failed'))
  authority.fail(500, 1)
  await assert.rejects(run('search', {}), denied('authority_unavailable'))
  authority.refuseCredentials()
  await assert.rejects(run('search', {}), denied('authority_refused'))
  authority.refuseCredentials(false)
  authority.slow(30)
  await assert.rejects(run('search', {}, new Guard(clientOf(t, authority, { timeout: 0.2 }), TOOLS)), denied('authority_unavailable'))
  authority.slow(0)
  await authority.down()
  await assert.rejects(run('search', {}), denied('authority_unavailable'))
  const without = new Guard(new sdk.Client({ env: { COUNTERSIGN_CLOUD: 'none' } }), TOOLS)
  await assert.rejects(run('search', {}, without), denied('guard_failed'))
  assert.deepEqual(runs, [])
  assert.throws(() => new Guard(client, TOOLS, { mode: 'allow' }), sdk.ConfigurationError)
})

test('a suspended agent runs nothing', async (t) => {
  const { authority, guard } = await worldOf(t)
  await authority.suspend()
  await assert.rejects(guard.check('search', {}, { callId: '1' }), denied('agent_suspended'))
})

test('an agent that was called is guarded in its chain', async (t) => {
  const { authority, guard } = await worldOf(t, { mode: 'interrupt' })
  const subjectToken = await authority.tokenFor({ agent: 'agent:test/caller', audience: authority.agent, scope: 'web.search' })
  assert.ok(await guard.check('search', {}, { callId: '1', subjectToken }))
  await assert.rejects(guard.check('read', { name: 'q3' }, { callId: '2', subjectToken }), denied('capability_not_granted'))
  const empty = await authority.tokenFor({ agent: 'agent:test/caller', audience: authority.agent, scope: 'nothing.here' })
  await assert.rejects(guard.check('pay', INVOICE, { callId: '3', subjectToken: empty }), sdk.Pending)
  await assert.rejects(guard.check('remove', {}, { callId: '4', subjectToken: empty }), denied('authority_refused'))
})

test('beside a sidecar a permit has a token for the capability', async (t) => {
  const { authority } = await worldOf(t)
  const client = new sdk.Client({ env: { COUNTERSIGN_SIDECAR_URL: authority.sidecarUrl } })
  t.after(() => client.close())
  const guard = new Guard(client, TOOLS)
  assert.deepEqual([...(await (await guard.check('search', { q: 'x' }, { callId: '1' })).token()).scope], ['web.search'])
  const checking = guard.check('pay', INVOICE, { callId: '2' })
  await eventually(() => authority.pending().length === 1, 'somebody is asked')
  authority.approve(authority.pending()[0].id)
  assert.ok(await checking)
})

test('those tools are shown that the agent has on something, or a person could approve', async (t) => {
  const { authority, guard } = await worldOf(t)
  assert.deepEqual(await guard.visible(['read', 'search', 'pay', 'remove', 'unknown']), ['read', 'search', 'pay'])
  await authority.down()
  await assert.rejects(guard.visible(['read']), sdk.Unavailable)
  assert.deepEqual(await guard.visible([]), [])
})
