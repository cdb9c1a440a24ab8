#!/usr/bin/env bash
# Three agents that call one another for Alice, as one run: each is a server of its own, and exchanges what it was called with over HTTP.
# Then one in the middle is stopped, and what the others hold is dead. Each step is verified; the script ends with 0 only if every one of
# them went as it says.
#
# ../lib.sh and ../sdk.sh say which variables it needs, and ../delegation/demo.sh those of the identity provider; `make up` writes all of
# them to .dev/env.
set -euo pipefail
cd "$(dirname "$0")"
# shellcheck source=examples/lib.sh
. ../lib.sh
# shellcheck source=examples/sdk.sh
. ../sdk.sh
: "${IDENTITY_PROVIDER_URL:?}" "${IDENTITY_PROVIDER_CA:?}" "${IDENTITY_PROVIDER_LOGIN:?}"

mapfile -t ports < <(free_ports 4)
url_of() {
	case $1 in
	planner) echo "http://127.0.0.1:${ports[0]}" ;;
	researcher) echo "http://127.0.0.1:${ports[1]}" ;;
	writer) echo "http://127.0.0.1:${ports[2]}" ;;
	documents) echo "http://127.0.0.1:${ports[3]}" ;;
	esac
}
# server NAME NEXT: what is called as NAME, and calls NEXT.
server() {
	local url
	url=$(url_of "$1")
	OWN_NAME=$1 OWN_URL=$url NEXT_URL=$(url_of "$2") as "$1" uvicorn "$1:app" --port "${url##*:}" --log-level warning >"$work/$1.out" 2>&1 &
}
servers() {
	server planner researcher
	server researcher writer
	server writer documents
	server documents ''
	wait
}
listens() { curl --silent --fail --noproxy '*' --output /dev/null "$(url_of "$1")/.well-known/oauth-protected-resource"; }
# Planner has no such thing: it takes ID tokens of people.
all_listen() { listens researcher && listens writer && listens documents && curl --silent --noproxy '*' --output /dev/null "$(url_of planner)"; }

log_in() {
	"$IDENTITY_PROVIDER_LOGIN" research-app "$1" | jq -j .id_token >"$work/$1.id"
	{ printf 'Authorization: Bearer ' && cat "$work/$1.id"; } >"$work/$1.header"
}
# send WHO NAME BODY: a request with the ID token of WHO; leaves $status and the answer.
send() {
	status=$(curl --silent --show-error --max-time 120 --noproxy '*' --output "$answer_file" --write-out '%{http_code}' \
		--header "@$work/$1.header" --header 'Content-Type: application/json' --data "$3" "$(url_of "$2")")
	show <"$answer_file"
	echo
}
# Writer would write for more than a minute.
send_long() {
	answer_file=$work/long.json
	echo {} >"$answer_file"
	send alice planner '{"name": "2026/long", "chapters": 500}' || true # the checks say what was wrong
	echo "$status" >"$work/long.status"
}
is_ready() { admin wait --namespace="$1" --for=condition=Ready --timeout=30s "agent/$2"; }
# written PATTERN: whether the documents have printed that.
written() { grep -qE -- "$1" "$work/documents.out"; }

step 'Setup: an identity provider that is trusted, and three agents'
admin apply -f ../delegation/rbac.yaml >/dev/null
# What an earlier run, or another example, left.
admin delete trustedissuer acme --ignore-not-found >/dev/null
admin delete agent planner researcher --namespace=research --ignore-not-found >/dev/null
admin delete agent writer --namespace=tools --ignore-not-found >/dev/null
no_pod research planner
no_pod research researcher
no_pod tools writer
no_pod docs docs-server
# The provider of this run is on 127.0.0.1, with a certificate of its own.
admin create --dry-run=client -f ../delegation/trusted-issuer.yaml --output=json |
	jq --rawfile ca "$IDENTITY_PROVIDER_CA" '.spec.issuer += {url: env.IDENTITY_PROVIDER_URL,
		certificateAuthority: $ca, allowedNetworks: ["127.0.0.0/8"]}' >"$work/trusted-issuer.json"
admin apply -f "$work/trusted-issuer.json" >/dev/null
check 'the identity provider is trusted: its keys were fetched' admin wait --for=condition=Ready --timeout=60s trustedissuer/acme
bob apply -f agents.yaml >/dev/null
check 'Planner is registered' is_ready research planner
check 'Researcher is registered' is_ready research researcher
check 'Writer is registered' is_ready tools writer
pod_token research planner "$work/planner"
pod_token research researcher "$work/researcher"
pod_token tools writer "$work/writer"
pod_token docs docs-server "$work/documents"
in_background servers
eventually 'four servers listen' all_listen

step 'Alice has a report written'
log_in alice
send alice planner '{"name": "2026/q3", "chapters": 2}'
check 'it is written' answers 200 '.written == 2'
show <"$work/documents.out"
chain='for alice@acme.example, by agent:tools/writer, called by agent:research/researcher, called by agent:research/planner$'
check 'the documents know for whom, by whom, and through whom' written "^/reports/2026/q3 chapter 2: $chain"

step 'No more than all of them hold'
say 'Planner and Writer may write every report, Researcher those of 2026.'
send alice planner '{"name": "2025/q3", "chapters": 1}'
check 'the documents refuse that of 2025' answers 403 '."documents said" == 403 and .written == 0'

step 'Nobody comes in the middle, and for nobody else'
send alice writer '{"name": "2026/q3", "chapters": 1}'
check 'Writer refuses the ID token of Alice: no agent stands behind it' answers 401 '.error == "invalid_token"'
log_in carol
send carol planner '{"name": "2026/q3", "chapters": 1}'
check 'Planner may not act for Carol, who is a guest' answers 403 '.refused == "planner"'

step 'Researcher is suspended while Writer writes'
send_long >/dev/null &
long=$!
eventually 'Writer is at work' written "^/reports/2026/long chapter 3: $chain"
bob patch agent researcher --namespace=research --type=merge --patch='{"spec": {"suspended": true}}' | show
wait "$long"
status=$(cat "$work/long.status")
mv "$work/long.json" "$answer_file"
show <"$answer_file"
echo
check 'the token of Writer is dead: the documents take it no longer' answers 401 '."documents said" == 401 and .written < 500'
lines=$(wc -l <"$work/documents.out")
check 'the last chapter that they took is the last that was written' test "$lines" = "$(($(answer .written) + 2))"

step 'And no other report begins'
log_in alice
send alice planner '{"name": "2026/q4", "chapters": 1}'
check 'the chain is not made' answers 403 '.refused'
check 'the documents have seen nothing of it' test "$(wc -l <"$work/documents.out")" = "$lines"
cat "$work"/*.out >"$work/printed"
check 'nobody printed a token' no_token_in "$work/printed"

all_held
