// Chromium as Debian packages it, driven by Playwright. It trusts the authorities that it is told and no others, and it remembers
// whatever happens in it that must not.

import { execFileSync } from 'node:child_process'
import { accessSync, constants, mkdirSync } from 'node:fs'
import { delimiter, join } from 'node:path'
import { chromium } from 'playwright-core'

/** What the packages of distributions call it. */
const PROGRAMS = ['chromium', 'chromium-browser', 'google-chrome']
/** Generous: how long anything may take on a busy machine before a scenario calls it stuck. */
const PATIENCE = 30_000

function program() {
  const paths = (process.env.PATH ?? '').split(delimiter).flatMap((dir) => PROGRAMS.map((name) => join(dir, name)))
  const found = paths.find((path) => {
    try {
      accessSync(path, constants.X_OK)
      return true
    } catch {
      return false
    }
  })
  if (!found) throw new Error('there is no Chromium: install the package chromium')
  return found
}

/** A home directory in which these authorities are trusted for servers: Chromium on Linux reads the NSS database there. */
function home(directory, authorities) {
  const path = join(directory, 'home')
  const database = join(path, '.pki', 'nssdb')
  mkdirSync(database, { recursive: true })
  const certutil = (...args) => execFileSync('certutil', ['-d', `sql:${database}`, ...args])
  certutil('-N', '--empty-password')
  authorities.forEach((file, index) => certutil('-A', '-n', `authority-${index}`, '-t', 'C,,', '-i', file))
  return path
}

/** Starts Chromium. Its files are in `directory`, which somebody else removes. */
export function start(directory, authorities) {
  return chromium.launch({
    executablePath: program(),
    env: { PATH: process.env.PATH, HOME: home(directory, authorities) },
    // Of the container, where /dev/shm may be 64 MB.
    args: ['--disable-dev-shm-usage'],
  })
}

/** What must not happen in a browser, as it happens. */
export class Findings {
  #found = []
  #origins
  #expected = []

  /** `portal` is whose pages are looked at; `origins` are all that a request may go to. */
  constructor(portal, origins) {
    this.portal = portal
    this.#origins = new Set([portal, ...origins])
  }

  /** A request may go to this origin too. */
  allow(origin) {
    this.#origins.add(origin)
  }

  /** From here on, an error on the console that matches is none. */
  expect(pattern) {
    this.#expected.push(pattern)
  }

  add(what) {
    this.#found.push(what)
  }

  /** What was found so far, which is then forgotten. */
  take() {
    return this.#found.splice(0)
  }

  /** Remembers what happens in a context. */
  watch(context) {
    context.on('request', (request) => {
      const url = new URL(request.url())
      if (url.protocol !== 'data:' && !this.#origins.has(url.origin)) this.add(`a request to ${url.origin}${url.pathname}`)
    })
    context.on('console', (message) => {
      if (message.type() !== 'error' && message.type() !== 'warning') return
      const from = message.page()?.url() ?? ''
      const text = message.text()
      // The pages of the identity provider are its own affair.
      if (from.startsWith('https:') && new URL(from).origin !== this.portal) return
      if (!this.#expected.some((pattern) => pattern.test(text))) this.add(`on the console: ${text}`)
    })
    context.on('weberror', (error) => this.add(`a script failed: ${error.error()}`))
    context.on('dialog', (dialog) => {
      this.add(`a dialog: ${dialog.message()}`)
      return dialog.dismiss()
    })
    context.on('page', (page) => page.on('crash', () => this.add('a page crashed')))
  }
}

/** A browser of somebody, with its own cookies. */
export async function somebody(browser, findings, options = {}) {
  const context = await browser.newContext({ locale: 'en-GB', timezoneId: 'UTC', serviceWorkers: 'block', ...options })
  context.setDefaultTimeout(PATIENCE)
  findings.watch(context)
  return context
}
