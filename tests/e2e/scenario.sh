#!/usr/bin/env bash
# Countersign as its users have it, from beginning to end: the packed image, three
# replicas on PostgreSQL, agents in pods of their own, an approval, an upgrade and a
# rollback under load, a replica that is killed, and the end of it all. Each step is
# verified; the script ends with 0 only if every one of them went as it says.
#
#   scenario.sh ARCHIVE AGENT HELM VERSION
#
# ARCHIVE is the image, AGENT the program of the test's own pods, VERSION the tag of
# the image. tests/node/node.sh says what else it needs; e2e.sh calls it.
set -euo pipefail
cd "$(dirname "$0")"
# shellcheck source=examples/transcript.sh
. ../../examples/transcript.sh
# shellcheck source=tests/e2e/postgres.sh
. ./postgres.sh
# shellcheck source=tests/e2e/workload.sh
. ./workload.sh
# shellcheck source=tests/e2e/operator.sh
. ./operator.sh
archive=$1 agent=$2 helm=$3 version=$4

admin() { kubectl --kubeconfig "$KUBECONFIG" "$@"; }
alice() { kubectl --kubeconfig "$ALICE_KUBECONFIG" "$@"; }
bob() { kubectl --kubeconfig "$BOB_KUBECONFIG" "$@"; }
namespace=countersign-system
issuer=https://countersign.$namespace.svc
acme=https://acme.example
export issuer acme

ended() {
	local status=$?
	if [ "$status" != 0 ]; then say_why || true; fi
	leave
}
trap ended EXIT

step 'A Kubernetes of one node'
admin get nodes --output=wide | show
check 'the node is Ready' admin wait --for=condition=Ready --timeout=60s node/node
everything >"$work/before"

step 'The images: ours is packed without a container engine, and no registry is asked'
check 'containerd takes our image' "$CTR" images import "$archive"
check 'and knows it by a second tag, for the upgrade' \
	"$CTR" images tag "docker.io/library/countersign:$version" "docker.io/library/countersign:$version-next"
../../image/pack.py --output "$work/agent.tar" --name localhost/agent:1 --file "$agent=/agent" --entrypoint /agent \
	--user 65532:65532 >/dev/null
check 'and that of the agents of this test' "$CTR" images import "$work/agent.tar"
"$CTR" images list --quiet 2>/dev/null | grep -v ^sha256 | sort | show

step 'PostgreSQL, which somebody else runs'
password=$(openssl rand -hex 24)
check 'it runs, and takes connections over TLS only' start_postgres "$NODE_STATE/postgres" "$password"
database_manifest | admin apply -f - >/dev/null

step 'helm install: three replicas'
admin create namespace "$namespace" >/dev/null
admin label namespace "$namespace" pod-security.kubernetes.io/enforce=restricted >/dev/null
printf 'postgres://countersign:%s@postgres.database.svc/countersign?sslmode=verify-full&sslrootcert=%s' \
	"$password" /etc/countersign/database/ca.crt >"$work/url"
admin create secret generic countersign-database --namespace="$namespace" --from-file=url="$work/url" \
	--from-file=ca.crt="$NODE_STATE/postgres/ca.crt" >/dev/null
say "helm install countersign charts/countersign --namespace $namespace $(values)"
release install >"$work/installed" || fail "helm install: $(cat "$work/installed")"
check 'helm says it is deployed, and all pods are Ready' deployed
admin get pods --namespace="$namespace" --output=wide | show
check 'three of them, under the Pod Security Standard restricted' settled
check 'none of them was started twice' test "$(restarts)" = 0
check 'the image has no shell: there is nothing that kubectl exec could run' no_shell
check 'the API server stamps Agents' within 60 admits
check 'helm test: an agent made for the occasion obtains a token, and is refused another' \
	run "$helm" test countersign --namespace "$namespace" --timeout 5m

