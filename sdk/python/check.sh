#!/usr/bin/env bash
# Makes an environment with exactly what requirements-dev.txt says, and runs all that checks the SDK in it.
#
#   check.sh [ARGUMENTS OF PYTEST]
#   check.sh --python                print the interpreter of that environment, and do nothing else
set -euo pipefail
cd "$(dirname "$0")"

cache=${COUNTERSIGN_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/countersign}
python=${PYTHON:-python3}
# One for each list of packages and each version of Python, so that none is ever changed.
key=$({ "$python" --version && cat requirements-dev.txt; } | sha256sum | cut -c 1-16)
environment=$cache/python/$key

mkdir -p "$cache/python"
(
	flock 9
	if [ ! -e "$environment/ready" ]; then
		echo "making the environment of the Python SDK, once per machine" >&2
		rm -rf "$environment"
		"$python" -m venv "$environment"
		"$environment/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --requirement requirements-dev.txt >&2
		"$environment/bin/python" -m pip check >&2
		touch "$environment/ready"
	fi
) 9>"$cache/python/lock"

if [ "${1:-}" = --python ]; then
	echo "$environment/bin/python"
	exit
fi
exec "$environment/bin/python" -m pytest "$@"
