// Resources and patterns of them (docs/decisions.md, "Resources"): the one glob grammar.

/** Longest resource or pattern, in characters. */
const RESOURCE_MAX = 256
const KIND = /^[a-z][-a-z0-9]*(\.[-a-z0-9]+)*$/
const SEGMENT = /^[-A-Za-z0-9._~@%+=,:*]+$/

/** The segments of a pattern behind its type, or `undefined` if it is none. */
function parse(pattern: string): { kind: string; segments: string[] } | undefined {
  const colon = pattern.indexOf(':')
  const [kind, segments] = [pattern.slice(0, Math.max(0, colon)), pattern.slice(colon + 1).split('/')]
  if (colon < 0 || pattern.length > RESOURCE_MAX || !KIND.test(kind)) return undefined
  const isSegment = (segment: string, at: number) =>
    SEGMENT.test(segment) &&
    segment !== '.' &&
    segment !== '..' &&
    (!segment.includes('**') || (segment === '**' && at === segments.length - 1))
  return segments.every(isSegment) ? { kind, segments } : undefined
}

/** Whether a text is a resource: `type:segment/segment`, without wildcards. */
export function isResource(text: string): boolean {
  return parse(text) !== undefined && !text.includes('*')
}

/**
 * Whether `resource` is one of those for which `pattern` stands, compared from end to end: `*` is any number of characters of one segment,
 * `**`, as the last segment, one or more segments. What is no pattern, or no resource, matches nothing.
 */
export function matches(pattern: string, resource: string): boolean {
  const [wanted, given] = [parse(pattern), parse(resource)]
  if (!wanted || !given || !isResource(resource) || wanted.kind !== given.kind) return false
  for (let at = 0; ; at += 1) {
    const [part, segment] = [wanted.segments[at], given.segments[at]]
    if (part === undefined || segment === undefined) return part === segment
    if (part === '**') return true
    if (!segmentMatches(part, segment)) return false
  }
}

/** It goes back to the last `*` only, so that no pattern takes long. */
function segmentMatches(pattern: string, segment: string): boolean {
  let [p, s] = [0, 0]
  let back: { star: number; taken: number } | undefined
  for (;;) {
    if (p === pattern.length && s === segment.length) return true
    if (pattern[p] === '*') {
      back = { star: p, taken: s }
      p += 1
    } else if (p < pattern.length && s < segment.length && pattern[p] === segment[s]) {
      p += 1
      s += 1
    } else if (back && back.taken < segment.length) {
      back.taken += 1
      p = back.star + 1
      s = back.taken
    } else {
      return false
    }
  }
}
