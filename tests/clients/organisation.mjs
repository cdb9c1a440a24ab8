// Who works in the organisation of the identity provider, and which applications they log in to.

export const ACCOUNTS = {
  alice: {
    name: 'Alice Example',
    preferred_username: 'alice',
    email: 'alice@acme.example',
    email_verified: true,
    groups: ['research', 'staff'],
  },
  // She says that she is alice, and nobody has checked it.
  mallory: {
    name: 'Mallory Example',
    preferred_username: 'mallory',
    email: 'alice@acme.example',
    email_verified: false,
    groups: ['staff'],
  },
  // The name and the group that rule a Kubernetes cluster.
  eve: {
    name: 'Eve Example',
    preferred_username: 'system:admin',
    email: 'system:admin',
    email_verified: true,
    groups: ['system:masters', 'staff'],
  },
  // A guest, of another organisation.
  carol: {
    name: 'Carol Example',
    preferred_username: 'carol',
    email: 'carol@partner.example',
    email_verified: true,
    groups: ['guests'],
  },
  // Two who decide about money.
  dana: {
    name: 'Dana Example',
    preferred_username: 'dana',
    email: 'dana@acme.example',
    email_verified: true,
    groups: ['treasury', 'staff'],
  },
  erik: {
    name: 'Erik Example',
    preferred_username: 'erik',
    email: 'erik@acme.example',
    email_verified: true,
    groups: ['treasury', 'staff'],
  },
  // His name is a script, and turns around what stands behind it.
  xavier: {
    name: 'Xavier Example',
    preferred_username: 'xavier',
    email: '"><script>alert(1)</script>\u202e@acme.example',
    email_verified: true,
    groups: ['<img src=x onerror=alert(2)>'],
  },
  // Has no e-mail address and no groups.
  bob: { name: 'Bob Example', preferred_username: 'bob' },
}

const application = (more = {}) => ({ redirect_uri: 'https://app.acme.example/callback', ...more })

export const CLIENTS = {
  'research-app': application(),
  // Signs with another key.
  'modern-app': application({ alg: 'ES256' }),
  // Nobody trusts it.
  'other-app': application(),
  // Its ID tokens live one second.
  'hasty-app': application({ seconds: 1 }),
}
