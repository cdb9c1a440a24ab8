// Where may be asked: over TLS, or on the loopback address of this machine.

import { ConfigurationError } from './errors.ts'

/** Whether a host, as it stands in a URL, is the loopback address. */
export function isLoopback(hostname: string): boolean {
  return hostname === 'localhost' || hostname === '[::1]' || /^127\.\d{1,3}\.\d{1,3}\.\d{1,3}$/.test(hostname)
}

/**
 * An address that may be asked. It stays as it is written, because an issuer is compared byte by byte.
 *
 * @param what names the setting in the error.
 * @throws ConfigurationError if it is no URL, or neither https nor http on the loopback address.
 */
export function serverUrl(text: string, what: string): string {
  const refuse = (why: string) =>
    new ConfigurationError({
      code: 'url_invalid',
      message: `${what} ${why}`,
      advice: 'It is an https URL; http is for 127.0.0.1, [::1] and localhost alone.',
    })
  let url: URL
  try {
    url = new URL(text)
  } catch {
    throw refuse('is no URL')
  }
  if (url.username || url.password) throw refuse('has a user in it')
  if (text.includes('?') || text.includes('#')) throw refuse('has a query or a fragment')
  if (url.protocol !== 'https:' && !(url.protocol === 'http:' && isLoopback(url.hostname)))
    throw refuse('is neither https nor on the loopback address')
  return text
}

/** An address of a server: `path` begins with a slash. */
export function at(url: string, path: string): string {
  return (url.endsWith('/') ? url.slice(0, -1) : url) + path
}
