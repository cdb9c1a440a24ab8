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

python=$(./environment.sh "requirements-$framework.txt")
if [ "${1:-}" = --python ]; then
	echo "$python"
	exit
fi
module=src/countersign/${framework//-/_}.py
"$python" -m mypy --python-version 3.11 "$module"
# The warnings of a framework are its own.
exec "$python" -m pytest -o filterwarnings=default "tests/frameworks/test_${framework//-/_}.py" "$@"
