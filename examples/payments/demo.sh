#!/usr/bin/env bash
# Just-in-time approval as one run: an agent asks for a payment, a person approves
# it with kubectl, and the agent's token is good for that payment once. Each step is
# verified; the script ends with 0 only if every one of them went as it says.
#
# ../lib.sh says which variables it needs; `make demo` sets all of them.
set -euo pipefail
cd "$(dirname "$0")"
# shellcheck source=examples/lib.sh
. ../lib.sh

# ask INVOICE AMOUNT ARGUMENT...: the agent asks for a payment in EUR.
ask() {
	jq -ncj --arg resource "invoice:$1" --argjson amount "$2" '[{type: "countersign_operation",
		capability: "payments.authorize", resource: $resource, parameters: {amount: $amount, currency: "EUR"}}]' \
		>"$work/details"
	shift 2
	as_agent /oauth2/bc-authorize --data-urlencode login_hint=agent:payments/payments-bot \
		--data-urlencode "authorization_details@$work/details" "$@"
}
# asked: finds the JitRequest of the last answer and leaves $id and $name, once it waits for a decision.
asked() {
	id=$(answer .auth_req_id)
	name=$(admin get jit --namespace=payments --output=json |
		jq -r --arg uid "$id" '.items[] | select(.metadata.uid == $uid) | .metadata.name')
	check "JitRequest $name is Pending" is_pending "$name"
}
is_pending() { admin wait --namespace=payments --for='jsonpath={.status.phase}=Pending' --timeout=30s "jit/$1"; }
phase() { admin get jit "$1" --namespace=payments --output='jsonpath={.status.phase}'; }
request() { admin get jit "$1" --namespace=payments --output=json; }

# Asks for the token of $id. The token service holds the question for up to 25 s.
poll() {
	as_agent /oauth2/token --max-time 40 --data-urlencode grant_type=urn:openid:params:grant-type:ciba \
		--data-urlencode "auth_req_id=$id"
}
# What an agent does: it asks again until somebody has decided. With an answer of its own, for the background.
wait_for_decision() {
	answer_file=$work/waiting.json
	while poll && answers 400 '.error == "authorization_pending" or .error == "slow_down"' >/dev/null; do sleep 2; done
	echo "$status" >"$work/waiting.status"
}

# decision VERDICT COMMENT: the patch by which a person decides.
decision() { jq -nc --arg verdict "$1" --arg comment "$2" '{status: {decision: {$verdict, $comment}}}'; }
# decide AS NAME PATCH: patches the request, as alice, bob or the agent's ServiceAccount.
decide() { "$1" patch jit "$2" --namespace=payments --subresource=status --type=merge --patch="$3"; }
bot() {
	admin --as=system:serviceaccount:payments:payments-bot --as-group=system:serviceaccounts \
		--as-group=system:serviceaccounts:payments --as-group=system:authenticated "$@"
}

step 'Setup: a rule, two people, a resource server, and an agent'
admin apply -f rbac.yaml -f catalogue.yaml >/dev/null
# What an earlier run left.
admin delete jit --all --namespace=payments >/dev/null
admin delete agent payments-bot --namespace=payments --ignore-not-found >/dev/null
admin delete rolebinding too-much too-much-approve --namespace=payments --ignore-not-found >/dev/null
no_pod payments payments-bot
no_pod pay pay-server
check 'the catalogue has a rule for payments.authorize that can be enforced' \
	admin wait --for=condition=Ready --timeout=30s capability/payments.authorize
admin get capabilities | show
alice apply -f agent.yaml >/dev/null
check 'alice may grant both capabilities, so the Agent becomes Ready' \
	admin wait --namespace=payments --for=condition=Ready --timeout=30s agent/payments-bot
pod_token payments payments-bot "$work/agent"

step 'A plain token never carries what needs approval'
client_credentials
check 'a token is issued' answers 200 .access_token
keep_token
part 1 "$work/access" >"$work/claims"
jq '{sub, aud, scope}' "$work/claims" | show
check 'its scope is invoice.read alone' jq -e '.scope == "invoice.read"' "$work/claims"
client_credentials --data-urlencode scope=payments.authorize
answer . | show
check 'asking for it by name is refused, with the way to get it' \
	answers 400 '.error == "invalid_scope" and (.error_description | test("bc-authorize"))'

step 'The agent may not even ask for what is beyond its limits'
ask INV-7 5000
answer . | show
check 'the amount is outside the parameterSchema of the catalogue' answers 400 '.error == "invalid_authorization_details"'
ask SALARY-7 500
answer . | show
check 'the resource is outside the limits of the Agent' answers 400 '.error == "invalid_authorization_details"'

