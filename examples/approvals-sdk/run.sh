#!/usr/bin/env bash
# An agent that pays invoices, written with the SDKs, as one run: bob approves one payment with kubectl and denies another, in Python and
# in Node.js. Each step is verified; the script ends with 0 only if every one of them went as it says.
#
# ../lib.sh and ../sdk.sh say which variables it needs; `make up` writes them to .dev/env.
set -euo pipefail
cd "$(dirname "$0")"
# shellcheck source=examples/lib.sh
. ../lib.sh
# shellcheck source=examples/sdk.sh
. ../sdk.sh

requests() { bob get jit --namespace=payments --field-selector="status.phase=$1" --output=name; }
asked() { requests Pending | grep -q .; }
decide() {
	bob patch "$(requests Pending)" --namespace=payments --subresource=status --type=merge \
		--patch="{\"status\": {\"decision\": {\"verdict\": \"$1\"}}}"
}
# agent_pays PROGRAM NUMBER AMOUNT: leaves the code with which it ends in $work/code.
agent_pays() {
	local code=0
	as agent "$@" >"$work/agent.out" 2>&1 || code=$?
	echo "$code" >"$work/code"
}
# ended CODE: whether it ended with that code.
ended() { test "$(cat "$work/code")" = "$1"; }
nothing_paid() { ! printed agent '^paid'; }

step 'Setup: the rules, people and agent of examples/payments'
admin apply -f ../payments/rbac.yaml -f ../payments/catalogue.yaml >/dev/null
# What an earlier run left.
admin delete jit --all --namespace=payments >/dev/null
admin delete agent payments-bot --namespace=payments --ignore-not-found >/dev/null
no_pod payments payments-bot
check 'the rule for payments.authorize can be enforced' admin wait --for=condition=Ready --timeout=30s capability/payments.authorize
alice apply -f ../payments/agent.yaml >/dev/null
check 'the agent is registered' admin wait --namespace=payments --for=condition=Ready --timeout=30s agent/payments-bot
pod_token payments payments-bot "$work/agent"

for program in agent.py agent.mjs; do
	admin delete jit --all --namespace=payments >/dev/null

	step "$program asks to pay, and waits until bob approves"
	in_background agent_pays "$program" INV-7 500
	eventually 'bob sees what he is asked' asked
	bob get jit --namespace=payments | show
	decide Approved | show
	from_background
	show <"$work/agent.out"
	check 'the agent went on by itself' ended 0
	check 'it was told that a person has to approve' printed agent '^may I\? (F|f)alse approval_required$'
	check 'it paid, once' printed agent '^paid 500 EUR for INV-7$'
	check 'and cannot pay again' printed agent '^and would not pay again$'
	check 'it printed no token' no_token_in "$work/agent.out"
	check 'the request is Completed' test "$(requests Completed | wc -l)" = 1

	step "$program asks for another payment, and bob says no"
	in_background agent_pays "$program" INV-8 900
	eventually 'bob sees what he is asked' asked
	decide Denied | show
	from_background
	show <"$work/agent.out"
	check 'the agent ended' ended 1
	check 'and knows why' printed agent '^a person said no$'

	step "$program wants to pay what it may not even ask for"
	agent_pays "$program" SALARY-7 500
	show <"$work/agent.out"
	check 'the agent ended' ended 1
	check 'it was refused before anybody was asked' printed agent '^not allowed, and nobody was asked'
	check 'there is no request for it' test "$(bob get jit --namespace=payments --output=name | wc -l)" = 2
	check 'nothing was paid' nothing_paid
done

all_held
