// The real operator, as the authority that the cells of a framework are run against (sdk/node/test/frameworks/authority.mjs). `run.sh` starts
// it, and says in the environment where it is.

import { execFile } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { proxyTo } from './proxy.mjs'

const { BOB_KUBECONFIG, COUNTERSIGN_CA, COUNTERSIGN_URL, KUBECONFIG } = process.env
if (!BOB_KUBECONFIG || !COUNTERSIGN_URL) throw new Error('there is no operator: run tests/sdk/run.sh')

/** How long something may take that the operator or the API server does in a moment, in milliseconds. */
const PATIENCE = 30_000
const PAY = 'payments.authorize'
const NAME = 'bot'

/** Runs kubectl as the administrator, or as Bob, with objects as its input. */
function kubectl(args, { kubeconfig = KUBECONFIG, objects } = {}) {
  return new Promise((resolve, reject) => {
    const child = execFile('kubectl', [`--kubeconfig=${kubeconfig}`, ...args], { timeout: 60_000, maxBuffer: 16 * 1024 * 1024 }, (error, stdout, stderr) => {
      // Not what it has written to its output: that may be a token.
      if (error) reject(new Error(`kubectl ${args.slice(0, 3).join(' ')}: ${stderr}`))
      else resolve(stdout)
    })
    // If it ends before it has read, it says why.
    child.stdin.on('error', () => {})
    child.stdin.end(objects ? JSON.stringify({ apiVersion: 'v1', kind: 'List', items: objects }) : '')
  })
}

/** The first value of a question that is neither false nor missing. */
async function eventually(asked, what) {
  const until = Date.now() + PATIENCE
  for (;;) {
    const found = await asked()
    if (found) return found
    if (Date.now() > until) throw new Error(`it did not come to that: ${what}`)
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
}

/** An agent with a pod in a namespace of its own, which reaches the operator by a way that can be cut, and Bob, who decides with kubectl. */
export async function authorityOf(t) {
  const namespace = `sdk-node-${randomBytes(4).toString('hex')}`
  t.after(() => kubectl(['delete', 'namespace', namespace, '--wait=false', '--ignore-not-found']))
  const directory = mkdtempSync(join(tmpdir(), 'countersign-'))
  t.after(() => rmSync(directory, { recursive: true, force: true }))
  const token = join(directory, 'token')
  writeFileSync(token, await podToken(namespace), { mode: 0o600 })
  const proxy = await proxyTo(COUNTERSIGN_URL)
  t.after(() => proxy.cut())

  const requests = async () => {
    const { items } = JSON.parse(await kubectl(['get', 'jit', `--namespace=${namespace}`, '-o', 'json']))
    return items.map(({ metadata, status }) => ({ id: metadata.uid, name: metadata.name, phase: status?.phase }))
  }
  const pending = async () => (await requests()).filter(({ phase }) => phase === 'Pending')
  const waiting = async () => (await pending()).map(({ id }) => id)
  const decide = async (id, verdict) => {
    const { name } = await eventually(async () => (await pending()).find((request) => request.id === id), `request ${id} is pending`)
    const status = { decision: { verdict, comment: 'By a test.' } }
    const patch = ['patch', 'jit', name, `--namespace=${namespace}`, '--subresource=status', '--type=merge', '--patch', JSON.stringify({ status })]
    await kubectl(patch, { kubeconfig: BOB_KUBECONFIG })
    await eventually(async () => !(await waiting()).includes(id), `request ${id} is decided`)
  }
  return {
    environment: { COUNTERSIGN_URL: proxy.url, COUNTERSIGN_CA, COUNTERSIGN_TOKEN_FILE: token, COUNTERSIGN_CLOUD: 'none' },
    isAsked: async () => (await requests()).length > 0,
    waiting,
    oneWaiting: async () => (await eventually(async () => (await pending())[0], 'somebody asks for approval')).id,
    approve: (id) => decide(id, 'Approved'),
    deny: (id) => decide(id, 'Denied'),
    expired: (id) => eventually(async () => (await requests()).some((request) => request.id === id && request.phase === 'Expired'), `request ${id} expires`),
    down: () => proxy.cut(),
  }
}

/** Makes the agent, and lets Bob approve what it asks for: the token that a projected volume of its pod would hold. */
async function podToken(namespace) {
  const made = JSON.parse(await kubectl(['apply', '--server-side', '-f', '-', '-o', 'json'], { objects: objectsOf(namespace) }))
  await kubectl(['wait', '--for=condition=Ready', '--timeout=30s', `capability/${PAY}`])
  await kubectl(['wait', '--for=condition=Ready', '--timeout=30s', `--namespace=${namespace}`, `agent/${NAME}`])
  const { uid } = made.items.find(({ kind }) => kind === 'Pod').metadata
  const bound = ['--bound-object-kind=Pod', `--bound-object-name=${NAME}`, `--bound-object-uid=${uid}`]
  return (await kubectl(['create', 'token', NAME, `--namespace=${namespace}`, '--duration=1h', `--audience=${COUNTERSIGN_URL}`, ...bound])).trim()
}

function objectsOf(namespace) {
  const [core, rbac, ours] = ['v1', 'rbac.authorization.k8s.io/v1', 'countersign.dev/v1alpha1']
  const metadata = { namespace, name: NAME }
  const bob = { apiGroup: 'rbac.authorization.k8s.io', kind: 'User', name: 'bob' }
  const binding = (kind, name) => ({
    apiVersion: rbac,
    kind: 'RoleBinding',
    metadata: { namespace, name },
    roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind, name },
    subjects: [bob],
  })
  const agent = {
    owner: 'team-sdk@example.com',
    identity: { serviceAccounts: [{ name: NAME }] },
    capabilities: [
      { name: 'invoice.read', resources: ['invoice:INV-*'] },
      { name: PAY, resources: ['invoice:INV-*'], approval: 'Required' },
    ],
    tokens: { expirationSeconds: 300, audiences: [{ name: `https://${namespace}.example.com` }] },
  }
  const pod = { serviceAccountName: NAME, automountServiceAccountToken: false, containers: [{ name: 'main', image: 'pause' }] }
  // The same for all tests, in every language: whoever comes first makes it.
  const payment = { title: 'Authorize a payment', description: 'An invoice is paid.', approval: { approvals: 1 } }
  return [
    { apiVersion: core, kind: 'Namespace', metadata: { name: namespace } },
    { apiVersion: ours, kind: 'Capability', metadata: { name: PAY }, spec: payment },
    {
      apiVersion: rbac,
      kind: 'Role',
      metadata: { namespace, name: PAY },
      rules: [{ apiGroups: ['countersign.dev'], resources: ['capabilities'], resourceNames: [PAY], verbs: ['approve'] }],
    },
    binding('Role', PAY),
    binding('ClusterRole', 'countersign-approver'),
    { apiVersion: core, kind: 'ServiceAccount', metadata },
    { apiVersion: ours, kind: 'Agent', metadata, spec: agent },
    { apiVersion: core, kind: 'Pod', metadata, spec: pod },
  ]
}
