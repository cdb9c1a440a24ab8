# shellcheck shell=bash
# What pages of the manual take for granted before their blocks run: <!-- setup: FUNCTION --> names one of these.

# And what reads a block that is no shell: <!-- run: FUNCTION -->.

# shellcheck source=/dev/null # written by `up`
. .dev/env
root=$(cd "$(dirname "$SETUP")/.." && pwd -P)

# Objects that the API server would take.
objects() { kubectl apply --dry-run=server -f -; }

# Values of the chart.
values() { "$("$root/tests/tools/helm.sh" 3)" template countersign "$root/charts/countersign" --values=- >rendered.yaml; }

# in_python [BEFORE], in_node [BEFORE [AFTER]]: a program with the SDK, between lines that its page takes for granted.
in_python() {
	{ printf '%s\n' "${1:-}" && cat; } >block.py
	PYTHONPATH=$root/sdk/python/src timeout 60 "$("$root/sdk/python/check.sh" --python)" block.py
}
in_node() {
	"$root/sdk/node/check.sh" --built
	mkdir -p .dev/node_modules/@countersign
	ln -sfn "$root/sdk/node" .dev/node_modules/@countersign/sdk
	{ printf '%s\n' "${1:-}" && cat && printf '%s\n' "${2:-}"; } >block.mjs
	timeout 60 node block.mjs
}

# Bob approves the next request of a payment that waits, while the page goes on.
approving() {
	(
		for _ in {1..200}; do
			if request=$(kubectl get jit --namespace=payments --field-selector=status.phase=Pending --output=name | grep .); then
				exec kubectl --kubeconfig="$BOB_KUBECONFIG" patch "$request" --namespace=payments --subresource=status --type=merge \
					--patch='{"status": {"decision": {"verdict": "Approved"}}}'
			fi
			sleep 0.2
		done
	) &
}

# ready NAMESPACE AGENT EXAMPLE: a new Agent of an example, as if nothing had been done with it before.
ready() {
	kubectl delete agent "$2" --namespace="$1" --ignore-not-found
	kubectl delete jit --all --namespace="$1"
	kubectl apply -f "examples/$3"
	kubectl wait --namespace="$1" --for=condition=Ready --timeout=30s "agent/$2"
}

# pod NAMESPACE ACCOUNT FILE: the token that the kubelet gives to a pod of it.
pod() {
	local uid
	kubectl delete pod setup --namespace="$1" --ignore-not-found --force
	uid=$(kubectl create -f - -o 'jsonpath={.metadata.uid}' <<-POD
		apiVersion: v1
		kind: Pod
		metadata: {namespace: $1, name: setup}
		spec: {serviceAccountName: $2, automountServiceAccountToken: false, containers: [{name: main, image: pause}]}
	POD
	)
	kubectl create token "$2" --namespace="$1" --audience="$COUNTERSIGN_URL" --duration=1h \
		--bound-object-kind=Pod --bound-object-name=setup --bound-object-uid="$uid" | tr -d '\n' >"$3"
}

# The agent of examples/payments in its pod, and the server that it pays at.
payments() {
	kubectl apply -f examples/payments/rbac.yaml -f examples/payments/catalogue.yaml
	kubectl wait --for=condition=Ready --timeout=30s capability/payments.authorize
	ready payments payments-bot payments/agent.yaml
	pod payments payments-bot .dev/token
	pod pay pay-server server.token
	{ printf 'Authorization: Bearer ' && cat server.token; } >server.header
}

# The desk of examples/decisions in its pod, and its files as if they were those of a repository of policies.
desk() {
	kubectl apply -f examples/decisions/rbac.yaml -f examples/decisions/catalogue.yaml
	kubectl wait --for=condition=Ready --timeout=30s capability/refund.issue
	ready support desk decisions/agents.yaml
	pod support desk token
	mkdir policies
	cp examples/decisions/agents.yaml examples/decisions/catalogue.yaml policies
	cp -R examples/decisions/chain policies/chain
}

