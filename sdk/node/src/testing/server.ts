// The HTTP of a fake authority: a real server on the loopback address, that can be down, slow and out of order.

import http from 'node:http'
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { randomUUID } from 'node:crypto'
import { setTimeout as pause } from 'node:timers/promises'
import { parseObject } from '../json.ts'
import { FakeRefusal, refuse } from './refusal.ts'
import type { FakeAnswer, FakeCall } from './state.ts'

/** What was asked, without the credential. */
export interface RecordedRequest {
  method: string
  path: string
  query: Record<string, string>
  /** The parameters of a form, or the members of JSON. */
  body: Record<string, unknown>
  headers: Record<string, string>
}

interface Failure {
  status: number
  times: number
  path: string | undefined
  headers: Record<string, string>
}

/** How requests are answered; `undefined` if the handler answers itself. */
export type FakeHandler = (call: FakeCall, response: ServerResponse) => Promise<FakeAnswer | undefined>

/** Longest body, in bytes. */
const BODY_MAX = 64 * 1024
const SECRET = new Set(['client_assertion', 'client_assertion_type'])

/** A server. */
export class FakeServer {
  readonly requests: RecordedRequest[] = []
  readonly #handler: FakeHandler
  #server: http.Server | undefined
  #port = 0
  #delay = 0
  #failures: Failure[] = []
  #dropped = 0

  constructor(handler: FakeHandler) {
    this.#handler = handler
  }

  get url(): string {
    return `http://127.0.0.1:${this.#port}`
  }

  /** Listens, on the same port as before. */
  async up(): Promise<void> {
    if (this.#server) return
    const server = http.createServer((request, response) => void this.#answer(request, response))
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject)
      server.listen(this.#port, '127.0.0.1', resolve)
    })
    this.#server = server
    this.#port = (server.address() as AddressInfo).port
  }

  /** Refuses connections, and closes those that there are. */
  async down(): Promise<void> {
    const server = this.#server
    this.#server = undefined
    if (!server) return
    const closed = new Promise((resolve) => server.close(resolve))
    server.closeAllConnections()
    await closed
  }

  /** Answers everything so many seconds later. */
  slow(seconds: number): void {
    this.#delay = seconds * 1000
  }

  /** Answers the next requests with a status and nothing else. */
  fail(failure: Failure): void {
    this.#failures.push(failure)
  }

  /** Does what is asked the next times, and closes the connection in the place of an answer. */
  dropAnswers(times: number): void {
    this.#dropped += times
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    try {
      const call = await read(request)
      this.requests.push(recorded(call))
      // Whoever has given up is not waited for when the process ends.
      if (this.#delay > 0) await pause(this.#delay, undefined, { ref: false })
      const failure = this.#failures.find(({ path, times }) => times > 0 && (path === undefined || path === call.path))
      if (failure) {
        failure.times -= 1
        return write(response, {
          status: failure.status,
          headers: failure.headers,
          body: { error: 'temporarily_unavailable', error_description: 'out of order' },
        })
      }
      const answer = await this.#handler(call, response)
      if (!answer) return
      if (this.#dropped > 0) {
        this.#dropped -= 1
        response.destroy()
        return
      }
      write(response, answer)
    } catch (error) {
      if (response.headersSent || response.destroyed) return
      if (!(error instanceof FakeRefusal))
        return write(response, {
          status: 500,
          body: { error: 'server_error', error_description: error instanceof Error ? error.message : 'unknown' },
        })
      const challenge = error.status === 401 ? { 'www-authenticate': 'Bearer realm="countersign"' } : {}
      write(response, {
        status: error.status,
        headers: { ...challenge, ...error.headers },
        body: { error: error.error, error_description: error.message },
      })
    }
  }
}

function write(response: ServerResponse, { status = 200, headers = {}, body }: FakeAnswer): void {
  const type = body === undefined ? {} : { 'content-type': 'application/json' }
  response
    .writeHead(status, { 'x-request-id': randomUUID(), ...type, ...headers })
    .end(body === undefined ? undefined : JSON.stringify(body))
}

async function read(request: IncomingMessage): Promise<FakeCall> {
  let text = ''
  for await (const chunk of request.setEncoding('utf8')) {
    text += chunk as string
    if (text.length > BODY_MAX) throw refuse('invalid_request', 'the body is too long')
  }
  const url = new URL(request.url ?? '/', 'http://127.0.0.1')
  const isJson = request.headers['content-type']?.startsWith('application/json') === true
  const json = isJson ? parseObject(text) : undefined
  if (isJson && !json) throw refuse('invalid_request', 'the body must be one JSON object that can be read in one way only')
  return {
    method: request.method ?? 'GET',
    path: url.pathname,
    query: url.searchParams,
    headers: request.headers,
    form: new URLSearchParams(isJson ? '' : text),
    json,
  }
}

function recorded(call: FakeCall): RecordedRequest {
  const form = Object.fromEntries([...call.form].filter(([name]) => !SECRET.has(name)))
  const headers = Object.entries(call.headers).filter(([name]) => name !== 'authorization')
  const texts = headers.map(([name, value]) => [name, String(value)])
  return {
    method: call.method,
    path: call.path,
    query: Object.fromEntries(call.query),
    body: { ...form, ...call.json },
    headers: Object.fromEntries(texts) as Record<string, string>,
  }
}
