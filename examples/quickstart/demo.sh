#!/usr/bin/env bash
# The quickstart as one run: an agent is registered, obtains tokens, has one
# checked, and is suspended. Each step is verified; the script ends with 0 only
# if every one of them went as it says.
#
# ../lib.sh says which variables it needs; `make demo` sets all of them.
set -euo pipefail
cd "$(dirname "$0")"
# shellcheck source=examples/lib.sh
. ../lib.sh

# The other two ways to present the Pod's token; whatever follows is added to the form.
jwt_bearer() {
	post /oauth2/token --data-urlencode grant_type=urn:ietf:params:oauth:grant-type:jwt-bearer \
		--data-urlencode "assertion@$work/agent" "$@"
}
token_exchange() {
	post /oauth2/token --data-urlencode grant_type=urn:ietf:params:oauth:grant-type:token-exchange \
		--data-urlencode subject_token_type=urn:ietf:params:oauth:token-type:jwt \
		--data-urlencode "subject_token@$work/agent" "$@"
}

step 'Setup: two people, a resource server, and no agent yet'
admin apply -f rbac.yaml >/dev/null
# What an earlier run left.
admin delete agent research-bot --namespace=research --ignore-not-found >/dev/null
no_pod research research-bot
no_pod docs docs-server
say 'alice and bob may both write Agents in namespace research; only alice may grant document.read and web.search.'

step 'bob applies agent.yaml: he may write Agents, but not give them what he may not grant'
if bob apply -f agent.yaml >"$work/bob" 2>&1; then fail 'bob was not refused'; fi
show <"$work/bob"
check 'the API server refused, and named the capability' grep -qE 'document\.read|web\.search' "$work/bob"
bobs_agent=$(admin get agents --namespace=research --output=name)
check 'there is no Agent' test -z "$bobs_agent"

step 'alice applies the same file'
alice apply -f agent.yaml | show
changed_by=$(admin get agent research-bot --namespace=research \
	--output='jsonpath={.metadata.annotations.countersign\.dev/changed-by}')
check "the Agent says who made it: countersign.dev/changed-by is ${changed_by:-missing}" test "$changed_by" = alice
check 'the Agent becomes Ready' \
	admin wait --namespace=research --for=condition=Ready --timeout=30s agent/research-bot
alice get agents --namespace=research | show

step 'The agent runs in a Pod, which has a token for the token service: nothing to keep secret, nothing to rotate'
pod_token research research-bot "$work/agent"
part 1 "$work/agent" >"$work/claims"
jq '{iss, sub, aud, exp, pod: ."kubernetes.io".pod.name}' "$work/claims" | show
check 'its only audience is the token service' jq -e '.aud == [env.COUNTERSIGN_URL]' "$work/claims"

step 'The agent exchanges it for an access token, by each of three standard grants'
for grant in client_credentials jwt_bearer token_exchange; do
	"$grant"
	check "$grant is answered with a token" answers 200 '.access_token and .token_type == "Bearer"'
	keep_token
	part 0 "$work/access" >"$work/header"
	part 1 "$work/access" >"$work/claims"
	check 'its type is at+jwt (RFC 9068)' jq -e '.typ == "at+jwt"' "$work/header"
	check 'its subject is the agent, its audience the resource server, its scope what was granted' \
		jq -e '.sub == "agent:research/research-bot"
			and ([.aud] | flatten) == ["https://docs.example.com"]
			and (.scope | split(" ") | sort) == ["document.read", "web.search"]' "$work/claims"
done
say 'The last of them:'
jq . "$work/header" "$work/claims" | show

step 'It asks for more than it was granted'
client_credentials --data-urlencode scope=document.delete
answer . | show
check 'refused: 400 invalid_scope, with the reason' answers 400 '.error == "invalid_scope" and .error_description'

step 'The resource server asks whether the token is good, with a Pod token of its own'
resource_server docs docs-server
introspect
answer . | show
check 'active' answers 200 '.active == true and .sub == "agent:research/research-bot"'

step 'alice suspends the agent'
alice patch agent research-bot --namespace=research --type=merge --patch='{"spec":{"suspended":true}}' | show
# Both at once, or one after the other, but within seconds: the operator watches.
for ((tries = 50; tries > 0; tries--)); do
	client_credentials
	refused=$status
	jq -c '{error, error_description}' "$answer_file" >"$work/refusal"
	introspect
	if [ "$refused" != 200 ] && answers 200 '. == {"active": false}' >/dev/null; then break; fi
	sleep 0.1
done
show <"$work/refusal"
check "no new token: $refused" grep -qE '^40[013]$' <<<"$refused"
check 'the token it holds is dead: {"active": false}' answers 200 '. == {"active": false}'

step 'Every one of these outcomes was recorded before its answer left'
if [ -z "$audit" ]; then
	say 'COUNTERSIGN_AUDIT is not set, so there is nothing to show.'
else
	records >"$work/audit"
	jq -r '[.time, .event, .outcome, .reason] | map(. // "-") | join("  ")' "$work/audit" | show
	check 'three tokens, one denied for its scope, at least one for the suspension' \
		jq -es 'map(select(.event | test("token"))) | group_by(.outcome) | map({(.[0].outcome): length}) | add
			| .allow >= 3 and .deny >= 2' "$work/audit"
	check 'no token is in the records' no_token_in "$work/audit"
fi

all_held
