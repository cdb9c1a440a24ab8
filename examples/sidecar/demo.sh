#!/usr/bin/env bash
# One label on a pod, and the agent in it holds no credential: what it needs, it asks of a sidecar on localhost. Each step is verified;
# the script ends with 0 only if every one of them went as it says.
#
# Nothing runs pods here. The script starts the sidecar as a node would: with the arguments that the API server wrote into the pod, and with
# the token that a projected volume of that pod would hold. SIDECAR_PORT says on which port (7710).
#
# ../lib.sh says which variables it needs; `make demo` sets all of them.
set -euo pipefail
cd "$(dirname "$0")"
# shellcheck source=examples/lib.sh
. ../lib.sh
countersign=${COUNTERSIGN:?the binary}
sidecar=http://127.0.0.1:${SIDECAR_PORT:-7710}

# ask PATH ARGUMENT...: what the agent does, with no credential; leaves $status and $answer_file.
ask() {
	local path=$1
	shift
	status=$(curl --silent --show-error --max-time 60 --noproxy '*' --header 'Countersign-Sidecar: true' \
		--output "$answer_file" --write-out '%{http_code}' "$@" "$sidecar$path")
}
pod() { admin get pod assistant --namespace=assistants --output=json; }

step 'Setup: two people, a rule, and an agent whose pod has one label'
admin apply -f rbac.yaml >/dev/null
# What an earlier run left.
admin delete jit --all --namespace=assistants >/dev/null
admin delete pod assistant --namespace=assistants --ignore-not-found >/dev/null
check 'the rule can be enforced' admin wait --for=condition=Ready --timeout=30s capability/mail.send
sed -n '/^kind: Pod/,$p' agent.yaml | show
alice apply -f agent.yaml >/dev/null
check 'the Agent is Ready' admin wait --namespace=assistants --for=condition=Ready --timeout=30s agent/assistant

step 'The API server has put a sidecar into the pod'
pod >"$work/pod"
jq '.spec.initContainers[0] | {name, restartPolicy, args, volumeMounts}' "$work/pod" | show
check 'it starts before the agent, and is ready before the agent starts' jq -e '
	.spec.initContainers[0] | .name == "countersign-sidecar" and .restartPolicy == "Always" and (.startupProbe.exec.command | length == 3)' "$work/pod"
check 'only the sidecar mounts a credential, the agent none at all' jq -e '
	.spec.automountServiceAccountToken == false and all(.spec.containers[]; (.volumeMounts // []) == [])
	and (.spec.initContainers[0].volumeMounts | length == 1)' "$work/pod"

step 'It runs, as on a node'
admin create token assistant --namespace=assistants --audience="$COUNTERSIGN_URL" --duration=10m \
	--bound-object-kind=Pod --bound-object-name=assistant --bound-object-uid="$(jq -r .metadata.uid "$work/pod")" |
	tr -d '\n' >"$work/token"
# The last value of a flag counts: here the token service is not where it is in a cluster.
mapfile -t args < <(jq -r '.spec.initContainers[0].args[]' "$work/pod")
in_background "$countersign" "${args[@]}" --url="$COUNTERSIGN_URL" --ca-file="$COUNTERSIGN_CA" --token-file="$work/token" \
	--listen-address="${sidecar#http://}" 2>"$work/sidecar.log"
is_ready() {
	local tries
	for ((tries = 100; tries > 0; tries--)); do
		if "$countersign" sidecar-ready --listen-address="${sidecar#http://}"; then return; fi
		sleep 0.1
	done
	return 1
}
check 'its startup probe succeeds' is_ready

step 'The agent asks for a token'
ask /token
answer 'del(.access_token)' | show
check 'it has one, without having shown anything' answers 200 '.access_token and .scope == "document.read"'
keep_token
part 1 "$work/access" >"$work/claims"
check 'in its own name' jq -e '.sub == "agent:assistants/assistant" and .aud == "https://docs.example.com"' "$work/claims"
ask '/token?scope=document.delete'
answer . | show
check 'what it was not granted is refused, with the reason' answers 400 '.error == "invalid_scope"'

step 'A page, or a server that can be made to fetch a URL, gets nothing'
status=$(curl --silent --noproxy '*' --output "$answer_file" --write-out '%{http_code}' "$sidecar/token")
check 'without the header: 403' answers 403 '.error == "access_denied"'
status=$(curl --silent --noproxy '*' --header 'Countersign-Sidecar: true' --header 'Host: rebound.example' \
	--output "$answer_file" --write-out '%{http_code}' "$sidecar/token")
check 'by another name of the loopback address: 403' answers 403 '.error == "access_denied"'

step 'It asks whether it may, in AuthZEN and in plain words'
ask /access/v1/evaluation --json '{"action": {"name": "document.read"}, "resource": {"type": "document", "id": "reports/q3"}}'
check 'yes' answers 200 '.decision == true'
ask /ask --json '{"question": "Can I read documents?"}'
check 'yes' answers 200 '.decision == true'

step 'Its tokens become worthless to everybody else'
alice patch agent assistant --namespace=assistants --type=merge --patch='{"spec":{"tokens":{"proofOfPossession":"DPoP"}}}' | show
is_bound() {
	local tries
	for ((tries = 50; tries > 0; tries--)); do
		ask /token --header 'Cache-Control: no-cache'
		if [ "$status" = 200 ] && [ "$(answer .token_type)" = DPoP ]; then return; fi
		sleep 0.2
	done
	return 1
}
check 'they are bound to a key, which only the sidecar has' is_bound
keep_token
part 1 "$work/access" | jq '{cnf}' | show
ask /proof --data-urlencode method=GET --data-urlencode url=https://docs.example.com/reports/q3 --data-urlencode "access_token@$work/access"
check 'and for each request the agent has a proof made, to be sent beside the token' answers 200 .proof

step 'A person approves a mail'
jq -nc '[{type: "countersign_operation", capability: "mail.send", resource: "mail:alice@example.com"}]' >"$work/details"
ask /jit --data-urlencode "authorization_details@$work/details" --data-urlencode 'binding_message=The report is ready.'
check 'it is asked for' answers 200 .auth_req_id
id=$(answer .auth_req_id)
name=$(admin get jit --namespace=assistants --output=json | jq -r --arg uid "$id" '.items[] | select(.metadata.uid == $uid) | .metadata.name')
check 'it waits' admin wait --namespace=assistants --for='jsonpath={.status.phase}=Pending' --timeout=30s "jit/$name"
bob get jit --namespace=assistants | show
bob patch jit "$name" --namespace=assistants --subresource=status --type=merge \
	--patch='{"status":{"decision":{"verdict":"Approved","comment":"fine"}}}' | show
ask "/jit/$id?wait=30"
check 'the agent, which waited, has the token for it' answers 200 '.access_token and .authorization_details[0].capability == "mail.send"'
keep_token
ask /jit/complete --data-urlencode "token@$work/access"
check 'and reports that it is sent' answers 200 '.completed == true'

step 'Somebody suspends the agent'
alice patch agent assistant --namespace=assistants --type=merge --patch='{"spec":{"suspended":true}}' >/dev/null
is_refused() {
	local tries
	for ((tries = 50; tries > 0; tries--)); do
		ask /token --header 'Cache-Control: no-cache'
		if [ "$status" = 401 ]; then return; fi
		sleep 0.2
	done
	return 1
}
check 'the sidecar hands out nothing any more' is_refused
alice patch agent assistant --namespace=assistants --type=merge --patch='{"spec":{"suspended":false}}' >/dev/null
check 'no token is in its log' no_token_in "$work/sidecar.log"

all_held
