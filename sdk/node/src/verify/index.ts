// What a resource server needs.

export { parseChallenge } from './challenge.ts'
export type { ParsedChallenge, ResourceMetadata } from './challenge.ts'
export { RevocationFeed } from './feed.ts'
export type { DeadReason, FeedState } from './feed-state.ts'
export { matches } from './patterns.ts'
export type { ProtectionOptions } from './protection.ts'
export { VerifiedToken } from './verified.ts'
export type { Requirement } from './verified.ts'
export { Verifier } from './verifier.ts'
export type { VerifierOptions } from './verifier.ts'
