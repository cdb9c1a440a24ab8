#!/usr/bin/env bash
# Builds the control plane of the tests (see main.go) once per machine and
# prints the path of the binary. Progress goes to stderr.
set -euo pipefail
cd "$(dirname "$0")"
# shellcheck source=tests/tools/cache.sh
. ../tools/cache.sh

version=$(awk '$1 == "k8s.io/kubernetes" { print $2 }' go.mod)
sources=$(cat main.go go.mod go.sum | sha256sum | cut -c1-12)
cached cluster "$version-$sources" cluster "Kubernetes $version (about 7 minutes on 2 cores)" \
	', or set KUBEBUILDER_ASSETS to a folder with etcd and kube-apiserver'

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
go build -v -trimpath -buildvcs=false -ldflags "$flags" -o "$built.part" . 2>&1 |
	awk -v total="$total" '
		/^[a-zA-Z0-9_.\/-]+$/ { n++; if (n % 50 == 0) printf "tests/cluster: %d of at most %d packages compiled\n", n, total; fflush(); next }
		{ print }' >&2
mv "$built.part" "$built"
echo "tests/cluster: built $built" >&2
echo "$built"
