// Which operation a tool's call is.

import { ConfigurationError } from '../errors.ts'
import { isObject } from '../json.ts'
import { Operation } from '../operation.ts'

/** The arguments of a call. */
export type Args = Readonly<Record<string, unknown>>

/** How a call becomes an operation. */
export interface ToolOptions {
  /** On what: a text, in which `{name}` stands for an argument, or a function of the arguments. */
  resource?: string | ((args: Args) => string) | undefined
  /** With what: all arguments (the default), those that are named, a function of them, or nothing. */
  parameters?: 'all' | readonly string[] | ((args: Args) => Record<string, unknown>) | null | undefined
  /** For whom the token is. */
  audience?: string | undefined
  /** Whether the tool sends the token to a resource server, which then reports the operation as done. */
  sendsToken?: boolean | undefined
}

/** The form of a resource: segments without wildcards. */
const RESOURCE = /^[a-z][-a-z0-9]*(\.[-a-z0-9]+)*:([-A-Za-z0-9._~@%+=,:]+\/)*[-A-Za-z0-9._~@%+=,:]+$/
const PLACEHOLDER = /\{([^{}]*)\}/g

/** A tool as the guard sees it: a capability, and how its calls become operations. */
export class Tool {
  readonly capability: string
  readonly sendsToken: boolean
  readonly #options: ToolOptions

  /** @throws ConfigurationError if the capability is missing. */
  constructor(capability: string, options: ToolOptions = {}) {
    if (typeof capability !== 'string' || capability === '') throw unusable('a tool has no capability')
    this.capability = capability
    this.sendsToken = options.sendsToken ?? false
    this.#options = options
  }

  /** The operation that a call is. @throws ConfigurationError, and whatever a function of the options throws. */
  operation(args: Args): Operation {
    if (!isObject(args)) throw unusable('the arguments of the call are no object')
    return new Operation({
      capability: this.capability,
      resource: this.#resource(args),
      parameters: this.#parameters(args),
      audience: this.#options.audience,
    })
  }

  /** The operation as far as it is known without a call. */
  outline(): Operation {
    const { resource, audience } = this.#options
    const isFixed = typeof resource === 'string' && resource.search(PLACEHOLDER) < 0
    return new Operation({ capability: this.capability, resource: isFixed ? resource : undefined, audience })
  }

  #resource(args: Args): string | undefined {
    const { resource } = this.#options
    if (resource === undefined) return undefined
    const named = typeof resource === 'function' ? resource(args) : filled(resource, args)
    const path = typeof named === 'string' ? named.slice(named.indexOf(':') + 1).split('/') : []
    if (typeof named === 'string' && RESOURCE.test(named) && !path.includes('.') && !path.includes('..')) return named
    throw unusable(`the arguments of ${this.capability} name no resource`)
  }

  #parameters(args: Args): Record<string, unknown> | undefined {
    const { parameters = 'all' } = this.#options
    if (parameters === null) return undefined
    if (typeof parameters === 'function') return parameters(args)
    // A member that is undefined is one that JSON does not have.
    const given = Object.entries(args).filter(([, value]) => value !== undefined)
    const chosen = parameters === 'all' ? given : given.filter(([name]) => parameters.includes(name))
    return chosen.length === 0 ? undefined : Object.fromEntries(chosen)
  }
}

/** Puts arguments into a form. Each is part of one segment: what the caller writes must not make a path, or a pattern, of it. */
function filled(form: string, args: Args): string {
  return form.replaceAll(PLACEHOLDER, (_, name: string) => {
    const value = Object.hasOwn(args, name) ? args[name] : undefined
    const text = typeof value === 'string' || Number.isSafeInteger(value) ? String(value) : ''
    if (text === '' || /[/*]/.test(text)) throw unusable(`the argument ${name} cannot stand in a resource`)
    return text
  })
}

function unusable(message: string): ConfigurationError {
  return new ConfigurationError({ code: 'tool_unusable', message, advice: 'Look at how the tool is mapped to a capability.' })
}
