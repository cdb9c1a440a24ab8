/**
 * Identity, capabilities and human approval for AI agents: the client of Countersign.
 *
 * @packageDocumentation
 */

export { ApprovalRequest } from './approval.ts'
export { Client } from './client.ts'
export type { CallOptions, ClientOptions, EvaluateOptions, ExchangeOptions, RequestOptions, RequireOptions, TokenOptions } from './client-options.ts'
export type { Environment } from './credentials/chain.ts'
export { Cloud } from './credentials/cloud.ts'
export type { CloudName, CloudOptions } from './credentials/cloud.ts'
export { AssertionCredential, Credential } from './credentials/credential.ts'
export type { AssertionContext } from './credentials/credential.ts'
export { PrivateKey } from './credentials/private-key.ts'
export { Sidecar } from './credentials/sidecar.ts'
export { TokenFile } from './credentials/token-file.ts'
export { Decision } from './decision.ts'
export type { Answered, Reason, WaitingApproval } from './decision.ts'
export { fingerprint } from './digest.ts'
export * from './errors.ts'
export * from './guard/index.ts'
export { canonicalJson } from './json.ts'
export type { Json, JsonObject } from './json.ts'
export { Operation } from './operation.ts'
export type { OperationFields } from './operation.ts'
export { Registry } from './registry.ts'
export type { RegisteredAgent, RegistryOptions } from './registry.ts'
export { AccessToken } from './token.ts'
export type { HttpAnswer, HttpRequest, HttpStream, Transport } from './transport.ts'
export * from './verify/index.ts'