step 'Agents and a resource server, in pods of their own'
admin apply -f agents.yaml >/dev/null
admin get configmap countersign --namespace="$namespace" --output='jsonpath={.data.ca\.crt}' >"$work/ca.crt"
for place in acme crowd; do
	admin create configmap countersign-ca --namespace="$place" --from-file=ca.crt="$work/ca.crt" >/dev/null
done
for name in research/research-bot tools/search-tool crowd/clients; do
	check "$name is a registered agent" \
		admin wait --for=condition=Ready --timeout=60s "agent/${name#*/}" --namespace="${name%/*}"
done
{
	agent research research-bot
	agent tools search-tool
	service crowd clients clients
	service acme acme-server resource-server
} | admin apply -f - >/dev/null
for name in research/research-bot tools/search-tool crowd/clients acme/acme-server; do
	check "the pod of $name is Ready" admin rollout status "deployment/${name#*/}" --namespace="${name%/*}" --timeout=120s
done
admin get pods --namespace=research --output=wide | show
check 'one label gave Research Bot a sidecar' has_sidecar
tell research research-bot POST /credentials
check 'and it has no credential of its own' said '.body.found == 0'

step 'Research Bot obtains a token and shows it to the resource server'
tell research research-bot POST /token "audience=$acme"
shown '.body | {claims: .claims | {iss, sub, aud, scope}, expires_in}'
check 'it is for Research Bot and what it may do without asking' said '
	.status == 200 and .body.claims.iss == env.issuer and .body.claims.sub == "agent:research/research-bot"
	and .body.claims.aud == env.acme and .body.claims.scope == "document.read"'
call "audience=$acme" to=http://acme-server.acme.svc/read
shown '.body | {active, sub, scope}'
check 'the resource server asked: it is active' said '.body.active == true and .body.sub == "agent:research/research-bot"'

step 'Research Bot calls Search Tool, which reads from the resource server'
call audience=agent:tools/search-tool \
	"to=http://search-tool.tools.svc/work?audience=$acme&to=http://acme-server.acme.svc/read"
shown '.body | {active, sub, act: .act.sub, scope, authorization_details}'
check 'what the server sees: Search Tool acts, called by Research Bot, within what both may' said '
	.body | .active and .sub == "agent:research/research-bot" and .act.sub == "agent:tools/search-tool"
	and .scope == "document.read" and .authorization_details[0].resources == ["document:reports/*"]'

step 'Research Bot asks for a payment, a person approves, and it pays'
details='[{"type": "countersign_operation", "capability": "payments.authorize", "resource": "invoice:INV-7",
	"parameters": {"amount": 500, "currency": "EUR"}}]'
pay() {
	work=$work/paying
	mkdir "$work"
	tell research research-bot POST /act "authorization_details=$details" to=http://acme-server.acme.svc/pay
}
in_background pay
check 'a request waits for a decision' within 30 pending
name=$(admin get jit --namespace=research --output='jsonpath={.items[0].metadata.name}')
bob get jit --namespace=research | show
patch='{"status":{"decision":{"verdict":"Approved","comment":"Goods received."}}}'
say "kubectl patch jit $name --subresource=status --type=merge -p '$patch'"
if alice patch jit "$name" --namespace=research --subresource=status --type=merge --patch="$patch" >"$work/refused" 2>&1; then
	fail 'alice may not approve, and was not refused'
fi
check 'alice may not' grep -q 'orbidden\|denied' "$work/refused"
check 'bob may' bob patch jit "$name" --namespace=research --subresource=status --type=merge --patch="$patch"
from_background
mv "$work/paying/answer" "$work/answer"
shown '.body | {active, scope, completed, authorization_details}'
check 'the agent, which had waited, held its token, and the server used it up before it paid' said '
	.body.active and .body.scope == "payments.authorize" and .body.completed == 200
	and .body.authorization_details[0].parameters == {amount: 500, currency: "EUR"}'
check 'the request is Completed' test "$(admin get jit "$name" --namespace=research --output='jsonpath={.status.phase}')" = Completed

