// The one place that opens connections. It follows no redirect and no proxy, reads no more than it was told to, and waits no longer.

import { readFile } from 'node:fs/promises'
import http from 'node:http'
import https from 'node:https'
import tls from 'node:tls'
import { isLoopback } from './address.ts'
import { CredentialInvalid, ConfigurationError } from './errors.ts'

/** One request. */
export interface HttpRequest {
  method: 'GET' | 'POST' | 'PUT' | 'DELETE'
  url: string
  headers?: Record<string, string>
  body?: string
  /** How long all of it may take, in milliseconds. */
  within: number
  /** Ends the request. */
  signal?: AbortSignal | undefined
  /** A file with certificates, PEM, that are trusted beside the usual ones for this request. */
  caFile?: string | undefined
  /** Whether a connection of its own is made, so that an error says whether the request can have arrived. */
  fresh?: boolean
  /** Whether it goes to the metadata service of a cloud, which has no TLS. */
  metadata?: boolean
}

/** An answer whose body was read. */
export interface HttpAnswer {
  status: number
  /** Names in lower case; of a header that is there twice, the values with a comma between. */
  headers: Record<string, string>
  body: string
  /** The secrets that were sent: an answer may repeat them, and no error must. */
  secrets?: readonly string[]
}

/** An answer whose body is read as it comes. */
export interface HttpStream {
  status: number
  headers: Record<string, string>
  chunks: AsyncIterable<string>
  close(): void
}

/** How requests are sent. There is one, {@link NodeTransport}; tests put another in its place. */
export interface Transport {
  /** Sends a request and reads its answer, at most 1 MiB of it. @throws TransportFailure */
  send(request: HttpRequest): Promise<HttpAnswer>
  /** Sends a request; `within` is for the head of the answer alone. @throws TransportFailure */
  open(request: HttpRequest): Promise<HttpStream>
  /** Closes the connections that are kept. */
  close(): void
}

/** Why there is no answer. It never leaves this package: whoever calls gets an error of the tree. */
export class TransportFailure extends Error {
  /** `timeout`: the time is over. `unsent`: it has certainly not arrived. `lost`: it may have arrived. */
  readonly kind: 'timeout' | 'unsent' | 'lost'

  constructor(kind: 'timeout' | 'unsent' | 'lost', message: string) {
    super(message)
    this.name = 'TransportFailure'
    this.kind = kind
  }
}

/** Longest answer that is read, in bytes. */
const ANSWER_MAX = 1024 * 1024
/** How long a connection that is not used stays open, in milliseconds. */
const IDLE = 30_000
const METADATA_HOSTS = new Set(['169.254.169.254', '169.254.170.2', '[fd00:ec2::254]', 'metadata.google.internal'])

/** Requests by `node:http` and `node:https`, because `fetch` knows no certificates per request. */
export class NodeTransport implements Transport {
  readonly #plain = new http.Agent({ keepAlive: true, timeout: IDLE, maxSockets: 64 })
  /** Connections by the certificates that they trust. */
  readonly #secure = new Map<string, https.Agent>()

  async send(request: HttpRequest): Promise<HttpAnswer> {
    const started = performance.now()
    const stream = await this.open(request)
    const left = Math.max(1, request.within - (performance.now() - started))
    let isLate = false
    const timer = setTimeout(() => {
      isLate = true
      stream.close()
    }, left)
    try {
      let body = ''
      for await (const chunk of stream.chunks) {
        body += chunk
        if (body.length > ANSWER_MAX) throw new TransportFailure('lost', `the answer is longer than ${ANSWER_MAX} bytes`)
      }
      if (isLate) throw new TransportFailure('timeout', 'the answer takes too long')
      return { status: stream.status, headers: stream.headers, body }
    } catch (error) {
      if (isLate) throw new TransportFailure('timeout', 'the answer takes too long')
      throw error
    } finally {
      clearTimeout(timer)
      stream.close()
    }
  }

  async open(request: HttpRequest): Promise<HttpStream> {
    const url = allowed(request)
    const agent = await this.#agent(url, request)
    const options = { method: request.method, agent, headers: headersOf(request) }
    const client = url.protocol === 'https:' ? https.request(url, options) : http.request(url, options)
    const response = await answered(client, request)
    response.setEncoding('utf8')
    const close = () => {
      request.signal?.removeEventListener('abort', close)
      // What was read to its end keeps its connection for the next request.
      if (!response.complete) client.destroy()
    }
    request.signal?.addEventListener('abort', close, { once: true })
    return { status: response.statusCode ?? 0, headers: flat(response.headers), chunks: chunksOf(response), close }
  }

