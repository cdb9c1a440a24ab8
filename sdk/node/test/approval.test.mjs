import assert from 'node:assert/strict'
import { test } from 'node:test'
import * as sdk from '@countersign/sdk'
import { authorityOf, clientOf, eventually } from './support.mjs'

const PAY = { capability: 'payments.authorize', resource: 'invoice:INV-7', parameters: { amount: 500, currency: 'EUR' } }

async function worldOf(t, options) {
  const authority = await authorityOf(t, options)
  authority.allow('document.read', { resource: 'document:reports/*' })
  authority.requireApproval('payments.authorize')
  return { authority, client: clientOf(t, authority) }
}

test('a decision says whether, why not, and whether a person could lift it', async (t) => {
  const { authority, client } = await worldOf(t)
  authority.deny('document.delete', { code: 'condition_unmet', message: 'amount <= 50' })
  const yes = await client.evaluate({ capability: 'document.read', resource: 'document:reports/q3' })
  assert.ok(yes.allowed && yes.evaluationId && !yes.accessRequest)
  const no = await client.evaluate({ capability: 'document.delete', resource: 'document:reports/q3' })
  assert.equal(no.allowed, false)
  assert.deepEqual(no.reason, { code: 'condition_unmet', message: 'amount <= 50', rule: 'Agent spec.capabilities[].when' })
  const person = await client.evaluate(PAY)
  assert.equal(person.allowed, false)
  assert.equal(person.accessRequest.authorization_details[0].capability, 'payments.authorize')
  assert.throws(() => Number(person), TypeError)
  assert.throws(() => `${person}`, TypeError)
})

test('several are decided at once in their order, and what is wrong with one is its own no', async (t) => {
  const { authority, client } = await worldOf(t)
  const many = Array.from({ length: 150 }, (_, at) => ({
    capability: 'document.read',
    resource: at % 2 ? 'document:reports/a' : 'document:secret',
  }))
  const decisions = await client.evaluateMany(many)
  assert.deepEqual(
    decisions.map(({ allowed }) => allowed),
    many.map((_, at) => at % 2 === 1),
  )
  assert.equal(authority.count('/access/v1/evaluations'), 2)
  assert.deepEqual(await client.evaluateMany([]), [])
  assert.deepEqual(await client.capabilities('document:reports/a'), ['document.read'])
  assert.deepEqual(await client.capabilities(), [])
})

test('all pages of capabilities are read', async (t) => {
  const { authority, client } = await worldOf(t)
  const names = Array.from({ length: 120 }, (_, at) => `c${String(at).padStart(3, '0')}.do`)
  names.forEach((name) => authority.allow(name))
  assert.deepEqual(await client.capabilities(), names)
})

test('a question that is not understood is a no', async (t) => {
  const { client } = await worldOf(t)
  const { allowed, unresolved, reason } = await client.ask('May I frobnicate document.read?')
  assert.equal(allowed, false)
  assert.equal(reason.code, 'not_understood')
  assert.deepEqual(
    unresolved.map(({ text }) => text),
    ['frobnicate'],
  )
})

test('a request that was approved has one token, for exactly the operation', async (t) => {
  const { authority, client } = await worldOf(t)
  const request = await client.requestApproval(PAY, { justification: 'due today' })
  assert.ok(request.id && request.expiresAt > Date.now() / 1000 && request.operation.fingerprint())
  assert.equal(authority.pending()[0].justification, 'due today')
  await assert.rejects(
    client.approval(request),
    (error) => error instanceof sdk.ApprovalPending && error.request === request && error.retryAfter > 0,
  )
  authority.approve(request.id)
  const token = await client.approval(request, { wait: 5 })
  assert.deepEqual([...token.scope], ['payments.authorize'])
  assert.equal(token.details[0].jit_request, request.id)
})

test('another process can go on with a request', async (t) => {
  const { authority, client } = await worldOf(t)
  const kept = JSON.stringify(await client.requestApproval(PAY))
  const request = sdk.ApprovalRequest.fromJSON(JSON.parse(kept))
  assert.equal(request.operation.fingerprint(), new sdk.Operation(PAY).fingerprint())
  authority.approve(request.id)
  assert.ok(await clientOf(t, authority).approval(request))
  assert.throws(() => sdk.ApprovalRequest.fromJSON({ id: '../x' }), sdk.ConfigurationError)
})

test('who waits hears of a decision at once', async (t) => {
  const { authority, client } = await worldOf(t)
  const request = await client.requestApproval(PAY)
  const waiting = client.waitForApproval(request, { timeout: 10 })
  await eventually(() => authority.count('/oauth2/token') === 1, 'it waits')
  const began = performance.now()
  authority.approve(request.id)
  assert.ok(await waiting)
  assert.ok(performance.now() - began < 1000)
  assert.equal(authority.count('/oauth2/token'), 1, 'by one request that was held')
})

