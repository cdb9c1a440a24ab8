#!/usr/bin/env bash
# Prints the path of a tool that checks the chart (helm-unittest or kubeconform)
# and builds it first where there is none. Progress goes to stderr.
#
# Always the version named here, not one on PATH: what a test says must not
# depend on the machine.
set -euo pipefail
# shellcheck source=tests/tools/cache.sh
. "$(dirname "$0")/cache.sh"

case "${1:-}" in
helm-unittest) version=v1.1.2 module=github.com/helm-unittest/helm-unittest ;;
kubeconform) version=v0.8.0 module=github.com/yannh/kubeconform ;;
*)
	echo "usage: $0 helm-unittest|kubeconform" >&2
	exit 2
	;;
esac
tool=$1

cached "$tool" "$version" "$tool" "$tool $version" ''

# In the module's own folder, so that what its go.mod replaces counts; `go install
# module@version` refuses a module that replaces anything.
source=$(go mod download -json "$module@$version" | awk -F'"' '$2 == "Dir" { print $4 }')
part="$built.$$"
trap 'rm -rf "$part"' EXIT
CGO_ENABLED=0 GOFLAGS='' go build -C "$source" -trimpath -ldflags '-s -w' -o "$part" "./cmd/$tool" >&2
mv "$part" "$built"
echo "tests/tools: built $built" >&2
echo "$built"
