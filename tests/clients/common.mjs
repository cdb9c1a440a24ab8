// What the scripts share: their settings, the credential as a client assertion, and how they end.

import { readFileSync } from 'node:fs'

const ASSERTION_TYPE = 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer'

/** The value of an environment variable that must be set. */
export function setting(name) {
  const value = process.env[name]
  if (!value) throw new Error(`${name} is not set`)
  return value
}

/** The token in the file that an environment variable names. */
export function tokenIn(name) {
  return readFileSync(setting(name), 'utf8').trim()
}

/**
 * Client authentication with a token that somebody else has signed. Both libraries take a function for this;
 * it has to set no client_id, because the token says whose it is.
 */
export function assertion(token) {
  return (_server, _client, body) => {
    body.set('client_assertion_type', ASSERTION_TYPE)
    body.set('client_assertion', token)
  }
}

export function check(holds, what) {
  if (!holds) throw new Error(`not as expected: ${what}`)
}

/** The error that `attempt` ends with. */
export async function failure(attempt, what) {
  try {
    await attempt()
  } catch (error) {
    return error
  }
  throw new Error(`not refused: ${what}`)
}

/** Runs a script: one JSON line and status 0, or why not and status 1. */
export async function main(script) {
  try {
    console.log(JSON.stringify(await script()))
  } catch (error) {
    console.error(error)
    process.exitCode = 1
  }
}
