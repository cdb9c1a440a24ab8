// What the adapters of frameworks share: asking the guard, and what the answer is for a call.

import { debug } from '../debug.ts'
import { CountersignError } from '../errors.ts'
import type { Guard, CallIdentity } from '../guard/guard.ts'
import { Denied, Pending, outcomeOf } from '../guard/outcome.ts'
import { Permit } from '../guard/permit.ts'
import type { Args } from '../guard/tool.ts'

/** Whether a call may run, and if not, why. */
export type Outcome = Permit | Denied | Pending

/** A call of a tool, as its framework has it. */
export interface Asked {
  tool: string
  args: Args
  call: CallIdentity
}

/**
 * Asks the guard. It never throws: what `read` throws, which takes the call from the framework, is a no as well.
 *
 * @param read is run within, so that nothing between a framework and the guard can fail open.
 */
export async function attempt(guard: Guard, read: () => Asked | Promise<Asked>): Promise<Outcome> {
  try {
    const { tool, args, call } = await read()
    return await guard.check(tool, args, call)
  } catch (error) {
    return outcomeOf(error)
  }
}

/** The names to show to a model: those of use. While nobody can tell, all that are mapped: what is shown permits nothing, and the call is told why not. */
export async function shown(guard: Guard, names: readonly string[]): Promise<Set<string>> {
  try {
    return new Set(await guard.visible(names))
  } catch (error) {
    debug(`the tools that are of use cannot be listed now: ${error instanceof CountersignError ? error.code : 'failed'}`)
    return new Set(names.filter((name) => guard.tools.has(name)))
  }
}

/** Of tools that a model's provider runs, the names to show to it: those that may run at once. Nobody asks again, so while nobody can tell, none. */
export async function allowed(guard: Guard, names: readonly string[]): Promise<Set<string>> {
  try {
    return new Set(await guard.allowed(names))
  } catch (error) {
    debug(`the tools of the provider that are allowed cannot be listed now: ${error instanceof CountersignError ? error.code : 'failed'}`)
    return new Set()
  }
}
