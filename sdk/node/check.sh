#!/usr/bin/env bash
# Installs what the lock file says, builds the package, and runs all its checks and tests.
#
#   check.sh
#   check.sh --built                 install and build what is not there, and do nothing else
set -euo pipefail
cd "$(dirname "$0")"

stamp=node_modules/.package-lock.json
if [ ! -e "$stamp" ] || [ package-lock.json -nt "$stamp" ]; then
  npm ci --no-audit --no-fund
  touch "$stamp"
fi
if [ "${1:-}" = --built ]; then
  [ -e dist/index.mjs ] || npm run --silent build
  exit
fi
npm run --silent build
npm run --silent types
npm run --silent lint
npm run --silent test
