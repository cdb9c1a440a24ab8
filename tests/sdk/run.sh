#!/usr/bin/env bash
# Runs the tests of the Python SDK, of its adapters with the real frameworks, and of those of the Node.js SDK with their examples, against a real
# operator, on a control plane of its own, which is stopped however this ends. With arguments it runs those tests in Python alone.
#
#   run.sh DEV COUNTERSIGN [ARGUMENTS OF PYTEST]
#
# DEV and COUNTERSIGN are what `make build` compiles: target/debug/examples/dev and target/debug/countersign.
# COUNTERSIGN_SDK_DIRECTORY says where the state is kept, COUNTERSIGN_SDK_PYTHON with which interpreter the tests run; the adapters in Python,
# each of which needs one of its own, are then left out.
set -euo pipefail
if [ $# -lt 2 ]; then
	echo "usage: $0 DEV COUNTERSIGN [ARGUMENTS OF PYTEST]" >&2
	exit 2
fi
dev=$1 binary=$2
shift 2

root=$(cd "$(dirname "$0")/../.." && pwd -P)
directory=${COUNTERSIGN_SDK_DIRECTORY:-$root/.dev/sdk}
# Before anything is started: making an environment takes minutes, once.
python=${COUNTERSIGN_SDK_PYTHON:-$("$root/sdk/python/check.sh" --python)}
declare -A adapters=()
if [ $# = 0 ] && [ -z "${COUNTERSIGN_SDK_PYTHON:-}" ]; then
	for list in "$root"/sdk/python/requirements-*.txt; do
		framework=$(basename "$list" .txt)
		framework=${framework#requirements-}
		[ "$framework" = dev ] || adapters[$framework]=$("$root/sdk/python/check-framework.sh" "$framework" --python)
	done
fi
[ $# != 0 ] || "$root/sdk/node/check.sh" --built

# shellcheck source=tests/dev/started.sh
. "$root/tests/dev/started.sh"
started "$directory" "$dev" "$binary"
# shellcheck source=/dev/null # written by `up`
. "$directory/env"
cd "$root/tests/sdk"
"$python" -m pytest "$@"
[ $# = 0 ] || exit 0
# What must hold of every framework; whatever else its tests show, they show on the authority for tests.
cells='registry or allow or deny or jit or restart_mid_wait or backend_down or hook_raises or arguments or expired or example'
export cells
# Two at a time: they wait for processes and for the operator more than they work. What each says comes when it has ended.
# shellcheck disable=SC2016 # the arguments are those of the inner shell
for framework in "${!adapters[@]}"; do printf '%s\0' "$framework" "${adapters[$framework]}"; done |
	xargs --null --no-run-if-empty --max-args=2 --max-procs=2 bash -c '
		said=$("$1" -m pytest -k "$cells" "test_${0//-/_}.py" 2>&1) && status=0 || status=$?
		printf "%s\n%s\n" "$0" "$said"
		exit "$status"
	'
# The adapters for Node.js: the tests that the authority for tests has. They too wait more than they work.
export COUNTERSIGN_TEST_AUTHORITY=$root/tests/sdk/node/operator.mjs
node --test --test-concurrency=3 --test-reporter=spec "$root"/sdk/node/test/frameworks/*.test.mjs
