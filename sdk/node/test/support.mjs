// What the tests share.

import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { FakeAuthority } from '@countersign/sdk/testing'

/** An authority that ends with the test. */
export async function authorityOf(t, options) {
  const authority = await FakeAuthority.start({ interval: 0.1, ...options })
  t.after(() => authority.close())
  return authority
}

/** A client of it that ends with the test. */
export function clientOf(t, authority, options) {
  const client = authority.client({ timeout: 5, ...options })
  t.after(() => client.close())
  return client
}

/** A directory that ends with the test. */
export function directoryOf(t) {
  const path = mkdtempSync(join(tmpdir(), 'countersign-'))
  t.after(() => rmSync(path, { recursive: true, force: true }))
  return path
}

/** Waits until something holds. */
export async function eventually(holds, what, patience = 5000) {
  const until = Date.now() + patience
  while (!(await holds())) {
    if (Date.now() > until) throw new Error(`not within ${patience} ms: ${what}`)
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
}
