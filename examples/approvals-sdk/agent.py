"""An agent that pays an invoice, once a person has approved exactly that payment.

agent.py NUMBER AMOUNT
"""

import sys

from countersign import AccessDenied, AlreadyCompleted, ApprovalDenied, Client, Operation

number, amount = sys.argv[1], int(sys.argv[2])
payment = Operation("payments.authorize", f"invoice:{number}", {"amount": amount, "currency": "EUR"})

with Client() as client:  # who it is, it finds in its pod
    decision = client.evaluate(payment)
    print("may I?", decision.allowed, decision.reason and decision.reason.code)
    try:
        # Asks a person if one could say yes, and waits. The payment is what is approved, by its digest: another amount is another question.
        token = client.require_approval(payment, timeout=120, justification=f"Invoice {number} is due today.")
    except AccessDenied as no:
        sys.exit(f"not allowed, and nobody was asked: {no.message}")
    except ApprovalDenied:
        sys.exit("a person said no")
    print("approved", token)  # which prints no token

    client.complete(token)  # before it pays: this returns once, whoever calls it how often
    print(f"paid {amount} EUR for {number}")
    try:
        client.complete(token)
    except AlreadyCompleted:
        print("and would not pay again")
