#!/usr/bin/env bash
# Builds the control plane of the tests (see main.go) once per machine and
# prints the path of the binary. Progress goes to stderr.
#
# The cache lies outside target/ so that `cargo clean` does not cost six
# minutes, and is keyed by the Kubernetes version and by what the binary is
# made from, so that a change here is never tested with an old binary.
set -euo pipefail
cd "$(dirname "$0")"

version=$(awk '$1 == "k8s.io/kubernetes" { print $2 }' go.mod)
sources=$(cat main.go go.mod go.sum | sha256sum | cut -c1-12)
cache="${COUNTERSIGN_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/countersign}/cluster"
binary="$cache/$version-$sources/cluster"

if [ -x "$binary" ]; then
	echo "$binary"
	exit 0
fi
command -v go >/dev/null || {
	echo "tests/cluster: 'go' is needed to build Kubernetes $version (https://go.dev/dl), or set KUBEBUILDER_ASSETS to a folder with etcd and kube-apiserver" >&2
	exit 1
}

mkdir -p "$(dirname "$binary")"
exec 9>"$cache/lock"
flock 9 # two builds side by side would each take twice as long
if [ -x "$binary" ]; then
	echo "$binary"
	exit 0
fi

echo "tests/cluster: building Kubernetes $version from source, once per machine (about 7 minutes on 2 cores)" >&2
minor=${version#v*.}
flags="-s -w
	-X k8s.io/component-base/version.gitVersion=$version
	-X k8s.io/component-base/version.gitMajor=1
	-X k8s.io/component-base/version.gitMinor=${minor%%.*}"
export CGO_ENABLED=0 GOFLAGS=-mod=readonly
go mod download >&2
total=$(go list -deps . | wc -l)
# `go build -v` names each package as it is compiled; the standard library and
# what is cached are not named, so the count is an upper bound.
go build -v -trimpath -buildvcs=false -ldflags "$flags" -o "$binary.part" . 2>&1 |
	awk -v total="$total" '
		/^[a-zA-Z0-9_.\/-]+$/ { n++; if (n % 50 == 0) printf "tests/cluster: %d of at most %d packages compiled\n", n, total; fflush(); next }
		{ print }' >&2
mv "$binary.part" "$binary"
echo "tests/cluster: built $binary" >&2
echo "$binary"