test('each end of a request is its own error', async (t) => {
  const { authority, client } = await worldOf(t)
  const end = async (how, kind) => {
    const request = await client.requestApproval(PAY)
    await how(request)
    await assert.rejects(client.approval(request.id), kind)
  }
  await end(
    ({ id }) => authority.denyRequest(id, 'too much'),
    (error) => error instanceof sdk.ApprovalDenied && /too much/.test(error.message),
  )
  await end(({ id }) => authority.expire(id), sdk.ApprovalExpired)
  await end((request) => client.withdraw(request), sdk.ApprovalDenied)
  await assert.rejects(client.approval('unknown'), sdk.ApprovalUsed)
  const request = await client.requestApproval(PAY)
  authority.approve(request.id)
  await client.complete(await client.approval(request))
  await assert.rejects(client.approval(request, { wait: 1 }), sdk.ApprovalUsed)
})

test('looks at a request are as far apart as the service allows, however many look', async (t) => {
  const { authority, client } = await worldOf(t, { interval: 1 })
  const request = await client.requestApproval(PAY)
  const looks = await Promise.allSettled(Array.from({ length: 10 }, () => client.approval(request)))
  assert.ok(looks.every(({ reason }) => reason instanceof sdk.ApprovalPending && reason.code === 'authorization_pending'))
  assert.equal(authority.count('/oauth2/token'), 1)
  const began = performance.now()
  authority.approve(request.id)
  await client.approval(request, { wait: 3 })
  assert.ok(performance.now() - began > 500, 'the second look waits for its turn')
})

test('a look that was long on its way is not followed by one that comes too soon', async (t) => {
  const { authority, client } = await worldOf(t, { interval: 0.2 })
  const request = await client.requestApproval(PAY)
  for (const delay of [0.15, 0, 0.1, 0]) {
    authority.slow(delay)
    await assert.rejects(client.approval(request, { wait: 0.3 }), (error) => error.code === 'authorization_pending')
  }
  assert.ok(authority.count('/oauth2/token') >= 4)
})

test('who waits for longer than an answer may take is answered all the same', async (t) => {
  const { authority } = await worldOf(t)
  const client = clientOf(t, authority, { timeout: 1 })
  const request = await client.requestApproval(PAY)
  const waiting = client.approval(request, { wait: 3.5 })
  await assert.rejects(waiting, sdk.ApprovalPending)
  const token = client.approval(request, { wait: 20 })
  setTimeout(() => authority.approve(request.id), 2500)
  assert.equal((await token).details[0].capability, PAY.capability)
})

test('after slow_down the pause is longer', async (t) => {
  const { authority, client } = await worldOf(t, { interval: 0.5 })
  const request = await client.requestApproval(PAY)
  const other = clientOf(t, authority)
  await assert.rejects(other.approval(request), sdk.ApprovalPending)
  await assert.rejects(client.approval(request), (error) => error.code === 'slow_down')
  await assert.rejects(client.approval(request), (error) => error.code === 'authorization_pending' && error.retryAfter > 4)
  assert.equal(authority.count('/oauth2/token'), 2)
})

test('a service that goes away while somebody waits is waited for, and the decision is heard', async (t) => {
  const { authority, client } = await worldOf(t)
  const request = await client.requestApproval(PAY)
  const waiting = client.waitForApproval(request, { timeout: 15 })
  await eventually(() => authority.count('/oauth2/token') === 1, 'it waits')
  await authority.down()
  await new Promise((resolve) => setTimeout(resolve, 600))
  authority.approve(request.id)
  await authority.up()
  authority.fail(503, 1)
  assert.ok(await waiting)
})

test('nobody who decides in time is no decision', async (t) => {
  const { authority, client } = await worldOf(t)
  const request = await client.requestApproval(PAY)
  await assert.rejects(client.waitForApproval(request, { timeout: 0.5 }), sdk.ApprovalPending)
  await authority.down()
  await assert.rejects(client.waitForApproval(request, { timeout: 0.5 }), sdk.ApprovalPending)
})

test('the same key is the same request, and a lost answer asks nobody twice', async (t) => {
  const { authority, client } = await worldOf(t)
  const [one, two] = [
    await client.requestApproval(PAY, { idempotencyKey: 'k' }),
    await client.requestApproval(PAY, { idempotencyKey: 'k' }),
  ]
  assert.equal(one.id, two.id)
  authority.loseAnswers(1)
  await client.requestApproval(PAY)
  assert.equal(authority.pending().length, 2)
})

