// The token that a cloud gives its workloads (examples/federation).

import { expiryOf } from '../claims.ts'
import { CountersignError, CredentialInvalid, Unavailable } from '../errors.ts'
import { parseObject } from '../json.ts'
import { TransportFailure } from '../transport.ts'
import type { HttpRequest } from '../transport.ts'
import { AssertionCredential, usable } from './credential.ts'
import type { AssertionContext } from './credential.ts'

/** The clouds that are known. */
export type CloudName = 'aws' | 'gcp' | 'azure'

const METADATA = 'http://169.254.169.254'
const GCP = 'http://metadata.google.internal'
/** How long before its end a token of the platform is replaced, in seconds. */
const MARGIN = 60
/** How long the platform may take to answer, in milliseconds. */
const PATIENCE = 5000

/** What may be said of a cloud's credential. */
export interface CloudOptions {
  /** The audience of the platform's token. Without it: the issuer's URL; on Azure `api://` and its host. */
  audience?: string | undefined
  /** Which managed identity, on Azure with several. */
  clientId?: string | undefined
  /** Where the platform says how to get tokens. Without it: `process.env`. */
  env?: Readonly<Record<string, string | undefined>> | undefined
}

/** The platform's own token for this workload, kept until shortly before its end. */
export class Cloud extends AssertionCredential {
  readonly #name: CloudName
  readonly #options: CloudOptions
  #kept: { token: string; until: number } | undefined
  #flight: Promise<string> | undefined

  constructor(name: CloudName, options: CloudOptions = {}) {
    super()
    this.#name = name
    this.#options = options
  }

  describe(): string {
    return `Cloud ${this.#name}`
  }

  assertion(context: AssertionContext): Promise<string> {
    if (this.#kept && Date.now() / 1000 < this.#kept.until) return Promise.resolve(this.#kept.token)
    this.#flight ??= this.#fetch(context).finally(() => (this.#flight = undefined))
    return this.#flight
  }

  async #fetch(context: AssertionContext): Promise<string> {
    const token = usable(await this.#obtain(context), `the answer of ${this.#name}`)
    const exp = expiryOf(token)
    this.#kept = exp === undefined ? undefined : { token, until: exp - MARGIN }
    return token
  }

  async #obtain(context: AssertionContext): Promise<string> {
    const { audience, clientId, env = process.env } = this.#options
    switch (this.#name) {
      case 'aws':
        return awsToken(audience ?? context.issuer)
      case 'gcp': {
        const query = new URLSearchParams({ audience: audience ?? context.issuer, format: 'full' })
        return this.#ask(context, `${GCP}/computeMetadata/v1/instance/service-accounts/default/identity?${query}`, {
          'metadata-flavor': 'Google',
        })
      }
      case 'azure': {
        const resource = audience ?? `api://${new URL(context.issuer).host}`
        const identity = clientId === undefined ? {} : { client_id: clientId }
        const { IDENTITY_ENDPOINT: endpoint, IDENTITY_HEADER: header } = env
        const answer = endpoint
          ? await this.#ask(context, `${endpoint}?${new URLSearchParams({ 'api-version': '2019-08-01', resource, ...identity })}`, {
              'x-identity-header': header ?? '',
            })
          : await this.#ask(
              context,
              `${METADATA}/metadata/identity/oauth2/token?${new URLSearchParams({ 'api-version': '2018-02-01', resource, ...identity })}`,
              { metadata: 'true' },
            )
        const token = parseObject(answer)?.access_token
        return typeof token === 'string' ? token : ''
      }
    }
  }

  async #ask({ transport, deadline }: AssertionContext, url: string, headers: Record<string, string>): Promise<string> {
    const request: HttpRequest = { method: 'GET', url, headers, metadata: true, within: Math.max(1, Math.min(deadline.left, PATIENCE)) }
    const answer = await transport.send(request).catch((error: unknown) => {
      if (error instanceof CountersignError) throw error
      const why = error instanceof TransportFailure ? error.message : 'no answer'
      throw new Unavailable({ code: 'cloud_unavailable', message: `the metadata service of ${this.#name} gives no token: ${why}` })
    })
    if (answer.status === 200) return answer.body
    const advice = 'Look whether the workload has an identity of the platform.'
    throw new CredentialInvalid({
      code: 'credential_invalid',
      message: `the metadata service of ${this.#name} answers ${answer.status}`,
      advice,
      status: answer.status,
    })
  }
}

/** What is used of `@aws-sdk/client-sts`, which is an optional dependency. */
interface Sts {
  STSClient: new (options: object) => { send(command: object): Promise<{ WebIdentityToken?: string }> }
  GetWebIdentityTokenCommand: new (input: object) => object
}

async function awsToken(audience: string): Promise<string> {
  // The name is a value, so that neither the compiler nor a bundler looks for what may not be there.
  const name = '@aws-sdk/client-sts'
  const sts = await (import(name) as Promise<Sts>).catch(() => undefined)
  if (!sts)
    throw new CredentialInvalid({ code: 'dependency_missing', message: `${name} is not installed`, advice: `On AWS install ${name}.` })
  const input = { Audience: [audience], SigningAlgorithm: 'ES384', DurationSeconds: 300 }
  // Its errors may say more than belongs into ours.
  const answer = await new sts.STSClient({}).send(new sts.GetWebIdentityTokenCommand(input)).catch(() => undefined)
  if (answer?.WebIdentityToken) return answer.WebIdentityToken
  const advice = 'Use a regional endpoint (AWS_REGION), and allow sts:GetWebIdentityToken to the role.'
  throw new CredentialInvalid({ code: 'credential_invalid', message: 'AWS STS gives no web identity token', advice })
}

/** Which cloud this is, by its own environment or its metadata service; asked for a second at most. */
export async function probe(
  env: Readonly<Record<string, string | undefined>>,
  context: Pick<AssertionContext, 'transport'>,
): Promise<CloudName | undefined> {
  if (env.IDENTITY_ENDPOINT && env.IDENTITY_HEADER) return 'azure'
  if (env.AWS_LAMBDA_FUNCTION_NAME || env.AWS_CONTAINER_CREDENTIALS_RELATIVE_URI || env.AWS_CONTAINER_CREDENTIALS_FULL_URI) return 'aws'
  const is = async (name: CloudName, request: Omit<HttpRequest, 'within'>, header?: string) => {
    // No answer is an answer here: it is another cloud, or none.
    const answer = await context.transport.send({ ...request, metadata: true, within: 1000 }).catch(() => undefined)
    return answer?.status === 200 && (header === undefined || answer.headers[header] !== undefined) ? name : undefined
  }
  const found = await Promise.all([
    is('gcp', { method: 'GET', url: `${GCP}/computeMetadata/v1/`, headers: { 'metadata-flavor': 'Google' } }, 'metadata-flavor'),
    is('azure', { method: 'GET', url: `${METADATA}/metadata/instance?api-version=2021-02-01`, headers: { metadata: 'true' } }),
    is('aws', { method: 'PUT', url: `${METADATA}/latest/api/token`, headers: { 'x-aws-ec2-metadata-token-ttl-seconds': '60' } }),
  ])
  return found.find((name) => name !== undefined)
}
