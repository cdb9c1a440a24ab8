// What others say may repeat what they were sent. Nothing that looks like a token or a key goes into a message.

/** Longest text of others that is repeated, in characters. */
const TEXT_MAX = 500
/** A JWT, whoever made it: its header begins with `{"`, which is `eyJ` in base64url. */
const JWT = /eyJ[A-Za-z0-9_-]*(\.[A-Za-z0-9_-]*){0,4}/g
const PEM = /-----BEGIN[\s\S]*?(-----END[^-]*-----|$)/g
const CONTROL = /[\u0000-\u001f\u007f-\u009f\u200b-\u200f\u2028-\u202e\u2066-\u2069]+/g
const SHOWN = '[redacted]'

/** `text` without secrets and control characters, and bounded. `secrets` are those that were sent. */
export function redact(text: string, secrets: readonly string[] = []): string {
  let clean = text
  for (const secret of secrets) {
    for (const form of [secret, encodeURIComponent(secret)]) if (form !== '') clean = clean.replaceAll(form, SHOWN)
  }
  clean = clean.replace(PEM, SHOWN).replace(JWT, SHOWN).replace(CONTROL, ' ')
  return clean.length > TEXT_MAX ? `${clean.slice(0, TEXT_MAX)}…` : clean
}
