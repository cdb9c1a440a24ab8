#!/usr/bin/env bash
# Checks that the tools the build, the tests and the demo call are there, and
# says how to get those that are not. As root on a machine with apt-get it
# installs the small ones itself. With the argument `browser` also those of the
# portal's tests: 130 MB, which nothing else wants.
set -euo pipefail

declare -A from=(
	[cargo]="Rust: https://rustup.rs"
	[go]="Go, to build Kubernetes and Helm for the tests: https://go.dev/dl"
	[node]="Node.js: https://nodejs.org"
	[npm]="npm, which comes with Node.js: https://nodejs.org"
	[python3]="Python 3: package python3"
	[kubectl]="kubectl: https://kubernetes.io/docs/tasks/tools"
	[openssl]="package openssl"
	[curl]="package curl"
	[jq]="package jq"
	[faketime]="package faketime, for the tests of wrong clocks"
	[strace]="package strace, for the test that records are on disk before the answer leaves"
	[chromium]="Chromium, for the tests of the portal: package chromium"
	[certutil]="certutil, so that Chromium trusts the tests' servers: package libnss3-tools"
	[postgres]="PostgreSQL 13 or later, for the tests of its store: package postgresql"
)
packages=(openssl curl jq faketime strace) # commands and Debian packages of the same name
commands=(cargo go node npm python3 kubectl "${packages[@]}" postgres)

# Debian keeps the server's programs out of PATH.
has() { command -v "$1" >/dev/null || compgen -G "/usr/lib/postgresql/*/bin/$1" >/dev/null; }

absent=()
for command in "${packages[@]}"; do
	has "$command" || absent+=("$command")
done
has postgres || absent+=(postgresql)
if [ "${1:-}" = browser ]; then
	commands+=(chromium certutil)
	has chromium || absent+=(chromium fonts-dejavu-core)
	has certutil || absent+=(libnss3-tools)
fi
if [ "${#absent[@]}" -gt 0 ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
	echo "installing ${absent[*]}" >&2
	apt-get update -q >&2
	DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${absent[@]}" >&2
fi

missing=0
for command in "${commands[@]}"; do
	has "$command" || {
		echo "'$command' is missing. Install ${from[$command]}" >&2
		missing=1
	}
done
exit "$missing"
