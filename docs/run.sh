#!/usr/bin/env bash
# Runs the runnable blocks of the pages (blocks.py says which those are) on a control plane and an operator of their own, which are
# stopped however this ends. Each page in a folder of its own, from which `examples`, `sdk` and `.dev` look as they do in the repository.
#
#   run.sh DIRECTORY DEV COUNTERSIGN [PAGE...]
#
# What a block prints is shown only if it fails, without tokens.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd -P)
root=$(dirname "$here")
mkdir -p "$1"
directory=$(cd "$1" && pwd -P)
programs=("$2" "$3")
shift 3

# shellcheck source=tests/dev/started.sh
. "$root/tests/dev/started.sh"
started "$directory" "${programs[@]}"

if [ "$#" -gt 0 ]; then pages=("$@"); else mapfile -t pages < <(cd "$root" && grep -lE '^<!-- run(: .*)? -->$' docs/*.md); fi
for page in "${pages[@]}"; do
	folder=$directory/run/$(basename "$page" .md)
	rm -rf "$folder"
	mkdir -p "$folder"
	ln -s "$root/examples" "$folder/examples"
	if [ -e "$root/sdk" ]; then ln -s "$root/sdk" "$folder/sdk"; fi
	ln -s "$directory" "$folder/.dev"
	(cd "$root" && docs/blocks.py "$page") >"$folder/blocks.sh"
	if ! (
		cd "$folder"
		exec 3>&2
		# shellcheck disable=SC2016 # $at is that of the blocks
		timeout 900 bash -euo pipefail -c '
			trap '\''echo "failed: the block at $at" >&3'\'' ERR
			. ./blocks.sh
		' >output 2>&1 </dev/null
	); then
		tail -n 60 "$folder/output" | sed -E 's/eyJ[A-Za-z0-9_-]{10,}[A-Za-z0-9_.-]*/(a token)/g' >&2
		exit 1
	fi
	rm -rf "$folder"
	echo "$page: all blocks ran"
done
