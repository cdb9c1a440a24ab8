// The service through the sidecar (docs/sidecar.md), which adds the credential and keeps tokens.

import { at } from '../address.ts'
import { read } from '../answers.ts'
import type { Answer } from '../answers.ts'
import { clientOf } from '../claims.ts'
import { ConfigurationError } from '../errors.ts'
import type { JsonObject } from '../json.ts'
import { insist } from '../retry.ts'
import { readToken } from '../token.ts'
import type { AccessToken } from '../token.ts'
import type { HttpAnswer, HttpRequest, Transport } from '../transport.ts'
import { completeOnce, secretsIn, secretsOf, tokenType } from './service.ts'
import type { Call, Filing, QuestionPath, Service, Subject, Target } from './service.ts'

/** By it the sidecar knows that a program means it (docs/sidecar.md, "Every request"). */
const HEADER = { 'countersign-sidecar': 'true' }

/** Asks the sidecar. */
export class SidecarService implements Service {
  readonly #url: string
  readonly #transport: Transport
  #learned: string | undefined

  constructor(url: string, transport: Transport, agent?: string) {
    this.#url = url
    this.#transport = transport
    this.#learned = agent
  }

  token(target: Target, call: Call): Promise<AccessToken> {
    return this.#token(target, call, {})
  }

  /** One that was issued this second. */
  freshToken(target: Target, call: Call): Promise<AccessToken> {
    return this.#token(target, call, { 'cache-control': 'no-cache' })
  }

  async exchange(subject: Subject, target: Target, call: Call): Promise<AccessToken> {
    const form = { subject_token: subject.token, subject_token_type: tokenType(subject.type), ...query(target) }
    return this.#obtain(call, () => this.#form('/token', form, call))
  }

  async revoke(token: string, call: Call): Promise<void> {
    read(await this.#insist(call, () => this.#form('/revoke', { token }, call)))
  }

  async ask(path: QuestionPath, question: JsonObject, call: Call): Promise<Answer> {
    const body = JSON.stringify(question)
    const answer = await this.#insist(call, () => this.#send('POST', path, call, { headers: { 'content-type': 'application/json' }, body }))
    return read({ ...answer, secrets: secretsIn(question) })
  }

  async file(filing: Filing, call: Call): Promise<Answer> {
    const { operation, audience, justification, subjectToken, expiresIn, idempotencyKey } = filing
    const form: Record<string, string> = { authorization_details: JSON.stringify([operation.details()]) }
    if (audience !== undefined) form.audience = audience
    if (justification !== undefined) form.binding_message = justification
    if (expiresIn !== undefined) form.requested_expiry = String(expiresIn)
    if (subjectToken !== undefined) form.login_hint_token = subjectToken
    return read(await this.#insist(call, () => this.#form('/jit', form, call, { 'idempotency-key': idempotencyKey })))
  }

  poll(id: string, hold: number, call: Call): Promise<HttpAnswer> {
    return this.#send('GET', `/jit/${encodeURIComponent(id)}?wait=${hold}`, call, {}, hold)
  }

  complete(token: string, call: Call): Promise<void> {
    return completeOnce(call, () => this.#form('/jit/complete', { token }, call, {}, true))
  }

  /** The sidecar says who asks. */
  self(): Promise<undefined> {
    return Promise.resolve(undefined)
  }

  async agent(call: Call): Promise<string> {
    if (this.#learned === undefined) await this.token({}, call)
    if (this.#learned !== undefined) return this.#learned
    throw new ConfigurationError({
      code: 'agent_unknown',
      message: 'nobody says which agent this is',
      advice: 'Set COUNTERSIGN_CLIENT_ID to agent:<namespace>/<name>.',
    })
  }

  #token(target: Target, call: Call, headers: Record<string, string>): Promise<AccessToken> {
    const parameters = new URLSearchParams(query(target)).toString()
    return this.#obtain(call, () => this.#send('GET', parameters === '' ? '/token' : `/token?${parameters}`, call, { headers }))
  }

  async #obtain(call: Call, attempt: () => Promise<HttpAnswer>): Promise<AccessToken> {
    let asked = 0
    const answer = await this.#insist(call, () => {
      asked = Date.now() / 1000
      return attempt()
    })
    const token = readToken(read(answer), asked)
    this.#learned ??= clientOf(token.value)
    return token
  }

  #insist(call: Call, attempt: () => Promise<HttpAnswer>): Promise<HttpAnswer> {
    return insist({ ...call, isIdempotent: true }, attempt)
  }

  async #form(
    path: string,
    form: Record<string, string>,
    call: Call,
    headers: Record<string, string> = {},
    fresh = false,
  ): Promise<HttpAnswer> {
    const body = new URLSearchParams(form).toString()
    const answer = await this.#send('POST', path, call, {
      headers: { 'content-type': 'application/x-www-form-urlencoded', ...headers },
      body,
      fresh,
    })
    return { ...answer, secrets: secretsOf(form) }
  }

  #send(method: 'GET' | 'POST', path: string, call: Call, request: Partial<HttpRequest>, hold = 0): Promise<HttpAnswer> {
    const headers = { ...request.headers, ...HEADER }
    return this.#transport.send({
      ...request,
      method,
      url: at(this.#url, path),
      headers,
      within: call.deadline.attempt(hold),
      signal: call.signal,
    })
  }
}

function query({ audience, scope, operation }: Target): Record<string, string> {
  if (operation !== undefined) {
    const advice = 'Ask for scope, or for an approval of the operation.'
    throw new ConfigurationError({
      code: 'operation_unsupported',
      message: 'the sidecar hands out no token for one operation without an approval',
      advice,
    })
  }
  return { ...(audience === undefined ? {} : { audience }), ...(scope === undefined ? {} : { scope }) }
}
