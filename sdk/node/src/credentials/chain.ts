// Which credential is used: the first that is there. One that is there and broken is an error; never is another identity tried instead.

import { access } from 'node:fs/promises'
import { debug } from '../debug.ts'
import { ConfigurationError, CredentialNotFound } from '../errors.ts'
import type { Transport } from '../transport.ts'
import { Cloud, probe } from './cloud.ts'
import type { CloudName } from './cloud.ts'
import type { Credential } from './credential.ts'
import { PrivateKey } from './private-key.ts'
import { Sidecar } from './sidecar.ts'
import { DEFAULT_TOKEN_FILE, TokenFile } from './token-file.ts'

/** Where a process says what it has: `process.env`, or another in tests. */
export type Environment = Readonly<Record<string, string | undefined>>

/** A link of the chain: its credential, or what it lacks. */
type Link = (env: Environment, transport: Transport) => Promise<Credential | string>

const LINKS: readonly Link[] = [
  async ({ COUNTERSIGN_SIDECAR_URL: url }) => (url ? new Sidecar(url) : 'Sidecar: COUNTERSIGN_SIDECAR_URL is not set'),
  async ({ COUNTERSIGN_PRIVATE_KEY_FILE: path, COUNTERSIGN_CLIENT_ID: clientId, COUNTERSIGN_KEY_ID: kid }) => {
    if (!path) return 'PrivateKey: COUNTERSIGN_PRIVATE_KEY_FILE is not set'
    if (clientId) return new PrivateKey(path, { clientId, kid: kid || undefined })
    const advice = 'Set COUNTERSIGN_CLIENT_ID to agent:<namespace>/<name>.'
    throw new ConfigurationError({
      code: 'client_id_missing',
      message: 'COUNTERSIGN_PRIVATE_KEY_FILE is set, and COUNTERSIGN_CLIENT_ID is not',
      advice,
    })
  },
  async ({ COUNTERSIGN_TOKEN_FILE: path }) => {
    if (path) return new TokenFile(path)
    const isThere = await access(DEFAULT_TOKEN_FILE).then(
      () => true,
      () => false,
    )
    return isThere
      ? new TokenFile(DEFAULT_TOKEN_FILE)
      : `TokenFile: COUNTERSIGN_TOKEN_FILE is not set, and ${DEFAULT_TOKEN_FILE} is not there`
  },
  async (env, transport) => {
    const named = env.COUNTERSIGN_CLOUD
    if (named === 'none') return 'Cloud: COUNTERSIGN_CLOUD is none'
    if (named) return new Cloud(cloudName(named), { env })
    const found = await probe(env, { transport })
    return found ? new Cloud(found, { env }) : 'Cloud: COUNTERSIGN_CLOUD is not set, and no metadata service answers'
  },
]

function cloudName(text: string): CloudName {
  if (text === 'aws' || text === 'gcp' || text === 'azure') return text
  throw new ConfigurationError({
    code: 'cloud_unknown',
    message: 'COUNTERSIGN_CLOUD is none of aws, gcp, azure and none',
    advice: 'Set it to one of them, or leave it out.',
  })
}

/**
 * The credential of this process: sidecar, private key, token file, cloud, in this order.
 *
 * @throws CredentialNotFound if none is there, with what each lacked.
 */
export async function findCredential(env: Environment, transport: Transport): Promise<Credential> {
  const lacks: string[] = []
  for (const link of LINKS) {
    const found = await link(env, transport)
    if (typeof found !== 'string') {
      debug('the credential is %s', found.describe())
      return found
    }
    lacks.push(found)
  }
  const advice =
    'In a pod, add the label countersign.dev/inject: "true" for a sidecar, or mount a projected token. Elsewhere set COUNTERSIGN_PRIVATE_KEY_FILE.'
  throw new CredentialNotFound({ code: 'credential_not_found', message: `no credential was found. ${lacks.join('. ')}`, advice })
}
