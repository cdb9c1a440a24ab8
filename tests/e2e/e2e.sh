#!/usr/bin/env bash
# Runs scenario.sh on a node of its own, with an image made of what is checked out.
#
#   e2e.sh DIRECTORY
#
# DIRECTORY/logs afterwards has the logs. Where there can be no node it says so, and
# ends with 0.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd -P)
root=$here/../..

if [ "$#" != 1 ]; then
	echo "usage: $0 DIRECTORY" >&2
	exit 2
fi
directory=$1
problem=$("$root/tests/node/preflight.sh") || {
	echo "SKIPPED: $problem"
	exit 0
}
binaries=$("$root/tests/node/build.sh") || {
	[ "$?" = 3 ] || exit 1
	echo 'SKIPPED: containerd, the CNI plugins or CoreDNS cannot be had'
	exit 0
}
helm=$("$root/tests/tools/helm.sh" 4)
archive=$("$root/image/image.sh" "$directory/image")
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' "$root/Cargo.toml" | head -n 1)

rm -rf "${directory:?}/logs"
"$root/tests/node/run.sh" "$directory/logs" "$here/scenario.sh" "$(realpath "$archive")" "$binaries/agent" "$helm" "$version"
