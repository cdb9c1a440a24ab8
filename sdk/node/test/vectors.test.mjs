// The cases of sdk/vectors.json, on which the SDKs of all languages agree.

import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { describe, test } from 'node:test'
import * as sdk from '@countersign/sdk'
import { TokenMissing, applied, approvalError, challengeOf, completionError, deadReason, keyOf, refusal } from '../dist/internal.mjs'

const vectors = JSON.parse(readFileSync(new URL('../../vectors.json', import.meta.url), 'utf8'))

/** Runs a test for each case of a list, which must not be empty. */
function each(name, cases, body) {
  describe(name, () => {
    test('there are cases', () => assert.ok(cases.length > 0))
    for (const [at, vector] of cases.entries()) test(vector.name ?? `case ${at}`, () => body(vector))
  })
}

const operationOf = ({ expiration_seconds: expirationSeconds, ...fields }) => new sdk.Operation({ ...fields, expirationSeconds })
const answerOf = ({ status, headers, body }) => ({
  status,
  headers: Object.fromEntries(Object.entries(headers).map(([name, value]) => [name.toLowerCase(), value])),
  body: typeof body === 'string' ? body : JSON.stringify(body),
})

each('a value has one canonical text', vectors.canonical, ({ value, canonical, sha256 }) => {
  assert.equal(sdk.canonicalJson(value), canonical)
  assert.equal(createHash('sha256').update(canonical).digest('hex'), sha256)
  assert.equal(sdk.fingerprint(value), `sha256:${sha256}`)
})

each('an operation is sent, named and asked about as everywhere', vectors.operations, ({ operation, details, fingerprint, evaluation }) => {
  const made = operationOf(operation)
  assert.deepEqual(made.details(), details)
  assert.equal(made.fingerprint(), fingerprint)
  assert.deepEqual(made.question({ type: 'agent', id: 'agent:research/bot' }), evaluation)
  assert.deepEqual(sdk.Operation.fromJSON(JSON.parse(JSON.stringify(made))).details(), details)
})

each('a call has one key', vectors.idempotency_keys, ({ run_id: runId, call_id: callId, tool, operation, key }) => {
  assert.equal(keyOf(tool, operationOf(operation), { callId, runId: runId ?? undefined }), key)
})

each('a pattern matches what it stands for and nothing else', vectors.resources, ({ pattern, resource, matches }) => {
  assert.equal(sdk.matches(pattern, resource), matches)
})

each('a token allows what it says', vectors.requirements, ({ scope, details, require, allowed }) => {
  const claims = { sub: 'agent:a/b', client_id: 'agent:a/b', scope, authorization_details: details, links: [], jti: 'x', exp: 1 }
  const verified = new sdk.VerifiedToken(claims)
  const requirement = { resource: require.resource ?? undefined, parameters: require.parameters ?? undefined }
  assert.equal(verified.allows(require.capability, requirement), allowed)
  const demand = () => verified.require(require.capability, requirement)
  if (allowed) demand()
  else assert.throws(demand, (error) => error instanceof sdk.InsufficientScope && error.scope === require.capability)
})

const { issuer, audience, leeway, now, jwks } = vectors.tokens
/** Answers with the metadata and the keys of the vectors, and counts. */
const issuerTransport = {
  async send({ url }) {
    const body = url.endsWith('/oauth2/jwks') ? jwks : { issuer, jwks_uri: `${issuer}/oauth2/jwks` }
    return { status: 200, headers: {}, body: JSON.stringify(body) }
  },
  close() {},
}

each('a token is taken, or refused for its reason', vectors.tokens.cases, async ({ token, error, code, verified }) => {
  const verifier = new sdk.Verifier({ issuer, audience, leeway, revocation: 'none', transport: issuerTransport, now: () => now, env: {} })
  const work = verifier.verify(token.join('.'))
  if (error !== null) {
    await assert.rejects(work, (thrown) => {
      assert.equal(thrown.constructor, sdk[error], `${thrown.name} ${thrown.code}: ${thrown.message}`)
      assert.equal(thrown.code, code)
      return true
    })
    return
  }
  const taken = await work
  const said = {
    subject: taken.subject,
    actor: taken.actor,
    chain: taken.chain,
    user: taken.user ?? null,
    scopes: [...taken.scopes].sort(),
    jti: taken.jti,
    txn: taken.txn,
    expires_at: taken.expiresAt,
  }
  for (const [name, value] of Object.entries(verified)) assert.deepEqual(said[name], value, name)
})

each('a token is dead by a state of the feed', vectors.revocation, ({ state, claims, now, reason }) => {
  assert.equal(deadReason(state ?? undefined, claims, now) ?? null, reason)
})

each('an event makes a state', vectors.feed, ({ state, event, payload, after }) => {
  assert.deepEqual(applied(state ?? undefined, event, payload) ?? null, after)
})

const kinds = {
  missing: () => new TokenMissing({ code: 'token_missing', message: 'no token' }),
  invalid: () => new sdk.TokenExpired({ code: 'token_expired', message: 'expired' }),
  scope: (scope) => new sdk.InsufficientScope({ code: 'insufficient_scope', message: 'no', scope }),
  unknown: () => new sdk.RevocationUnknown({ code: 'revocation_unknown', message: 'unknown' }),
}

each('a challenge is written', vectors.challenges.out, ({ kind, scope, resource_metadata: metadata, status, www_authenticate: header }) => {
  const challenge = challengeOf(kinds[kind](scope), metadata)
  assert.equal(challenge.status, status)
  assert.equal(challenge.headers['www-authenticate'] ?? null, header)
})

each('a challenge is read', vectors.challenges.in, ({ header, scheme, parameters }) => {
  const read = sdk.parseChallenge(header)
  assert.equal(read?.scheme ?? null, scheme)
  assert.deepEqual(read?.parameters ?? null, parameters)
})

each('an answer is an error', vectors.errors, (vector) => {
  const answer = answerOf(vector)
  const errors = {
    poll: () => approvalError(answer, new sdk.ApprovalRequest({ id: 'x' })),
    complete: () => completionError(answer, false),
  }
  const error = (errors[vector.call] ?? (() => refusal(answer)))()
  assert.equal(error.constructor, sdk[vector.class], `${error.name}: ${error.message}`)
  assert.equal(error.code, vector.code)
  if ('retry_after' in vector && error instanceof sdk.Unavailable) assert.equal(error.retryAfter ?? null, vector.retry_after)
})
