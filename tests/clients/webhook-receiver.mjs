// A receiver of webhooks that believes nothing: each message is verified by the official library of Standard Webhooks, and read by the SDK
// of CloudEvents.
//
// Its argument is a directory with tls.crt and tls.key. When it is ready, the file `url` in there has its address, `secrets/hmac` and
// `secrets/ed25519` what a sender signs with, and `received.jsonl` grows by one line for each request.
//
// `/slack` stands in for the Web API of Slack, which cannot be had in a test: it checks what Slack's documentation says of a call, and
// answers as that says.

import { appendFileSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { generateKeyPairSync, randomBytes, verify } from 'node:crypto'
import { createServer } from 'node:https'
import { join } from 'node:path'
import { HTTP } from 'cloudevents'
import { Webhook } from 'standardwebhooks'

const directory = process.argv[2]
const read = (name) => readFileSync(join(directory, name))

mkdirSync(join(directory, 'secrets'), { recursive: true })
const secret = `whsec_${randomBytes(32).toString('base64')}`
const { publicKey, privateKey } = generateKeyPairSync('ed25519')
const seed = privateKey.export({ format: 'jwk' }).d
writeFileSync(join(directory, 'secrets/hmac'), secret)
writeFileSync(join(directory, 'secrets/ed25519'), `whsk_${Buffer.from(seed, 'base64url').toString('base64')}`)
writeFileSync(join(directory, 'secrets/slack'), 'xoxb-of-the-tests')

/** What is wrong with a message, if anything. */
function wrong(headers, body) {
  try {
    new Webhook(secret).verify(body, headers)
  } catch (error) {
    return `the library refuses it: ${error.message}`
  }
  const ours = headers['webhook-signature'].split(' ').filter((signature) => signature.startsWith('v1a,'))
  const text = Buffer.from(`${headers['webhook-id']}.${headers['webhook-timestamp']}.${body}`)
  if (ours.length !== 1 || !verify(null, text, publicKey, Buffer.from(ours[0].slice(4), 'base64'))) {
    return 'the Ed25519 signature is not that of the key'
  }
  try {
    const event = HTTP.toEvent({ headers, body })
    event.validate()
    if (event.id !== headers['webhook-id']) return 'the identifiers differ'
  } catch (error) {
    return `it is no CloudEvent: ${error.message}`
  }
  return undefined
}

const failed = new Set()
let messages = 0

/** Slack, as far as it is documented. */
function slack(request, body, response) {
  const reply = (value) => response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(value))
  if (request.headers.authorization !== 'Bearer xoxb-of-the-tests') return reply({ ok: false, error: 'invalid_auth' })
  if (!request.headers['content-type']?.startsWith('application/json')) return reply({ ok: false, error: 'invalid_arguments' })
  const call = JSON.parse(body)
  const blocks = call.blocks ?? []
  const texts = JSON.stringify(blocks).match(/"type":"mrkdwn"/)
  if (!call.channel || !call.text || blocks.length === 0 || blocks.length > 50 || texts) return reply({ ok: false, error: 'invalid_blocks' })
  if (request.url.endsWith('/chat.update')) return reply(call.ts ? { ok: true, channel: call.channel, ts: call.ts } : { ok: false, error: 'message_not_found' })
  messages += 1
  return reply({ ok: true, channel: call.channel, ts: `1700000000.${String(messages).padStart(6, '0')}` })
}

function answer(request, body, response) {
  const id = request.headers['webhook-id']
  switch (request.url.split('/')[1]) {
    case 'hang':
      return
    case 'redirect':
      return response.writeHead(307, { location: '/verified' }).end()
    case 'gone':
      return response.writeHead(410).end()
    case 'flaky':
      if (!failed.has(id)) {
        failed.add(id)
        return response.writeHead(503, { 'retry-after': '1' }).end('later')
      }
      return response.writeHead(204).end()
    case 'slow':
      return setTimeout(() => response.writeHead(204).end(), 2000)
    case 'endless': {
      // Success, and then more than anybody wants to read.
      response.writeHead(200, { 'content-encoding': 'gzip' })
      const more = () => { while (response.write(Buffer.alloc(1 << 16, 120))); }
      response.on('drain', more)
      return more()
    }
    case 'slack':
      return slack(request, body, response)
    default:
      return response.writeHead(204).end()
  }
}

const server = createServer({ cert: read('tls.crt'), key: read('tls.key') }, (request, response) => {
  const chunks = []
  request.on('data', (chunk) => chunks.push(chunk))
  request.on('end', () => {
    const body = Buffer.concat(chunks).toString()
    const isSlack = request.url.startsWith('/slack')
    const line = {
      at: Date.now(),
      method: request.method,
      path: request.url,
      id: request.headers['webhook-id'],
      wrong: isSlack ? undefined : wrong(request.headers, body),
      body: JSON.parse(body),
    }
    appendFileSync(join(directory, 'received.jsonl'), `${JSON.stringify(line)}\n`)
    answer(request, body, response)
  })
})
await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve))
writeFileSync(join(directory, 'url.new'), `https://127.0.0.1:${server.address().port}`)
renameSync(join(directory, 'url.new'), join(directory, 'url'))
