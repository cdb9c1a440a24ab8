#!/usr/bin/env bash
# Starts a Kubernetes of one node, runs a command, and ends. run.sh calls it, in
# namespaces that are its own.
#
#   node.sh LOGS STATE CLUSTER BINARIES CGROUP COMMAND [ARGUMENT...]
#
# CLUSTER is the control plane (tests/cluster), BINARIES the folder of build.sh.
# The command finds in its environment
#
#   KUBECONFIG         the cluster's administrator
#   ALICE_KUBECONFIG   the users alice and bob, who may do nothing yet
#   BOB_KUBECONFIG
#   NODE_ADDRESS       the machine, as pods see it
#   NODE_STATE         a folder for what need not last
#   NODE_LOGS          the folder of the logs
#   CTR                the containerd client, as one word: its socket and namespace are set
#
# and images that it imports with $CTR are there for pods.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd -P)
logs=$1 state=$2 cluster=$3 binaries=$4 cgroup=$5
shift 5
umask 077

mkdir "$state"/{etcd,keys,containerd,kubelet,cni,home}
# Nothing of whoever runs this: no proxy, no kubeconfig, no containerd of theirs.
export HOME=$state/home PATH=$binaries:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
unset KUBECONFIG CONTAINERD_ADDRESS CONTAINERD_NAMESPACE http_proxy https_proxy HTTP_PROXY HTTPS_PROXY ALL_PROXY
export KUBECTL_KUBERC=false

# This is the first process of its PID namespace: when it ends, the kernel ends all others.
trap 'exit 130' INT
trap 'exit 143' TERM

declare -A pids
fail() {
	echo "tests/node: $*" >&2
	exit 1
}
# start NAME COMMAND...: in the background, its output in a log of that name. What containerd and the kubelet make, pods read.
start() {
	local name=$1
	shift
	(umask 022 && exec "$@") >"$logs/$name.log" 2>&1 </dev/null &
	pids[$name]=$!
}
# until_true WHAT COMMAND...: repeats the command until it succeeds, as long as everything that was started lives.
until_true() {
	local what=$1 tries name
	shift
	for ((tries = 1200; tries > 0; tries--)); do
		if "$@" >"$state/attempt" 2>&1; then return; fi
		for name in "${!pids[@]}"; do
			kill -0 "${pids[$name]}" 2>/dev/null || fail "$name ended: $(tail -n 20 "$logs/$name.log")"
		done
		sleep 0.2
	done
	fail "not so after four minutes: $what: $(cat "$state/attempt")"
}

# The machine's own address, which pods and the API server know: of no interface
# that could come and go. Pods reach it, and each other, through it, so that every
# connection passes the rules of kube-proxy both ways.
address=10.250.0.1
pod_network=10.244.0.0/24
service_network=10.96.0.0/24
ip link set lo up
ip address add "$address/32" dev lo
echo 1 >/proc/sys/net/ipv4/ip_forward
mount --make-rshared /

# Who calls the API server, with which token, in which group.
token() { openssl rand -hex 24; }
admin=$(token)
server=https://$address:6443
account() {
	local file=$state/$1.kubeconfig user=$2 group=$3 token
	token=$(token)
	[ "$1" != admin ] || token=$admin
	echo "$token,$user,$user,$group" >>"$state/tokens.csv"
	cat >"$file" <<-CONFIG
		apiVersion: v1
		kind: Config
		current-context: node
		contexts: [{name: node, context: {cluster: node, user: node}}]
		clusters: [{name: node, cluster: {server: "$server", certificate-authority: "$state/keys/apiserver.crt"}}]
		users: [{name: node, user: {token: "$token"}}]
	CONFIG
}
account admin admin system:masters
account controllers system:kube-controller-manager ''
account scheduler system:kube-scheduler ''
account kubelet system:node:node system:nodes
account proxy system:kube-proxy ''
account dns system:coredns ''
account alice alice ''
account bob bob ''
sed -i 's/,$//' "$state/tokens.csv"
export KUBECONFIG=$state/admin.kubeconfig

openssl genrsa -out "$state/keys/service-account.key" 2048 2>"$state/attempt" || fail "$(cat "$state/attempt")"
# With this the API server asks the kubelet for logs.
openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=kubelet-client/O=system:masters \
	-keyout "$state/keys/kubelet-client.key" -out "$state/keys/kubelet-client.crt" 2>"$state/attempt" ||
	fail "$(cat "$state/attempt")"

start etcd "$cluster" etcd --data-dir="$state/etcd" --unsafe-no-fsync --log-level=warn \
	--listen-client-urls=http://127.0.0.1:2379 --advertise-client-urls=http://127.0.0.1:2379 \
	--listen-peer-urls=http://127.0.0.1:2380
start kube-apiserver "$cluster" kube-apiserver \
	--etcd-servers=http://127.0.0.1:2379 --bind-address=0.0.0.0 --advertise-address="$address" --secure-port=6443 \
	--cert-dir="$state/keys" --service-cluster-ip-range="$service_network" --authorization-mode=Node,RBAC \
	--service-account-key-file="$state/keys/service-account.key" \
	--service-account-signing-key-file="$state/keys/service-account.key" \
	--service-account-issuer=https://kubernetes.default.svc.cluster.local --token-auth-file="$state/tokens.csv" \
	--kubelet-client-certificate="$state/keys/kubelet-client.crt" \
	--kubelet-client-key="$state/keys/kubelet-client.key" --kubelet-preferred-address-types=InternalIP \
	--allow-privileged=true
