// Server-Sent Events (WHATWG HTML, "Server-sent events") as far as the feed has them.

/** One event. */
export interface ServerEvent {
  event: string
  data: string
}

/** Longest event that is taken, in characters: a state of 10,000 agents has about one million. */
const EVENT_MAX = 64 * 1024 * 1024

/** Takes a stream apart. An event that is cut off is none. */
export async function* eventsOf(chunks: AsyncIterable<string>): AsyncGenerator<ServerEvent> {
  let pending = ''
  for await (const chunk of chunks) {
    pending += chunk.replaceAll('\r', '')
    if (pending.length > EVENT_MAX) throw new RangeError('an event is too long')
    const blocks = pending.split('\n\n')
    pending = blocks.pop() ?? ''
    for (const block of blocks) {
      const event = parse(block)
      if (event) yield event
    }
  }
}

function parse(block: string): ServerEvent | undefined {
  let event = 'message'
  const data: string[] = []
  for (const line of block.split('\n')) {
    const [, name, value = ''] = /^([^:]*)(?:: ?(.*))?$/.exec(line) ?? []
    if (name === 'event') event = value
    else if (name === 'data') data.push(value)
  }
  return data.length === 0 ? undefined : { event, data: data.join('\n') }
}
