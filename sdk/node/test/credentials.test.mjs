import assert from 'node:assert/strict'
import { generateKeyPairSync } from 'node:crypto'
import { chmodSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { importJWK, jwtVerify } from 'jose'
import { Client, Cloud, ConfigurationError, CredentialInvalid, CredentialNotFound, PrivateKey, Sidecar, TokenFile } from '@countersign/sdk'
import { authorityOf, directoryOf } from './support.mjs'

/** A private key in a file, and its public half. */
function keyIn(directory, mode = 0o600, type = 'ed25519') {
  const { privateKey, publicKey } = generateKeyPairSync(type, type === 'ec' ? { namedCurve: 'P-256' } : undefined)
  const path = join(directory, `${type}.pem`)
  writeFileSync(path, privateKey.export({ type: 'pkcs8', format: 'pem' }), { mode })
  chmodSync(path, mode)
  return { path, jwk: publicKey.export({ format: 'jwk' }) }
}

/** Which credential a process with this environment has. */
async function found(env, options = {}) {
  const client = new Client({ env: { COUNTERSIGN_URL: 'https://us.test', COUNTERSIGN_CLOUD: 'none', ...env }, ...options })
  return (await client.credential()).describe()
}

test('the first link of the chain that is there is used', async (t) => {
  const { path } = keyIn(directoryOf(t))
  const all = {
    COUNTERSIGN_SIDECAR_URL: 'http://127.0.0.1:7710',
    COUNTERSIGN_PRIVATE_KEY_FILE: path,
    COUNTERSIGN_CLIENT_ID: 'agent:a/b',
    COUNTERSIGN_TOKEN_FILE: '/x',
    COUNTERSIGN_CLOUD: 'gcp',
  }
  assert.equal(await found(all, { credential: new TokenFile('/given') }), 'TokenFile /given')
  assert.equal(await found(all), 'Sidecar http://127.0.0.1:7710')
  assert.equal(await found({ ...all, COUNTERSIGN_SIDECAR_URL: '' }), `PrivateKey ${path} of agent:a/b`)
  assert.equal(await found({ COUNTERSIGN_TOKEN_FILE: '/x', COUNTERSIGN_CLOUD: 'gcp' }), 'TokenFile /x')
  assert.equal(await found({ COUNTERSIGN_CLOUD: 'gcp' }), 'Cloud gcp')
})

test('if none is there, each is named with what it lacks', async () => {
  await assert.rejects(found({}), (error) => {
    assert.ok(error instanceof CredentialNotFound && error instanceof ConfigurationError)
    for (const name of ['COUNTERSIGN_SIDECAR_URL', 'COUNTERSIGN_PRIVATE_KEY_FILE', 'COUNTERSIGN_TOKEN_FILE', 'COUNTERSIGN_CLOUD'])
      assert.match(error.message, new RegExp(name))
    return true
  })
})

test('a link that is there and broken is an error, and no other identity is tried', async (t) => {
  const authority = await authorityOf(t)
  authority.allow('document.read')
  const { path } = keyIn(directoryOf(t))
  const good = join(directoryOf(t), 'token')
  writeFileSync(good, authority.serviceAccountToken())
  const rest = { COUNTERSIGN_URL: authority.url, COUNTERSIGN_TOKEN_FILE: good, COUNTERSIGN_CLOUD: 'none' }
  const token = (env) => new Client({ env: { ...rest, ...env }, timeout: 2 }).token()
  await token({})
  await assert.rejects(token({ COUNTERSIGN_SIDECAR_URL: 'http://10.0.0.1:7710' }), ConfigurationError)
  await assert.rejects(token({ COUNTERSIGN_SIDECAR_URL: 'http://127.0.0.1:1', COUNTERSIGN_CLIENT_ID: '' }), { name: 'Unavailable' })
  await assert.rejects(token({ COUNTERSIGN_PRIVATE_KEY_FILE: path }), /COUNTERSIGN_CLIENT_ID/)
  await assert.rejects(token({ COUNTERSIGN_PRIVATE_KEY_FILE: '/nowhere', COUNTERSIGN_CLIENT_ID: 'agent:a/b' }), CredentialInvalid)
  await assert.rejects(token({ COUNTERSIGN_TOKEN_FILE: '/nowhere' }), CredentialInvalid)
  await assert.rejects(token({ COUNTERSIGN_TOKEN_FILE: '', COUNTERSIGN_CLOUD: 'mars' }), ConfigurationError)
})

test('a private key that others may read is refused, and so is one of another kind', async (t) => {
  const directory = directoryOf(t)
  const assertion = (path) => new PrivateKey(path, { clientId: 'agent:a/b' }).assertion({ issuer: 'https://us.test' })
  await assert.rejects(assertion(keyIn(directory, 0o640).path), /chmod|others/)
  await assert.rejects(assertion(keyIn(directory, 0o600, 'ec').path), /Ed25519/)
  assert.throws(() => new PrivateKey('/x', { clientId: 'bot' }), CredentialInvalid)
})

test('an assertion is for the issuer alone, of at most 60 s, and another each time', async (t) => {
  const { path, jwk } = keyIn(directoryOf(t))
  const credential = new PrivateKey(path, { clientId: 'agent:a/b', kid: 'mine' })
  const seen = new Set()
  for (let at = 0; at < 3; at += 1) {
    const { payload, protectedHeader } = await jwtVerify(
      await credential.assertion({ issuer: 'https://us.test/' }),
      await importJWK(jwk, 'EdDSA'),
    )
    assert.equal(payload.aud, 'https://us.test/', 'byte by byte')
    assert.equal(payload.iss, 'agent:a/b')
    assert.equal(payload.sub, 'agent:a/b')
    assert.ok(payload.exp - payload.iat <= 60)
    assert.equal(protectedHeader.kid, 'mine')
    assert.equal(Buffer.from(payload.jti, 'base64url').length, 16)
    seen.add(payload.jti)
  }
  assert.equal(seen.size, 3)
})

test('each attempt has an assertion of its own', async (t) => {
  const authority = await authorityOf(t)
  authority.allow('document.read')
  const { path } = keyIn(directoryOf(t))
  const client = new Client({ url: authority.url, credential: new PrivateKey(path, { clientId: authority.agent }), env: {} })
  t.after(() => client.close())
  authority.fail(503, 2)
  assert.ok((await client.token()).scope.has('document.read'))
  // The fake authority refuses an assertion that it has seen.
  authority.loseAnswers(1)
  assert.ok(await client.token({ fresh: true }))
  assert.equal(authority.count('/oauth2/token'), 5)
})

test('a token file is read anew for each use', async (t) => {
  const authority = await authorityOf(t)
  authority.allow('document.read')
  const path = join(directoryOf(t), 'token')
  writeFileSync(path, 'eyJhbGciOiJub25lIn0.e30.c2ln')
  const client = new Client({ url: authority.url, credential: new TokenFile(path), env: {} })
  t.after(() => client.close())
  await assert.rejects(client.token(), { name: 'Unauthenticated' })
  writeFileSync(path, `${authority.serviceAccountToken()}\n`)
  assert.ok(await client.token())
  writeFileSync(path, 'two tokens')
  await assert.rejects(client.token({ fresh: true }), CredentialInvalid)
})

test('through the sidecar everything works, with its header and without a credential', async (t) => {
  const authority = await authorityOf(t)
  authority.allow('document.read')
  authority.requireApproval('payments.authorize')
  const client = new Client({ env: { COUNTERSIGN_SIDECAR_URL: authority.sidecarUrl } })
  t.after(() => client.close())
  assert.ok((await client.token({ scope: 'document.read' })).scope.has('document.read'))
  await Promise.all([client.token(), client.token()])
  assert.equal(authority.count('/token'), 2, 'who asks at once shares an answer')
  await client.token()
  assert.equal(authority.count('/token'), 3, 'and none is kept: the sidecar does')
  await client.token({ fresh: true })
  assert.equal(authority.requests.at(-1).headers['cache-control'], 'no-cache')
  assert.equal((await client.evaluate({ capability: 'document.read', resource: 'document:a' })).allowed, true)
  assert.equal((await client.evaluate({ capability: 'document.read' }, { onBehalfOf: 'alice' })).allowed, true)
  assert.deepEqual(await client.capabilities(), ['document.read'])
  assert.equal((await client.ask('May I document.read?')).allowed, true)
  const request = await client.requestApproval({ capability: 'payments.authorize' })
  authority.approve(request.id)
  const token = await client.waitForApproval(request, { timeout: 5 })
  await client.complete(token)
  await assert.rejects(client.complete(token), { name: 'AlreadyCompleted' })
  await assert.rejects(client.token({ operation: { capability: 'document.read' } }), { code: 'operation_unsupported' })
  const called = await authority.tokenFor({ agent: 'agent:test/caller', audience: authority.agent })
  assert.ok(await client.exchange(called))
  await client.revoke(await client.token())
  for (const { headers, body } of authority.requests.slice(0, -1)) {
    assert.equal(headers['countersign-sidecar'], 'true')
    assert.equal(body.client_assertion, undefined)
  }
})

test('a sidecar is on the loopback address or nowhere', () => {
  for (const url of ['http://127.0.0.1:7710', 'http://[::1]:7710', 'http://localhost:7710/']) assert.ok(new Sidecar(url))
  for (const url of ['http://10.0.0.1:7710', 'http://127.0.0.1.evil.test', 'https://sidecar.test', 'http://a@127.0.0.1', 'x', '']) {
    assert.throws(() => new Sidecar(url), ConfigurationError, url)
  }
})

test('a cloud gives its token for the issuer, and it is kept until shortly before its end', async () => {
  const asked = []
  const jwt = (exp) => ['e30', Buffer.from(JSON.stringify({ exp })).toString('base64url'), 'c2ln'].join('.')
  let exp = Date.now() / 1000 + 3600
  const transport = {
    async send(request) {
      asked.push(request)
      const body =
        request.url.includes('azure') || request.url.includes('resource=') ? JSON.stringify({ access_token: jwt(exp) }) : jwt(exp)
      return { status: 200, headers: {}, body }
    },
    close() {},
  }
  const context = { issuer: 'https://us.test', transport, deadline: { left: 1000 } }
  const gcp = new Cloud('gcp')
  assert.equal(await gcp.assertion(context), jwt(exp))
  await Promise.all([gcp.assertion(context), gcp.assertion(context)])
  assert.equal(asked.length, 1)
  assert.equal(new URL(asked[0].url).searchParams.get('audience'), 'https://us.test')
  assert.equal(asked[0].headers['metadata-flavor'], 'Google')
  exp = Date.now() / 1000 + 30
  const soon = new Cloud('gcp')
  await soon.assertion(context)
  await soon.assertion(context)
  assert.equal(asked.length, 3, 'one that ends in a minute is asked for anew')
  await new Cloud('azure', { env: {} }).assertion(context)
  assert.equal(new URL(asked[3].url).searchParams.get('resource'), 'api://us.test')
  await new Cloud('azure', { env: { IDENTITY_ENDPOINT: 'http://localhost:42356/msi/token', IDENTITY_HEADER: 'h' } }).assertion(context)
  assert.equal(asked[4].headers['x-identity-header'], 'h')
  await assert.rejects(new Cloud('aws').assertion(context), { code: 'dependency_missing' })
})

test('which cloud this is, its environment says, and otherwise its metadata service within a second', async () => {
  const silent = {
    asked: 0,
    async send() {
      this.asked += 1
      throw new Error('no route')
    },
    close() {},
  }
  assert.equal(
    await found({ COUNTERSIGN_CLOUD: undefined, IDENTITY_ENDPOINT: 'x', IDENTITY_HEADER: 'y' }, { transport: silent }),
    'Cloud azure',
  )
  assert.equal(silent.asked, 0)
  await assert.rejects(found({ COUNTERSIGN_CLOUD: undefined }, { transport: silent }), CredentialNotFound)
  assert.equal(silent.asked, 3)
  const gcp = {
    async send({ url, within }) {
      assert.ok(within <= 1000)
      return url.includes('metadata.google.internal')
        ? { status: 200, headers: { 'metadata-flavor': 'Google' }, body: '' }
        : { status: 404, headers: {}, body: '' }
    },
    close() {},
  }
  assert.equal(await found({ COUNTERSIGN_CLOUD: undefined }, { transport: gcp }), 'Cloud gcp')
})

test('which agent this is, a token of it says, or else its ServiceAccount, and nobody is asked twice', async (t) => {
  const authority = await authorityOf(t)
  authority.requireApproval('payments.authorize')
  const clientOf = () => new Client({ url: authority.url, credential: authority.credential(), env: {} })
  const holdsNothing = clientOf()
  assert.ok((await holdsNothing.requestApproval({ capability: 'payments.authorize' })).id)
  assert.equal(authority.requests.at(-1).body.login_hint, authority.agent)
  authority.allow('document.read')
  const client = clientOf()
  const before = authority.count('/oauth2/token')
  await Promise.all(Array.from({ length: 20 }, () => client.evaluate({ capability: 'document.read' })))
  assert.equal(authority.count('/oauth2/token') - before, 1)
  const said = new Client({ url: authority.url, credential: authority.credential(), env: { COUNTERSIGN_CLIENT_ID: 'agent:test/other' } })
  assert.equal((await said.evaluate({ capability: 'document.read' })).reason.code, 'caller_may_not_evaluate')
  for (const each of [holdsNothing, client, said]) each.close()
})
