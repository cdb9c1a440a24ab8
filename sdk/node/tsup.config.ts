// The ES modules, and the declarations for both kinds of modules. rollup.config.mjs makes CommonJS of the ES modules.

import { defineConfig } from 'tsup'

const entry = {
  index: 'src/index.ts',
  guard: 'src/guard/index.ts',
  express: 'src/express.ts',
  fastify: 'src/fastify.ts',
  mcp: 'src/mcp.ts',
  langchain: 'src/frameworks/langchain.ts',
  'openai-agents': 'src/frameworks/openai-agents.ts',
  adk: 'src/frameworks/adk.ts',
  testing: 'src/testing/index.ts',
  // For the tests of this package alone; it is not published.
  internal: 'src/internal.ts',
}

const shared = { entry, platform: 'node', target: 'node20', outDir: 'dist' } as const

export default defineConfig([
  // What is shared is there once, so that an error is of its class whichever entry it comes from.
  { ...shared, format: 'esm', splitting: true, removeNodeProtocol: false, outExtension: () => ({ js: '.mjs' }) },
  { ...shared, format: ['esm', 'cjs'], dts: { only: true } },
])
