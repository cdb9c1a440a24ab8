// How a scenario and the test that runs it speak: a line of JSON each way. The first to come says against what; then the scenario names
// each step that it has reached, and goes on when it is answered.

import { createInterface } from 'node:readline'

const lines = createInterface({ input: process.stdin })
const answers = lines[Symbol.asyncIterator]()
// The test has ended, in whatever way: nothing may outlive it, Chromium least of all. Playwright ends that when this process ends.
lines.on('close', () => process.exit(1))

async function answer() {
  const { value } = await answers.next()
  return JSON.parse(value)
}

/** Tells the test that `step` is reached, and what was seen there. Returns what the test answers. */
export async function reached(step, seen) {
  console.log(JSON.stringify({ step, seen }))
  return answer()
}

export function check(holds, what) {
  if (!holds) throw new Error(`not as expected: ${what}`)
}

/** Fails unless the two are the same, as JSON. */
export function same(found, expected, what) {
  const [left, right] = [found, expected].map((value) => JSON.stringify(value))
  check(left === right, `${what}: ${left} is not ${right}`)
}

/** Waits until `holds` says so. */
export async function until(what, holds, limit = 30_000) {
  const start = Date.now()
  while (!(await holds())) {
    check(Date.now() - start < limit, `waited ${limit} ms in vain: ${what}`)
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
}

/** Runs the one of these scenarios that the settings name, and ends the process. */
export async function run(scenarios, around) {
  let code = 0
  try {
    const settings = await answer()
    const scenario = scenarios[settings.scenario]
    check(scenario, `there is a scenario "${settings.scenario}"`)
    await around(settings, scenario)
    console.log(JSON.stringify({ step: 'done' }))
  } catch (error) {
    console.error(error)
    code = 1
  }
  process.exit(code)
}
