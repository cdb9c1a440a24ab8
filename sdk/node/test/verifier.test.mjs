import assert from 'node:assert/strict'
import { test } from 'node:test'
import * as sdk from '@countersign/sdk'
import { NodeTransport, eventsOf } from '../dist/internal.mjs'
import { authorityOf, clientOf, eventually } from './support.mjs'

async function worldOf(t, options = {}) {
  const authority = await authorityOf(t)
  authority.allow('document.read', { resource: 'document:reports/*' })
  authority.allow('web.search')
  const verifier = authority.verifier(options)
  t.after(() => verifier.close())
  return { authority, verifier }
}

test('a token says who, for whom and what, and is held against what is asked', async (t) => {
  const { authority, verifier } = await worldOf(t)
  const verified = await verifier.verify((await clientOf(t, authority).token()).value)
  assert.equal(verified.subject, authority.agent)
  assert.equal(verified.actor, authority.agent)
  assert.deepEqual(verified.chain, [authority.agent])
  assert.equal(verified.user, undefined)
  verified.require('web.search')
  verified.require('document.read', { resource: 'document:reports/q3' })
  assert.throws(
    () => verified.require('document.read', { resource: 'document:secret/q3' }),
    (error) => error instanceof sdk.InsufficientScope && error.scope === 'document.read',
  )
})

test('tokens with EdDSA and ES256 are taken alike', async (t) => {
  const { authority, verifier } = await worldOf(t, { revocation: 'none' })
  for (const alg of ['EdDSA', 'ES256']) assert.ok(await verifier.verify(await authority.tokenFor({ alg })))
})

test('the issuer must call itself so, and its keys must be its own', async (t) => {
  const { authority } = await worldOf(t)
  const token = await authority.tokenFor()
  const verifierOf = (answer) => {
    const transport = { send: async ({ url }) => ({ status: 200, headers: {}, body: JSON.stringify(answer(url)) }), close() {} }
    return new sdk.Verifier({ issuer: authority.url, audience: authority.audience, revocation: 'none', transport, env: {} })
  }
  const wrong = (error) => error instanceof sdk.Unavailable && error.code === 'wrong_issuer'
  await assert.rejects(verifierOf(() => ({ issuer: `${authority.url}/`, jwks_uri: `${authority.url}/oauth2/jwks` })).verify(token), wrong)
  await assert.rejects(verifierOf(() => ({ issuer: authority.url, jwks_uri: 'https://evil.test/jwks' })).verify(token), wrong)
  await assert.rejects(
    verifierOf(() => ({
      issuer: authority.url,
      jwks_uri: `${authority.url}/oauth2/jwks`,
      countersign_revocations_endpoint: 'https://evil.test/',
    })).verify(token),
    wrong,
  )
  await assert.rejects(
    verifierOf(() => ({ issuer: authority.url, jwks_uri: `${authority.url}/oauth2/jwks`, keys: [] })).verify(token),
    (error) => error.code === 'unknown_key',
  )
  const other = await authorityOf(t)
  await assert.rejects(
    other.verifier({ revocation: 'none' }).verify(token),
    (error) => error.constructor === sdk.TokenRejected && error.code === 'unknown_key',
  )
})

test('keys are kept, read again for one that is not known, and not more often than every five seconds', async (t) => {
  const { authority, verifier } = await worldOf(t, { revocation: 'none' })
  const old = await authority.tokenFor()
  await Promise.all(Array.from({ length: 50 }, () => verifier.verify(old)))
  assert.equal(authority.count('/oauth2/jwks'), 1)
  await authority.rotateKeys({ keepOld: true })
  const next = await authority.tokenFor()
  const before = performance.now()
  await eventually(
    () =>
      verifier.verify(next).then(
        () => true,
        (error) => error.code !== 'unknown_key',
      ),
    'the new key is known',
    8000,
  )
  assert.ok(performance.now() - before > 3000, 'not before five seconds have passed')
  assert.equal(authority.count('/oauth2/jwks'), 2)
  assert.ok(await verifier.verify(old))
})

