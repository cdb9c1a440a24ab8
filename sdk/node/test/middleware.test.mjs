import assert from 'node:assert/strict'
import http from 'node:http'
import { test } from 'node:test'
import express from 'express'
import Fastify from 'fastify'
import { Client as McpClient } from '@modelcontextprotocol/sdk/client/index.js'
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js'
import { requireBearerAuth } from '@modelcontextprotocol/sdk/server/auth/middleware/bearerAuth.js'
import { McpServer } from '@modelcontextprotocol/sdk/server/mcp.js'
import { StreamableHTTPServerTransport } from '@modelcontextprotocol/sdk/server/streamableHttp.js'
import { Tool, parseChallenge } from '@countersign/sdk'
import { protect, requireCapability, serveMetadata } from '@countersign/sdk/express'
import { countersign, requireCapability as requireInFastify } from '@countersign/sdk/fastify'
import { protectMcp, tokenVerifier, verifiedOf } from '@countersign/sdk/mcp'
import { authorityOf, eventually } from './support.mjs'

const PATH = '/.well-known/oauth-protected-resource/v1'

async function worldOf(t) {
  const authority = await authorityOf(t, { audiences: ['https://docs.test/v1'] })
  authority.allow('document.read', { resource: 'document:*' })
  authority.allow('web.search')
  const verifier = authority.verifier()
  t.after(() => verifier.close())
  return { authority, verifier }
}

async function listen(t, app) {
  const server = http.createServer(app)
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.after(() => server.closeAllConnections() ?? server.close())
  return `http://127.0.0.1:${server.address().port}`
}

function expressApp(options) {
  const app = express()
  app.use(protect(options))
  app.get(
    '/documents/:id',
    requireCapability('document.read', ({ params }) => ({ resource: `document:${params.id}` })),
    (request, response) => response.json({ by: request.countersign.actor }),
  )
  return app
}

async function fastifyApp(options) {
  const app = Fastify()
  await app.register(countersign, options)
  app.get(
    '/documents/:id',
    { preHandler: requireInFastify('document.read', ({ params }) => ({ resource: `document:${params.id}` })) },
    async (request) => ({ by: request.countersign.actor }),
  )
  await app.ready()
  return app.routing
}

for (const [name, make] of [
  ['Express', expressApp],
  ['Fastify', fastifyApp],
]) {
  test(`${name}: the metadata is there for everybody, and all else for a good token`, async (t) => {
    const { authority, verifier } = await worldOf(t)
    const url = await listen(t, await make({ verifier, scopes: ['document.read'], name: 'Documents' }))
    const ask = (path, headers = {}) => fetch(url + path, { headers })
    const bearer = (token) => ({ authorization: `Bearer ${token}` })
    assert.deepEqual(await (await ask(PATH)).json(), {
      resource: 'https://docs.test/v1',
      authorization_servers: [authority.url],
      bearer_methods_supported: ['header'],
      scopes_supported: ['document.read'],
      resource_name: 'Documents',
    })
    const metadata = `https://docs.test${PATH}`
    const none = await ask('/documents/q3')
    assert.equal(none.status, 401)
    assert.deepEqual(parseChallenge(none.headers.get('www-authenticate')), {
      scheme: 'bearer',
      parameters: { resource_metadata: metadata },
    })
    assert.equal((await ask('/nowhere')).status, 401, 'whoever has no token does not learn what is there')
    for (const bad of [
      bearer('x.y.z'),
      { authorization: 'Basic eDp5' },
      bearer(await authority.tokenFor({ audience: 'https://other.test' })),
      bearer(await authority.tokenFor({ expiresIn: -60 })),
    ]) {
      const refused = await ask('/documents/q3', bad)
      assert.equal(refused.status, 401)
      assert.equal(parseChallenge(refused.headers.get('www-authenticate')).parameters.error, 'invalid_token')
    }
    const token = await authority.tokenFor()
    const good = await ask('/documents/q3', bearer(token))
    assert.deepEqual([good.status, await good.json()], [200, { by: authority.agent }])
    const narrow = await ask('/documents/q3', bearer(await authority.tokenFor({ scope: 'web.search' })))
    assert.equal(narrow.status, 403)
    assert.deepEqual(parseChallenge(narrow.headers.get('www-authenticate')).parameters, {
      resource_metadata: metadata,
      error: 'insufficient_scope',
      scope: 'document.read',
    })
    assert.equal((await ask(`/documents/q3?access_token=${token}`)).status, 401, 'a token in the address is none')
    authority.stale()
    await eventually(() => verifier.feed.state === undefined, 'what was known is dropped')
    const unknown = await ask('/documents/q3', bearer(token))
    assert.equal(unknown.status, 503)
    assert.equal(unknown.headers.get('www-authenticate'), null)
  })

  test(`${name}: two Authorization headers are none`, async (t) => {
    const { authority, verifier } = await worldOf(t)
    const url = new URL(await listen(t, await make({ verifier })))
    const good = `Bearer ${await authority.tokenFor()}`
    const status = await new Promise((resolve, reject) => {
      const request = http.request(
        {
          host: url.hostname,
          port: url.port,
          path: '/documents/q3',
          headers: ['Host', url.host, 'Authorization', good, 'Authorization', good],
        },
        (response) => resolve(response.resume().statusCode),
      )
      request.on('error', reject).end()
    })
    // Node.js itself refuses a second header of that name, or the middleware does.
    assert.ok(status === 401 || status === 400, `${status}`)
  })
}

