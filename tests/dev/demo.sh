#!/usr/bin/env bash
# Runs the examples one after the other on a control plane and an operator of
# their own, which are stopped however this ends.
#
#   demo.sh DIRECTORY DEV COUNTERSIGN
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd -P)
directory=$1

stop() { "$here/control.sh" down "$directory"; }
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

"$here/control.sh" down "$directory"
"$here/control.sh" up "$@"
# shellcheck source=/dev/null # written by `up`
. "$directory/env"
for example in quickstart outside payments delegation decisions sidecar; do
	printf '\n== examples/%s\n' "$example"
	"$here/../../examples/$example/demo.sh"
done