step 'The pod is deleted, and does not want to go'
tell research research-bot POST /call "audience=$acme" to=http://acme-server.acme.svc/read
check 'it leaves a token with the resource server, which is active' said '.body.active == true'
old=$(address research research-bot)
admin delete pod --namespace=research --selector=app=research-bot --wait=false >/dev/null
begin_clock
refused() { tell_at "$old" POST /token "audience=$acme" && said '.status == 401 and .body.error == "invalid_client"' >/dev/null; }
check 'it still runs, with its sidecar, and obtains nothing any more' within 3 refused
clock 'after kubectl delete pod returned'
check 'in less than two seconds' test "$elapsed" -lt 2000
shown '.body'
tell acme acme-server POST /again
check 'and the token that it left is dead: introspection says {"active": false}' said '.body == {"active": false}'
check 'the next pod is Ready' admin rollout status deployment/research-bot --namespace=research --timeout=120s
within 20 alone || fail 'the old pod is still there'
check 'and obtains tokens' with_token

step 'The agent is suspended: what it left with the resource server is dead'
tell research research-bot POST /call "audience=$acme" to=http://acme-server.acme.svc/read
check 'its token is good until now' said '.body.active == true'
say "kubectl patch agent research-bot --type=merge -p '{\"spec\":{\"suspended\":true}}'"
suspend true
begin_clock
check 'introspection says {"active": false}' within 10 token_is_dead
clock 'after kubectl patch returned'
check 'in less than two seconds' test "$elapsed" -lt 2000
check 'and there are no new ones' within 3 no_token
suspend false
check 'resumed, it obtains tokens again' within 30 with_token
tell acme acme-server POST /again
check 'and what was dead stays dead' said '.body == {"active": false}'

step 'helm upgrade under load: another image, another log level'
load_begins
release upgrade --set "image.tag=$version-next" --set logLevel=debug >"$work/upgraded" || fail "$(cat "$work/upgraded")"
check 'helm says it is deployed, and all pods are Ready' deployed
check 'they run the other image' test "$(images)" = "countersign:$version-next"
check 'they agree about the agents: nothing is written while nothing happens' within 15 at_rest
load_ends
check 'no request failed, with one retry at most' said '.body.requests > 50 and .body.failed == 0'

step 'helm rollback under load'
load_begins
run "$helm" rollback countersign --namespace "$namespace" --wait --timeout 5m >"$work/rolled" || fail "$(cat "$work/rolled")"
check 'helm says it is deployed, and all pods are Ready' deployed
check 'they run the first image' test "$(images)" = "countersign:$version"
load_ends
check 'no request failed, with one retry at most' said '.body.requests > 50 and .body.failed == 0'

step 'kill -9 of one of three replicas, under load'
load_begins
sleep 3
victim=$(replicas | cut -d ' ' -f 1)
kill_replica "$victim"
say "killed: $victim"
check 'the kubelet starts it again' within 60 restarted "$victim"
check 'and it is Ready' admin wait --for=condition=Ready --timeout=60s "pod/$victim" --namespace="$namespace"
sleep 3
load_ends
check 'at least 99.9 % of the requests succeeded, with one retry at most' said '
	.body.requests > 50 and .body.failed <= .body.requests / 1000'
# How long a Service leads to a dead pod is up to the kubelet and kube-proxy: about a second.
check 'and requests failed at first for at most two seconds' said '.body.window_ms <= 2000'

step 'helm uninstall'
check 'helm is done' run "$helm" uninstall countersign --namespace "$namespace" --wait --timeout 5m
admin delete namespace research tools acme crowd database --wait >/dev/null
admin delete -f agents.yaml --ignore-not-found >/dev/null 2>&1 || true
everything | comm -13 "$work/before" - >"$work/left"
show <"$work/left"
check 'the definitions stay, what guards them, and what the chart says is kept' only_what_is_kept
remove_what_is_kept
admin delete namespace "$namespace" --wait >/dev/null
check 'and by the commands of its README nothing stays' within 60 nothing_left

all_held
