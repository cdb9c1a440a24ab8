#!/usr/bin/env bash
# An MCP server whose tools need capabilities, and an agent that uses them, as one run, in Python and in Node.js: bob approves the one call
# that needs it. Each step is verified; the script ends with 0 only if every one of them went as it says.
#
# ../lib.sh and ../sdk.sh say which variables it needs; `make up` writes them to .dev/env.
set -euo pipefail
cd "$(dirname "$0")"
# shellcheck source=examples/lib.sh
. ../lib.sh
# shellcheck source=examples/sdk.sh
. ../sdk.sh

url=http://127.0.0.1:$(free_ports 1)/mcp
server() { as server "$1" "$url" >"$work/server.out" 2>&1; }
use_tools() {
	local code=0
	as clerk "$1" "$url" >"$work/client.out" 2>&1 || code=$?
	echo "$code" >"$work/code"
}
listens() { curl --silent --fail --noproxy '*' --output /dev/null "${url%/mcp}/.well-known/oauth-protected-resource/mcp"; }
requests() { bob get jit --namespace=payments --field-selector="status.phase=$1" --output=name; }
gone() { ! listens; }
asked() { requests Pending | grep -q .; }
says() { printed client "^$1\$"; }

step 'Setup: an agent, a server, and what they may do'
admin apply -f ../payments/rbac.yaml -f ../payments/catalogue.yaml >/dev/null
# What an earlier run left.
admin delete jit --all --namespace=payments >/dev/null
admin delete agent clerk --namespace=payments --ignore-not-found >/dev/null
no_pod payments clerk
no_pod pay mcp-server
check 'the rule for payments.authorize can be enforced' admin wait --for=condition=Ready --timeout=30s capability/payments.authorize
sed "s|https://mcp.example.com/mcp|$url|" agent.yaml | admin apply -f - >/dev/null
check 'the agent is registered' admin wait --namespace=payments --for=condition=Ready --timeout=30s agent/clerk
pod_token payments clerk "$work/clerk"
pod_token pay mcp-server "$work/server"

for language in py mjs; do
	step "server.$language, and client.$language, which discovers who issues tokens for it"
	admin delete jit --all --namespace=payments >/dev/null
	in_background server "server.$language"
	server=$background
	eventually 'the server listens, and its metadata is for everybody' listens
	curl --silent --noproxy '*' "${url%/mcp}/.well-known/oauth-protected-resource/mcp" | jq -c . | show
	use_tools "client.$language" &
	client=$!
	eventually 'bob is asked about the one call that needs it' asked
	bob get jit --namespace=payments | show
	bob patch "$(requests Pending)" --namespace=payments --subresource=status --type=merge \
		--patch='{"status": {"decision": {"verdict": "Approved"}}}' | show
	wait "$client"
	show <"$work/client.out"
	check 'the client went on by itself, to its end' test "$(cat "$work/code")" = 0
	check 'without a token: 401, and where the metadata is' says "401 resource: $url issuer: $COUNTERSIGN_URL"
	check 'a tool whose capability it holds: done' says 'read: INV-7: 500 EUR, read by agent:payments/clerk'
	check 'one whose capability it does not hold: 403 insufficient_scope' \
		says '403 insufficient_scope delete_invoice INV-7 needs invoice.delete'
	check 'an invoice that is not for it: 403' says '403 insufficient_scope read_invoice SALARY-7 needs invoice.read'
	check 'a tool that needs an approved operation: 403, and what to ask for' \
		says '403 insufficient_scope pay_invoice needs payments.authorize'
	check 'the approval is for this call: another amount is refused' says '403 insufficient_scope for another amount'
	check 'the call that was approved: done' says 'pay: paid 500 EUR for INV-7'
	check 'once' says 'pay again: INV-7 was paid before'
	check 'the request is Completed' test "$(requests Completed | wc -l)" = 1
	cat "$work"/*.out >"$work/printed"
	check 'nobody printed a token' no_token_in "$work/printed"
	kill -- "-$server"
	wait "$server" || true
	background=''
	# The program itself ends after its shell does; until then it would answer in place of the next one.
	eventually 'the server is gone' gone
done

all_held