test('no person is asked for what is denied anyway, or needs none', async (t) => {
  const { authority, client } = await worldOf(t)
  await assert.rejects(
    client.requireApproval({ capability: 'document.delete' }),
    (error) => error instanceof sdk.AccessDenied && error.code === 'capability_not_granted',
  )
  const token = await client.requireApproval({ capability: 'document.read', resource: 'document:reports/q3' })
  assert.equal(token.details[0].resource, 'document:reports/q3')
  assert.equal(authority.count('/oauth2/bc-authorize'), 0)
})

test('require waits for the approval, or says what waits for it', async (t) => {
  const { authority, client } = await worldOf(t)
  const waiting = client.requireApproval(PAY, { timeout: 5 })
  await eventually(() => authority.pending().length === 1, 'somebody is asked')
  authority.approve(authority.pending()[0].id)
  assert.ok(await waiting)
  await assert.rejects(client.requireApproval(PAY, { mode: 'interrupt', idempotencyKey: 'k' }), (error) => {
    authority.approve(error.request.id)
    return error instanceof sdk.ApprovalPending
  })
  assert.ok(await client.requireApproval(PAY, { mode: 'interrupt' }), 'what was approved meanwhile is used')
})

test('an agent that was called asks for whoever called it', async (t) => {
  const { authority, client } = await worldOf(t)
  const subjectToken = await authority.tokenFor({ agent: 'agent:test/caller', audience: authority.agent, scope: 'document.read' })
  const token = await client.requireApproval({ capability: 'document.read', resource: 'document:reports/q3' }, { subjectToken })
  const verifier = authority.verifier({ revocation: 'none' })
  assert.deepEqual((await verifier.verify(token.value)).chain, ['agent:test/caller', authority.agent])
  verifier.close()
  const request = await client.requestApproval(PAY, { subjectToken })
  assert.ok(request.id)
  assert.equal(authority.requests.at(-1).body.login_hint, undefined)
})

test('an operation is completed once', async (t) => {
  const { authority, client } = await worldOf(t)
  const request = await client.requestApproval(PAY)
  authority.approve(request.id)
  const token = await client.approval(request)
  await client.complete(token)
  await assert.rejects(client.complete(token), (error) => error instanceof sdk.AlreadyCompleted && error.status === 409)
  await assert.rejects(client.complete('x'), sdk.TokenRejected)
})

test('a lost answer to a completion is asked for once more, and tells nobody that it was this one', async (t) => {
  const { authority, client } = await worldOf(t)
  const tokenOf = async () => {
    const request = await client.requestApproval(PAY)
    authority.approve(request.id)
    return client.approval(request)
  }
  authority.fail(503, 1, { path: '/jit/complete' })
  await client.complete(await tokenOf())
  const token = await tokenOf()
  authority.loseAnswers(1)
  const before = authority.count('/jit/complete')
  await assert.rejects(client.complete(token), (error) => error instanceof sdk.Unavailable && error.code === 'completion_unknown')
  assert.equal(authority.count('/jit/complete') - before, 2)
})

test('a page of somebody in between completes nothing', async (t) => {
  const { authority, client } = await worldOf(t)
  const request = await client.requestApproval(PAY)
  authority.approve(request.id)
  const token = await client.approval(request)
  authority.fail(200, 2, { path: '/jit/complete' })
  const isUnread = (error) => error instanceof sdk.Unavailable && error.code === 'unreadable_answer'
  await assert.rejects(client.complete(token), isUnread)
  await client.complete(token)
})

test('what was given up is gone', async (t) => {
  const { authority, client } = await worldOf(t)
  const token = await client.token()
  await client.revoke(token)
  assert.notEqual((await client.token()).value, token.value)
  await assert.rejects(
    client.revoke(await authority.tokenFor({ agent: 'agent:test/other' })),
    (error) => error instanceof sdk.Refused && error.error === 'unauthorized_client',
  )
})

test('an operation holds what everybody reads alike, and does not change', () => {
  const parameters = { list: [1] }
  const operation = new sdk.Operation({ capability: 'x', parameters })
  parameters.list.push(2)
  assert.deepEqual(operation.details().parameters, { list: [1] })
  assert.throws(() => operation.parameters.list.push(3), TypeError)
  for (const bad of [{ n: 2 ** 53 }, { n: Number.NaN }, { n: 1n }, { f() {} }, { d: new Date() }, { u: undefined }, { s: '\ud800' }, []]) {
    assert.throws(() => new sdk.Operation({ capability: 'x', parameters: bad }), sdk.ConfigurationError)
  }
  for (const bad of [{}, { capability: '' }, { capability: 'x', resource: '' }, { capability: 'x', expirationSeconds: 1.5 }])
    assert.throws(() => new sdk.Operation(bad), sdk.ConfigurationError)
})
