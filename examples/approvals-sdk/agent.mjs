// An agent that pays an invoice, once a person has approved exactly that payment.
//
//   agent.mjs NUMBER AMOUNT
import { AccessDenied, AlreadyCompleted, ApprovalDenied, Client } from '@countersign/sdk'

const [number, amount] = process.argv.slice(2)
const payment = {
  capability: 'payments.authorize',
  resource: `invoice:${number}`,
  parameters: { amount: Number(amount), currency: 'EUR' },
}

const client = new Client() // who it is, it finds in its pod
try {
  const decision = await client.evaluate(payment)
  console.log('may I?', decision.allowed, decision.reason?.code)
  // Asks a person if one could say yes, and waits. The payment is what is approved, by its digest: another amount is another question.
  const token = await client.requireApproval(payment, { timeout: 120, justification: `Invoice ${number} is due today.` })
  console.log('approved', token) // which prints no token

  await client.complete(token) // before it pays: this returns once, whoever calls it how often
  console.log(`paid ${amount} EUR for ${number}`)
  await client.complete(token).catch((error) => {
    if (!(error instanceof AlreadyCompleted)) throw error
    console.log('and would not pay again')
  })
} catch (no) {
  process.exitCode = 1
  if (no instanceof AccessDenied) console.error(`not allowed, and nobody was asked: ${no.message}`)
  else if (no instanceof ApprovalDenied) console.error('a person said no')
  else throw no
} finally {
  client.close()
}
