import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import http from 'node:http'
import https from 'node:https'
import { join } from 'node:path'
import { test } from 'node:test'
import { Client, ConfigurationError, CredentialInvalid, DeadlineExceeded, RateLimited, Sidecar, TokenFile, Unavailable } from '@countersign/sdk'
import { authorityOf, clientOf, directoryOf } from './support.mjs'

/** A server that answers everything by `handler`. */
async function serverOf(t, handler, create = (listener) => http.createServer(listener)) {
  const server = create(handler)
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.after(() => server.closeAllConnections() ?? server.close())
  return `${create === undefined || server instanceof https.Server ? 'https' : 'http'}://127.0.0.1:${server.address().port}`
}

test('while the service is down there is no answer, and when it is up again everything goes on', async (t) => {
  const authority = await authorityOf(t)
  authority.allow('document.read')
  const client = clientOf(t, authority)
  const token = await client.token()
  await authority.down()
  assert.equal(await client.token(), token, 'what is kept is good while it lives')
  await assert.rejects(
    client.token({ fresh: true }),
    (error) => error instanceof Unavailable && error.code === 'unanswered' && error.advice !== '',
  )
  await assert.rejects(client.evaluate({ capability: 'document.read' }), Unavailable)
  await authority.up()
  assert.ok(await client.token({ fresh: true }))
})

test('a restart while somebody asks is bridged', async (t) => {
  const authority = await authorityOf(t)
  authority.allow('document.read')
  const client = clientOf(t, authority, { maxRetries: 8 })
  await client.token()
  await authority.down()
  const asked = client.token({ fresh: true })
  setTimeout(() => authority.up(), 300)
  assert.ok(await asked)
})

test('a service that is slow is waited for until the deadline of the whole call, and no longer', async (t) => {
  const authority = await authorityOf(t)
  authority.allow('document.read')
  authority.slow(30)
  const client = clientOf(t, authority, { timeout: 0.4, maxRetries: 5 })
  const began = performance.now()
  await assert.rejects(client.token(), DeadlineExceeded)
  assert.ok(performance.now() - began < 1500)
})

test('429 and 503 are asked again when they say, if that is in time, and told otherwise', async (t) => {
  const authority = await authorityOf(t)
  authority.allow('document.read')
  const client = clientOf(t, authority)
  authority.fail(429, 1, { retryAfter: 1 })
  const began = performance.now()
  await client.token()
  assert.ok(performance.now() - began >= 990, 'Retry-After is honoured')
  authority.fail(429, 1, { retryAfter: 60 })
  await assert.rejects(
    client.token({ fresh: true }),
    (error) => error instanceof RateLimited && error.retryAfter === 60 && error.status === 429,
  )
  authority.fail(503, 3)
  await assert.rejects(
    client.token({ fresh: true }),
    (error) => error instanceof Unavailable && !(error instanceof RateLimited) && error.status === 503,
  )
  assert.equal(authority.count('/oauth2/token'), 6, 'two repetitions after the first')
  authority.fail(500, 1)
  await assert.rejects(client.token({ fresh: true }), Unavailable)
  assert.equal(authority.count('/oauth2/token'), 7, 'what is broken in itself is not asked again')
})

test('when to ask again may be said as a date, and what is absurd is not soon', async (t) => {
  let retryAfter
  const url = await serverOf(t, (request, response) => response.writeHead(429, { 'retry-after': retryAfter }).end())
  const asked = async (text) => {
    retryAfter = text
    const began = performance.now()
    const error = await clientOf(t, { client: (options) => new Client({ url, credential: new TokenFile(file), ...options }) }).token().catch((error) => error)
    assert.ok(error instanceof RateLimited)
    assert.ok(performance.now() - began < 1000)
    return error.retryAfter
  }
  const file = join(directoryOf(t), 'token')
  writeFileSync(file, 'a.b.c')
  const left = await asked(new Date(Date.now() + 90_000).toUTCString())
  assert.ok(left > 85 && left <= 90, `${left}`)
  assert.equal(await asked(new Date(0).toUTCString()), 0)
  assert.equal(await asked('99999999999'), 99_999_999_999)
  assert.ok(await asked('9'.repeat(400)) > 1e15)
  for (const nothing of ['soon', '-5', '1.5', '0x10', 'Someday 2030']) assert.equal(await asked(nothing), undefined)
})

