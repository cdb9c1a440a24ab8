# shellcheck shell=bash
# The operator in the cluster: what helm does with it, how it is doing, and the
# load under which it is changed.
# shellcheck disable=SC2154 # variables of scenario.sh, which includes this

# The values of this installation: those for high availability. The image is on the node.
values() { echo '--values ../../charts/countersign/values-ha.yaml --set image.pullPolicy=Never'; }

# run COMMAND...: with the administrator's kubeconfig, which helm takes from the environment.
run() { KUBECONFIG=$KUBECONFIG "$@"; }

# release install|upgrade ARGUMENT...
release() {
	# shellcheck disable=SC2046 # words
	run "$helm" "$1" countersign ../../charts/countersign --namespace "$namespace" --wait --timeout 5m $(values) "${@:2}" 2>&1
}
deployed() {
	admin rollout status deployment/countersign --namespace="$namespace" --timeout=60s
	within 60 settled
	[[ $(run "$helm" status countersign --namespace "$namespace") == *'STATUS: deployed'* ]]
}
of_replicas() { admin get pods --namespace="$namespace" --selector=app.kubernetes.io/name=countersign,app.kubernetes.io/instance=countersign "$@"; }
# Those that were told to stop have ended.
settled() { test "$(replicas | wc -w)" = 3; }
replicas() { of_replicas --output='jsonpath={.items[*].metadata.name}'; }
restarts() { of_replicas --output=json | jq '[.items[].status.containerStatuses[].restartCount] | add'; }
# Whether nobody writes Agents while nothing happens to them. Replicas that see different things contradict each other for ever.
at_rest() {
	local versions
	versions=$(admin get agents --all-namespaces --output='jsonpath={.items[*].metadata.resourceVersion}')
	sleep 3
	test "$versions" = "$(admin get agents --all-namespaces --output='jsonpath={.items[*].metadata.resourceVersion}')"
}
images() { of_replicas --output=json | jq -r '[.items[].spec.containers[0].image] | unique[]'; }
no_shell() {
	local name
	name=$(replicas | cut -d ' ' -f 1)
	! admin exec "$name" --namespace="$namespace" -- /bin/sh -c true >"$work/exec" 2>&1 && grep -q 'no such file' "$work/exec"
}

# within SECONDS COMMAND...: repeats the command until it succeeds.
within() {
	local ends=$((SECONDS + $1))
	shift
	until "$@"; do
		[ "$SECONDS" -lt "$ends" ] || return 1
		sleep 0.05
	done
}
# Whether the API server knows the kinds that helm has just installed, and its policies know them too: it learns both within seconds.
admits() {
	admin create --dry-run=server --output=json --filename=- >"$work/admitted" 2>&1 <<-'END' && grep -q countersign.dev/changed-by "$work/admitted"
		{"apiVersion": "countersign.dev/v1alpha1", "kind": "Agent", "metadata": {"name": "sample", "namespace": "default"},
		 "spec": {"owner": "admin", "identity": {"serviceAccounts": [{"name": "sample"}]}, "capabilities": [{"name": "a"}]}}
	END
}
# A call by Research Bot. The node learns where a Service leads only after its pods are Ready.
call() { within 30 reached "$@"; }
reached() {
	tell research research-bot POST /call "$@"
	! said '(.error // .body.error // "") | contains("dial tcp")' >/dev/null
}
pending() { admin get jit --namespace=research --output='jsonpath={.items[*].status.phase}' | grep -qx Pending; }
token_is_dead() { tell acme acme-server POST /again && said '.body == {"active": false}' >/dev/null; }
with_token() { tell research research-bot POST /token "audience=$acme" && said .body.claims; }
no_token() { tell research research-bot POST /token "audience=$acme" && said '.status == 401' >/dev/null; }
alone() { test "$(admin get pods --namespace=research --selector=app=research-bot --output=name | wc -l)" = 1; }
suspend() {
	alice patch agent research-bot --namespace=research --type=merge --patch="{\"spec\":{\"suspended\":$1}}" >/dev/null
}

has_sidecar() {
	admin get pods --namespace=research --selector=app=research-bot --output=json |
		jq -e '.items[0].spec | .initContainers[0].name == "countersign-sidecar" and (.containers | length) == 1'
}

