// An agent that uses the tools of an MCP server. It gets its tokens by the SDK, and has a person approve what needs that.
//
//   client.mjs URL
import { Client, parseChallenge } from '@countersign/sdk'
import { Client as McpClient } from '@modelcontextprotocol/sdk/client/index.js'
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js'

const url = process.argv[2]

/** The server did not take a request: its status, and what it says is missing. */
class Refused extends Error {
  constructor(response) {
    super(`${response.status}`)
    this.status = response.status
    this.asks = parseChallenge(response.headers.get('www-authenticate') ?? '')?.parameters ?? {}
  }
}

async function look(...request) {
  const response = await fetch(...request)
  if (response.status === 401 || response.status === 403) throw new Refused(response)
  return response
}

/** What a call throws if the server refuses it. */
async function refusal(calling) {
  const refused = await calling.then(
    () => undefined,
    (error) => error,
  )
  if (!(refused instanceof Refused)) throw refused ?? new Error('it was not refused')
  return refused
}

/** Whoever comes without a token is told where the metadata of the server is, and there who issues tokens for it (RFC 9728). */
async function discover() {
  const no = await refusal(look(url, { method: 'POST' }))
  const metadata = await (await fetch(no.asks.resource_metadata)).json()
  console.log(no.status, 'resource:', metadata.resource, 'issuer:', metadata.authorization_servers[0])
  return metadata
}

/** Calls one tool, with this token in each request. */
async function call(token, tool, args) {
  const mcp = new McpClient({ name: 'clerk', version: '1' })
  try {
    await mcp.connect(new StreamableHTTPClientTransport(new URL(url), { fetch: look, requestInit: { headers: token.headers() } }))
    const { content } = await mcp.callTool({ name: tool, arguments: args })
    return content.map((part) => part.text).join(' ')
  } finally {
    await mcp.close()
  }
}

const client = new Client() // who this agent is, it finds in its pod
try {
  // 1. Who issues tokens for this server. It has to be whom this agent trusts: it shows its credential to nobody else.
  const metadata = await discover()
  if (metadata.resource !== url || metadata.authorization_servers[0] !== process.env.COUNTERSIGN_URL) {
    throw new Error('this server is not what it says, or takes tokens of somebody else')
  }

  // 2. A token for this server, with all that the agent may do without asking.
  const token = await client.token({ audience: url })
  console.log('read:', await call(token, 'read_invoice', { number: 'INV-7' }))

  // 3. A tool whose capability the agent was not granted, and an invoice that is not for it.
  for (const [tool, number] of [
    ['delete_invoice', 'INV-7'],
    ['read_invoice', 'SALARY-7'],
  ]) {
    const no = await refusal(call(token, tool, { number }))
    console.log(no.status, no.asks.error, tool, number, 'needs', no.asks.scope)
  }

  // 4. A tool that a person must approve: the token is for this call and no other.
  const payment = { number: 'INV-7', amount: 500, currency: 'EUR' }
  const no = await refusal(call(token, 'pay_invoice', payment))
  console.log(no.status, no.asks.error, 'pay_invoice needs', no.asks.scope)
  const parameters = { amount: 500, currency: 'EUR' }
  const operation = { capability: 'payments.authorize', resource: 'invoice:INV-7', parameters, audience: url }
  const approved = await client.requireApproval(operation, { timeout: 120, justification: 'Invoice INV-7 is due today.' })
  const other = await refusal(call(approved, 'pay_invoice', { ...payment, amount: 501 }))
  console.log(other.status, other.asks.error, 'for another amount')
  console.log('pay:', await call(approved, 'pay_invoice', payment))
  console.log('pay again:', await call(approved, 'pay_invoice', payment))
} finally {
  client.close()
}
