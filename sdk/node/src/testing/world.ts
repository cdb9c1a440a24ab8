// What a fake authority knows: who is there, and who may what.

import { randomUUID } from 'node:crypto'
import { canonicalJson } from '../json.ts'
import type { JsonObject } from '../json.ts'
import { matches } from '../verify/patterns.ts'

/** An agent as a fake authority knows it. */
export interface FakeAgent {
  id: string
  uid: string
  epoch: number
  isSuspended: boolean
}

/** Why not. */
export interface FakeNo {
  code: string
  message: string
  rule?: string
  /** Whether a person could approve it. */
  isRequestable?: boolean
}

interface Rule {
  resources: string[] | undefined
  needsApproval: boolean
}

/** Who may what. */
export class FakeWorld {
  readonly agents = new Map<string, FakeAgent>()
  readonly #rules = new Map<string, Rule>()
  readonly #denials = new Map<string, FakeNo>()
  /** What is revoked singly, by the UID of the agent. */
  readonly revoked = new Map<string, string[]>()

  /** The agent; one that is not known yet is registered. */
  agent(id: string): FakeAgent {
    const known = this.agents.get(id)
    if (known) return known
    const agent = { id, uid: randomUUID(), epoch: 0, isSuspended: false }
    this.agents.set(id, agent)
    return agent
  }

  grant(capability: string, resource: string | undefined, needsApproval: boolean): void {
    const before = this.#rules.get(capability)
    const kept = before?.needsApproval === needsApproval ? before.resources : []
    const resources = resource === undefined || kept === undefined ? undefined : [...kept, resource]
    this.#rules.set(capability, { resources, needsApproval })
    this.#denials.delete(capability)
  }

  deny(capability: string, no: FakeNo): void {
    this.#denials.set(capability, no)
  }

  /** The capabilities that need no approval. */
  standing(): string[] {
    return [...this.#rules]
      .filter(([name, rule]) => !rule.needsApproval && !this.#denials.has(name))
      .map(([name]) => name)
      .sort()
  }

  /** To which resources a capability is limited. */
  limits(capability: string): string[] | undefined {
    return this.#rules.get(capability)?.resources
  }

  /** Why an agent may not do it; `undefined` if it may. */
  judge(agent: FakeAgent, capability: string, resource: string | undefined): FakeNo | undefined {
    if (agent.isSuspended) return { code: 'agent_suspended', message: `${agent.id} is suspended`, rule: 'Agent spec.suspended' }
    const denial = this.#denials.get(capability)
    if (denial) return denial
    const rule = this.#rules.get(capability)
    if (!rule)
      return { code: 'capability_not_granted', message: `${capability} is not granted to ${agent.id}`, rule: 'Agent spec.capabilities' }
    const fits = rule.resources === undefined || (resource !== undefined && rule.resources.some((pattern) => matches(pattern, resource)))
    if (!fits)
      return { code: 'resource_not_granted', message: `${capability} is not granted on that`, rule: 'Agent spec.capabilities[].resources' }
    if (!rule.needsApproval) return undefined
    return {
      code: 'approval_required',
      message: `${capability} needs a person's approval`,
      rule: 'Capability spec.approval',
      isRequestable: true,
    }
  }
}

/** Whether two operations are the same, for whatever audience. */
export function sameOperation(one: JsonObject, other: JsonObject): boolean {
  const plain = ({ capability, resource, parameters }: JsonObject) =>
    canonicalJson([capability ?? null, resource ?? null, parameters ?? {}])
  return plain(one) === plain(other)
}
