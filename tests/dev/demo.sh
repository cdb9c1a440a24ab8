#!/usr/bin/env bash
# Runs the examples one after the other on a control plane and an operator of
# their own, which are stopped however this ends.
#
#   demo.sh DIRECTORY DEV COUNTERSIGN
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd -P)
directory=$1

# shellcheck source=tests/dev/started.sh
. "$here/started.sh"
started "$@"
# shellcheck source=/dev/null # written by `up`
. "$directory/env"
for example in quickstart outside payments delegation decisions sidecar; do
	printf '\n== examples/%s\n' "$example"
	"$here/../../examples/$example/demo.sh"
done
