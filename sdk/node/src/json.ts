// JSON that means one thing: canonical writing (RFC 8785), and reading that refuses a member which is there twice.

import { ConfigurationError } from './errors.ts'

/** A value of JSON. */
export type Json = null | boolean | number | string | Json[] | { [name: string]: Json }
/** An object of JSON. */
export type JsonObject = { [name: string]: Json }

/** Deepest nesting that is read or written: more is an attack on the stack. */
const DEPTH_MAX = 64
const LONE_SURROGATE = /[\uD800-\uDBFF](?![\uDC00-\uDFFF])|(?<![\uD800-\uDBFF])[\uDC00-\uDFFF]/

/** Whether `value` is an object of JSON, and no list. */
export function isObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/**
 * The one text for a value (RFC 8785): members in the order of their UTF-16 code units, numbers as ECMAScript writes them.
 *
 * @throws ConfigurationError if the value is none of JSON: `undefined`, a number that is not finite, a lone surrogate, an object of a class.
 */
export function canonicalJson(value: unknown): string {
  return write(value, 0)
}

function write(value: unknown, depth: number): string {
  if (depth > DEPTH_MAX) throw notJson(`nests deeper than ${DEPTH_MAX} levels`)
  if (value === null || typeof value === 'boolean') return String(value)
  if (typeof value === 'string') return writeText(value)
  if (typeof value === 'number') {
    if (!Number.isFinite(value)) throw notJson('has a number that is not finite')
    return JSON.stringify(value)
  }
  if (Array.isArray(value)) return `[${Array.from(value, (item) => write(item, depth + 1)).join(',')}]`
  if (isPlain(value)) {
    const member = (name: string) => `${writeText(name)}:${write(value[name], depth + 1)}`
    // The order of `sort` without a function is that of UTF-16 code units, as RFC 8785 section 3.2.3 wants it.
    return `{${Object.keys(value).sort().map(member).join(',')}}`
  }
  throw notJson(`has a value of type ${typeof value}`)
}

function writeText(text: string): string {
  if (LONE_SURROGATE.test(text)) throw notJson('has a text with half a character')
  return JSON.stringify(text)
}

function isPlain(value: unknown): value is Record<string, unknown> {
  if (typeof value !== 'object' || value === null) return false
  const prototype: unknown = Object.getPrototypeOf(value)
  return prototype === Object.prototype || prototype === null
}

function notJson(what: string): ConfigurationError {
  return new ConfigurationError({
    code: 'not_json',
    message: `what should be JSON ${what}`,
    advice: 'Use texts, numbers, lists and plain objects.',
  })
}

/**
 * Reads one JSON object that can be read in one way only. `undefined` if it is none: no JSON, another type, too deep, or with a member twice,
 * of which one reader takes the first and another the last.
 */
export function parseObject(text: string): JsonObject | undefined {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    return undefined
  }
  return isObject(value) && readsOneWay(text) ? value : undefined
}

/** Whether no object in `text`, which is JSON, has a member twice. */
function readsOneWay(text: string): boolean {
  // For each open bracket the names so far; of a list there are none.
  const open: (Set<string> | undefined)[] = []
  let isName = false
  let at = 0
  while (at < text.length) {
    const character = text[at]
    const names = open.at(-1)
    if (character === '"') {
      const end = endOfText(text, at)
      if (isName && names) {
        const name = JSON.parse(text.slice(at, end)) as string
        if (names.has(name)) return false
        names.add(name)
      }
      isName = false
      at = end
      continue
    }
    if (character === '{') open.push(new Set())
    else if (character === '[') open.push(undefined)
    else if (character === '}' || character === ']') open.pop()
    if (character === '{' || character === ',') isName = true
    if (open.length > DEPTH_MAX) return false
    at += 1
  }
  return true
}

/** Where the text that begins at `at` ends: behind its closing quote. */
function endOfText(text: string, at: number): number {
  let end = at + 1
  while (text[end] !== '"') end += text[end] === '\\' ? 2 : 1
  return end + 1
}