test('where keys cannot be read nobody can tell, and no token is taken', async (t) => {
  const { authority, verifier } = await worldOf(t, { revocation: 'none', timeout: 0.5 })
  const token = await authority.tokenFor()
  await authority.down()
  await assert.rejects(verifier.verify(token), sdk.Unavailable)
  await authority.up()
  assert.ok(await verifier.verify(token))
})

test('clocks may differ by five seconds and no more', async (t) => {
  const { authority, verifier } = await worldOf(t, { revocation: 'none' })
  authority.skew(4)
  assert.ok(await verifier.verify(await authority.tokenFor()))
  authority.skew(30)
  await assert.rejects(verifier.verify(await authority.tokenFor()), (error) => error.code === 'not_yet_valid')
  authority.skew(-300)
  assert.ok(await verifier.verify(await authority.tokenFor({ expiresIn: 298 })))
  await assert.rejects(verifier.verify(await authority.tokenFor({ expiresIn: 290 })), sdk.TokenExpired)
  authority.skew(1000)
  const token = await clientOf(t, authority).token()
  assert.ok(Math.abs(token.expiresAt - Date.now() / 1000 - 300) < 5, "a client goes by its own clock, whatever the service's says")
})

test('the feed ends a token within a second: its agent, the token itself, and what descends from it', async (t) => {
  const { authority, verifier } = await worldOf(t)
  const client = clientOf(t, authority)
  const one = await client.token()
  const called = await authority.tokenFor({ agent: 'agent:test/caller', audience: authority.agent })
  const derived = await client.exchange(called)
  await verifier.verify(one.value)
  await verifier.verify(derived.value)
  await client.revoke(one)
  await eventually(
    () =>
      verifier.verify(one.value).then(
        () => false,
        (error) => error instanceof sdk.TokenRevoked,
      ),
    'the token is dead',
    5000,
  )
  await verifier.verify(derived.value)
  await authority.suspend('agent:test/caller')
  await eventually(
    () =>
      verifier.verify(derived.value).then(
        () => false,
        (error) => error instanceof sdk.TokenRevoked,
      ),
    'what it called is dead',
    5000,
  )
  await authority.resume('agent:test/caller')
  await new Promise((resolve) => setTimeout(resolve, 100))
  await assert.rejects(verifier.verify(derived.value), sdk.TokenRevoked)
})

test('an agent that is new is known by the feed within a second', async (t) => {
  const { authority, verifier } = await worldOf(t)
  await verifier.start()
  const token = await authority.tokenFor({ agent: 'agent:test/newborn' })
  await eventually(
    () =>
      verifier.verify(token).then(
        () => true,
        (error) => error.code !== 'token_revoked',
      ),
    'it is known',
    1000,
  )
  assert.ok(await verifier.verify(token))
})

test('a feed that cannot be followed is no yes', async (t) => {
  const { authority, verifier } = await worldOf(t)
  authority.stale()
  const token = await authority.tokenFor()
  await assert.rejects(verifier.verify(token), sdk.RevocationUnknown)
  authority.stale(false)
  await eventually(
    () =>
      verifier.verify(token).then(
        () => true,
        () => false,
      ),
    'it is followed again',
    10_000,
  )
  authority.stale()
  await eventually(() => verifier.feed.state === undefined, 'what was known is dropped', 5000)
})

test('a stream that breaks is opened anew, and the state counts until its end', async (t) => {
  const { authority, verifier } = await worldOf(t)
  const token = await authority.tokenFor()
  await verifier.verify(token)
  await authority.down()
  await new Promise((resolve) => setTimeout(resolve, 300))
  assert.ok(await verifier.verify(token), 'for some seconds')
  await authority.up()
  await authority.suspend()
  await eventually(
    () =>
      verifier.verify(token).then(
        () => false,
        (error) => error instanceof sdk.TokenRevoked,
      ),
    'the change is known',
    6000,
  )
})

test('a clock that is set back keeps no state alive', async (t) => {
  let behind = 0
  const { authority, verifier } = await worldOf(t, { leeway: 60, now: () => Date.now() / 1000 - behind })
  const token = await authority.tokenFor()
  await verifier.verify(token)
  await authority.down()
  behind = 50
  const isUnknown = () => verifier.verify(token).then(() => false, (error) => error instanceof sdk.RevocationUnknown)
  await eventually(isUnknown, 'nobody can tell', 15_000)
})

