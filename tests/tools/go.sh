#!/usr/bin/env bash
# Prints the path of a tool that checks the chart (helm-unittest or kubeconform)
# and builds it first where there is none. Progress goes to stderr.
#
# Always the version named here, not one on PATH: what a test says must not
# depend on the machine. The cache lies outside target/, keyed by the version.
set -euo pipefail

case "${1:-}" in
helm-unittest) version=v1.1.2 module=github.com/helm-unittest/helm-unittest ;;
kubeconform) version=v0.8.0 module=github.com/yannh/kubeconform ;;
*)
	echo "usage: $0 helm-unittest|kubeconform" >&2
	exit 2
	;;
esac
tool=$1

cache="${COUNTERSIGN_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/countersign}/$tool"
binary="$cache/$version/$tool"
if [ -x "$binary" ]; then
	echo "$binary"
	exit 0
fi
command -v go >/dev/null || {
	echo "tests/tools: 'go' is needed to build $tool $version (https://go.dev/dl)" >&2
	exit 1
}

mkdir -p "$(dirname "$binary")"
exec 9>"$cache/lock"
flock 9 # two builds side by side would each take twice as long
if [ -x "$binary" ]; then
	echo "$binary"
	exit 0
fi

echo "tests/tools: building $tool $version from source, once per machine" >&2
# In the module's own folder, so that what its go.mod replaces counts; `go install
# module@version` refuses a module that replaces anything.
source=$(go mod download -json "$module@$version" | awk -F'"' '$2 == "Dir" { print $4 }')
part="$cache/$version/part.$$"
trap 'rm -rf "$part"' EXIT
CGO_ENABLED=0 GOFLAGS='' go build -C "$source" -trimpath -ldflags '-s -w' -o "$part" "./cmd/$tool" >&2
mv "$part" "$binary"
echo "tests/tools: built $binary" >&2
echo "$binary"
