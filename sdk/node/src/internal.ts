// What the tests of this package look at beside its surface. It is not published.

export { read, refusal } from './answers.ts'
export { approvalError } from './approval.ts'
export { TokenCache } from './cache.ts'
export { keyOf } from './guard/guard.ts'
export { parseObject } from './json.ts'
export { redact } from './redact.ts'
export { completionError } from './service/service.ts'
export { NodeTransport } from './transport.ts'
export { TokenMissing, bearerOf, challengeOf, metadataUrl } from './verify/challenge.ts'
export { eventsOf } from './verify/events.ts'
export { applied, deadReason } from './verify/feed-state.ts'
export { Protection } from './verify/protection.ts'
