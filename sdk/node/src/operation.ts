// One operation: what an agent wants to do, on what, with what.

import { fingerprint } from './digest.ts'
import { ConfigurationError } from './errors.ts'
import { canonicalJson, isObject } from './json.ts'
import type { Json, JsonObject } from './json.ts'

/** The type of `authorization_details` (RFC 9396 section 2) that names one operation. */
export const OPERATION_DETAILS = 'countersign_operation'

/** What an operation is made of. */
export interface OperationFields {
  /** The capability, such as `payments.authorize`. */
  capability: string
  /** On what, `type:segment/segment`. */
  resource?: string | undefined
  /** With what: JSON. */
  parameters?: Record<string, unknown> | undefined
  /** For whom the token is; may be left out by an agent with one audience. */
  audience?: string | undefined
  /** How long the token of an approved operation lives, in seconds, at most 900. */
  expirationSeconds?: number | undefined
}

/** One operation. It does not change: neither it nor its parameters. */
export class Operation {
  readonly capability: string
  readonly resource: string | undefined
  readonly parameters: Readonly<JsonObject> | undefined
  readonly audience: string | undefined
  readonly expirationSeconds: number | undefined

  /** @throws ConfigurationError if the capability is missing or the parameters are none of JSON. */
  constructor(fields: OperationFields) {
    if (typeof fields.capability !== 'string' || fields.capability === '') throw malformed('has no capability')
    for (const name of ['resource', 'audience'] as const) {
      const value = fields[name]
      if (value !== undefined && (typeof value !== 'string' || value === '')) throw malformed(`has a ${name} that is no text, or empty`)
    }
    if (fields.parameters !== undefined && !isObject(fields.parameters)) throw malformed('has parameters that are no object')
    const seconds = fields.expirationSeconds
    if (seconds !== undefined && !Number.isSafeInteger(seconds)) throw malformed('has an expirationSeconds that is no whole number')
    this.capability = fields.capability
    this.resource = fields.resource
    // A copy by its canonical text: what the caller changes afterwards changes nothing here.
    this.parameters =
      fields.parameters === undefined ? undefined : frozen(exact(JSON.parse(canonicalJson(fields.parameters)) as JsonObject))
    this.audience = fields.audience
    this.expirationSeconds = seconds
    Object.freeze(this)
  }

  /** The object in `authorization_details` that names it. */
  details(): JsonObject {
    const details: JsonObject = { type: OPERATION_DETAILS, capability: this.capability }
    if (this.resource !== undefined) details.resource = this.resource
    if (this.parameters !== undefined) details.parameters = this.parameters
    if (this.audience !== undefined) details.audience = this.audience
    if (this.expirationSeconds !== undefined) details.expiration_seconds = this.expirationSeconds
    return details
  }

  /** `sha256:` and the SHA-256 of {@link details} as canonical JSON (RFC 8785). */
  fingerprint(): string {
    return fingerprint(this.details())
  }

  /** For keeping it; {@link Operation.fromJSON} reads it. */
  toJSON(): JsonObject {
    return this.details()
  }

  /** Reads what {@link toJSON} wrote. @throws ConfigurationError if it did not. */
  static fromJSON(value: unknown): Operation {
    if (!isObject(value) || value.type !== OPERATION_DETAILS) throw malformed(`is not of type ${OPERATION_DETAILS}`)
    const { capability, resource, parameters, audience, expiration_seconds: expirationSeconds } = value
    return new Operation({ capability, resource, parameters, audience, expirationSeconds } as OperationFields)
  }

  /** The question whether `subject` may do it (AuthZEN 1.0 section 6.1). */
  question(subject: JsonObject | undefined, context: JsonObject = {}): JsonObject {
    const action: JsonObject = { name: this.capability }
    if (this.parameters !== undefined) action.properties = this.parameters
    const question: JsonObject = { action, resource: resourceOf(this.resource) }
    if (subject !== undefined) question.subject = subject
    const said = this.audience === undefined ? context : { ...context, audience: this.audience }
    if (Object.keys(said).length > 0) question.context = said
    return question
  }
}

/** A resource as a question names it. AuthZEN 1.0 (section 5.3) knows no action without one; the service takes null for that. */
export function resourceOf(resource: string | undefined): JsonObject | null {
  if (resource === undefined) return null
  const colon = resource.indexOf(':')
  if (colon < 1 || colon === resource.length - 1) throw malformed("has a resource that is not 'type:id'")
  return { type: resource.slice(0, colon), id: resource.slice(colon + 1) }
}

/** Refuses numbers that not every reader of JSON holds exactly: an amount must be the same for whoever reads it. */
function exact<T extends Json>(value: T): T {
  if (typeof value === 'number' && Number.isInteger(value) && !Number.isSafeInteger(value)) {
    throw malformed('has a number that not every reader of JSON holds exactly: send it as a text')
  }
  if (typeof value === 'object' && value !== null) for (const member of Object.values(value)) exact(member as Json)
  return value
}

function frozen<T extends Json>(value: T): T {
  if (typeof value === 'object' && value !== null) for (const member of Object.values(value)) frozen(member as Json)
  return Object.freeze(value)
}

function malformed(what: string): ConfigurationError {
  return new ConfigurationError({
    code: 'operation_malformed',
    message: `the operation ${what}`,
    advice: "An operation is { capability: 'payments.authorize', resource: 'invoice:7', parameters: {…} }.",
  })
}
