#!/usr/bin/env bash
# Does what the README says, and then the quickstart, in a fresh clone of what is committed: every block of shell of both pages, one after
# the other in one shell, as a reader would copy them. What they start is stopped, however this ends.
#
#   fresh.sh DIRECTORY
#
# DIRECTORY becomes the clone; `fresh.log` in it has what was printed. As a reader's, it compiles everything itself, unless
# CARGO_TARGET_DIR says where something is compiled already.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd -P)
# shellcheck source=docs/follow.sh
. "$root/docs/follow.sh"

rm -rf "$1"
git clone --quiet "$root" "$1"
cd "$1"
trap 'make --no-print-directory down' EXIT
docs/blocks.py --all README.md docs/quickstart.md >fresh.sh
follow fresh.sh fresh.log 5400
echo "README.md and docs/quickstart.md: $(grep -c '^at=' fresh.sh) blocks ran in a fresh clone"
