// The leave to run one call.

import { AsyncLocalStorage } from 'node:async_hooks'
import type { ApprovalRequest } from '../approval.ts'
import { ConfigurationError } from '../errors.ts'
import type { Operation } from '../operation.ts'
import type { AccessToken } from '../token.ts'

/** The leave to run one call: made by the guard, and good for that call. */
export class Permit {
  /** The tool that may run. */
  readonly tool: string
  /** What exactly is permitted. */
  readonly operation: Operation
  /** The id of the decision's record. */
  readonly evaluationId: string | undefined
  /** The request that a person approved, if one had to. */
  readonly request: ApprovalRequest | undefined
  readonly #obtain: () => Promise<AccessToken>
  #token: Promise<AccessToken> | undefined

  /** For the guard. */
  constructor(fields: {
    tool: string
    operation: Operation
    evaluationId?: string | undefined
    request?: ApprovalRequest | undefined
    obtain: () => Promise<AccessToken>
  }) {
    this.tool = fields.tool
    this.operation = fields.operation
    this.evaluationId = fields.evaluationId
    this.request = fields.request
    this.#obtain = fields.obtain
  }

  /** The token for the operation, obtained when it is first asked for. @throws ConfigurationError if it was used up before the tool ran. */
  token(): Promise<AccessToken> {
    this.#token ??= this.#obtain()
    return this.#token
  }

  /** Runs `work`, in which {@link currentPermit} is this one. */
  run<T>(work: () => T): T {
    return permits().run(this, work)
  }
}

/** The permit under which the tool runs that asks, in all that it awaits. */
export function currentPermit(): Permit | undefined {
  return permits().getStore()
}

/** What a permit whose approval was reported as done says of its token. */
export function usedUp(): Promise<never> {
  const advice = 'Map the tool with sendsToken: true if it sends the token to a resource server that reports the operation as done.'
  return Promise.reject(
    new ConfigurationError({ code: 'permit_completed', message: 'the token of the approval was used up before the tool ran', advice }),
  )
}

const KEY = Symbol.for('countersign.permit')

/** One for the whole process: the package may be loaded twice, by `import` and by `require`. */
function permits(): AsyncLocalStorage<Permit> {
  const holder = globalThis as { [KEY]?: AsyncLocalStorage<Permit> }
  holder[KEY] ??= new AsyncLocalStorage<Permit>()
  return holder[KEY]
}
