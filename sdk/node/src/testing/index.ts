/**
 * For the tests of those who use this package: an authority that does what it is told.
 *
 * @packageDocumentation
 */

export { FakeAuthority } from './fake-authority.ts'
export type { FakeAuthorityOptions, TokenFor } from './fake-authority.ts'
export type { FakePhase, FakeRequest } from './requests.ts'
export type { RecordedRequest } from './server.ts'
