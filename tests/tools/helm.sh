#!/usr/bin/env bash
# Prints the path of a helm binary of the major version asked for (3 or 4) and
# builds it first where there is none. Progress goes to stderr.
#
# The chart must behave alike under both: Helm 3 merges three ways, Helm 4
# applies on the server, and they differ in what an upgrade does to a field
# that somebody else has written. A helm on PATH is used if it has that major
# version.
set -euo pipefail
# shellcheck source=tests/tools/cache.sh
. "$(dirname "$0")/cache.sh"

case "${1:-}" in
3) version=v3.22.0 ;;
4) version=v4.3.1 ;;
*)
	echo "usage: $0 3|4" >&2
	exit 2
	;;
esac
major=$1

if installed=$(command -v helm) && [[ $("$installed" version --short 2>/dev/null) == "v$major."* ]]; then
	echo "$installed"
	exit 0
fi

cached helm "$version" helm "helm $version (about 3 minutes on 2 cores)" ", or put a helm $major on PATH"

# What a release of Helm is built with. Without it Helm 3 takes the cluster of
# `helm template` for Kubernetes 1.20, which the chart refuses.
module="helm.sh/helm/v$major"
gomod=$(go mod download -json "$module@$version" | awk -F'"' '$2 == "GoMod" { print $4 }')
minor=$(awk '$1 == "k8s.io/client-go" { split($2, v, "."); print v[2] }' "$gomod")
flags="-s -w -X $module/internal/version.version=$version"
if [ "$major" = 3 ]; then
	for package in pkg/chartutil pkg/lint/rules; do
		flags+=" -X $module/$package.k8sVersionMajor=1 -X $module/$package.k8sVersionMinor=$minor"
	done
fi
# `go install` names the binary itself, so it goes to a folder of its own and
# is moved into place whole.
part="$built.$$"
trap 'rm -rf "$part"' EXIT
CGO_ENABLED=0 GOFLAGS='' GOBIN="$part" go install -trimpath -ldflags "$flags" "$module/cmd/helm@$version" >&2
mv "$part/helm" "$built"
echo "tests/tools: built $built" >&2
echo "$built"