step 'The agent asks for one payment'
jq . <<<'{"capability": "payments.authorize", "resource": "invoice:INV-7", "parameters": {"amount": 500, "currency": "EUR"}}' | show
ask INV-7 500 --data-urlencode 'binding_message=Invoice INV-7 is due today.'
answer . | show
check 'it has an auth_req_id, which is worth nothing without the credential of the agent' \
	answers 200 '.auth_req_id and .expires_in > 0 and .interval'
asked
export first=$id

step 'The question is an object in the cluster, and bob sees it'
bob get jit --namespace=payments --field-selector=status.phase=Pending | show
request "$name" >"$work/request"
jq '.spec | {agent, operation, justification}' "$work/request" | show
# For parameters with whole numbers only, this is the canonical JSON of RFC 8785.
export digest
digest=sha256:$(jq -cjS '.spec | del(.justification, .requestedBy)' "$work/request" | sha256sum | cut -d ' ' -f 1)
say "What is approved is its digest: $digest"
check 'anybody can recompute it' jq -e '.status.digest == env.digest' "$work/request"

step 'Meanwhile the agent waits: one request, held open until somebody decides'
in_background wait_for_decision
say "POST /oauth2/token grant_type=urn:openid:params:grant-type:ciba auth_req_id=$id"

step 'Being able to write the status is not being able to approve'
yes=$(decision Approved 'I would like it paid.')
say 'Somebody binds both roles of an approver to the ServiceAccount of the agent.'
admin create rolebinding too-much --namespace=payments --clusterrole=countersign-approver \
	--serviceaccount=payments:payments-bot >/dev/null
admin create rolebinding too-much-approve --namespace=payments --clusterrole=payments-approver \
	--serviceaccount=payments:payments-bot >/dev/null
bot_may_approve() {
	local tries
	for ((tries = 50; tries > 0; tries--)); do # the API server has a role binding from its own watch, within moments
		if bot auth can-i approve capabilities.countersign.dev/payments.authorize --namespace=payments; then return; fi
		sleep 0.1
	done
	return 1
}
check "RBAC would let the agent's ServiceAccount approve" bot_may_approve
if decide bot "$name" "$yes" >"$work/refused" 2>&1; then fail 'the agent was not refused'; fi
show <"$work/refused"
check 'the API server refused: a ServiceAccount never approves' grep -q 'a ServiceAccount never approves' "$work/refused"
admin delete rolebinding too-much too-much-approve --namespace=payments >/dev/null
if decide alice "$name" "$yes" >"$work/refused" 2>&1; then fail 'alice was not refused'; fi
show <"$work/refused"
check 'the API server refused alice, and named the verb and the capability' \
	grep -q 'needs verb approve on capabilities.countersign.dev/payments.authorize' "$work/refused"
check 'nothing has changed: Pending' is_pending "$name"
check 'and the agent still waits' test ! -e "$work/waiting.status"

step 'bob approves, with plain kubectl'
patch=$(decision Approved 'Goods received.')
say "kubectl patch jit $name --subresource=status --type=merge -p '$patch'"
decide bob "$name" "$patch" | show
check 'kubectl wait --for=condition=Approved' \
	alice wait --namespace=payments --for=condition=Approved --timeout=30s "jit/$name"
request "$name" >"$work/request"
jq '.status.approvals' "$work/request" | show
check 'the API server stamped who approved, and the operator recorded it' \
	jq -e '.status.approvals | length == 1 and .[0].by.username == "bob" and .[0].verdict == "Approved"' "$work/request"

step 'The agent that waited has its token'
from_background
status=$(cat "$work/waiting.status")
mv "$work/waiting.json" "$answer_file"
check 'the poll is answered with a token' answers 200 '.access_token and .token_type == "Bearer"'
keep_token
part 1 "$work/access" >"$work/claims"
jq . "$work/claims" | show
check 'it is for this operation and no other' jq -e '
	.sub == "agent:payments/payments-bot" and .aud == "https://pay.example.com" and .scope == "payments.authorize"
	and .authorization_details == [{type: "countersign_operation", capability: "payments.authorize",
		resource: "invoice:INV-7", parameters: {amount: 500, currency: "EUR"}, digest: env.digest, jit_request: env.first}]' \
	"$work/claims"
check 'it lives for 2 minutes at most, as the catalogue says' jq -e '.exp - .iat <= 120' "$work/claims"
alice get jit --namespace=payments | show
check 'the request is Issued' test "$(phase "$name")" = Issued

