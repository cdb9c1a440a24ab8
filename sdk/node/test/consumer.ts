// Compiled by package.test.mjs against the packed package, as an ES module and as CommonJS; it is never run.

import {
  AccessDenied,
  ApprovalPending,
  Client,
  CountersignError,
  Guard,
  Operation,
  PrivateKey,
  Tool,
  Verifier,
  currentPermit,
} from '@countersign/sdk'
import type { AccessToken, ApprovalRequest, Decision, Permit, VerifiedToken } from '@countersign/sdk'
import { protect, requireCapability } from '@countersign/sdk/express'
import { countersign } from '@countersign/sdk/fastify'
import { FakeAuthority } from '@countersign/sdk/testing'

export async function agent(): Promise<string> {
  const client = new Client({ url: 'https://countersign.test', credential: new PrivateKey('key.pem', { clientId: 'agent:a/b' }) })
  const token: AccessToken = await client.token({ scope: ['document.read'] })
  const decision: Decision = await client.evaluate({ capability: 'document.read', resource: 'document:a' })
  const operation = new Operation({ capability: 'payments.authorize', parameters: { amount: 500 } })
  const request: ApprovalRequest = await client.requestApproval(operation, { justification: 'due' })
  try {
    await client.waitForApproval(request, { timeout: 60 })
  } catch (error) {
    if (error instanceof ApprovalPending) return String(error.retryAfter)
    if (error instanceof AccessDenied) return error.rule ?? ''
    if (error instanceof CountersignError) return `${error.code} ${error.advice} ${error.status ?? 0}`
    throw error
  }
  const guard = new Guard(
    client,
    { pay: new Tool('payments.authorize', { resource: 'invoice:{number}' }), search: 'web.search' },
    { mode: 'interrupt' },
  )
  const permit: Permit = await guard.check('pay', { number: 'INV-7' }, { callId: '1' })
  const current: Permit | undefined = permit.run(() => currentPermit())
  for await (const { name } of client.registry.list('research')) console.log(name)
  // @ts-expect-error: a call needs its id
  await guard.check('pay', {}, {})
  // @ts-expect-error: a decision is read by .allowed
  const yes: boolean = decision
  return `${token.headers().Authorization}${current?.tool ?? ''}${yes}`
}

export async function server(): Promise<VerifiedToken> {
  const authority = await FakeAuthority.start({ audiences: ['https://docs.test'] })
  const verifier = new Verifier({
    issuer: authority.url,
    audience: authority.audience,
    revocation: 'introspect',
    credential: authority.credential(),
  })
  void protect({ verifier, scopes: ['document.read'] })
  void requireCapability('document.read', ({ url }) => ({ resource: `document:${url}` }))
  void countersign
  return verifier.verify(await authority.tokenFor({ scope: 'document.read' }))
}
