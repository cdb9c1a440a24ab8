#!/usr/bin/env bash
# The quickstart as one run: an agent is registered, obtains tokens, has one
# checked, and is suspended. Each step is verified; the script ends with 0 only
# if every one of them went as it says.
#
#   KUBECONFIG         the cluster's administrator
#   ALICE_KUBECONFIG   the user alice of rbac.yaml
#   BOB_KUBECONFIG     the user bob of rbac.yaml
#   COUNTERSIGN_URL    the token service, which is also its issuer
#   COUNTERSIGN_CA     the authority of its certificate, a PEM file
#   COUNTERSIGN_AUDIT  its audit records, a file (optional)
#
# `make demo` sets all of them. No token is printed or put on a command line.
set -euo pipefail
cd "$(dirname "$0")"

: "${KUBECONFIG:?}" "${ALICE_KUBECONFIG:?}" "${BOB_KUBECONFIG:?}" "${COUNTERSIGN_URL:?}" "${COUNTERSIGN_CA:?}"
audit=${COUNTERSIGN_AUDIT:-}
export KUBECTL_KUBERC=false

umask 077
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

if [ -t 1 ]; then
	bold=$'\e[1m' green=$'\e[32m' red=$'\e[31m' dim=$'\e[2m' plain=$'\e[0m'
else
	bold='' green='' red='' dim='' plain=''
fi
step_number=0

# The transcript.
step() { printf '\n%s%d. %s%s\n' "$bold" "$((++step_number))" "$*" "$plain"; }
say() { printf '   %s\n' "$*"; }
show() { sed "s/^/   $dim| /; s/\$/$plain/"; }
fail() {
	printf '   %s✗ %s%s\n' "$red" "$*" "$plain"
	exit 1
}

# check WHAT COMMAND...: ends the script unless the command succeeds.
check() {
	local what=$1
	shift
	if "$@" >"$work/check" 2>&1; then
		printf '   %s✓%s %s\n' "$green" "$plain" "$what"
	else
		show <"$work/check"
		fail "expected: $what"
	fi
}

admin() { kubectl --kubeconfig "$KUBECONFIG" "$@"; }
alice() { kubectl --kubeconfig "$ALICE_KUBECONFIG" "$@"; }
bob() { kubectl --kubeconfig "$BOB_KUBECONFIG" "$@"; }

# part N FILE: the Nth part of the JWT in the file as JSON: 0 its header, 1 its claims.
part() { jq -Rc "split(\".\")[$1] | gsub(\"-\"; \"+\") | gsub(\"_\"; \"/\") | @base64d | fromjson" "$2"; }

# pod_token NAMESPACE SERVICE_ACCOUNT FILE: makes a Pod object for the account and writes the token that a
# projected volume of it would hold.
pod_token() {
	local pod=$2-demo uid
	uid=$(admin create -f - -o 'jsonpath={.metadata.uid}' <<-POD
		apiVersion: v1
		kind: Pod
		metadata: {namespace: $1, name: $pod}
		spec:
		  serviceAccountName: $2
		  automountServiceAccountToken: false
		  containers: [{name: main, image: "registry.k8s.io/pause:3.10"}]
	POD
	)
	admin create token "$2" --namespace="$1" --audience="$COUNTERSIGN_URL" --duration=10m \
		--bound-object-kind=Pod --bound-object-name="$pod" --bound-object-uid="$uid" | tr -d '\n' >"$3"
}

# post PATH ARGUMENT...: a form to the token service; leaves $status and answer.json.
post() {
	local path=$1
	shift
	status=$(curl --silent --show-error --max-time 10 --noproxy '127.0.0.1,localhost' --cacert "$COUNTERSIGN_CA" \
		--output "$work/answer.json" --write-out '%{http_code}' "$@" "$COUNTERSIGN_URL$path")
}
answer() { jq -r "$1" "$work/answer.json"; }
answers() {
	if [ "$status" = "$1" ] && jq -e "$2" "$work/answer.json" >/dev/null; then return; fi
	echo "status $status"
	cat "$work/answer.json"
	return 1
}
no_token_in() { ! grep -qE 'eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}' "$1"; }

# The three ways to present the Pod's token; whatever follows is added to the form.
client_credentials() {
	post /oauth2/token --data-urlencode grant_type=client_credentials \
		--data-urlencode client_assertion_type=urn:ietf:params:oauth:client-assertion-type:jwt-bearer \
		--data-urlencode "client_assertion@$work/agent" "$@"
}
jwt_bearer() {
	post /oauth2/token --data-urlencode grant_type=urn:ietf:params:oauth:grant-type:jwt-bearer \
		--data-urlencode "assertion@$work/agent" "$@"
}
token_exchange() {
	post /oauth2/token --data-urlencode grant_type=urn:ietf:params:oauth:grant-type:token-exchange \
		--data-urlencode subject_token_type=urn:ietf:params:oauth:token-type:jwt \
		--data-urlencode "subject_token@$work/agent" "$@"
}
introspect() { post /oauth2/introspect --header "@$work/docs-server.header" --data-urlencode "token@$work/access"; }

step 'Setup: two people, a resource server, and no agent yet'
admin apply -f rbac.yaml >/dev/null
# What an earlier run left.
admin delete agent research-bot --namespace=research --ignore-not-found >/dev/null
admin delete pod research-bot-demo --namespace=research --ignore-not-found >/dev/null
admin delete pod docs-server-demo --namespace=docs --ignore-not-found >/dev/null
recorded=0
if [ -n "$audit" ]; then recorded=$(wc -l <"$audit"); fi
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
	answer .access_token | tr -d '\n' >"$work/access"
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
jq . "$work/answer.json" | show
check 'refused: 400 invalid_scope, with the reason' answers 400 '.error == "invalid_scope" and .error_description'

step 'The resource server asks whether the token is good, with a Pod token of its own'
pod_token docs docs-server "$work/docs-server"
{ printf 'Authorization: Bearer ' && cat "$work/docs-server"; } >"$work/docs-server.header"
introspect
jq . "$work/answer.json" | show
check 'active' answers 200 '.active == true and .sub == "agent:research/research-bot"'

step 'alice suspends the agent'
alice patch agent research-bot --namespace=research --type=merge --patch='{"spec":{"suspended":true}}' | show
# Both at once, or one after the other, but within seconds: the operator watches.
for ((tries = 50; tries > 0; tries--)); do
	client_credentials
	refused=$status
	jq -c '{error, error_description}' "$work/answer.json" >"$work/refusal"
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
	tail -n "+$((recorded + 1))" "$audit" >"$work/audit"
	jq -r '[.time, .event, .outcome, .reason] | map(. // "-") | join("  ")' "$work/audit" | show
	check 'three tokens, one denied for its scope, at least one for the suspension' \
		jq -es 'map(select(.event | test("token"))) | group_by(.outcome) | map({(.[0].outcome): length}) | add
			| .allow >= 3 and .deny >= 2' "$work/audit"
	check 'no token is in the records' no_token_in "$work/audit"
fi

printf '\n%sAll of it held.%s\n' "$green" "$plain"
