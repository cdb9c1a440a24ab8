#!/usr/bin/env bash
# Delegation as one run: Alice logs in to an application, its agent acts for her,
# and calls another agent, which acts for her too. What the second agent holds in its
# hand says all of it, and dies when the first is stopped. Each step is verified; the
# script ends with 0 only if every one of them went as it says.
#
#   IDENTITY_PROVIDER_URL    the identity provider of the organisation
#   IDENTITY_PROVIDER_CA     the authority of its certificate, a PEM file
#   IDENTITY_PROVIDER_LOGIN  a command: APPLICATION ACCOUNT logs in and prints the
#                            tokens of the application as JSON
#
#   COUNTERSIGN              the countersign command, by default the one in PATH
#   COUNTERSIGN_NAMESPACE    the namespace of the operator, by default countersign-system
#
# ../lib.sh says which other variables it needs; `make demo` sets all of them.
set -euo pipefail
cd "$(dirname "$0")"
# shellcheck source=examples/lib.sh
. ../lib.sh
: "${IDENTITY_PROVIDER_URL:?}" "${IDENTITY_PROVIDER_CA:?}" "${IDENTITY_PROVIDER_LOGIN:?}"

countersign=${COUNTERSIGN:-countersign}
# Of the operator.
namespace=${COUNTERSIGN_NAMESPACE:-countersign-system}
bot=agent:research/research-bot
tool=agent:tools/search-tool
docs=https://docs.acme.com
export bot tool docs

# log_in ACCOUNT: the person logs in to research-app; what the application has of it is $work/ACCOUNT.id.
log_in() { "$IDENTITY_PROVIDER_LOGIN" research-app "$1" | jq -j .id_token >"$work/$1.id"; }
# exchange NAME TYPE FILE ARGUMENT...: the agent with the credential $work/NAME exchanges the token in $work/FILE.
exchange() {
	credential=$work/$1
	as_agent /oauth2/token --data-urlencode grant_type=urn:ietf:params:oauth:grant-type:token-exchange \
		--data-urlencode "subject_token_type=urn:ietf:params:oauth:token-type:$2" \
		--data-urlencode "subject_token@$work/$3" "${@:4}"
}
# keep NAME: the token of the last answer becomes $work/NAME, and its claims $work/NAME.json.
keep() {
	answer .access_token | tr -d '\n' >"$work/$1"
	part 1 "$work/$1" >"$work/$1.json"
}
# The transcript shows a token by its claims.
claims() { jq "$1" "$work/$2.json" | show; }
says() { jq -e "$1" "$work/$2.json"; }
# refused WHAT ERROR TEXT: the last answer is that error, and its description has the text.
refused() {
	answer . | show
	check "refused: $1" answers 400 ".error == \"$2\" and (.error_description | contains(\"$3\"))"
}
# ask_ledger ARGUMENT...: countersign audit, as the ServiceAccount auditor of rbac.yaml.
ask_ledger() {
	"$countersign" audit "$@" --server "$COUNTERSIGN_URL" --ca "$COUNTERSIGN_CA" --token-file "$work/auditor"
}
check_not() {
	local what=$1
	shift
	if "$@" >"$work/check" 2>&1; then fail "expected: $what"; fi
	check "$what" true
}
is_ready() { admin wait --namespace="$1" --for=condition=Ready --timeout=30s "agent/$2"; }
suspend() { bob patch agent research-bot --namespace=research --type=merge --patch="{\"spec\":{\"suspended\":$1}}"; }

step 'Setup: an identity provider that is trusted, and two agents of two teams'
admin apply -f rbac.yaml >/dev/null
# What an earlier run, or another example, left.
admin delete trustedissuer acme --ignore-not-found >/dev/null
admin delete agent research-bot news-bot --namespace=research --ignore-not-found >/dev/null
admin delete agent search-tool --namespace=tools --ignore-not-found >/dev/null
no_pod research research-bot
no_pod research news-bot
no_pod tools search-tool
no_pod docs docs-server
# The provider of this run is on 127.0.0.1, with a certificate of its own.
admin create --dry-run=client -f trusted-issuer.yaml --output=json |
	jq --rawfile ca "$IDENTITY_PROVIDER_CA" '.spec.issuer += {url: env.IDENTITY_PROVIDER_URL,
		certificateAuthority: $ca, allowedNetworks: ["127.0.0.0/8"]}' >"$work/trusted-issuer.json"
admin apply -f "$work/trusted-issuer.json" | show
check 'the TrustedIssuer becomes Ready: its keys were fetched' \
	admin wait --for=condition=Ready --timeout=60s trustedissuer/acme
bob apply -f agents.yaml | show
check 'Research Bot becomes Ready' is_ready research research-bot
check 'Search Tool becomes Ready' is_ready tools search-tool
admin get agent research-bot --namespace=research --output=json | jq -c .spec.delegation | show
admin get agent search-tool --namespace=tools --output=json | jq -c .spec.delegation | show
pod_token research research-bot "$work/bot"
pod_token tools search-tool "$work/tool"