until_true 'the API server is ready' kubectl get --raw /readyz
start kube-controller-manager "$cluster" kube-controller-manager --kubeconfig="$state/controllers.kubeconfig" \
	--service-account-private-key-file="$state/keys/service-account.key" --root-ca-file="$state/keys/apiserver.crt" \
	--use-service-account-credentials --leader-elect=false --secure-port=0
start kube-scheduler kubernetes kube-scheduler --kubeconfig="$state/scheduler.kubeconfig" --leader-elect=false --secure-port=0

cat >"$state/cni/10-node.conflist" <<-CONFIG
	{"cniVersion": "1.0.0", "name": "node", "plugins": [
	  {"type": "ptp", "ipam": {"type": "host-local", "dataDir": "$state/cni/addresses",
	    "ranges": [[{"subnet": "$pod_network"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
	  {"type": "portmap", "capabilities": {"portMappings": true}}]}
CONFIG
cat >"$state/containerd.toml" <<-CONFIG
	version = 3
	root = "$state/containerd/root"
	state = "$state/containerd/run"
	disabled_plugins = ["io.containerd.nri.v1.nri"]
	[grpc]
	  address = "$state/containerd.sock"
	[plugins.'io.containerd.cri.v1.images'.pinned_images]
	  sandbox = "localhost/pause:1"
	[plugins.'io.containerd.cri.v1.runtime']
	  # Without CAP_SYS_RESOURCE nobody makes a process less likely to be killed than themselves.
	  restrict_oom_score_adj = true
	  netns_mounts_under_state_dir = true
	  [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
	    SystemdCgroup = false
	  [plugins.'io.containerd.cri.v1.runtime'.cni]
	    bin_dirs = ["$binaries"]
	    conf_dir = "$state/cni"
CONFIG
start containerd containerd --config "$state/containerd.toml"
cat >"$state/ctr" <<-SCRIPT
	#!/bin/sh
	exec "$binaries/ctr" --address "$state/containerd.sock" --namespace k8s.io "\$@"
SCRIPT
chmod +x "$state/ctr"
export CTR=$state/ctr
until_true 'containerd answers' "$CTR" version
pause=$state/pause.tar
"$here/../../image/pack.py" --output "$pause" --name localhost/pause:1 --file "$binaries/agent=/agent" \
	--entrypoint /agent --argument pause >/dev/null
"$CTR" images import "$pause" >"$logs/import.log" 2>&1 || fail "$(cat "$logs/import.log")"

cat >"$state/kubelet.yaml" <<-CONFIG
	apiVersion: kubelet.config.k8s.io/v1beta1
	kind: KubeletConfiguration
	containerRuntimeEndpoint: unix://$state/containerd.sock
	cgroupDriver: cgroupfs
	cgroupRoot: /$cgroup
	failCgroupV1: false
	failSwapOn: false
	enforceNodeAllocatable: []
	evictionHard: {}
	localStorageCapacityIsolation: false
	resolvConf: ""
	clusterDNS: [$address]
	clusterDomain: cluster.local
	podLogsDir: $logs/pods
	authentication: {x509: {clientCAFile: $state/keys/kubelet-client.crt}, webhook: {enabled: true}, anonymous: {enabled: false}}
	authorization: {mode: Webhook}
	# A test starts and stops much in little time.
	maxPods: 60
CONFIG
start kubelet kubernetes kubelet --config="$state/kubelet.yaml" --kubeconfig="$state/kubelet.kubeconfig" \
	--hostname-override=node --node-ip="$address" --root-dir="$state/kubelet" --cert-dir="$state/kubelet/pki"
start kube-proxy kubernetes kube-proxy --kubeconfig="$state/proxy.kubeconfig" --hostname-override=node \
	--proxy-mode=iptables --cluster-cidr="$pod_network" --conntrack-max-per-core=0 \
	--conntrack-tcp-timeout-established=0s --conntrack-tcp-timeout-close-wait=0s

kubectl create clusterrole system:coredns --verb=list,watch --resource=services,pods,namespaces,endpointslices.discovery.k8s.io >"$logs/setup.log"
kubectl create clusterrolebinding system:coredns --clusterrole=system:coredns --user=system:coredns >>"$logs/setup.log"
cat >"$state/Corefile" <<-CONFIG
	.:53 {
	  bind $address
	  errors
	  kubernetes cluster.local in-addr.arpa {
	    kubeconfig $state/dns.kubeconfig
	  }
	  cache 5
	}
CONFIG
start coredns coredns -conf "$state/Corefile"
until_true 'the node is ready' kubectl wait --for=condition=Ready --timeout=1s node/node
until_true 'there are ServiceAccounts' kubectl get serviceaccount default

export ALICE_KUBECONFIG=$state/alice.kubeconfig BOB_KUBECONFIG=$state/bob.kubeconfig
export NODE_ADDRESS=$address NODE_STATE=$state NODE_LOGS=$logs
status=0
"$@" || status=$?
if [ "$status" != 0 ]; then
	echo
	echo "logs are in $logs"
fi
exit "$status"
