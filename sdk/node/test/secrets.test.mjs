// Tokens, assertions and keys that are planted, and looked for wherever something is written.

import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { generateKeyPairSync } from 'node:crypto'
import { writeFileSync } from 'node:fs'
import http from 'node:http'
import { join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { inspect } from 'node:util'
import * as sdk from '@countersign/sdk'
import { redact } from '../dist/internal.mjs'
import { authorityOf, directoryOf } from './support.mjs'

/** All that somebody could see of an error, in a log that writes everything. */
function seen(error) {
  const members = Object.getOwnPropertyNames(error).map((name) => `${name}: ${inspect(error[name], { depth: 9 })}`)
  return [
    String(error),
    error.stack,
    JSON.stringify(error),
    inspect(error, { depth: 9, showHidden: true }),
    inspect({ error }, { depth: 9 }),
    `${inspect(error.cause)}`,
    ...members,
  ].join('\n')
}

test('no error has a secret in it, also if the answer repeats all that was sent', async (t) => {
  const directory = directoryOf(t)
  const { privateKey } = generateKeyPairSync('ed25519')
  const pem = privateKey.export({ type: 'pkcs8', format: 'pem' })
  const keyPath = join(directory, 'key.pem')
  writeFileSync(keyPath, pem, { mode: 0o600 })
  const opaque = 'canary-of-an-opaque-credential'
  const subject = 'canary-of-a-subject-token'
  const jwt = `eyJhbGciOiJub25lIn0.${Buffer.from('{"sub":"canary"}').toString('base64url')}.Y2FuYXJ5`
  const tokenPath = join(directory, 'token')
  writeFileSync(tokenPath, opaque)
  let status = 400
  let sent = ''
  const server = http.createServer(async (request, response) => {
    sent = ''
    for await (const chunk of request) sent += chunk
    const all = `${request.url} ${request.headers.authorization ?? ''} ${decodeURIComponent(sent.replaceAll('+', ' '))}`
    response
      .writeHead(status, { 'content-type': 'application/json', location: `https://evil.test/?${all.length}` })
      .end(JSON.stringify({ error: 'invalid_request', error_description: all }))
  })
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.after(() => server.closeAllConnections() ?? server.close())
  const url = `http://127.0.0.1:${server.address().port}`
  const credentials = [
    new sdk.TokenFile(tokenPath),
    new sdk.PrivateKey(keyPath, { clientId: 'agent:a/b' }),
    new sdk.PrivateKey(pem, { clientId: 'agent:a/b' }),
    new sdk.Sidecar(url),
  ]
  const operation = { capability: 'x', resource: 'a:b' }
  let errors = 0
  for (status of [400, 401, 403, 409, 429, 503, 302]) {
    for (const credential of credentials) {
      const client = new sdk.Client({ url, credential, env: {}, agent: 'agent:a/b', maxRetries: 0, timeout: 2 })
      const verifier = new sdk.Verifier({ issuer: url, audience: 'x', revocation: 'introspect', credential: credentials[0], env: {} })
      const guard = new sdk.Guard(client, { tool: 'x' })
      const calls = [
        () => client.token(),
        () => client.exchange(subject),
        () => client.exchange(jwt),
        () => client.revoke(subject),
        () => client.complete(jwt),
        () => client.evaluate(operation, { context: { access_token: subject } }),
        () => client.requestApproval(operation, { subjectToken: subject }),
        () => client.approval('abc'),
        () => guard.check('tool', {}, { callId: '1', subjectToken: subject }),
        () => new sdk.Registry({ url, token: opaque, env: {}, maxRetries: 0 }).get('a', 'b'),
        () => verifier.verify(jwt),
        () => verifier.complete(subject),
      ]
      for (const call of calls) {
        const error = await call().then(
          () => undefined,
          (error) => error,
        )
        assert.ok(error instanceof sdk.CountersignError, `${call}: ${error}`)
        errors += 1
        const text = seen(error)
        const assertions = [...sent.matchAll(/eyJ[A-Za-z0-9_.-]+/g)].map(([found]) => found)
        for (const secret of [opaque, subject, 'canary', 'BEGIN PRIVATE', pem.split('\n')[1], ...assertions])
          assert.ok(!text.includes(secret), `${status} ${call}: ${secret} in ${text}`)
      }
      for (const thing of [client, credential, verifier, guard]) {
        const text = [inspect(thing, { depth: 9, showHidden: true }), JSON.stringify(thing), String(thing)].join('\n')
        for (const secret of [opaque, pem.split('\n')[1]]) assert.ok(!text.includes(secret), text)
      }
    }
  }
  assert.ok(errors > 300)
})

test('what fails on this side says nothing of what it read', async (t) => {
  const path = join(directoryOf(t), 'broken')
  writeFileSync(path, 'canary canary', { mode: 0o600 })
  const keyOf = (source) => new sdk.PrivateKey(source, { clientId: 'agent:a/b' }).assertion({ issuer: 'https://us.test' })
  const attempts = [
    () => new sdk.TokenFile(path).assertion(),
    () => keyOf(path),
    () => keyOf('-----BEGIN PRIVATE KEY-----\ncanary\n-----END PRIVATE KEY-----'),
  ]
  for (const attempt of attempts) {
    const error = await attempt().then(
      () => undefined,
      (error) => error,
    )
    assert.ok(error instanceof sdk.CredentialInvalid)
    assert.ok(!seen(error).includes('canary'))
  }
})

test('a log with everything in it has no secret', async (t) => {
  const authority = await authorityOf(t)
  authority.allow('document.read')
  const path = join(directoryOf(t), 'token')
  writeFileSync(path, authority.serviceAccountToken())
  const script = `
    import { Client } from '@countersign/sdk'
    const client = new Client()
    const token = await client.token()
    await client.evaluate({ capability: 'document.read' })
    await client.token({ scope: 'nothing' }).catch((error) => console.error(error))
    console.log(token, client, await client.credential())
    console.error('the token ends with', token.value.slice(-12))
    client.close()`
  const env = { ...process.env, NODE_DEBUG: 'countersign', COUNTERSIGN_URL: authority.url, COUNTERSIGN_TOKEN_FILE: path }
  // Beside this file, so that the package finds itself by its name. Not synchronously: the authority is in this process.
  const options = { env, cwd: fileURLToPath(new URL('.', import.meta.url)), timeout: 30_000 }
  const result = await new Promise((resolve) =>
    execFile(process.execPath, ['--input-type=module', '-e', script], options, (error, stdout, stderr) =>
      resolve({ error, text: stdout + stderr }),
    ),
  )
  assert.equal(result.error, null, result.text)
  assert.match(result.text, /the credential is TokenFile/)
  const end = /the token ends with (\S+)/.exec(result.text)[1]
  assert.equal(result.text.split(end).length, 2, 'once, where the test itself writes it')
  assert.ok(!result.text.includes(authority.serviceAccountToken().split('.')[1]))
})

test('what looks like a token is taken out of texts of others', () => {
  const jwt = 'eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiJhIn0.c2lnbmF0dXJl'
  assert.equal(redact(`a ${jwt} b`), 'a [redacted] b')
  assert.equal(redact('of countersign.countersign-system.svc'), 'of countersign.countersign-system.svc')
  assert.equal(redact('x secret y', ['secret']), 'x [redacted] y')
  assert.equal(redact('a\n\u202eb'), 'a b')
  assert.ok(redact('x'.repeat(10_000)).length < 600)
  assert.equal(redact('k -----BEGIN PRIVATE KEY-----\nabc\n-----END PRIVATE KEY----- z'), 'k [redacted] z')
})