step 'Alice logs in to the research app, at the identity provider of her organisation'
log_in alice
part 1 "$work/alice.id" >"$work/alice.json"
claims '{iss, sub, aud, email, email_verified}' alice
check 'the application has an ID token: it says who she is, and nothing of agents' \
	says '.iss == env.IDENTITY_PROVIDER_URL and .aud == "research-app" and .email == "alice@acme.example"' alice

step 'Her agent, Research Bot, exchanges it for a token with which it may call Search Tool'
say "POST /oauth2/token grant_type=token-exchange subject_token_type=id_token audience=$tool"
exchange bot id_token alice.id --data-urlencode "audience=$tool"
check 'it is answered with a token' answers 200 '.access_token and .expires_in > 0'
keep called
claims '{sub, act, aud, scope, may_act}' called
check 'Alice is the subject, Research Bot acts for her, and only Search Tool can use it' says '
	.sub == "user:alice@acme.example" and .act.sub == env.bot and (.act | has("act") | not)
	and .aud == env.tool and .may_act.sub == env.tool' called
check 'its scope is what Research Bot holds' says '.scope == "document.read report.write web.search"' called

step 'Search Tool, called with that, exchanges it for a token for the documents'
say "POST /oauth2/token grant_type=token-exchange subject_token_type=access_token audience=$docs"
exchange tool access_token called --data-urlencode "audience=$docs"
check 'it is answered with a token' answers 200 '.access_token and .expires_in > 0'
keep access
claims '{sub, act, aud, client_id, scope, authorization_details, txn, ancestors}' access
check 'still for Alice; Search Tool acts for her, called by Research Bot: the newest is outermost' says '
	.sub == "user:alice@acme.example" and .act.sub == env.tool and .act.act.sub == env.bot
	and (.act.act | has("act") | not) and .client_id == env.tool and .aud == env.docs' access
check 'its scope is what both hold, on the resources that both have it for' says '
	.scope == "document.read web.search" and .authorization_details ==
		[{type: "countersign_capability", capability: "document.read", resources: ["document:reports/2026/*"]}]' access
claims '.links' access
check 'it depends on both agents: their registrations, their revocation epochs, and how they proved themselves' says '
	(.links | map(.sub)) == [env.bot, env.tool] and (.links | map(.sa)) == ["research-bot", "search-tool"]
	and all(.links[]; .agent_uid and .epoch >= 0)' access
export jti txn
jti=$(jq -r .jti "$work/called.json")
txn=$(jq -r .txn "$work/called.json")
check 'it is of the same chain, and names the token from which it descends' \
	says '.txn == env.txn and .ancestors == [env.jti]' access
export ends
ends=$(jq .exp "$work/called.json")
check 'it ends no later than that' says '.exp <= (env.ends | tonumber)' access

step 'The resource server learns the same'
resource_server docs docs-server
introspect
answer '{active, username, act, scope, authorization_details}' | show
check 'active, for Alice, by Search Tool, called by Research Bot' answers 200 '
	.active and .username == "user:alice@acme.example" and .act.sub == env.tool and .act.act.sub == env.bot
	and .authorization_details[0].resources == ["document:reports/2026/*"]'

step 'Who really did this? Whoever may read the audit log asks the ledger'
admin create token auditor --namespace=research --duration=10m | tr -d '\n' >"$work/auditor"
jq -r .jti "$work/access.json" >"$work/jti"
say "countersign audit trace $(cat "$work/jti")"
ask_ledger trace "$(cat "$work/jti")" >"$work/trace"
show <"$work/trace"
check 'in words: Search Tool, called by Research Bot, acting for Alice' \
	grep -qF "Search Tool ($tool), called by Research Bot ($bot), acting for alice@acme.example" "$work/trace"
ask_ledger query --jti "$(cat "$work/jti")" --event token.issue --output json >"$work/record"
record=$(jq -rs '.[0] | "\(.log)/\(.seq)"' "$work/record")
say "countersign audit prove $record"
# A checkpoint that covers it is signed within ten seconds.
for ((tries = 30; tries > 0; tries--)); do
	if ask_ledger prove "$record" >"$work/proof" 2>"$work/complaint"; then break; fi
	sleep 1
done
admin get configmap countersign-audit --namespace="$namespace" --output=json >"$work/published.json"
check 'its record is in the Merkle tree under a signed checkpoint: anybody can verify that' \
	"$countersign" audit verify-proof "$work/proof" --checkpoints "$work/published.json"
tr 'a' 'b' <"$work/proof" >"$work/forged"
check_not 'a record that was changed is not' \
	"$countersign" audit verify-proof "$work/forged" --checkpoints "$work/published.json"

step 'Nobody gets more by calling another'
exchange tool access_token called --data-urlencode "audience=$docs" --data-urlencode scope=report.write
refused 'report.write, which Research Bot holds and Search Tool does not' \
	invalid_scope "report.write is not granted to $tool"
exchange tool access_token called --data-urlencode "audience=$docs" --data-urlencode scope=document.index
refused 'document.index, which Search Tool holds and Research Bot does not' \
	invalid_scope 'document.index is not in the scope of the subject token'