test('a redirect is not followed, with a credential least of all', async (t) => {
  let visits = 0
  const trap = await serverOf(t, (_, response) => {
    visits += 1
    response.end('{}')
  })
  const url = await serverOf(t, (_, response) => response.writeHead(307, { location: trap }).end())
  const authority = await authorityOf(t)
  for (const options of [{ url, credential: authority.credential() }, { credential: new Sidecar(url) }]) {
    const client = new Client({ ...options, env: {}, maxRetries: 0 })
    await assert.rejects(client.token(), (error) => error instanceof Unavailable && error.code === 'unexpected_redirect')
    client.close()
  }
  assert.equal(visits, 0)
})

test('an answer that means nothing is no answer: no JSON, a member twice, too long, cut off', async (t) => {
  const bodies = [
    '<html>',
    '[]',
    '{"access_token":"a","access_token":"b","token_type":"Bearer","expires_in":5}',
    '{"access_token":"a b","token_type":"Bearer","expires_in":5}',
    '{"access_token":"a","token_type":"N_A","expires_in":5}',
    '{"access_token":"a","token_type":"Bearer","expires_in":"5"}',
    `{"a":"${'x'.repeat(2 * 1024 * 1024)}"}`,
  ]
  let body = ''
  const url = await serverOf(t, (_, response) => response.writeHead(200, { 'content-type': 'application/json' }).end(body))
  const authority = await authorityOf(t)
  const client = new Client({ url, credential: authority.credential(), env: {}, maxRetries: 0 })
  t.after(() => client.close())
  for (body of bodies) await assert.rejects(client.token(), Unavailable, body.slice(0, 80))
  const cut = await serverOf(t, (_, response) => {
    response.writeHead(200, { 'content-length': '1000' }).write('{"access_token"')
    setTimeout(() => response.destroy(), 20)
  })
  const other = new Client({ url: cut, credential: authority.credential(), env: {}, maxRetries: 0 })
  await assert.rejects(other.token(), Unavailable)
})

test('a sidecar that is not there is no reason for another identity', async () => {
  const client = new Client({
    env: { COUNTERSIGN_SIDECAR_URL: 'http://127.0.0.1:9', COUNTERSIGN_TOKEN_FILE: '/etc/hostname', COUNTERSIGN_URL: 'https://us.test' },
    maxRetries: 0,
  })
  await assert.rejects(client.token(), (error) => error instanceof Unavailable && error.code === 'unanswered')
})

test('only TLS, and what is not on this machine never without', async (t) => {
  const authority = await authorityOf(t)
  for (const url of ['http://countersign.test', 'ftp://127.0.0.1', 'https://user:secret@us.test', 'https://us.test?x=1', 'us.test', '']) {
    await assert.rejects(new Client({ url, credential: authority.credential(), env: {} }).token(), ConfigurationError, url)
  }
})

test('certificates of the file are trusted for the service, and nobody else is by it', async (t) => {
  const directory = directoryOf(t)
  const [key, cert] = [join(directory, 'key.pem'), join(directory, 'cert.pem')]
  execFileSync(
    'openssl',
    [
      'req',
      '-x509',
      '-newkey',
      'ec',
      '-pkeyopt',
      'ec_paramgen_curve:P-256',
      '-nodes',
      '-keyout',
      key,
      '-out',
      cert,
      '-days',
      '1',
      '-subj',
      '/CN=us',
      '-addext',
      'subjectAltName=IP:127.0.0.1',
    ],
    { stdio: 'ignore' },
  )
  const body = JSON.stringify({ access_token: 'a', token_type: 'Bearer', expires_in: 300, scope: 'x' })
  const url = await serverOf(
    t,
    (_, response) => response.end(body),
    (listener) => https.createServer({ key: readFileSync(key), cert: readFileSync(cert) }, listener),
  )
  const authority = await authorityOf(t)
  const token = (options) => {
    const client = new Client({ url, credential: authority.credential(), env: {}, maxRetries: 0, ...options })
    t.after(() => client.close())
    return client.token()
  }
  assert.equal((await token({ caFile: cert })).value, 'a')
  assert.equal((await token({ env: { COUNTERSIGN_CA: cert } })).value, 'a')
  await assert.rejects(token({}), Unavailable)
  await assert.rejects(token({ caFile: join(directory, 'none.pem') }), CredentialInvalid)
  await assert.rejects(token({ caFile: key }), CredentialInvalid)
})