step 'The resource server checks the token, and uses it up before it pays'
resource_server pay pay-server
introspect
check 'introspection: active' answers 200 '.active == true and .authorization_details[0].parameters.amount == 500'
as_server /jit/complete
answer . | show
check 'completed: 200, now it pays' answers 200 .completed
as_server /jit/complete
answer . | show
check 'a second time: 409, so nobody pays twice' answers 409 '.error == "already_completed"'
introspect
answer . | show
check 'the token is dead at once: {"active": false}' answers 200 '. == {"active": false}'
poll
answer . | show
check 'and the approval is used up: another poll is invalid_grant' answers 400 '.error == "invalid_grant"'
check 'the request is Completed' test "$(phase "$name")" = Completed

step 'The agent asks for another payment, and bob approves it with kubectl countersign'
if ! command -v kubectl-countersign >/dev/null; then
	say 'kubectl-countersign is not in PATH, so there is nothing to show.'
else
	ask INV-7 250 --data-urlencode 'binding_message=The second half of INV-7.'
	asked
	# kubectl takes flags behind the name of a plugin only.
	admin_kubeconfig=$KUBECONFIG
	export KUBECONFIG=$BOB_KUBECONFIG
	kubectl countersign requests --namespace=payments | show
	say "kubectl countersign approve $name --namespace=payments --yes --reason 'Goods received.'"
	approve() { kubectl countersign approve "$name" --namespace=payments --yes --reason 'Goods received.' >"$work/approved"; }
	check 'it is shown, decided on for its digest, and counted: exit code 0' approve
	show <"$work/approved"
	export KUBECONFIG=$admin_kubeconfig
	check 'it says who approved' grep -q "payments/$name: approved by bob (1/1)" "$work/approved"
	poll
	check 'the agent has its token' answers 200 .access_token
	keep_token
	as_server /jit/complete
	check 'and is done' answers 200 .completed
fi

step 'The agent asks for another payment, and bob says no'
ask INV-8 900
asked
decide bob "$name" "$(decision Denied 'We never ordered this.')" | show
poll
answer . | show
check 'the agent is told: access_denied' answers 400 '.error == "access_denied"'
check 'the request is Denied' \
	admin wait --namespace=payments --for='jsonpath={.status.phase}=Denied' --timeout=30s "jit/$name"
if decide bob "$name" "$(decision Approved 'On second thoughts …')" >"$work/refused" 2>&1; then fail 'a denial was undone'; fi
show <"$work/refused"
check 'a denial is final' grep -q 'a decision is accepted only while the request is Pending' "$work/refused"

step 'Nobody answers a third one, which stands for 3 seconds'
ask INV-9 40 --data-urlencode requested_expiry=3
id=$(answer .auth_req_id)
poll
answer . | show
check 'the agent is told: expired_token' answers 400 '.error == "expired_token"'
alice get jit --namespace=payments | show

step 'An agent can ask with kubectl too, under its own ServiceAccount and nobody else'
bot apply -f request.yaml | show
check 'from the ServiceAccount payments-bot the request is Pending' is_pending pay-inv-10
bob get jit pay-inv-10 --namespace=payments | show
alice delete jit pay-inv-10 --namespace=payments | show
alice apply -f request.yaml | show
check 'the same from alice is Denied' \
	admin wait --namespace=payments --for='jsonpath={.status.phase}=Denied' --timeout=30s jit/pay-inv-10
request pay-inv-10 >"$work/request"
jq -r '.status.conditions[] | select(.type == "Approved") | "\(.reason): \(.message)"' "$work/request" >"$work/reason"
show <"$work/reason"
check 'and it says why' grep -q '^RequesterNotAgent: .*payments-bot' "$work/reason"

step 'Who asked for the first payment, who approved it, which token was it, and when was it done?'
if [ -z "$audit" ]; then
	say 'COUNTERSIGN_AUDIT is not set, so there is nothing to show.'
else
	records >"$work/audit"
	jq -c --arg uid "$first" 'select(.jit_request_uid == $uid and (.outcome == "allow" or .event == "jit.complete"))' \
		"$work/audit" >"$work/trail"
	jq -r '[.time, .event, .outcome, .by // .service_account // "-", if .jti then "jti=" + .jti else empty end,
		if .approved_by then "approved_by=" + .approved_by else empty end] | join("  ")' "$work/trail" | show
	export jti
	jti=$(jq -r .jti "$work/claims")
	check 'payments-bot asked, bob approved, one token was issued, and it was completed once' \
		jq -es '
			def of(event): map(select(.event == event));
			(of("jit.file")[0].subject == "agent:payments/payments-bot")
			and (of("jit.approved")[0].by == "bob")
			and (of("token.issue") | length == 1 and .[0].jti == env.jti and .[0].approved_by == "bob" and .[0].digest == env.digest)
			and (of("jit.complete") | map(.outcome) == ["allow", "deny"])' "$work/trail"
	check 'no token is in the records' no_token_in "$work/audit"
fi

all_held