step 'Nobody comes with what is for somebody else'
exchange bot access_token called --data-urlencode "audience=$docs"
refused 'Research Bot comes with the token that is for Search Tool' \
	invalid_request "the token was not issued for $bot"
exchange tool id_token alice.id --data-urlencode "audience=$docs"
refused 'Search Tool comes with the ID token of Alice: it acts for nobody by itself' \
	invalid_request "$tool may not act for the user"
exchange tool access_token called --data-urlencode "audience=$docs" --data-urlencode 'act={"sub": "agent:research/ceo"}'
refused 'Search Tool says itself who acts for whom' invalid_request 'is said by this service alone'

step 'Nobody calls Search Tool whom it does not name'
admin create serviceaccount news-bot --namespace=research --dry-run=client --output=yaml | bob apply -f - >/dev/null
bob get agent research-bot --namespace=research --output=json |
	jq '{apiVersion, kind, metadata: {namespace: "research", name: "news-bot"}, spec: (.spec
		| .displayName = "News Bot" | .identity.serviceAccounts = [{name: "news-bot"}])}' | bob apply -f - | show
check 'News Bot, which may do what Research Bot may, becomes Ready' is_ready research news-bot
pod_token research news-bot "$work/news"
exchange news id_token alice.id --data-urlencode "audience=$tool"
refused 'it may act for Alice, and Search Tool does not let it call' \
	invalid_target 'its spec.delegation.callers must name it'

step 'Nobody is acted for but those whom the Agent names'
say 'Carol logs in to the same app. She is a guest, of another organisation.'
log_in carol
part 1 "$work/carol.id" >"$work/carol.json"
claims '{iss, sub, aud, email, email_verified}' carol
exchange bot id_token carol.id --data-urlencode "audience=$tool"
refused 'Research Bot wants to act for Carol' \
	invalid_request 'spec.delegation.actFor does not name the user or a group of the user'

step 'Research Bot is suspended: what does Search Tool hold now?'
introspect
check 'before: active' answers 200 '.active == true'
suspend true | show
# At once: the operator watches.
for ((tries = 50; tries > 0; tries--)); do
	introspect
	if answers 200 '. == {"active": false}' >/dev/null; then break; fi
	sleep 0.1
done
answer . | show
check "Search Tool's token is dead: {\"active\": false}" answers 200 '. == {"active": false}'
exchange tool access_token called --data-urlencode "audience=$docs"
refused 'a new one, for the token with which it was called' invalid_request 'the token is not alive any more'
check 'and it is said whose fault that is' answers 400 '.error_description | contains(env.bot)'
log_in alice
exchange bot id_token alice.id --data-urlencode "audience=$tool"
answer . | show
check 'and Research Bot begins no new chain' answers 401 '.error == "invalid_client"'

step 'Research Bot is resumed: what is dead stays dead'
check 'kubectl wait --for=condition=Suspended' \
	bob wait --namespace=research --for=condition=Suspended --timeout=30s agent/research-bot
suspend false | show
check 'Research Bot is Ready again' is_ready research research-bot
introspect
answer . | show
check "Search Tool's token stays dead" answers 200 '. == {"active": false}'
exchange tool access_token called --data-urlencode "audience=$docs"
refused 'so does the one with which it was called' invalid_request 'the token is not alive any more'
exchange bot id_token alice.id --data-urlencode "audience=$tool"
check 'Research Bot begins another chain' answers 200 .access_token
keep again
exchange tool access_token again --data-urlencode "audience=$docs"
check 'and Search Tool acts for Alice again' answers 200 '.scope == "document.read web.search"'
keep access
check 'in another chain' says '.txn != env.txn' access
introspect
check 'active' answers 200 '.active == true'

step 'Who acted for whom, and through whom?'
if [ -z "$audit" ]; then
	say 'COUNTERSIGN_AUDIT is not set, so there is nothing to show.'
else
	records >"$work/audit"
	jq -c 'select(.event == "token.issue" and .txn == env.txn)' "$work/audit" >"$work/trail"
	jq -r '[.time, .outcome, .reason, "for " + .user, "by " + .chain] | join("  ")' "$work/trail" | show
	check 'each record of the chain names Alice, who vouched for her, and the agents in their order' jq -es '
		length > 0 and all(.[]; .user == "user:alice@acme.example" and .trusted_issuer == "acme")
		and (map(select(.outcome == "allow")) | map(.chain) == [env.bot, env.bot + " " + env.tool])' "$work/trail"
	check 'the second token descends from the first' jq -es '
		map(select(.outcome == "allow")) | .[0].jti == env.jti and .[1].parent_jti == env.jti' "$work/trail"
	check 'each refusal is there, with the rule that said no' jq -es '
		["delegation_not_granted", "subject_not_addressed", "claims_supplied", "capability_not_granted",
			"audience_not_allowed", "chain_ended", "agent_suspended"]
		- (map(select(.event == "token.issue" and .outcome == "deny").reason) | unique) == []' "$work/audit"
	check 'no token is in the records' no_token_in "$work/audit"
fi

all_held