test('a state that has ended is no state', async (t) => {
  let now = Date.now() / 1000
  const { authority, verifier } = await worldOf(t, { now: () => now })
  const token = await authority.tokenFor({ expiresIn: 900 })
  await verifier.verify(token)
  await authority.down()
  now += 11
  await assert.rejects(verifier.verify(token), sdk.RevocationUnknown)
})

test('a statement that is not signed by the issuer changes nothing', async (t) => {
  const { authority, verifier } = await worldOf(t)
  await verifier.start()
  const { id } = verifier.feed.state
  await authority.rotateKeys()
  await authority.suspend()
  await new Promise((resolve) => setTimeout(resolve, 300))
  assert.equal(verifier.feed.state.id, id)
})

test('what is dead by the feed does not live again by a statement of before', async (t) => {
  const transport = new NodeTransport()
  const open = transport.open.bind(transport)
  let first, followed, repeated = 0, isRepeating = false
  async function* repeating(chunks) {
    if (isRepeating) repeated += 1
    for await (const chunk of isRepeating ? [first] : chunks) {
      first ??= chunk
      yield chunk
    }
  }
  transport.open = async (request) => {
    const stream = await open(request)
    if (request.headers?.accept !== 'text/event-stream') return stream
    followed = stream
    return { ...followed, chunks: repeating(followed.chunks) }
  }
  const { authority, verifier } = await worldOf(t, { transport })
  const token = await authority.tokenFor()
  await verifier.verify(token)
  const { as_of: asOf } = verifier.feed.state
  await eventually(() => verifier.feed.state.as_of > asOf, 'some time is over')
  await authority.suspend()
  const isDead = () => verifier.verify(token).then(() => false, (error) => error instanceof sdk.TokenRevoked)
  await eventually(isDead, 'the token is dead')
  isRepeating = true
  followed.close()
  await eventually(() => repeated > 1, 'the stream is opened anew')
  assert.ok(await isDead())
})

test('introspection is asked for each token, and its silence is no yes', async (t) => {
  const { authority, verifier } = await worldOf(t, { revocation: 'introspect', timeout: 0.5 })
  const token = await authority.tokenFor()
  await verifier.verify(token)
  await verifier.verify(token)
  assert.equal(authority.count('/oauth2/introspect'), 2)
  await authority.suspend()
  await assert.rejects(verifier.verify(token), sdk.TokenRevoked)
  await authority.down()
  await assert.rejects(verifier.verify(token), sdk.RevocationUnknown)
})

test('a resource server asks with the token that it was shown', async (t) => {
  const { authority, verifier } = await worldOf(t, { revocation: 'none' })
  const token = await authority.tokenFor()
  assert.equal((await verifier.evaluate(token, { capability: 'document.read', resource: 'document:reports/q3' })).allowed, true)
  assert.equal(
    (await verifier.evaluate(token, { capability: 'document.read', resource: 'document:secret' })).reason.code,
    'resource_not_granted',
  )
  await authority.suspend()
  assert.equal((await verifier.evaluate(token, { capability: 'web.search' })).allowed, false)
})

test('an event is read however it is cut', async () => {
  const text = 'event: one\ndata: a\ndata: b\n\n: comment\n\nevent:two\r\ndata:c\r\n\r\nevent: cut\ndata: off'
  for (const size of [1, 2, 7, 1000]) {
    const chunks = async function* () {
      for (let at = 0; at < text.length; at += size) yield text.slice(at, at + size)
    }
    const events = []
    for await (const event of eventsOf(chunks())) events.push(event)
    assert.deepEqual(events, [
      { event: 'one', data: 'a\nb' },
      { event: 'two', data: 'c' },
    ])
  }
})

test('a verifier is set up for one issuer and one audience', () => {
  assert.throws(() => new sdk.Verifier({ issuer: 'http://us.test', audience: 'x' }), sdk.ConfigurationError)
  assert.throws(() => new sdk.Verifier({ issuer: 'https://us.test', audience: '' }), sdk.ConfigurationError)
  assert.throws(() => new sdk.Verifier({ issuer: 'https://us.test', audience: 'x', revocation: 'maybe' }), sdk.ConfigurationError)
})