# Who registers agents over HTTP, with the rights of alice: the ServiceAccount ops/registrar.
registrar() {
	kubectl apply -f examples/quickstart/rbac.yaml
	kubectl delete agent --all --namespace=research
	kubectl create namespace ops --dry-run=client -o yaml | kubectl apply -f -
	kubectl create serviceaccount registrar --namespace=ops --dry-run=client -o yaml | kubectl apply -f -
	for role in quickstart-agent-author quickstart-capability-granter; do
		kubectl create rolebinding "registrar-$role" --namespace=research --clusterrole="$role" --serviceaccount=ops:registrar \
			--dry-run=client -o yaml | kubectl apply -f -
	done
	cp "$COUNTERSIGN_CA" ca.crt
}

# The request is there for people, who are Bob until everybody is meant again.
waiting() {
	until kubectl get jit --namespace=payments --field-selector=status.phase=Pending --output=name | grep .; do sleep 0.2; done
	kubectl() { command kubectl --kubeconfig="$BOB_KUBECONFIG" "$@"; }
}
everybody() { unset -f kubectl; }

# Research Bot, which may act for Alice, and Search Tool, which it may call, of examples/delegation; and what Alice's application has of her.
chain() {
	kubectl apply -f examples/delegation/rbac.yaml
	kubectl create --dry-run=client -f examples/delegation/trusted-issuer.yaml --output=json |
		jq --rawfile ca "$IDENTITY_PROVIDER_CA" '.spec.issuer += {url: env.IDENTITY_PROVIDER_URL, certificateAuthority: $ca,
			allowedNetworks: ["127.0.0.0/8"]}' | kubectl apply -f -
	kubectl wait --for=condition=Ready --timeout=30s trustedissuer/acme
	kubectl delete agent --all --namespace=tools
	ready research research-bot delegation/agents.yaml
	kubectl wait --namespace=tools --for=condition=Ready --timeout=30s agent/search-tool
	pod research research-bot research-bot.token
	pod tools search-tool search-tool.token
	"$IDENTITY_PROVIDER_LOGIN" research-app alice | jq -j .id_token >alice.id-token
}

# call AGENT: Research Bot calls it for Alice, with the token in called-with.token.
call() {
	curl --fail --cacert "$COUNTERSIGN_CA" "$COUNTERSIGN_URL/oauth2/token" \
		--data-urlencode grant_type=urn:ietf:params:oauth:grant-type:token-exchange \
		--data-urlencode client_assertion_type=urn:ietf:params:oauth:client-assertion-type:jwt-bearer \
		--data-urlencode client_assertion@research-bot.token \
		--data-urlencode subject_token_type=urn:ietf:params:oauth:token-type:id_token \
		--data-urlencode subject_token@alice.id-token --data-urlencode "audience=$1" | jq -j .access_token >called-with.token
}

# The agent of examples/payments, which Research Bot called.
called() {
	payments
	mv .dev/token payments-bot.token
	kubectl patch agent payments-bot --namespace=payments --type=merge \
		--patch='{"spec": {"delegation": {"callers": [{"namespace": "research", "name": "research-bot"}]}}}'
	call agent:payments/payments-bot
}

# sidecar FILE: beside the agent with the token in the file, in the place of the one that was there.
sidecar() {
	local port
	[ -z "${beside:-}" ] || kill "$beside"
	port=$(python3 -c 'import socket; free = socket.socket(); free.bind(("127.0.0.1", 0)); print(free.getsockname()[1])')
	export COUNTERSIGN_SIDECAR_URL=http://127.0.0.1:$port
	countersign sidecar --url="$COUNTERSIGN_URL" --ca-file="$COUNTERSIGN_CA" --token-file="$1" --listen-address="127.0.0.1:$port" &
	beside=$!
	trap 'kill "$beside"' EXIT
	for _ in {1..100}; do
		if countersign sidecar-ready --listen-address="127.0.0.1:$port"; then return; fi
		sleep 0.2
	done
	return 1
}

# The agent of examples/quickstart in its pod, with a token in the given file.
research() {
	kubectl apply -f examples/quickstart/rbac.yaml
	ready research research-bot quickstart/agent.yaml
	pod research research-bot "$1"
}

# Somebody who may read the records.
auditor() {
	kubectl create namespace ops --dry-run=client -o yaml | kubectl apply -f -
	kubectl create serviceaccount my-auditor --namespace=ops --dry-run=client -o yaml | kubectl apply -f -
	kubectl create clusterrolebinding setup-auditor --clusterrole=countersign-auditor --serviceaccount=ops:my-auditor \
		--dry-run=client -o yaml | kubectl apply -f -
}
