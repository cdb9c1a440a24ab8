// What the service decides, as it says it.

import { meaningless } from './answers.ts'
import type { Answer } from './answers.ts'
import { AccessDenied } from './errors.ts'
import { isObject } from './json.ts'
import type { JsonObject } from './json.ts'
import { redact } from './redact.ts'

/** Why. */
export interface Reason {
  /** A short stable name, such as `condition_unmet`. */
  code: string
  /** For people. */
  message: string
  /** Which field of which resource said no. */
  rule: string | undefined
}

/** An approval that waits to be turned into its token. */
export interface WaitingApproval {
  /** The id of the request. */
  id: string
  /** Until when, as the service writes it. */
  redeemBy: string | undefined
}

/** The answer to one question. It is no boolean: read {@link allowed}. */
export class Decision {
  /** Whether it is allowed. */
  readonly allowed: boolean
  readonly reason: Reason | undefined
  /** The id of the decision's record. */
  readonly evaluationId: string | undefined
  /** How a person can be asked, if a person can lift the no. */
  readonly accessRequest: JsonObject | undefined
  /** If a person has approved it: the approval, which is used once. */
  readonly approval: WaitingApproval | undefined

  constructor(fields: Pick<Decision, 'allowed'> & Partial<Pick<Decision, 'reason' | 'evaluationId' | 'accessRequest' | 'approval'>>) {
    this.allowed = fields.allowed
    this.reason = fields.reason
    this.evaluationId = fields.evaluationId
    this.accessRequest = fields.accessRequest
    this.approval = fields.approval
  }

  /** @throws TypeError always: a decision in the place of a boolean would be true. */
  [Symbol.toPrimitive](): never {
    throw new TypeError('a Decision is no value by itself: read .allowed')
  }

  /** The error for a no. */
  denied(): AccessDenied {
    const { code, message, rule } = this.reason ?? { code: 'denied', message: 'it is not allowed', rule: undefined }
    const advice = this.accessRequest ? 'A person can approve it: requestApproval.' : 'Asking again without a change is of no use.'
    return new AccessDenied({ code, message, rule, advice, evaluationId: this.evaluationId })
  }
}

/** What a question in plain words was taken for, and the answer. */
export interface Answered {
  /** Whether all that was asked is allowed. */
  allowed: boolean
  reason: Reason | undefined
  /** For each action what it was taken for, with a decision of its own. */
  interpretation: JsonObject[]
  /** The words that were not understood, with what is nearest. */
  unresolved: JsonObject[]
  evaluationId: string | undefined
}

/** Reads one decision (AuthZEN 1.0 section 6.2). What is not plainly a yes is a no. */
export function readDecision(members: JsonObject): Decision {
  const context = isObject(members.context) ? members.context : {}
  const accessRequest = isObject(context.access_request) && context.access_request.requestable === true ? context.access_request : undefined
  const approval = isObject(context.approval) && typeof context.approval.auth_req_id === 'string' ? context.approval : undefined
  return new Decision({
    allowed: members.decision === true,
    reason: readReason(context.reason) ?? readItemError(context.error),
    evaluationId: text(context.evaluation_id),
    accessRequest,
    approval: approval && { id: approval.auth_req_id as string, redeemBy: text(approval.redeem_by) },
  })
}

/** The members of an answer to one question. @throws Unavailable if it holds no decision. */
export function decisionOf(answer: Answer): Decision {
  if (typeof answer.members.decision !== 'boolean') throw meaningless(answer, 'has no decision')
  return readDecision(answer.members)
}

/** The decisions of an answer to several questions, as many as were asked. @throws Unavailable */
export function decisionsOf(answer: Answer, count: number): Decision[] {
  const { evaluations } = answer.members
  if (!Array.isArray(evaluations) || evaluations.length !== count || !evaluations.every(isObject)) {
    throw meaningless(answer, 'has not as many decisions as were asked for')
  }
  return evaluations.map(readDecision)
}

/** Reads the answer to a question in plain words. @throws Unavailable */
export function answeredOf(answer: Answer): Answered {
  const { decision, reason, interpretation, unresolved, evaluation_id: evaluationId } = answer.members
  if (typeof decision !== 'boolean') throw meaningless(answer, 'has no decision')
  const objects = (value: unknown) => (Array.isArray(value) ? value.filter(isObject) : [])
  return {
    allowed: decision,
    reason: readReason(reason),
    interpretation: objects(interpretation),
    unresolved: objects(unresolved),
    evaluationId: text(evaluationId),
  }
}

function readReason(value: unknown): Reason | undefined {
  if (!isObject(value) || typeof value.code !== 'string') return undefined
  const message = text(value.message)
  return { code: value.code, message: message === undefined ? value.code : redact(message), rule: text(value.rule) }
}

/** What is wrong with one of several questions is its own answer, and a no. */
function readItemError(value: unknown): Reason | undefined {
  if (!isObject(value)) return undefined
  const code = value.status === 400 ? 'invalid_request' : 'temporarily_unavailable'
  return { code, message: redact(text(value.message) ?? code), rule: undefined }
}

function text(value: unknown): string | undefined {
  return typeof value === 'string' ? value : undefined
}
