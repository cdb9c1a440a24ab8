// A way to the operator that can be cut.

import { once } from 'node:events'
import { connect, createServer } from 'node:net'

/** Passes bytes on to a URL: `url` takes its place, and after `cut` nobody gets through, also not whoever was through. */
export async function proxyTo(url) {
  const upstream = new URL(url)
  const sockets = new Set()
  const server = createServer((client) => {
    const both = [client, connect(Number(upstream.port || 443), upstream.hostname)]
    for (const [at, socket] of both.entries()) {
      sockets.add(socket)
      // An end that breaks breaks the other: each sees what it would see without anything between.
      socket.on('error', () => socket.destroy()).on('close', () => { sockets.delete(socket); both[1 - at].destroy() })
      socket.pipe(both[1 - at])
    }
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const here = new URL(url)
  here.port = String(server.address().port)
  return {
    url: here.href.replace(/\/$/, ''),
    async cut() {
      if (!server.listening) return
      const closed = once(server, 'close')
      server.close()
      for (const socket of sockets) socket.destroy()
      await closed
    },
  }
}
