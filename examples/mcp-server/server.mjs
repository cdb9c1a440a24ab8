// An MCP server with three tools: each needs a capability, and one of them an operation that a person has approved.
//
//   server.mjs URL
import { AlreadyCompleted, Tool, Verifier } from '@countersign/sdk'
import { protectMcp, verifiedOf } from '@countersign/sdk/mcp'
import { McpServer } from '@modelcontextprotocol/sdk/server/mcp.js'
import { StreamableHTTPServerTransport } from '@modelcontextprotocol/sdk/server/streamableHttp.js'
import express from 'express'
import { z } from 'zod'

const resource = process.argv[2] // its own address, which is also the audience of the tokens that it takes
const verifier = new Verifier({ issuer: process.env.COUNTERSIGN_URL, audience: resource })
const text = (line) => ({ content: [{ type: 'text', text: line }] })

function invoices() {
  const server = new McpServer({ name: 'invoices', version: '1' })
  const number = z.string()
  server.registerTool('read_invoice', { description: 'Reads an invoice.', inputSchema: { number } }, async ({ number }, { authInfo }) =>
    text(`${number}: 500 EUR, read by ${verifiedOf(authInfo).actor}`),
  )
  server.registerTool('delete_invoice', { description: 'Deletes an invoice.', inputSchema: { number } }, async ({ number }) =>
    text(`${number} is gone`),
  )
  const payment = { number, amount: z.number().int(), currency: z.string() }
  server.registerTool('pay_invoice', { description: 'Pays an invoice.', inputSchema: payment }, async (args, { authInfo }) => {
    // The token is for exactly this payment, see below. It is used up before the money moves: whoever sends it again is refused.
    try {
      await verifier.complete(authInfo.token)
    } catch (error) {
      if (error instanceof AlreadyCompleted) return text(`${args.number} was paid before`)
      throw error
    }
    return text(`paid ${args.amount} ${args.currency} for ${args.number}`)
  })
  return server
}

// What each call needs. Whatever is not here nobody may call.
const tools = {
  read_invoice: new Tool('invoice.read', { resource: 'invoice:{number}' }),
  delete_invoice: new Tool('invoice.delete', { resource: 'invoice:{number}' }),
  pay_invoice: new Tool('payments.authorize', { resource: 'invoice:{number}', parameters: ['amount', 'currency'] }),
}

const { pathname, hostname, port } = new URL(resource)
const app = express()
app.use(express.json(), protectMcp({ verifier, tools, scopes: ['invoice.read', 'payments.authorize'] }))
app.post(pathname, async (request, response) => {
  const transport = new StreamableHTTPServerTransport({ sessionIdGenerator: undefined })
  const server = invoices()
  response.on('close', () => server.close())
  await server.connect(transport)
  await transport.handleRequest(request, response, request.body)
})
app.all(pathname, (_, response) => response.status(405).end()) // it sends nothing by itself
app.listen(Number(port), hostname)
