#!/usr/bin/env bash
# Runs the runnable blocks of the pages (blocks.py says which those are) on a control plane and an operator of their own, which are
# stopped however this ends. Each page in a folder of its own, from which `examples`, `sdk` and `.dev` look as they do in the repository.
#
#   run.sh DIRECTORY DEV COUNTERSIGN [PAGE...]
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
# shellcheck source=docs/follow.sh
. "$root/docs/follow.sh"
export SETUP=$root/docs/setup.sh # what the pages' marks name

if [ "$#" -gt 0 ]; then pages=("$@"); else mapfile -t pages < <(cd "$root" && grep -lE '^<!-- run(: .*)? -->$' docs/*.md charts/countersign/README.md); fi
for page in "${pages[@]}"; do
	folder=$directory/run/$(basename "$page" .md)
	rm -rf "$folder"
	mkdir -p "$folder"
	ln -s "$root/examples" "$folder/examples"
	ln -s "$root/sdk" "$folder/sdk"
	ln -s "$directory" "$folder/.dev"
	(cd "$root" && docs/blocks.py "$page") >"$folder/blocks.sh"
	(cd "$folder" && follow blocks.sh output 300)
	rm -rf "$folder"
	echo "$page: all blocks ran"
done
