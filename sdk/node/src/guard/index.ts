// The guard, on which the adapters for frameworks are built.

export { Guard } from './guard.ts'
export type { CallIdentity, GuardMode, GuardOptions } from './guard.ts'
export { Denied, Pending } from './outcome.ts'
export { Permit, currentPermit } from './permit.ts'
export { Tool } from './tool.ts'
export type { Args, ToolOptions } from './tool.ts'
