// The package as others get it: packed, installed into a clean directory, used by import and by require, and compiled against.

import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { fileURLToPath } from 'node:url'

const ROOT = fileURLToPath(new URL('..', import.meta.url))
const SCENARIO = `
const authority = await FakeAuthority.start()
authority.allow('web.search')
const client = new Client({ url: authority.url, credential: authority.credential(), env: {} })
const token = await client.token()
const verifier = authority.verifier()
const verified = await verifier.verify(token.value)
verified.require('web.search')
const permit = await new Guard(client, { search: 'web.search' }).check('search', { q: 'x' }, { callId: '1' })
console.log(JSON.stringify({ subject: verified.subject, permitted: permit.run(() => currentPermit() === permit) }))
verifier.close()
client.close()
await authority.close()
`
const EXPECTED = { subject: 'agent:test/agent', permitted: true }

let directory
const run = (command, args, cwd = directory) => execFileSync(command, args, { cwd, encoding: 'utf8', timeout: 240_000 })

before(() => {
  directory = mkdtempSync(join(tmpdir(), 'countersign-package-'))
  const [{ filename }] = JSON.parse(run('npm', ['pack', '--json', '--pack-destination', directory], ROOT))
  writeFileSync(join(directory, 'package.json'), '{"private": true}')
  run('npm', ['install', '--prefer-offline', '--ignore-scripts', '--no-audit', '--no-fund', `./${filename}`])
})
after(() => rmSync(directory, { recursive: true, force: true }))

const installed = (...path) => join(directory, 'node_modules', ...path)

test('it brings jose and nothing else', () => {
  assert.deepEqual(
    readdirSync(installed())
      .filter((name) => !name.startsWith('.'))
      .sort(),
    ['@countersign', 'jose'],
  )
})

test('it holds what is built, and neither sources nor what is for its own tests', () => {
  const files = readdirSync(installed('@countersign', 'sdk'), { recursive: true }).map(String)
  assert.ok(files.includes('README.md') && files.some((name) => name.endsWith('index.d.cts')))
  for (const name of files) assert.ok(!/internal\.|\.test\.|(^|\/)src\//.test(name), name)
})

test('it works by import', () => {
  const script = `import { Client, Guard, currentPermit } from '@countersign/sdk'\nimport { FakeAuthority } from '@countersign/sdk/testing'\n${SCENARIO}`
  assert.deepEqual(JSON.parse(run(process.execPath, ['--input-type=module', '-e', script])), EXPECTED)
})

test('it works by require, with a Node.js that cannot require ES modules, too', () => {
  const script = `const { Client, Guard, currentPermit } = require('@countersign/sdk')\nconst { FakeAuthority } = require('@countersign/sdk/testing')\n;(async () => {${SCENARIO}})()`
  const flag = process.allowedNodeEnvironmentFlags.has('--experimental-require-module') ? ['--no-experimental-require-module'] : []
  assert.deepEqual(JSON.parse(run(process.execPath, [...flag, '-e', script])), EXPECTED)
})

test('a permit is known on both sides of import and require', () => {
  const script = `import { createRequire } from 'node:module'
    import { Permit } from '@countersign/sdk/guard'
    const { currentPermit } = createRequire(import.meta.url)('@countersign/sdk/guard')
    const permit = new Permit({ tool: 'x', obtain: async () => undefined })
    console.log(permit.run(() => currentPermit() === permit))`
  writeFileSync(join(directory, 'both.mjs'), script)
  assert.equal(run(process.execPath, ['both.mjs']).trim(), 'true')
})

test('it compiles strictly, for ES modules and for CommonJS, with all its declarations', () => {
  const source = readFileSync(join(ROOT, 'test', 'consumer.ts'), 'utf8')
  mkdirSync(join(directory, 'types'))
  for (const extension of ['mts', 'cts']) writeFileSync(join(directory, 'types', `consumer.${extension}`), source)
  const compilerOptions = {
    strict: true,
    noEmit: true,
    target: 'es2022',
    lib: ['es2022'],
    module: 'nodenext',
    moduleResolution: 'nodenext',
    exactOptionalPropertyTypes: true,
    skipLibCheck: false,
    types: ['node'],
    typeRoots: [join(ROOT, 'node_modules', '@types')],
  }
  writeFileSync(join(directory, 'types', 'tsconfig.json'), JSON.stringify({ compilerOptions, include: ['.'] }))
  try {
    run(process.execPath, [join(ROOT, 'node_modules', 'typescript', 'bin', 'tsc'), '-p', 'types'])
  } catch (error) {
    assert.fail(error.stdout)
  }
})