# begin_clock, and later clock WHAT: says how long it took, and leaves it in $elapsed, in milliseconds.
begin_clock() { began=${EPOCHREALTIME/[.,]/}; }
clock() {
	elapsed=$(((${EPOCHREALTIME/[.,]/} - began) / 1000))
	say "$elapsed ms $1"
}

# Eight clients in one pod; each request on a connection of its own, with one retry two seconds later.
load_begins() {
	tell crowd clients POST /load "audience=$acme"
	check 'eight clients obtain one token after the other' said '.status == 200'
}
load_ends() {
	tell crowd clients DELETE /load
	jq -r '.body | "\(.requests) requests; \(.retried) failed at first and were tried again, over \(.window_ms) ms; \(.failed) failed",
		"\(.complaints)"' "$work/answer" >"$work/load"
	show <"$work/load"
}

# kill_replica POD: SIGKILL to the operator in it, from the machine, as by the kernel when memory is short.
kill_replica() {
	local id
	id=$(admin get pod "$1" --namespace="$namespace" --output='jsonpath={.status.containerStatuses[0].containerID}')
	"$CTR" task kill --signal SIGKILL "${id#containerd://}" 2>/dev/null
}
restarted() {
	test "$(admin get pod "$1" --namespace="$namespace" --output='jsonpath={.status.containerStatuses[0].restartCount}')" -ge 1
}

# Every object in the cluster, one a line, but for what Kubernetes itself writes all the time.
everything() {
	local kinds
	kinds=$(admin api-resources --verbs=list --output=name | grep -vE '^(events|componentstatuses|endpoints)(\.|$)' | paste -sd ,)
	admin get "$kinds" --all-namespaces --ignore-not-found \
		--output='jsonpath={range .items[*]}{.kind} {.metadata.namespace}/{.metadata.name}{"\n"}{end}' | grep -vE '^$|^Lease kube-node-lease/' | sort
}
# What the README of the chart says that an uninstallation keeps, and what the test and Kubernetes put into the namespace.
only_what_is_kept() {
	! grep -vxE -e "Namespace /$namespace" -e "ConfigMap $namespace/kube-root-ca.crt" -e "ServiceAccount $namespace/default" \
		-e "Secret $namespace/(countersign|countersign-database)" -e "ConfigMap $namespace/countersign-audit" \
		-e 'CustomResourceDefinition /[a-z]+\.countersign\.dev' -e 'APIService /v1alpha1\.countersign\.dev' \
		-e 'ValidatingAdmissionPolicy(Binding)? /[a-z.-]*countersign[a-z.-]*' "$work/left"
}
remove_what_is_kept() {
	admin delete customresourcedefinition {agents,capabilities,jitrequests,trustedissuers}.countersign.dev
	admin delete validatingadmissionpolicybindings,validatingadmissionpolicies --selector=app.kubernetes.io/name=countersign
	admin delete secret countersign --namespace="$namespace"
	admin delete configmap countersign-audit --namespace="$namespace"
} >/dev/null
nothing_left() {
	everything | comm -13 "$work/before" - >"$work/left"
	if [ -s "$work/left" ]; then
		cat "$work/left"
		return 1
	fi
}

# What there is to see when something went wrong.
say_why() {
	printf '\n%sIt went wrong. The pods, the last events, and the end of the logs:%s\n' "$bold" "$plain"
	admin get pods --all-namespaces --output=wide | show
	admin get events --all-namespaces --sort-by=.lastTimestamp | tail -n 25 | show
	local name
	for name in $(replicas); do
		say "$name"
		admin logs "$name" --namespace="$namespace" --tail=30 | grep -v -e '"event"' -e '"DEBUG"' | cut -c1-400 | show
		admin logs "$name" --namespace="$namespace" --previous --tail=15 2>/dev/null | cut -c1-400 | show
	done
	for name in research/research-bot tools/search-tool crowd/clients acme/acme-server; do
		say "$name"
		admin logs "deployment/${name#*/}" --namespace="${name%/*}" --all-containers --tail=10 2>&1 | show
	done
}
