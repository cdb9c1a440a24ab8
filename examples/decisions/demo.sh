#!/usr/bin/env bash
# May it? An agent and a resource server ask before anything is done, in AuthZEN and in plain words; a denial says how to get what was
# denied, a person approves it, and the answer becomes yes. Each step is verified; the script ends with 0 only if every one of them went as
# it says.
#
# ../lib.sh says which variables it needs; `make demo` sets all of them.
set -euo pipefail
cd "$(dirname "$0")"
# shellcheck source=examples/lib.sh
. ../lib.sh
countersign=${COUNTERSIGN:?the binary}

# as_caller WHO PATH JSON: asks with the credential in $work/WHO.
as_caller() {
	{ printf 'Authorization: Bearer ' && cat "$work/$1"; } >"$work/caller.header"
	printf '%s' "$3" >"$work/body"
	post "$2" --header "@$work/caller.header" --header 'Content-Type: application/json' --data-binary "@$work/body"
}
# question CAPABILITY TYPE ID PARAMETERS: an AuthZEN evaluation about the agent.
question() {
	jq -nc --arg name "$1" --arg type "$2" --arg id "$3" --argjson parameters "$4" \
		'{subject: {type: "agent", id: "agent:support/desk"}, action: {$name, properties: $parameters}, resource: {$type, $id}}'
}
evaluate() { as_caller agent /access/v1/evaluation "$1"; }
ask() { as_caller agent /ask "$(jq -nc --arg question "$1" '{$question}')"; }

step 'Setup: a catalogue with phrases, a person, a shop, and an agent with conditions'
admin apply -f rbac.yaml -f catalogue.yaml >/dev/null
# What an earlier run left.
admin delete jit --all --namespace=support >/dev/null
no_pod support desk
no_pod shop shop-server
admin apply -f agents.yaml >/dev/null
check 'the catalogue can be enforced' admin wait --for=condition=Ready --timeout=30s capability/ticket.close capability/refund.issue capability/refund.large
check 'the Agent is Ready' admin wait --namespace=support --for=condition=Ready --timeout=30s agent/desk
pod_token support desk "$work/agent"

step 'The agent asks beforehand (AuthZEN)'
evaluate "$(question ticket.close ticket T-7 '{}')"
answer . | show
check 'it may close ticket T-7' answers 200 '.decision == true'
evaluate "$(question ticket.close ticket X-7 '{}')"
check 'not X-7, and it is told by which rule' \
	answers 200 '.decision == false and .context.reason.code == "resource_not_granted" and .context.reason.rule == "Agent spec.capabilities[].resources"'

step 'A condition looks at the operation'
evaluate "$(question refund.issue order O-12 '{"amount": 50, "currency": "EUR"}')"
check '50 EUR: yes' answers 200 '.decision == true'
evaluate "$(question refund.issue order O-12 '{"amount": 51, "currency": "EUR"}')"
answer .context.reason | show
check '51 EUR: no, and the condition is named' answers 200 '.decision == false and .context.reason.code == "condition_unmet"'
client_credentials --data-urlencode scope=refund.issue
answer . | show
check 'a token for whatever comes is refused: name the operation' answers 400 '.error == "invalid_scope"'
client_credentials --data-urlencode \
	'authorization_details=[{"type":"countersign_operation","capability":"refund.issue","resource":"order:O-12","parameters":{"amount":50,"currency":"EUR"}}]'
check 'a token for exactly this refund is issued' answers 200 '.access_token and .authorization_details[0].parameters.amount == 50'
keep_token

step 'The shop asks with the token that it was shown'
pod_token shop shop-server "$work/shop"
as_shop() { as_caller shop /access/v1/evaluation "$(question "$1" order "$2" "$3" | jq -c --rawfile token "$work/access" '.context = {access_token: $token}')"; }
as_shop refund.issue O-12 '{"amount": 50, "currency": "EUR"}'
check 'this refund: yes' answers 200 '.decision == true'
as_shop refund.issue O-12 '{"amount": 49, "currency": "EUR"}'
check 'another amount: no' answers 200 '.decision == false and .context.reason.code == "operation_mismatch"'

step 'In plain words'
ask 'Can I read and resolve ticket T-7?'
answer '.interpretation[] | "\(.decision)  \(.capability)  \(.resource)"' | show
check 'both, each decided by itself' answers 200 '.decision == true and (.interpretation | length) == 2'
ask 'Darf ich Geld erstatten?'
answer '{decision, reason, interpretation: [.interpretation[].capability], unresolved}' | show
check 'a phrase of the catalogue can be in any language; how much and on which order must be said' \
	answers 200 '.decision == false and .interpretation[0].capability == "refund.issue"'
