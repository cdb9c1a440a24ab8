// jose: a client assertion is verified with the agent's public key alone.

import { readFileSync } from 'node:fs'
import { importSPKI, jwtVerify } from 'jose'
import { main, setting, tokenIn } from './common.mjs'

await main(async () => {
  const key = await importSPKI(readFileSync(setting('PUBLIC_KEY_FILE'), 'utf8'), 'EdDSA')
  const [issuer, subject, audience] = [setting('AGENT'), setting('AGENT'), setting('AUDIENCE')]
  const rules = { issuer, subject, audience, typ: 'client-authentication+jwt', algorithms: ['EdDSA'], requiredClaims: ['iat', 'exp', 'jti'] }
  const { payload, protectedHeader } = await jwtVerify(tokenIn('ASSERTION_FILE'), key, rules)
  return { payload, protectedHeader }
})
