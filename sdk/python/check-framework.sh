#!/usr/bin/env bash
# Checks the adapter of a framework against that framework, in an environment with exactly what requirements-FRAMEWORK.txt says.
#
#   check-framework.sh FRAMEWORK [ARGUMENTS OF PYTEST]
#   check-framework.sh FRAMEWORK --python          print the interpreter of that environment, and do nothing else
#
# PYTHON says from which interpreter it is made: Google ADK needs Python 3.11.
set -euo pipefail
if [ $# -lt 1 ]; then
	echo "usage: $0 FRAMEWORK [ARGUMENTS OF PYTEST]" >&2
	exit 2
fi
framework=$1
shift
cd "$(dirname "$0")"

cache=${COUNTERSIGN_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/countersign}
python=${PYTHON:-python3}
list=requirements-$framework.txt
# One for each list of packages and each version of Python, so that none is ever changed.
key=$({ "$python" --version && cat "$list"; } | sha256sum | cut -c 1-16)
environment=$cache/python/$key

mkdir -p "$cache/python"
(
	flock 9
	if [ ! -e "$environment/ready" ]; then
		echo "making the environment of $framework, once per machine" >&2
		rm -rf "$environment"
		"$python" -m venv "$environment"
		"$environment/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --requirement "$list" >&2
		"$environment/bin/python" -m pip check >&2
		touch "$environment/ready"
	fi
) 9>"$cache/python/lock-$framework"

if [ "${1:-}" = --python ]; then
	echo "$environment/bin/python"
	exit
fi
module=src/countersign/${framework//-/_}.py
"$environment/bin/python" -m mypy --python-version 3.11 "$module"
# The warnings of a framework are its own.
exec "$environment/bin/python" -m pytest -o filterwarnings=default "tests/frameworks/test_${framework//-/_}.py" "$@"