ask 'Can I shred ticket T-7?'
answer .unresolved | show
check 'what is not understood is a no, with what may have been meant' answers 200 '.decision == false and (.unresolved | length) > 0'
ask "Can't I close ticket T-7?"
check 'a negated question is never a yes' answers 200 '.decision == false and .reason.code == "negated"'

step 'A denial that a person can lift says how'
large=$(question refund.large order O-12 '{"amount": 900, "currency": "EUR"}')
evaluate "$large"
answer .context.access_request | show
check 'requestable, with the details ready-made' \
	answers 200 '.decision == false and .context.reason.code == "approval_required" and .context.access_request.requestable'
answer '.context.access_request.authorization_details | tojson' | tr -d '\n' >"$work/details"
as_agent /oauth2/bc-authorize --data-urlencode login_hint=agent:support/desk --data-urlencode "authorization_details@$work/details"
check 'they become a JitRequest' answers 200 .auth_req_id
id=$(answer .auth_req_id)
name=$(admin get jit --namespace=support --output=json |
	jq -r --arg uid "$id" '.items[] | select(.metadata.uid == $uid) | .metadata.name')
check "JitRequest $name is Pending" admin wait --namespace=support --for='jsonpath={.status.phase}=Pending' --timeout=30s "jit/$name"
bob patch jit "$name" --namespace=support --subresource=status --type=merge \
	--patch='{"status": {"decision": {"verdict": "Approved", "comment": "The parcel was lost."}}}' | show
check 'bob approved' admin wait --namespace=support --for=condition=Approved --timeout=30s "jit/$name"
# The token service sees what it wrote a moment later.
for ((tries = 50; tries > 0; tries--)); do
	evaluate "$large"
	if answers 200 '.decision == true' >/dev/null; then break; fi
	sleep 0.1
done
answer '.context | {reason, approval}' | show
check 'the same question is answered with yes' answers 200 '.decision == true and .context.reason.code == "approved"'
as_agent /oauth2/token --data-urlencode grant_type=urn:openid:params:grant-type:ciba --data-urlencode "auth_req_id=$id"
check 'and the token is issued' answers 200 .access_token
keep_token
as_shop refund.large O-12 '{"amount": 900, "currency": "EUR"}'
check 'with it the shop is told yes, for this refund' answers 200 '.decision == true'
as_shop refund.large O-13 '{"amount": 900, "currency": "EUR"}'
check 'and no for any other' answers 200 '.decision == false'

step 'Policies are tried before they are applied'
status_of() {
	local code=0
	"$@" >"$work/printed" 2>&1 || code=$?
	show <"$work/printed"
	return "$code"
}
files=(-f agents.yaml -f catalogue.yaml)
check 'countersign can: yes is status 0' status_of "$countersign" can support/desk ticket.read ticket:T-7 "${files[@]}"
show <"$work/printed"
is_no() { ! status_of "$@"; }
check 'no is status 1, with what each rule says' \
	is_no "$countersign" can support/desk refund.issue order:O-12 --parameters '{"amount": 80, "currency": "EUR"}' "${files[@]}"
show <"$work/printed"

step 'Can it ever?'
reach() { "$countersign" reach --agent support/chatbot --capability refund.large "$@"; }
reach -f chain -f catalogue.yaml -o json >"$work/reach"
reach -f chain -f catalogue.yaml | show
check 'the chatbot can bring about a large refund, over three hops and with an approval' \
	jq -e '.reachable and (.chain | length) == 4 and .opens.by == "approval"' "$work/reach"
sed 's/{callers: \[{namespace: finance, name: clerk}\]}/{callers: []}/' chain/agents.yaml >"$work/cut.yaml"
if reach -f "$work/cut.yaml" -f catalogue.yaml >"$work/cut"; then fail 'there still is a way'; fi
show <"$work/cut"
check 'without one entry of callers it never can' grep -q '^no: ' "$work/cut"

if [ -n "$audit" ]; then
	step 'Every question was recorded'
	records >"$work/audit"
	check 'evaluations and questions, allowed and denied' jq -es '
		([.[] | select(.event == "access.evaluate") | .outcome] | unique == ["allow", "deny"])
		and ([.[] | select(.event == "access.ask")] | length >= 4)' "$work/audit"
	check 'no token is in the records' no_token_in "$work/audit"
fi

all_held
