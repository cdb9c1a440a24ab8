// Held against the types of the frameworks themselves; it is never run.

import express from 'express'
import Fastify from 'fastify'
import type { FastifyInstance, FastifyRequest } from 'fastify'
import { requireBearerAuth } from '@modelcontextprotocol/sdk/server/auth/middleware/bearerAuth.js'
import type { Verifier } from '@countersign/sdk'
import { protect, requireCapability } from '@countersign/sdk/express'
import { countersign, requireCapability as requireInFastify } from '@countersign/sdk/fastify'
import { protectMcp, tokenVerifier } from '@countersign/sdk/mcp'

export async function compiles(verifier: Verifier): Promise<FastifyInstance> {
  const app = express()
  app.use(protect({ verifier, scopes: ['document.read'] }))
  app.get(
    '/documents/:id',
    requireCapability('document.read', (request: express.Request) => ({ resource: `document:${request.params.id}` })),
  )
  app.use('/mcp', express.json(), protectMcp({ verifier }), requireBearerAuth({ verifier: tokenVerifier(verifier) }))
  const fastify = Fastify()
  await fastify.register(countersign, { verifier })
  fastify.get('/', { preHandler: requireInFastify('document.read') }, () => 'there')
  const named = requireInFastify('document.read', (request: FastifyRequest<{ Params: { id: string } }>) => ({
    resource: `document:${request.params.id}`,
  }))
  fastify.get('/:id', { preHandler: named }, (request) => String(request.url))
  return fastify
}
