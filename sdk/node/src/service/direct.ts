// The service itself, asked with the agent's own credential.

import { at } from '../address.ts'
import { read } from '../answers.ts'
import type { Answer } from '../answers.ts'
import { clientOf, serviceAccountAgentOf } from '../claims.ts'
import type { AssertionCredential } from '../credentials/credential.ts'
import { ConfigurationError, InvalidScope, InvalidTarget, Refused } from '../errors.ts'
import type { JsonObject } from '../json.ts'
import { insist } from '../retry.ts'
import { readToken } from '../token.ts'
import type { AccessToken } from '../token.ts'
import type { HttpAnswer, Transport } from '../transport.ts'
import { completeOnce, secretsIn, secretsOf, tokenType } from './service.ts'
import type { Call, Filing, QuestionPath, Service, Subject, Target } from './service.ts'

const ASSERTION_TYPE = 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer'
const TOKEN_EXCHANGE = 'urn:ietf:params:oauth:grant-type:token-exchange'
const CIBA = 'urn:openid:params:grant-type:ciba'

/** Parameters of a form; what is `undefined` is left out. */
type Form = Record<string, string | undefined>

interface Sending {
  headers?: Record<string, string>
  hold?: number
  fresh?: boolean
}

/** Where the service is, and who asks. */
export interface DirectOptions {
  /** The issuer's URL. */
  url: string
  caFile: string | undefined
  credential: AssertionCredential
  transport: Transport
  /** The agent, if it was said. */
  agent?: string | undefined
  /** For whom tokens are that name nobody. */
  audience?: string | undefined
}

/** Asks the service itself. */
export class DirectService implements Service {
  readonly #options: DirectOptions
  #learned: string | undefined
  #learning: Promise<string> | undefined

  constructor(options: DirectOptions) {
    this.#options = options
  }

  async token(target: Target, call: Call): Promise<AccessToken> {
    return this.#obtain({ grant_type: 'client_credentials', ...targetForm(target) }, call)
  }

  async exchange(subject: Subject, target: Target, call: Call): Promise<AccessToken> {
    const form = {
      grant_type: TOKEN_EXCHANGE,
      subject_token: subject.token,
      subject_token_type: tokenType(subject.type),
      ...targetForm(target),
    }
    return this.#obtain(form, call)
  }

  async revoke(token: string, call: Call): Promise<void> {
    read(await this.#insist(call, () => this.#post('/oauth2/revoke', { token }, call)))
  }

  async ask(path: QuestionPath, question: JsonObject, call: Call): Promise<Answer> {
    return read(await this.#insist(call, () => this.#postJson(path, question, call)))
  }

  async file(filing: Filing, call: Call): Promise<Answer> {
    const { operation, audience, justification, subjectToken, expiresIn, idempotencyKey } = filing
    const form = {
      audience,
      ...(subjectToken === undefined ? { login_hint: await this.agent(call) } : { login_hint_token: subjectToken }),
      authorization_details: JSON.stringify([operation.details()]),
      binding_message: justification,
      requested_expiry: expiresIn === undefined ? undefined : String(expiresIn),
    }
    // With its key, a request that arrives twice is one request.
    const headers = { 'idempotency-key': idempotencyKey }
    return read(await this.#insist(call, () => this.#post('/oauth2/bc-authorize', form, call, { headers })))
  }

  poll(id: string, hold: number, call: Call): Promise<HttpAnswer> {
    return this.#post('/oauth2/token', { grant_type: CIBA, auth_req_id: id }, call, { headers: { prefer: `wait=${hold}` }, hold })
  }

  complete(token: string, call: Call): Promise<void> {
    return completeOnce(call, () => this.#post('/jit/complete', { token }, call, { fresh: true }))
  }

  /** What introspection says of a token (RFC 7662); for resource servers. */
  async introspect(token: string, call: Call): Promise<Answer> {
    return read(await this.#insist(call, () => this.#post('/oauth2/introspect', { token }, call)))
  }

  async self(call: Call): Promise<JsonObject> {
    return { type: 'agent', id: await this.agent(call) }
  }

  /** As it was said, else as a token of the agent says, else like its ServiceAccount. */
  async agent(call: Call): Promise<string> {
    const known = this.#options.agent ?? this.#options.credential.agent() ?? this.#learned
    if (known !== undefined) return known
    this.#learning ??= this.#learn(call).finally(() => (this.#learning = undefined))
    return this.#learning
  }

  async #learn(call: Call): Promise<string> {
    const refusal = await this.token({ audience: this.#options.audience }, call).catch((error: unknown) => {
      // It holds nothing without approval, or has several audiences: the service knows it, and issues nothing that was not asked for.
      if (error instanceof InvalidScope || error instanceof InvalidTarget) return error
      throw error
    })
    if (refusal instanceof Refused) this.#learned = serviceAccountAgentOf(await this.#assertion(call))
    if (this.#learned !== undefined) return this.#learned
    const advice = 'Set COUNTERSIGN_CLIENT_ID to agent:<namespace>/<name>.'
    throw new ConfigurationError({ code: 'agent_unknown', message: 'nobody says which agent this is', advice })
  }

  async #obtain(form: Form, call: Call): Promise<AccessToken> {
    let asked = 0
    const answer = await this.#insist(call, () => {
      asked = Date.now() / 1000
      return this.#post('/oauth2/token', form, call)
    })
    const token = readToken(read(answer), asked)
    this.#learned = clientOf(token.value) ?? this.#learned
    return token
  }

  #insist(call: Call, attempt: () => Promise<HttpAnswer>): Promise<HttpAnswer> {
    return insist({ ...call, isIdempotent: true }, attempt)
  }

  #assertion(call: Call): Promise<string> {
    const { credential, transport, url: issuer } = this.#options
    return credential.assertion({ issuer, transport, deadline: call.deadline })
  }

  /** Sends a form with a new assertion: one that was sent before may have been used up. */
  async #post(path: string, form: Form, call: Call, sending: Sending = {}): Promise<HttpAnswer> {
    const assertion = await this.#assertion(call)
    const body = new URLSearchParams({ client_assertion_type: ASSERTION_TYPE, client_assertion: assertion })
    for (const [name, value] of Object.entries(form)) if (value !== undefined) body.set(name, value)
    const headers = { 'content-type': 'application/x-www-form-urlencoded', ...sending.headers }
    const answer = await this.#send(path, body.toString(), headers, call, sending)
    return { ...answer, secrets: [assertion, ...secretsOf(form)] }
  }

  async #postJson(path: string, question: JsonObject, call: Call): Promise<HttpAnswer> {
    const assertion = await this.#assertion(call)
    const headers = { 'content-type': 'application/json', authorization: `Bearer ${assertion}` }
    const answer = await this.#send(path, JSON.stringify(question), headers, call, {})
    return { ...answer, secrets: [assertion, ...secretsIn(question)] }
  }

  #send(path: string, body: string, headers: Record<string, string>, call: Call, sending: Sending): Promise<HttpAnswer> {
    const { url, caFile, transport } = this.#options
    const within = call.deadline.attempt(sending.hold)
    return transport.send({
      method: 'POST',
      url: at(url, path),
      headers,
      body,
      within,
      signal: call.signal,
      caFile,
      fresh: sending.fresh ?? false,
    })
  }
}

function targetForm({ audience, scope, operation }: Target): Form {
  if (operation === undefined) return { audience, scope }
  return { audience: operation.audience ?? audience, authorization_details: JSON.stringify([operation.details()]) }
}
