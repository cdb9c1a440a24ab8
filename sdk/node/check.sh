#!/usr/bin/env bash
# Installs what the lock file says, builds the package, and runs all its checks and tests.
set -euo pipefail
cd "$(dirname "$0")"

stamp=node_modules/.package-lock.json
if [ ! -e "$stamp" ] || [ package-lock.json -nt "$stamp" ]; then
  npm ci --no-audit --no-fund
  touch "$stamp"
fi
npm run --silent build
npm run --silent types
npm run --silent lint
npm run --silent test
