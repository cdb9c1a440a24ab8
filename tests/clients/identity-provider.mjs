// oidc-provider: the identity provider of an organisation, as a server.
//
// Its argument is a directory with tls.crt and tls.key. When it is ready, the file `url` in there has its issuer URL.
// Nobody types a password: whoever `login_hint` names, or else the form, is logged in, and consents.
//
// Beside the applications of organisation.mjs it knows those in the directory's `clients/<client_id>.json`, which may come later: some
// can be told where an application is only when that runs.

import { existsSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:https'
import { join } from 'node:path'
import { exportJWK, generateKeyPair } from 'jose'
import { Provider } from 'oidc-provider'
import MemoryAdapter from 'oidc-provider/lib/adapters/memory_adapter.js'
import { ACCOUNTS, CLIENTS } from './organisation.mjs'

const directory = process.argv[2]
const read = (name) => readFileSync(join(directory, name))

/** A new private key, as the provider wants it. */
async function key(alg) {
  const { privateKey } = await generateKeyPair(alg, { extractable: true })
  return { ...(await exportJWK(privateKey)), alg, use: 'sig', kid: `${alg}-1` }
}

/** The metadata (RFC 7591) of an application that was added. */
function added(id) {
  const path = join(directory, 'clients', `${id}.json`)
  return /^[a-z-]+$/.test(id) && existsSync(path) ? JSON.parse(readFileSync(path, 'utf8')) : undefined
}

/** Everything is kept in memory, but applications. */
class Adapter extends MemoryAdapter {
  find(id) {
    return this.model === 'Client' ? Promise.resolve(added(id)) : super.find(id)
  }
}

const server = createServer({ cert: read('tls.crt'), key: read('tls.key') })
await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve))
const issuer = `https://127.0.0.1:${server.address().port}`

const provider = new Provider(issuer, {
  adapter: Adapter,
  jwks: { keys: [await key('RS256'), await key('ES256')] },
  cookies: { keys: ['of no worth'] },
  clients: Object.entries(CLIENTS).map(([client_id, client]) => ({
    client_id,
    redirect_uris: [client.redirect_uri],
    token_endpoint_auth_method: 'none',
    id_token_signed_response_alg: client.alg ?? 'RS256',
  })),
  findAccount: (_ctx, id) => ACCOUNTS[id] && { accountId: id, claims: () => ({ sub: id, ...ACCOUNTS[id] }) },
  // As most of them do: what a scope stands for is in the ID token, not only at the userinfo endpoint.
  conformIdTokenClaims: false,
  scopes: ['openid', 'email', 'profile', 'groups'],
  claims: {
    openid: ['sub'],
    email: ['email', 'email_verified'],
    profile: ['name', 'preferred_username'],
    groups: ['groups'],
  },
  ttl: { IdToken: (_ctx, _token, client) => CLIENTS[client.clientId]?.seconds ?? 600 },
  features: {
    devInteractions: { enabled: false },
    // Access tokens are JWTs that look as much like ID tokens as they can: for the same audience, with the same claims.
    resourceIndicators: {
      enabled: true,
      defaultResource: () => `${issuer}/resource`,
      useGrantedResource: () => true,
      getResourceServerInfo: (_ctx, _resource, client) => ({
        scope: 'openid email profile groups',
        audience: client.clientId,
        accessTokenFormat: 'jwt',
        jwt: { sign: { alg: 'RS256' } },
      }),
    },
  },
  extraTokenClaims: (_ctx, token) => ACCOUNTS[token.accountId],
  interactions: { url: (_ctx, interaction) => `/interaction/${interaction.uid}` },
})

const FORM = `<!doctype html>
<html lang="en">
<meta name="viewport" content="width=device-width">
<title>Acme</title>
<main>
<h1>Acme</h1>
<form method="post"><label>Account <input name="account" autocomplete="username" required></label> <button>Sign in</button></form>
</main>
</html>`

/** Whom the form names. */
async function account(request) {
  let body = ''
  for await (const chunk of request.setEncoding('utf8')) body += chunk
  return new URLSearchParams(body).get('account')
}

/** What a person would do in a browser. */
async function interact(request, response) {
  const { prompt, params, session } = await provider.interactionDetails(request, response)
  if (prompt.name === 'login') {
    const accountId = params.login_hint ?? (request.method === 'POST' ? await account(request) : undefined)
    if (!accountId) return response.writeHead(200, { 'content-type': 'text/html; charset=utf-8' }).end(FORM)
    return provider.interactionFinished(request, response, { login: { accountId } })
  }
  const grant = new provider.Grant({ accountId: session.accountId, clientId: params.client_id })
  grant.addOIDCScope(params.scope)
  grant.addResourceScope(`${issuer}/resource`, params.scope)
  return provider.interactionFinished(request, response, { consent: { grantId: await grant.save() } })
}

const callback = provider.callback()
server.on('request', (request, response) => {
  if (!request.url.startsWith('/interaction/')) return callback(request, response)
  interact(request, response).catch((error) => {
    console.error(error)
    response.writeHead(500).end()
  })
})

// At once and whole: somebody waits for it.
writeFileSync(join(directory, 'url.new'), issuer)
renameSync(join(directory, 'url.new'), join(directory, 'url'))
