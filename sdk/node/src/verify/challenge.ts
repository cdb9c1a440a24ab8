// What a resource server answers whoever has no token that will do (RFC 6750 section 3, RFC 9728 section 5.1), and how that is read.

import { ConfigurationError, CountersignError, InsufficientScope, RevocationUnknown, TokenRejected, Unavailable } from '../errors.ts'

/** An answer without a token's leave. */
export interface Challenge {
  status: 401 | 403 | 503
  headers: Record<string, string>
  body: { error: string; error_description: string }
}

/** The request has no token; that is no error yet (RFC 6750 section 3.1). */
export class TokenMissing extends TokenRejected {}

/** The one token of a request: in the Authorization header, once. @throws TokenMissing, TokenRejected */
export function bearerOf(rawHeaders: readonly string[]): string {
  // Names and values by turns, as they came: what is there twice must not become one.
  const values = rawHeaders.filter((_, at) => at % 2 === 1 && rawHeaders[at - 1]?.toLowerCase() === 'authorization')
  const [value] = values
  if (value === undefined)
    throw new TokenMissing({ code: 'token_missing', message: 'the request has no token', advice: 'Send Authorization: Bearer.' })
  const token = /^bearer +([A-Za-z0-9._~+/-]+=*)$/i.exec(value)?.[1]
  if (values.length === 1 && token !== undefined) return token
  throw new TokenRejected({
    code: 'authorization_malformed',
    message: 'the Authorization header is not one Bearer token',
    advice: 'Send Authorization: Bearer, once.',
  })
}

/**
 * The answer for an error.
 *
 * @param resourceMetadata the URL of the metadata of this server (RFC 9728), by which a client finds the issuer.
 */
export function challengeOf(error: unknown, resourceMetadata: string): Challenge {
  if (error instanceof RevocationUnknown || !(error instanceof TokenRejected)) {
    // Whatever went wrong: it cannot be told, so it is not allowed.
    return {
      status: 503,
      headers: { 'retry-after': '1' },
      body: body('temporarily_unavailable', error instanceof Unavailable || error instanceof RevocationUnknown ? error : undefined),
    }
  }
  const metadata = `Bearer resource_metadata=${quoted(resourceMetadata)}`
  if (error instanceof TokenMissing) return { status: 401, headers: { 'www-authenticate': metadata }, body: body('invalid_request', error) }
  if (error instanceof InsufficientScope) {
    const header = `${metadata}, error="insufficient_scope", scope=${quoted(error.scope)}`
    return { status: 403, headers: { 'www-authenticate': header }, body: body('insufficient_scope', error) }
  }
  return { status: 401, headers: { 'www-authenticate': `${metadata}, error="invalid_token"` }, body: body('invalid_token', error) }
}

function body(error: string, cause: CountersignError | undefined): Challenge['body'] {
  return { error, error_description: cause?.message ?? 'it cannot be told now whether this is allowed' }
}

/** RFC 9110 section 5.6.4. */
function quoted(text: string): string {
  return `"${text.replaceAll(/[^\x20-\x7e]/g, '').replaceAll(/["\\]/g, '\\$&')}"`
}

/** What a `WWW-Authenticate` header says. */
export interface ParsedChallenge {
  /** In lower case. */
  scheme: string
  parameters: Record<string, string>
}

const PARAMETER = /^\s*([!#$%&'*+.^_`|~0-9A-Za-z-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([!#$%&'*+.^_`|~0-9A-Za-z-]+))\s*(,|$)/

/** Reads one challenge (RFC 9110 section 11.6.1); `undefined` if it cannot be read in one way only. */
export function parseChallenge(header: string): ParsedChallenge | undefined {
  const [, scheme, rest = ''] = /^\s*([A-Za-z][A-Za-z0-9-]*)(?:\s+(.*))?$/s.exec(header) ?? []
  if (scheme === undefined) return undefined
  const parameters = new Map<string, string>()
  for (let left = rest; left.trim() !== '';) {
    const [whole, name, text, token] = PARAMETER.exec(left) ?? []
    const key = name?.toLowerCase()
    if (whole === undefined || key === undefined || parameters.has(key)) return undefined
    parameters.set(key, token ?? (text ?? '').replaceAll(/\\(.)/g, '$1'))
    left = left.slice(whole.length)
  }
  return { scheme: scheme.toLowerCase(), parameters: Object.fromEntries(parameters) }
}

/** What the metadata of a resource server says (RFC 9728 section 2). */
export interface ResourceMetadata {
  resource: string
  authorization_servers: string[]
  bearer_methods_supported: ['header']
  scopes_supported?: string[]
  resource_name?: string
}

/** Where the metadata of a resource is (RFC 9728 section 3.1): the well-known path stands before the resource's own. @throws ConfigurationError */
export function metadataUrl(resource: string): URL {
  if (!URL.canParse(resource) || !/^https?:$/.test(new URL(resource).protocol) || resource.includes('#')) {
    const advice = 'Give resource, the URL of this server; it may differ from the audience.'
    throw new ConfigurationError({ code: 'resource_invalid', message: 'the resource is no https URL without a fragment', advice })
  }
  const url = new URL(resource)
  const path = url.pathname === '/' ? '' : url.pathname
  return new URL(`/.well-known/oauth-protected-resource${path}${url.search}`, url.origin)
}
