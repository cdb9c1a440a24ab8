// Two builds of one source: ESM, and CommonJS for `require`.

import { defineConfig } from 'tsup'

const entry = {
  index: 'src/index.ts',
  guard: 'src/guard/index.ts',
  express: 'src/express.ts',
  fastify: 'src/fastify.ts',
  mcp: 'src/mcp.ts',
  testing: 'src/testing/index.ts',
  // For the tests of this package alone; it is not published.
  internal: 'src/internal.ts',
}

const shared = { entry, platform: 'node', target: 'node20', outDir: 'dist' } as const

export default defineConfig([
  ...(['esm', 'cjs'] as const).map((format) => ({
    ...shared,
    format,
    outExtension: () => ({ js: format === 'esm' ? '.mjs' : '.cjs' }),
    // What is shared is there once, so that an error is of its class whichever entry it comes from.
    splitting: true,
    // `require` of an ES module works from Node.js 20.19 and 22.12 on only, and jose is one: it is bundled into the CommonJS build.
    noExternal: format === 'cjs' ? ['jose'] : [],
  })),
  { ...shared, format: ['esm', 'cjs'], dts: { only: true } },
])
