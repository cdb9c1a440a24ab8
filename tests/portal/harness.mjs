// The harness itself: it sees what must not happen, on pages of a server of its own.

import { readFileSync } from 'node:fs'
import { createServer } from 'node:https'
import { join } from 'node:path'
import { overflow, violations } from './looks.mjs'
import { scenes } from './scenes.mjs'
import { check, same, until } from './steps.mjs'

const CSP = "default-src 'none'; script-src 'self'; style-src 'self'; form-action 'self'"

const PAGES = {
  '/good': '<!doctype html><html lang="en"><title>Good</title><main><h1>Good</h1><p>All is well.</p></main></html>',
  '/dialog': '<!doctype html><title>Dialog</title><script src="/dialog.js"></script>',
  '/dialog.js': 'alert("hello")',
  '/inline': '<!doctype html><title>Inline</title><script>document.title = "ran"</script>',
  '/foreign': '<!doctype html><title>Foreign</title><script src="/foreign.js"></script>',
  '/foreign.js': 'location = "https://127.0.0.1:1/elsewhere"',
  '/error': '<!doctype html><title>Error</title><script src="/error.js"></script>',
  '/error.js': 'nothing.here()',
  '/wide': '<!doctype html><html lang="en"><title>Wide</title><main><h1>Wide</h1><table><tr><td>' + 'wide'.repeat(99),
  '/unnamed': '<!doctype html><html lang="en"><title>Unnamed</title><main><h1>A form</h1><input></main></html>',
}

/** A server with the certificate in this directory. */
async function serve(directory) {
  const [cert, key] = ['tls.crt', 'tls.key'].map((name) => readFileSync(join(directory, name)))
  const server = createServer({ cert, key }, (request, response) => {
    const type = request.url.endsWith('.js') ? 'text/javascript' : 'text/html; charset=utf-8'
    const page = PAGES[request.url]
    response.writeHead(page ? 200 : 404, { 'content-type': type, 'content-security-policy': CSP }).end(page)
  })
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve))
  return `https://127.0.0.1:${server.address().port}`
}

await scenes({
  'what must not happen is found': async ({ settings, findings, person }) => {
    const page = await person({ viewport: { width: 390, height: 844 } })
    const origin = (findings.portal = await serve(settings.certificate))
    findings.allow(origin)
    await page.goto(`${origin}/good`)
    same([findings.take(), await overflow(page), await violations(page)], [[], 0, []], 'nothing is wrong with it')
    for (const [path, complaint] of [
      ['dialog', 'a dialog: hello'],
      ['inline', 'Content Security Policy'],
      ['foreign', 'a request to https://127.0.0.1:1/elsewhere'],
      ['error', 'a script failed: ReferenceError'],
      ['missing', 'status of 404'],
    ]) {
      await page.goto(`${origin}/${path}`).catch(() => {})
      let found = []
      await until(`${path} is found`, () => (found = found.concat(findings.take())).length > 0)
      check(found.some((line) => line.includes(complaint)), `${path}: ${found}`)
    }
    await page.goto(`${origin}/wide`)
    check((await overflow(page)) > 100, 'too wide for a phone')
    await page.goto(`${origin}/unnamed`)
    const [unnamed] = await violations(page)
    check(unnamed?.startsWith('critical: label'), `an input without a name: ${unnamed}`)
    findings.take()
  },

  'a server of another authority is not trusted': async ({ settings, findings, person }) => {
    const page = await person()
    const origin = await serve(settings.certificate)
    findings.allow(origin)
    const refused = await page.goto(origin).then(() => undefined, (error) => error.message)
    check(refused?.includes('ERR_CERT_AUTHORITY_INVALID'), `it is refused: ${refused}`)
  },
})