test('a capability that is required without protection lets nobody by', async (t) => {
  const app = express()
  app.get('/', requireCapability('document.read'), (_, response) => response.end('there'))
  app.use((error, _request, response, _next) => response.status(500).end(error.code))
  const response = await fetch(await listen(t, app))
  assert.deepEqual([response.status, await response.text()], [500, 'unprotected'])
  const fastify = Fastify()
  fastify.get('/', { preHandler: requireInFastify('document.read') }, async () => 'there')
  assert.equal((await fastify.inject('/')).statusCode, 500)
})

test('whoever is refused after somebody else has answered hears nothing more, and the server lives on', async (t) => {
  // An error that nobody catches would end the process; node --test reports it.
  const { verifier } = await worldOf(t)
  for (const make of [protect, protectMcp]) {
    const app = express()
    app.use((_, response, next) => {
      if (response.req.url === '/begun') response.write('begun')
      else response.status(504).end('too late')
      next()
    })
    app.use(make({ verifier }))
    app.get('/{*path}', (_, response) => response.end('there'))
    const url = await listen(t, app)
    const late = await fetch(url, { headers: { authorization: 'Bearer x' } })
    assert.deepEqual([late.status, await late.text()], [504, 'too late'])
    const begun = fetch(`${url}/begun`, { signal: AbortSignal.timeout(5000) }).then((response) => response.text())
    await assert.rejects(begun, (error) => error.name !== 'TimeoutError')
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
})

test('the metadata can be served where only a part is protected', async (t) => {
  const { verifier } = await worldOf(t)
  const app = express()
  app.use(serveMetadata({ verifier }))
  app.use('/v1', protect({ verifier }))
  app.get('/open', (_, response) => response.end('open'))
  const url = await listen(t, app)
  assert.equal((await fetch(url + PATH)).status, 200)
  assert.equal((await fetch(`${url}/open`)).status, 200)
  assert.equal((await fetch(`${url}/v1/x`)).status, 401)
})

/** An MCP server with two tools behind `middleware`. */
function mcpApp(...middleware) {
  const app = express()
  app.use(express.json(), ...middleware)
  app.post('/v1', async (request, response) => {
    const server = new McpServer({ name: 'documents', version: '1' })
    const answer = (text) => ({ content: [{ type: 'text', text }] })
    server.registerTool('whoami', { description: 'who' }, async ({ authInfo }) => answer(verifiedOf(authInfo).actor))
    server.registerTool('search', { description: 'search' }, async ({ authInfo }) =>
      answer(`${JSON.stringify(authInfo).includes(authInfo.token)}`),
    )
    const transport = new StreamableHTTPServerTransport({ sessionIdGenerator: undefined, enableJsonResponse: true })
    await server.connect(transport)
    await transport.handleRequest(request, response, request.body)
  })
  return app
}

async function mcpClient(t, url, token) {
  const client = new McpClient({ name: 'test', version: '1' })
  await client.connect(
    new StreamableHTTPClientTransport(new URL(`${url}/v1`), { requestInit: { headers: { authorization: `Bearer ${token}` } } }),
  )
  t.after(() => client.close())
  return client
}

test('MCP: handlers know whose token it is, and a call that it does not allow is answered with the scope that is needed', async (t) => {
  const { authority, verifier } = await worldOf(t)
  const tools = { whoami: 'web.search', search: new Tool('document.read', { resource: 'document:{name}', parameters: [] }) }
  const url = await listen(t, mcpApp(protectMcp({ verifier, tools })))
  assert.equal((await (await fetch(url + PATH)).json()).authorization_servers[0], authority.url)
  const client = await mcpClient(t, url, await authority.tokenFor())
  assert.equal((await client.callTool({ name: 'whoami' })).content[0].text, authority.agent)
  const call = async (token, name, args) =>
    fetch(`${url}/v1`, {
      method: 'POST',
      headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json', accept: 'application/json, text/event-stream' },
      body: JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'tools/call', params: { name, arguments: args } }),
    })
  const narrow = await authority.tokenFor({ scope: 'web.search' })
  const refused = await call(narrow, 'search', { name: 'q3' })
  assert.equal(refused.status, 403)
  assert.equal(parseChallenge(refused.headers.get('www-authenticate')).parameters.scope, 'document.read')
  assert.equal((await call(narrow, 'unknown', {})).status, 403)
  assert.equal((await call(await authority.tokenFor(), 'search', {})).status, 403, 'arguments that name no resource')
  assert.equal((await call('x.y.z', 'whoami', {})).status, 401)
  assert.equal((await call(narrow, 'whoami', {})).status, 200)
  authority.stale()
  await eventually(() => verifier.feed.state === undefined, 'what was known is dropped')
  assert.equal((await call(narrow, 'whoami', {})).status, 503)
})

