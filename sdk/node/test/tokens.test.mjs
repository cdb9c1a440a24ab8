import assert from 'node:assert/strict'
import { test } from 'node:test'
import * as sdk from '@countersign/sdk'
import { TokenCache } from '../dist/internal.mjs'
import { authorityOf, clientOf, eventually } from './support.mjs'

const DOCS = 'https://docs.test'

test('a thousand who ask at once make one request', async (t) => {
  const authority = await authorityOf(t)
  authority.allow('document.read')
  const client = clientOf(t, authority)
  const tokens = await Promise.all(Array.from({ length: 1000 }, () => client.token()))
  assert.equal(authority.count('/oauth2/token'), 1)
  assert.equal(new Set(tokens.map(({ value }) => value)).size, 1)
  await client.token()
  assert.equal(authority.count('/oauth2/token'), 1, 'and whoever comes later none')
})

test('tokens are kept by audience, by the set of the scope, and by what they were exchanged for', async (t) => {
  const authority = await authorityOf(t, { audiences: ['https://api.test', DOCS] })
  authority.allow('document.read')
  authority.allow('web.search')
  const client = clientOf(t, authority, { audience: DOCS })
  const one = await client.token({ scope: 'document.read web.search' })
  assert.equal(await client.token({ scope: ['web.search', 'document.read', 'web.search'] }), one)
  assert.notEqual(await client.token({ scope: 'web.search' }), one)
  assert.notEqual(await client.token({ scope: 'document.read web.search', audience: 'https://api.test' }), one)
  const called = await authority.tokenFor({ agent: 'agent:test/caller', audience: authority.agent })
  const exchanged = await client.exchange(called)
  assert.equal(await client.exchange(called), exchanged)
  const other = await authority.tokenFor({ agent: 'agent:test/caller', audience: authority.agent })
  assert.notEqual(await client.exchange(other), exchanged)
  assert.notEqual((await client.token({ audience: DOCS })).value, exchanged.value)
})

test('a token says its scope, when it ends, and its header, and by no accident itself', async (t) => {
  const authority = await authorityOf(t)
  authority.allow('document.read')
  const token = await clientOf(t, authority).token()
  assert.deepEqual([...token.scope], ['document.read'])
  assert.ok(Math.abs(token.expiresAt - Date.now() / 1000 - 300) < 5)
  assert.deepEqual(token.headers(), { Authorization: `Bearer ${token.value}` })
  const { inspect } = await import('node:util')
  for (const text of [
    String(token),
    JSON.stringify({ token }),
    inspect(token),
    inspect({ token }, { showHidden: true, depth: 9 }),
    `${Object.entries(token)}`,
    JSON.stringify(structuredClone(token)),
  ]) {
    assert.ok(!text.includes(token.value.slice(0, 20)), text)
  }
  const bound = new sdk.AccessToken({ value: 'x', tokenType: 'DPoP', expiresAt: 1 })
  assert.throws(
    () => bound.headers(),
    (error) => error instanceof sdk.ConfigurationError && error.code === 'proof_needed',
  )
})

test('fresh goes past what is kept, and what it brings is kept', async (t) => {
  const authority = await authorityOf(t)
  authority.allow('document.read')
  const client = clientOf(t, authority)
  const first = await client.token()
  const second = await client.token({ fresh: true })
  assert.notEqual(second.value, first.value)
  assert.equal(await client.token(), second)
})

test('a token for one operation is never kept', async (t) => {
  const authority = await authorityOf(t)
  authority.allow('refund.issue')
  const client = clientOf(t, authority)
  const operation = { capability: 'refund.issue', resource: 'order:O-1', parameters: { amount: 50 } }
  const [one, two] = [await client.token({ operation }), await client.token({ operation })]
  assert.notEqual(one.value, two.value)
  assert.deepEqual(one.details, [{ type: 'countersign_operation', ...operation }])
})

test('a waiter who gives up does not end the flight of the others', async (t) => {
  const authority = await authorityOf(t)
  authority.allow('document.read')
  authority.slow(0.2)
  const client = clientOf(t, authority)
  const controller = new AbortController()
  const given = client.token({ signal: controller.signal })
  const patient = client.token()
  setTimeout(() => controller.abort(new Error('given up')), 50)
  await assert.rejects(given, /given up/)
  assert.equal((await patient).tokenType, 'Bearer')
  assert.equal(authority.count('/oauth2/token'), 1)
})

test('what cannot be had is refused by its kind', async (t) => {
  const authority = await authorityOf(t)
  authority.allow('document.read')
  const client = clientOf(t, authority)
  await assert.rejects(
    client.token({ scope: 'document.delete' }),
    (error) =>
      error instanceof sdk.InvalidScope && error.status === 400 && /document.delete/.test(error.message) && error.requestId !== undefined,
  )
  await assert.rejects(client.token({ audience: 'https://evil.test' }), sdk.InvalidTarget)
  await assert.rejects(client.token({ scope: ' ' }), sdk.ConfigurationError)
  await assert.rejects(client.exchange(await authority.tokenFor({ audience: 'https://other.test' })), sdk.InvalidRequest)
})

