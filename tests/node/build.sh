#!/usr/bin/env bash
# Builds what a real node needs, once per machine, and prints the folder that
# has it: kubernetes (see kubernetes/main.go), containerd with its shim and ctr,
# the CNI plugins, CoreDNS, and the agent of the end-to-end test. Progress goes
# to stderr.
#
# The cache lies outside target/ and is keyed by the versions and by what is
# built here, so that a change is never tested with an old binary. The versions
# of others are verified against Go's checksum database.
set -euo pipefail
cd "$(dirname "$0")"

kubernetes=$(awk '$1 == "k8s.io/kubernetes" { print $2 }' kubernetes/go.mod)
containerd=v2.4.2
cni=v1.9.1
coredns=v1.15.0

command -v go >/dev/null || {
	echo "tests/node: 'go' is needed to build Kubernetes and containerd (https://go.dev/dl)" >&2
	exit 1
}
cache="${COUNTERSIGN_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/countersign}/node"
mkdir -p "$cache"
exec 9>"$cache/lock"
flock 9 # two builds side by side would each take twice as long
export CGO_ENABLED=0 GOFLAGS=''

# once NAME COMMAND...: runs the command with the folder to fill as its last
# argument, unless the cache has it, and says where it is. The folder appears
# whole or not at all.
once() {
	local folder=$cache/$1 part=$cache/part.$$
	shift
	if [ ! -d "$folder" ]; then
		echo "tests/node: building ${folder##*/}, once per machine" >&2
		rm -rf "$part"
		mkdir -p "$part"
		"$@" "$part" >&2
		mv "$part" "$folder"
	fi
	folders+=("$folder")
}
folders=()

build_kubernetes() {
	local minor=${kubernetes#v*.}
	go build -C kubernetes -mod=readonly -trimpath -buildvcs=false -o "$1/kubernetes" -ldflags "-s -w
		-X k8s.io/component-base/version.gitVersion=$kubernetes
		-X k8s.io/component-base/version.gitMajor=1
		-X k8s.io/component-base/version.gitMinor=${minor%%.*}" .
}

build_agent() {
	go build -C agent -mod=readonly -trimpath -buildvcs=false -ldflags '-s -w' -o "$1/agent" .
}

# once_installed NAME VERSION PACKAGE...: programs of others, by `go install`.
once_installed() {
	local name=$1 version=$2
	shift 2
	once "$name-$version-$(sum <<<"$*")" install_all "$version" "$@"
}
# Exit status 3: they cannot be had, which is nothing of ours.
install_all() {
	local folder="${*: -1}" packages=("${@:2:$#-2}")
	GOBIN=$folder go install -trimpath -ldflags '-s -w' "${packages[@]/%/@$1}" || exit 3
}
sum() { sha256sum | cut -c1-12; }
sources() { cat "$1"/*.go "$1"/go.* | sum; }

once "kubernetes-$kubernetes-$(sources kubernetes)" build_kubernetes
once_installed containerd "$containerd" \
	github.com/containerd/containerd/v2/cmd/{containerd,containerd-shim-runc-v2,ctr}
once_installed cni "$cni" \
	github.com/containernetworking/plugins/plugins/{main/ptp,main/loopback,ipam/host-local,meta/portmap}
once_installed coredns "$coredns" github.com/coredns/coredns
once "agent-$(sources agent)" build_agent

# One folder of links, named by all of them, is what the caller gets.
all=$cache/bin-$(printf '%s\n' "${folders[@]}" | sum)
mkdir -p "$all"
for folder in "${folders[@]}"; do
	ln -sf "$folder"/* "$all"/
done
echo "$all"
