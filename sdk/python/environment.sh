#!/usr/bin/env bash
# Makes an environment with exactly what a list of packages says, once per machine, and prints its interpreter.
#
#   environment.sh LIST
#
# PYTHON says from which interpreter it is made.
set -euo pipefail
cd "$(dirname "$0")"
list=$1

cache=${COUNTERSIGN_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/countersign}/python
python=${PYTHON:-python3}
# One for each list and each version of Python, so that none is ever changed.
key=$({ "$python" --version && cat "$list"; } | sha256sum | cut -c 1-16)
environment=$cache/$key

mkdir -p "$cache"
(
	flock 9
	if [ ! -e "$environment/ready" ]; then
		echo "making the environment of $list, once per machine" >&2
		rm -rf "$environment"
		"$python" -m venv "$environment"
		"$environment/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --requirement "$list" >&2
		"$environment/bin/python" -m pip check >&2
		touch "$environment/ready"
	fi
) 9>"$cache/lock-$key"
echo "$environment/bin/python"
