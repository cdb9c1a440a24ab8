# shellcheck shell=bash
# What the demos share: the transcript, the three people who use kubectl, and the
# forms that an agent and a resource server send.
#
#   KUBECONFIG         the cluster's administrator
#   ALICE_KUBECONFIG   the user alice of rbac.yaml
#   BOB_KUBECONFIG     the user bob of rbac.yaml
#   COUNTERSIGN_URL    the token service, which is also its issuer
#   COUNTERSIGN_CA     the authority of its certificate, a PEM file
#   COUNTERSIGN_AUDIT  its audit records, a file (optional)
#
# `make up` writes all of them to .dev/env. No token is printed or put on a
# command line.

: "${KUBECONFIG:?}" "${ALICE_KUBECONFIG:?}" "${BOB_KUBECONFIG:?}" "${COUNTERSIGN_URL:?}" "${COUNTERSIGN_CA:?}"
audit=${COUNTERSIGN_AUDIT:-}
recorded=0
if [ -n "$audit" ]; then recorded=$(wc -l <"$audit"); fi
export KUBECTL_KUBERC=false

# shellcheck source=examples/transcript.sh
. ../transcript.sh

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
# What an earlier run left of it.
no_pod() { admin delete pod "$2-demo" --namespace="$1" --ignore-not-found >/dev/null; }

# post PATH ARGUMENT...: a form to the token service; leaves $status and $answer_file. As a 503 asks, it tries again: right
# after its start the token service does not know yet whether the admission policies are in force.
answer_file=$work/answer.json
post() {
	local path=$1
	shift
	status=$(curl --silent --show-error --max-time 10 --retry 5 --noproxy '127.0.0.1,localhost' --cacert "$COUNTERSIGN_CA" \
		--output "$answer_file" --write-out '%{http_code}' "$@" "$COUNTERSIGN_URL$path")
}
answer() { jq -r "$1" "$answer_file"; }
answers() {
	if [ "$status" = "$1" ] && jq -e "$2" "$answer_file" >/dev/null; then return; fi
	echo "status $status"
	jq 'if has("access_token") then .access_token = "(a token)" else . end' "$answer_file"
	return 1
}
no_token_in() { ! grep -qE 'eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}' "$1"; }

# as_agent PATH ARGUMENT...: a form by which the agent proves itself, with its Pod's token unless $credential says otherwise.
credential=$work/agent
as_agent() {
	local path=$1
	shift
	post "$path" --data-urlencode client_assertion_type=urn:ietf:params:oauth:client-assertion-type:jwt-bearer \
		--data-urlencode "client_assertion@$credential" "$@"
}
client_credentials() { as_agent /oauth2/token --data-urlencode grant_type=client_credentials "$@"; }
keep_token() { answer .access_token | tr -d '\n' >"$work/access"; }

# resource_server NAMESPACE SERVICE_ACCOUNT: who sends the forms of as_server.
resource_server() {
	pod_token "$1" "$2" "$work/server"
	{ printf 'Authorization: Bearer ' && cat "$work/server"; } >"$work/server.header"
}
# as_server PATH: the resource server sends the access token that it was shown.
as_server() { post "$1" --header "@$work/server.header" --data-urlencode "token@$work/access"; }
introspect() { as_server /oauth2/introspect; }

# records: what was recorded since the script began.
# The lines follow the answers within milliseconds.
records() { sleep 0.5; tail -n "+$((recorded + 1))" "$audit"; }
