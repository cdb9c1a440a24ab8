#!/usr/bin/env bash
# Makes an environment with exactly what requirements-dev.txt says, and runs all that checks the SDK in it.
#
#   check.sh [ARGUMENTS OF PYTEST]
#   check.sh --python                print the interpreter of that environment, and do nothing else
set -euo pipefail
cd "$(dirname "$0")"

python=$(./environment.sh requirements-dev.txt)
if [ "${1:-}" = --python ]; then
	echo "$python"
	exit
fi
exec "$python" -m pytest "$@"