  close(): void {
    this.#plain.destroy()
    for (const agent of this.#secure.values()) agent.destroy()
    this.#secure.clear()
  }

  async #agent(url: URL, request: HttpRequest): Promise<http.Agent | https.Agent | false> {
    if (url.protocol === 'http:') return request.fresh ? false : this.#plain
    const extra = request.caFile === undefined ? '' : await certificates(request.caFile)
    if (request.fresh) return new https.Agent({ keepAlive: false, ...trust(extra) })
    let agent = this.#secure.get(extra)
    if (!agent) {
      agent = new https.Agent({ keepAlive: true, timeout: IDLE, maxSockets: 64, ...trust(extra) })
      // The file was replaced: nobody asks by the old one any more.
      if (this.#secure.size >= 4) this.close()
      this.#secure.set(extra, agent)
    }
    return agent
  }
}

function allowed(request: HttpRequest): URL {
  const url = new URL(request.url)
  const isPlain = isLoopback(url.hostname) || (request.metadata === true && METADATA_HOSTS.has(url.hostname))
  if (url.protocol === 'https:' || (url.protocol === 'http:' && isPlain)) return url
  throw new ConfigurationError({
    code: 'url_invalid',
    message: `${url.protocol}//${url.host} is neither https nor on the loopback address`,
  })
}

function headersOf(request: HttpRequest): Record<string, string> {
  const headers: Record<string, string> = { accept: 'application/json', 'user-agent': 'countersign-sdk-node', ...request.headers }
  if (request.body !== undefined) headers['content-length'] = String(Buffer.byteLength(request.body))
  if (request.method !== 'GET' && request.body === undefined) headers['content-length'] = '0'
  return headers
}

/** Sends the body, and waits for the head of the answer. */
function answered(client: http.ClientRequest, request: HttpRequest): Promise<http.IncomingMessage> {
  return new Promise((resolve, reject) => {
    let isConnected = false
    const end = (failure: TransportFailure) => {
      settle()
      client.destroy()
      reject(failure)
    }
    const late = () =>
      end(
        isConnected
          ? new TransportFailure('timeout', 'the answer takes too long')
          : new TransportFailure('unsent', 'connecting takes too long'),
      )
    const timer = setTimeout(late, request.within)
    const abort = () => end(new TransportFailure('lost', 'the request was given up'))
    const settle = () => {
      clearTimeout(timer)
      request.signal?.removeEventListener('abort', abort)
    }
    client.on('socket', (socket) => {
      if (client.reusedSocket) isConnected = true
      else socket.once(socket instanceof tls.TLSSocket ? 'secureConnect' : 'connect', () => (isConnected = true))
    })
    // Also after the answer began: an error without a listener would end the process.
    client.on('error', (error) => end(new TransportFailure(isConnected ? 'lost' : 'unsent', reason(error))))
    client.once('response', (response) => {
      settle()
      resolve(response)
    })
    if (request.signal?.aborted) return abort()
    request.signal?.addEventListener('abort', abort, { once: true })
    client.end(request.body)
  })
}

async function* chunksOf(response: http.IncomingMessage): AsyncGenerator<string> {
  try {
    for await (const chunk of response) yield chunk as string
  } catch (error) {
    throw new TransportFailure('lost', reason(error))
  }
  if (!response.complete) throw new TransportFailure('lost', 'the connection was closed in the middle of the answer')
}

/** What went wrong, by the name that the system gives it: messages of others might repeat what was sent. */
function reason(error: unknown): string {
  const code = typeof error === 'object' && error !== null && 'code' in error ? String(error.code) : 'no connection'
  return `the connection failed: ${code}`
}

function flat(headers: http.IncomingHttpHeaders): Record<string, string> {
  const entries = Object.entries(headers).map(([name, value]) => [name, Array.isArray(value) ? value.join(', ') : (value ?? '')])
  return Object.fromEntries(entries) as Record<string, string>
}

async function certificates(file: string): Promise<string> {
  const refuse = (why: string) =>
    new CredentialInvalid({
      code: 'ca_invalid',
      message: `the certificates in ${file} ${why}`,
      advice: 'COUNTERSIGN_CA names a file with certificates, PEM.',
    })
  let text: string
  try {
    text = await readFile(file, 'utf8')
  } catch {
    throw refuse('cannot be read')
  }
  if (!text.includes('-----BEGIN CERTIFICATE-----')) throw refuse('are none')
  return text
}

/** The certificates that are trusted: what this process trusts anyway, and these. */
function trust(extra: string): { ca?: string[] } {
  if (extra === '') return {}
  // From Node.js 22.15 on there is a list with NODE_EXTRA_CA_CERTS in it.
  const list = (tls as { getCACertificates?: (type: 'default') => string[] }).getCACertificates
  return { ca: [...(list ? list('default') : tls.rootCertificates), extra] }
}
