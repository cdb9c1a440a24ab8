#!/usr/bin/env bash
# Runs the examples of the SDKs one after the other, on a control plane and an operator of their own, which are stopped however this ends.
#
#   run_examples.sh DEV COUNTERSIGN [EXAMPLE...]
#
# DEV and COUNTERSIGN are what `make build` compiles. COUNTERSIGN_SDK_EXAMPLES_DIRECTORY says where the state is kept.
set -euo pipefail
if [ $# -lt 2 ]; then
	echo "usage: $0 DEV COUNTERSIGN [EXAMPLE...]" >&2
	exit 2
fi
dev=$1 binary=$2
shift 2

root=$(cd "$(dirname "$0")/../.." && pwd -P)
directory=${COUNTERSIGN_SDK_EXAMPLES_DIRECTORY:-$root/.dev/sdk-examples}
examples=("$@")
if [ $# = 0 ]; then examples=(approvals-sdk three-agents mcp-server); fi

COUNTERSIGN_SDK_PYTHON=${COUNTERSIGN_SDK_PYTHON:-$("$root/sdk/python/check.sh" --python)}
export COUNTERSIGN_SDK_PYTHON
(
	cd "$root/examples"
	"$COUNTERSIGN_SDK_PYTHON" -m ruff check --no-cache "${examples[@]}"
	"$COUNTERSIGN_SDK_PYTHON" -m ruff format --no-cache --check "${examples[@]}"
)

# shellcheck source=tests/dev/started.sh
. "$root/tests/dev/started.sh"
started "$directory" "$dev" "$binary"
# shellcheck source=/dev/null # written by `up`
. "$directory/env"
for example in "${examples[@]}"; do
	printf '\n== examples/%s\n' "$example"
	"$root/examples/$example/run.sh"
done
