// What a client asks of the service: directly, with its own credential, or through the sidecar, which has it.

import type { Answer } from '../answers.ts'
import { meaningless, refusal } from '../answers.ts'
import { AlreadyCompleted, TokenRejected, Unavailable } from '../errors.ts'
import type { CountersignError } from '../errors.ts'
import { isObject, parseObject } from '../json.ts'
import type { JsonObject } from '../json.ts'
import type { Operation } from '../operation.ts'
import { sleep, unanswered } from '../retry.ts'
import type { Deadline } from '../retry.ts'
import type { AccessToken } from '../token.ts'
import { TransportFailure } from '../transport.ts'
import type { HttpAnswer } from '../transport.ts'

/** How long a call may take, how often it is repeated, and who may end it. */
export interface Call {
  deadline: Deadline
  maxRetries: number
  signal?: AbortSignal | undefined
}

/** For whom a token is to be, and for what. */
export interface Target {
  audience?: string | undefined
  /** Capabilities, separated by spaces. */
  scope?: string | undefined
  /** The one operation that it is to be good for, in the place of `scope`. */
  operation?: Operation | undefined
}

/** On whose behalf. */
export interface Subject {
  token: string
  type: 'access_token' | 'id_token'
}

/** What a person is asked. */
export interface Filing {
  operation: Operation
  /** For whom the token will be, if the operation does not say. */
  audience?: string | undefined
  justification?: string | undefined
  /** The token with which the agent was called. */
  subjectToken?: string | undefined
  expiresIn?: number | undefined
  idempotencyKey: string
}

/** The questions that are answered with JSON. */
export type QuestionPath = '/access/v1/evaluation' | '/access/v1/evaluations' | '/access/v1/search/action' | '/ask'

/** The service, however it is reached. Whatever fails throws an error of the tree. */
export interface Service {
  token(target: Target, call: Call): Promise<AccessToken>
  exchange(subject: Subject, target: Target, call: Call): Promise<AccessToken>
  revoke(token: string, call: Call): Promise<void>
  ask(path: QuestionPath, question: JsonObject, call: Call): Promise<Answer>
  file(filing: Filing, call: Call): Promise<Answer>
  /** One look at a request, held for so many seconds while nobody has decided. Not repeated. */
  poll(id: string, hold: number, call: Call): Promise<HttpAnswer>
  complete(token: string, call: Call): Promise<void>
  /** The agent as questions name it; `undefined` if the other side knows. */
  self(call: Call): Promise<JsonObject | undefined>
  /** The agent, `agent:<namespace>/<name>`. */
  agent(call: Call): Promise<string>
}

/** Token types (RFC 8693 section 3). */
export function tokenType(type: Subject['type']): string {
  return `urn:ietf:params:oauth:token-type:${type}`
}

/** The tokens in a form, which no error may repeat. */
export function secretsOf(form: Readonly<Record<string, string | undefined>>): string[] {
  return [form.token, form.subject_token, form.login_hint_token].filter((secret) => secret !== undefined)
}

/** The token in a question's context, which no error may repeat. */
export function secretsIn(question: JsonObject): string[] {
  const token = isObject(question.context) ? question.context.access_token : undefined
  return typeof token === 'string' ? [token] : []
}

/**
 * Reports an operation as done. 200 comes once: what may have arrived is asked once more, and a 409 then tells nobody whether it was this
 * report that counted or an earlier one.
 */
export async function completeOnce(call: Call, send: () => Promise<HttpAnswer>): Promise<void> {
  let isDoubtful = false
  for (let tries = 0; ; tries += 1) {
    const outcome = await send().catch((error: unknown) => {
      if (error instanceof TransportFailure) return error
      throw error
    })
    // A page of somebody in between says nothing of the operation, nor does half an answer.
    const isSilent = !(outcome instanceof TransportFailure) && outcome.status === 200
    if (isSilent && parseObject(outcome.body)?.completed === true) return
    const isUnsent = outcome instanceof TransportFailure ? outcome.kind === 'unsent' : outcome.status === 429
    const mayHaveArrived = outcome instanceof TransportFailure ? !isUnsent : isSilent || outcome.status >= 500
    const pause = 100 * 2 ** tries
    const isOver = call.deadline.left <= pause || call.signal?.aborted === true
    if (!isOver && tries < Math.max(1, call.maxRetries) && (isUnsent || (mayHaveArrived && !isDoubtful))) {
      isDoubtful ||= mayHaveArrived
      await sleep(pause, call.signal)
      continue
    }
    if (outcome instanceof TransportFailure) throw unanswered(outcome, call.deadline.left <= 0)
    if (isSilent) throw meaningless(outcome, 'does not say that the operation is completed')
    throw completionError(outcome, isDoubtful)
  }
}

/** The error for an answer to a report. */
export function completionError(answer: HttpAnswer, isDoubtful: boolean): CountersignError {
  const error = refusal(answer)
  const { code, message, requestId, status } = error
  if (status === 409 && isDoubtful) {
    const text = 'it cannot be told whether this report completed the operation, or an earlier one: an answer was lost'
    return new Unavailable({
      code: 'completion_unknown',
      message: text,
      advice: 'Do not do the operation. Look at the records.',
      requestId,
      status,
    })
  }
  if (status === 409) return new AlreadyCompleted({ code, message, advice: 'Do not do the operation again.', requestId, status })
  if (code === 'invalid_token')
    return new TokenRejected({
      code,
      message,
      advice: 'The token is no token of an approved operation, or has expired.',
      requestId,
      status,
    })
  return error
}
