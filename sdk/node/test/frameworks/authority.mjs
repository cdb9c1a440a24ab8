// The authority that the cells of a framework are run against: one for tests here, the real operator in tests/sdk/node. Each grants the same:
// `invoice.read` at once, `payments.authorize` once a person approves, and no `mailbox.delete`.

import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { authorityOf as fakeOf, directoryOf, eventually } from '../support.mjs'

/** An authority and its agent, which end with the test. What a test may do to it, and what it may see, is what this returns. */
export async function authorityOf(t) {
  const fake = await fakeOf(t)
  fake.allow('invoice.read', { resource: 'invoice:INV-*' })
  fake.requireApproval('payments.authorize', { resource: 'invoice:INV-*' })
  const token = join(directoryOf(t), 'token')
  writeFileSync(token, fake.serviceAccountToken(), { mode: 0o600 })
  const waiting = async () => fake.pending().map(({ id }) => id)
  return {
    /** The environment of the agent, for clients of this process and of others. */
    environment: { COUNTERSIGN_URL: fake.url, COUNTERSIGN_TOKEN_FILE: token, COUNTERSIGN_CLOUD: 'none' },
    /** Whether the agent has asked for a person at all. */
    isAsked: async () => fake.count('/oauth2/bc-authorize') > 0,
    /** The requests of which nobody has decided. */
    waiting,
    /** One of them, once there is one. */
    async oneWaiting() {
      await eventually(() => fake.pending().length > 0, 'somebody asks for approval', 30_000)
      return (await waiting())[0]
    },
    /** A person says yes. */
    approve: async (id) => fake.approve(id),
    /** A person says no. */
    deny: async (id) => fake.denyRequest(id),
    /** Nobody decides in time: for requests that do not stand for long (`standsFor`). */
    expired: async (id) => fake.expire(id),
    /** The agent does not reach it any more. */
    down: () => fake.down(),
  }
}
