import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import * as sdk from '@countersign/sdk'
import { authorityOf, directoryOf } from './support.mjs'

const SPEC = { owner: 'team@acme.test', capabilities: [{ name: 'document.read' }] }

async function worldOf(t, options = {}) {
  const authority = await authorityOf(t)
  const registry = new sdk.Registry({ url: authority.url, token: 'kubernetes', env: {}, ...options })
  t.after(() => registry.close())
  return { authority, registry }
}

test('an agent is registered, read, replaced and removed', async (t) => {
  const { registry } = await worldOf(t)
  const agent = await registry.register('research', 'bot', SPEC, { labels: { team: 'research' } })
  assert.deepEqual([agent.namespace, agent.name, agent.labels], ['research', 'bot', { team: 'research' }])
  await assert.rejects(registry.register('research', 'bot', SPEC), sdk.Conflict)
  const read = await registry.get('research', 'bot')
  const replaced = await registry.replace({ ...read, spec: { ...SPEC, owner: 'other@acme.test' } })
  assert.equal(replaced.spec.owner, 'other@acme.test')
  assert.deepEqual(replaced.labels, { team: 'research' })
  await assert.rejects(registry.replace(read), (error) => error instanceof sdk.Conflict && error.status === 412)
  await registry.delete('research', 'bot')
  await assert.rejects(registry.get('research', 'bot'), sdk.NotFound)
})

test('all agents are listed, page by page', async (t) => {
  const { authority, registry } = await worldOf(t)
  for (let at = 0; at < 205; at += 1) await registry.register(at % 5 ? 'many' : 'few', `bot-${at}`, SPEC)
  const names = []
  for await (const { name } of registry.list()) names.push(name)
  assert.equal(new Set(names).size, 205)
  assert.equal(authority.requests.filter(({ method }) => method === 'GET').length, 3)
  let few = 0
  for await (const { namespace } of registry.list('few')) few += namespace === 'few' ? 1 : 100
  assert.equal(few, 41)
})

test('the token is one for the Kubernetes API, read anew for each call', async (t) => {
  const { authority, registry } = await worldOf(t, { token: async () => 'wrong' })
  authority.registry.token = 'right'
  await assert.rejects(registry.get('a', 'b'), sdk.Unauthenticated)
  const path = join(directoryOf(t), 'token')
  const other = new sdk.Registry({ url: authority.url, env: { COUNTERSIGN_REGISTRY_TOKEN_FILE: path } })
  await assert.rejects(other.get('a', 'b'), sdk.CredentialInvalid)
  writeFileSync(path, 'right\n')
  await assert.rejects(other.get('a', 'b'), sdk.NotFound)
  await assert.rejects(authority.client({ env: { COUNTERSIGN_REGISTRY_TOKEN_FILE: path } }).registry.get('a', 'b'), sdk.NotFound)
})

test('a name that would be another address is refused', async (t) => {
  const { authority, registry } = await worldOf(t)
  for (const name of ['..', 'a/b', 'A', '', 'a?x', '%2e%2e'])
    await assert.rejects(registry.get('research', name), sdk.ConfigurationError, name)
  assert.equal(authority.requests.length, 0)
})
