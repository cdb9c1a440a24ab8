// CommonJS for `require`, made of the ES modules that tsup has made.
//
// `require` of an ES module works from Node.js 20.19 and 22.12 on only, and jose is one: it is bundled into this build.

import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

const jose = fileURLToPath(import.meta.resolve('jose'))
const license = readFileSync(new URL('node_modules/jose/LICENSE.md', import.meta.url), 'utf8')
const entries = ['index', 'guard', 'express', 'fastify', 'mcp', 'langchain', 'openai-agents', 'adk', 'testing', 'internal']
const frameworks = ['@modelcontextprotocol/', '@langchain/', '@openai/agents', '@google/adk', 'langchain']

export default {
  input: Object.fromEntries(entries.map((name) => [name, `dist/${name}.mjs`])),
  output: {
    dir: 'dist',
    format: 'cjs',
    exports: 'named',
    entryFileNames: '[name].cjs',
    chunkFileNames: 'shared-[hash].cjs',
    // Whoever passes jose on passes its license on.
    banner: ({ modules }) => (Object.keys(modules).some((name) => name.includes('/node_modules/jose/')) ? `/*!\n${license}*/` : ''),
  },
  external: (name) => name.startsWith('node:') || frameworks.some((framework) => name.startsWith(framework)),
  plugins: [{ name: 'jose', resolveId: (name) => (name === 'jose' ? jose : null) }],
}