test('an exchange is for a user, or along a chain, and never kept longer than what it is for', async (t) => {
  const authority = await authorityOf(t)
  authority.allow('document.read')
  const client = clientOf(t, authority)
  const forUser = await client.exchange(authority.idToken('alice@acme.test'), { subjectTokenType: 'id_token' })
  const verifier = authority.verifier({ revocation: 'none' })
  t.after(() => verifier.close())
  assert.equal((await verifier.verify(forUser.value)).user, 'alice@acme.test')
  const called = await authority.tokenFor({ agent: 'agent:test/caller', audience: authority.agent, expiresIn: 3 })
  const inChain = await client.exchange(called)
  assert.deepEqual((await verifier.verify(inChain.value)).chain, ['agent:test/caller', authority.agent])
  const hasEnded = () => client.exchange(called).then(() => false, (error) => error instanceof sdk.InvalidRequest)
  await eventually(hasEnded, 'it is good for nothing any more', 10_000)
})

// --- the cache by itself, by a clock of its own ------------------------------------------------------------------------------------

/** A cache, its clock, and an `obtain` that counts. */
function cacheOf({ life = 300 } = {}) {
  const world = { now: 1000, asked: 0, fails: undefined }
  const cache = new TokenCache(() => world.now)
  const obtain = async () => {
    world.asked += 1
    await new Promise((resolve) => setImmediate(resolve))
    if (world.fails) throw world.fails
    return new sdk.AccessToken({ value: `token-${world.asked}`, expiresAt: world.now + life })
  }
  const settled = async () => {
    for (let turn = 0; turn < 5; turn += 1) await new Promise((resolve) => setImmediate(resolve))
  }
  return { cache, world, settled, get: (key = 'k', ...more) => cache.get(key, obtain, ...more).then(({ value }) => value) }
}

const refused = () => new sdk.InvalidScope({ code: 'invalid_scope', message: 'no', status: 400 })
const lost = () => new sdk.Unavailable({ code: 'unanswered', message: 'no answer' })

test('after two thirds of its life one request replaces a token, and nobody waits for it', async () => {
  const { world, settled, get } = cacheOf()
  assert.equal(await get(), 'token-1')
  world.now += 300 * (2 / 3) * 0.89
  assert.equal(await get(), 'token-1')
  await settled()
  assert.equal(world.asked, 1, 'not before')
  world.now = 1000 + 300 * (2 / 3) * 1.11
  assert.deepEqual(await Promise.all([get(), get(), get()]), ['token-1', 'token-1', 'token-1'])
  await settled()
  assert.equal(world.asked, 2)
  assert.equal(await get(), 'token-2')
})

test('a token that lives no longer is not handed out', async () => {
  const { world, get } = cacheOf()
  await get()
  world.now += 300
  assert.equal(await get(), 'token-2')
})

test('a replacement that is not answered leaves the token in use while it lives', async () => {
  const { world, settled, get } = cacheOf()
  await get()
  world.now += 250
  world.fails = lost()
  assert.equal(await get(), 'token-1')
  await settled()
  assert.equal(await get(), 'token-1')
  world.now += 49
  assert.equal(await get(), 'token-1')
  await settled()
  world.now += 1
  await assert.rejects(get(), sdk.Unavailable)
})

test('a replacement that is refused drops the token at once, and the refusal is what is heard', async () => {
  const { world, settled, get } = cacheOf()
  await get()
  world.now += 250
  world.fails = refused()
  assert.equal(await get(), 'token-1')
  await settled()
  await assert.rejects(get(), sdk.InvalidScope)
})

test('with the credential everything that is kept is dropped', async () => {
  const { world, settled, get } = cacheOf()
  await get('a')
  await get('b')
  world.now += 250
  world.fails = new sdk.Unauthenticated({ code: 'invalid_client', message: 'no', status: 401 })
  await get('a')
  await settled()
  await assert.rejects(get('b'), sdk.Unauthenticated)
})

test('no more than 128 are kept, and the one that was not asked for longest goes first', async () => {
  const { world, get } = cacheOf()
  for (let at = 0; at < 128; at += 1) await get(`k${at}`)
  await get('k0')
  await get('k128')
  assert.equal(world.asked, 129)
  await get('k0')
  assert.equal(world.asked, 129, 'k0 is there')
  await get('k1')
  assert.equal(world.asked, 130, 'k1 is not')
})

test('a token that cannot be kept as long as it lives is kept as long as it may be', async () => {
  const { world, settled, get } = cacheOf()
  await get('k', false, 1100)
  world.now += 99
  await get('k', false, 1100)
  await settled()
  assert.equal(world.asked, 2, 'replaced early')
  world.now += 1
  await get('k', false, 1100)
  assert.equal(world.asked, 3)
})