test('MCP: tools that are to be checked are not let by unread', async (t) => {
  const { authority, verifier } = await worldOf(t)
  const app = express()
  app.use(protectMcp({ verifier, tools: { whoami: 'web.search' } }))
  app.post('/v1', (_, response) => response.end('there'))
  const response = await fetch(`${await listen(t, app)}/v1`, {
    method: 'POST',
    headers: { authorization: `Bearer ${await authority.tokenFor()}` },
    body: '{}',
  })
  assert.equal(response.status, 500)
})

test('MCP: the middleware of the SDK takes the verifier, and no log has the token by accident', async (t) => {
  const { authority, verifier } = await worldOf(t)
  const url = await listen(t, mcpApp(requireBearerAuth({ verifier: tokenVerifier(verifier), requiredScopes: ['web.search'] })))
  const client = await mcpClient(t, url, await authority.tokenFor())
  assert.equal((await client.callTool({ name: 'whoami' })).content[0].text, authority.agent)
  assert.equal((await client.callTool({ name: 'search' })).content[0].text, 'false')
  const status = async (token) => (await fetch(`${url}/v1`, { method: 'POST', headers: { authorization: `Bearer ${token}` } })).status
  assert.equal(await status('x.y.z'), 401)
  assert.equal(await status(await authority.tokenFor({ scope: 'document.read' })), 403)
  authority.stale()
  await eventually(() => verifier.feed.state === undefined, 'what was known is dropped')
  assert.equal(await status(await authority.tokenFor()), 500)
})
