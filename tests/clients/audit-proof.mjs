// Checks that a record is in a ledger, with nothing of ours: a proof (https://c2sp.org/tlog-proof), the checkpoint in it
// (https://c2sp.org/tlog-checkpoint), and the verifier key (https://c2sp.org/signed-note) of who signed that.

import { createHash, createPublicKey, verify } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { check, main, setting } from './common.mjs'

const SIGNATURE = '\u2014 '
const ED25519 = 1

function sha256(...parts) {
  const hash = createHash('sha256')
  for (const part of parts) hash.update(part)
  return hash.digest()
}

/** The signed text of a note. */
function open(note, vkey) {
  const [name, id, encoded] = vkey.split(/\+(.*?)\+(.*)/s)
  const key = Buffer.from(encoded, 'base64')
  check(key[0] === ED25519 && key.length === 33, 'the key is one of Ed25519')
  const keyId = sha256(name, '\n', key).subarray(0, 4)
  check(keyId.toString('hex') === id, 'the key has the hash that its text says')
  const blank = note.lastIndexOf('\n\n')
  const text = note.slice(0, blank + 1)
  const signatures = note.slice(blank + 2).split('\n').filter((line) => line.startsWith(`${SIGNATURE}${name} `))
  const bytes = signatures.map((line) => Buffer.from(line.slice(SIGNATURE.length + name.length + 1), 'base64'))
  const signature = bytes.find((bytes) => bytes.subarray(0, 4).equals(keyId))
  check(signature, 'the note is signed with that key')
  const x = key.subarray(1).toString('base64url')
  const publicKey = createPublicKey({ key: { kty: 'OKP', crv: 'Ed25519', x }, format: 'jwk' })
  check(verify(null, Buffer.from(text), publicKey, signature.subarray(4)), 'the signature holds')
  return text
}

/** The root to which a record and the hashes beside its way up lead (RFC 9162 section 2.1.3.2). */
function rootOf(record, index, size, hashes) {
  let node = sha256(Buffer.from([0]), record)
  let [place, last] = [index, size - 1]
  for (const sibling of hashes) {
    check(last > 0, 'there are no more hashes than the tree is deep')
    if (place % 2 === 1 || place === last) {
      node = sha256(Buffer.from([1]), sibling, node)
      while (place % 2 === 0 && place !== 0) [place, last] = [Math.floor(place / 2), Math.floor(last / 2)]
    } else {
      node = sha256(Buffer.from([1]), node, sibling)
    }
    ;[place, last] = [Math.floor(place / 2), Math.floor(last / 2)]
  }
  check(last === 0, 'there are as many hashes as the tree is deep')
  return node
}

await main(() => {
  const proof = readFileSync(setting('PROOF_FILE'), 'utf8')
  const blank = proof.indexOf('\n\n')
  const [header, extra, place, ...hashes] = proof.slice(0, blank).split('\n')
  check(header === 'c2sp.org/tlog-proof@v1', 'it is a proof')
  const record = Buffer.from(extra.replace(/^extra /, ''), 'base64')
  const index = Number(place.replace(/^index /, ''))
  const [origin, sizeText, root] = open(proof.slice(blank + 2), setting('VKEY')).split('\n')
  const size = Number(sizeText)
  check(index < size, 'the checkpoint covers the record')
  const found = rootOf(record, index, size, hashes.map((hash) => Buffer.from(hash, 'base64')))
  check(found.equals(Buffer.from(root, 'base64')), 'the record leads to the signed root')
  return { origin, index, size, record: JSON.parse(record) }
})
