// Digests by which people and programs compare.

import { createHash } from 'node:crypto'
import { canonicalJson } from './json.ts'

/** SHA-256 in hexadecimal, lower case. */
export function sha256Hex(text: string): string {
  return createHash('sha256').update(text, 'utf8').digest('hex')
}

/** SHA-256 in base64url without padding. */
export function sha256Base64url(text: string): string {
  return createHash('sha256').update(text, 'utf8').digest('base64url')
}

/** `sha256:` and the SHA-256 of the canonical text (RFC 8785) of a value. */
export function fingerprint(value: unknown): string {
  return `sha256:${sha256Hex(canonicalJson(value))}`
}
