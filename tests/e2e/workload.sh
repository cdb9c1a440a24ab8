# shellcheck shell=bash
# The pods of the test, which run its own program (tests/node/agent).
# shellcheck disable=SC2154 # variables of scenario.sh, which includes this

# agent NAMESPACE NAME: a Deployment and a Service of an agent. It has no credential; its label asks for the sidecar.
agent() {
	workload "$1" "$2" agent 'countersign.dev/inject: "true"'
}
# service NAMESPACE NAME ROLE: the same without a sidecar. It proves itself by a projected token, and trusts the operator by the ConfigMap
# `countersign-ca` of its namespace.
service() {
	workload "$1" "$2" "$3" "app: $2" | jq --slurp --arg issuer "$issuer" '
		(.[0].spec.template.spec.containers[0]) += {
			env: [
				{name: "COUNTERSIGN_URL", value: $issuer},
				{name: "COUNTERSIGN_CA", value: "/var/run/countersign/ca.crt"},
				{name: "COUNTERSIGN_CREDENTIAL", value: "/var/run/countersign/token"}],
			volumeMounts: [{name: "countersign", mountPath: "/var/run/countersign", readOnly: true}]}
		| .[0].spec.template.spec.volumes = [{name: "countersign", projected: {sources: [
			{serviceAccountToken: {audience: $issuer, expirationSeconds: 600, path: "token"}},
			{configMap: {name: "countersign-ca"}}]}}]
		| .[0].spec.template.spec.automountServiceAccountToken = false
		| .[]'
}
# workload NAMESPACE NAME ROLE LABEL
workload() {
	admin create --dry-run=client --output=json --filename=- <<-YAML | jq '.items? // [.] | .[]'
		apiVersion: apps/v1
		kind: Deployment
		metadata: {namespace: $1, name: $2}
		spec:
		  selector: {matchLabels: {app: $2}}
		  template:
		    metadata: {labels: {app: $2, $4}}
		    spec:
		      serviceAccountName: $2
		      enableServiceLinks: false
		      terminationGracePeriodSeconds: 6
		      securityContext: {runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}
		      containers:
		      - name: main
		        image: localhost/agent:1
		        imagePullPolicy: Never
		        args: [$3]
		        ports: [{name: http, containerPort: 8080}]
		        readinessProbe: {httpGet: {path: /healthz, port: http}, periodSeconds: 1, timeoutSeconds: 5}
		        securityContext:
		          allowPrivilegeEscalation: false
		          readOnlyRootFilesystem: true
		          capabilities: {drop: [ALL]}
		---
		apiVersion: v1
		kind: Service
		metadata: {namespace: $1, name: $2}
		spec:
		  selector: {app: $2}
		  ports: [{name: http, port: 80, targetPort: http}]
	YAML
}

# address NAMESPACE NAME: where the one pod of it listens.
address() {
	admin get pod --namespace="$1" --selector="app=$2" --field-selector=status.phase=Running \
		--output='jsonpath={.items[0].status.podIP}:8080'
}

# tell NAMESPACE NAME METHOD PATH FIELD=VALUE...: has the pod do something, and leaves what came of it in $work/answer.
tell() { tell_at "$(address "$1" "$2")" "${@:3}"; }
# tell_at ADDRESS METHOD PATH FIELD=VALUE...: the same, of a pod that has no other name any more.
tell_at() {
	local to=$1 method=$2 path=$3 field fields=()
	shift 3
	for field in "$@"; do fields+=(--data-urlencode "$field"); done
	curl --silent --show-error --max-time 120 --request "$method" "${fields[@]}" "http://$to$path" >"$work/answer"
}
# said FILTER: whether that holds for it.
said() {
	if jq -e "$1" "$work/answer"; then return; fi
	cat "$work/answer"
	return 1
}
# The part of it that a reader wants to see.
shown() { jq -c "$1" "$work/answer" | show; }
