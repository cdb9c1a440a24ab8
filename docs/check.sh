#!/usr/bin/env bash
# Builds the manual, checks it and runs its runnable blocks.
#
#   check.sh DIRECTORY TOOLS DEV COUNTERSIGN
#
# DIRECTORY has the book afterwards, in `book`. TOOLS keeps mdBook, which is installed once per machine.
set -euo pipefail
directory=$1 tools=$2
shift 2
cd "$(dirname "$0")/.."
mkdir -p "$directory"
directory=$(cd "$directory" && pwd -P)

mdbook_version=0.5.4
if [ "$("$tools/bin/mdbook" --version 2>/dev/null)" != "mdbook v$mdbook_version" ]; then
	echo "installing mdbook $mdbook_version, once per machine" >&2
	cargo install --debug --locked --root "$tools" "mdbook@$mdbook_version" # it works for seconds, and is compiled in half the time
fi

docs/book.py pages

echo 'links of the pages, as the repository shows them'
git ls-files -co --exclude-standard 'docs/*.md' 'examples/*.md' 'charts/*.md' README.md SECURITY.md CONTRIBUTING.md CHANGELOG.md |
	xargs tests/docs/node_modules/.bin/remark --rc-path tests/docs/remarkrc.mjs --no-ignore --frail --quiet --no-stdout

"$tools/bin/mdbook" build --dest-dir "$directory/book"
docs/book.py finish "$directory/book"
docs/book.py check "$directory/book"

missing=0
while read -r alert; do
	grep -qF "\`$alert\`" docs/operations.md || {
		echo "docs/operations.md does not say what to do about $alert" >&2
		missing=1
	}
done < <(sed -n 's/^- alert: //p' charts/countersign/files/alerts.yaml)
# Events and fields of records. A style sheet is none, and names of one letter are of tests.
# shellcheck disable=SC2016 # backticks of Markdown
while read -r name; do
	grep -qF "\`$name\`" docs/audit.md || {
		echo "docs/audit.md does not say what $name is" >&2
		missing=1
	}
done < <(grep -rhoE --exclude=tests.rs '"(access|agent|audit|capability|chain|cluster|http|jit|ledger|portal|registration|signing_keys|token|trusted_issuer|user)\.[a-z_]+"|\.(text|number)\("[a-z_]{2,}"' \
	src/audit src/controller src/http src/operator.rs | grep -oE '"[a-z_.]+"' | tr -d '"' | grep -vFx portal.css | sort -u)
# shellcheck disable=SC2016 # backticks of Markdown
# `A22` is a22_… somewhere in the tests; of a range both ends are.
while read -r id; do
	grep -rqiE "fn ([a-z][0-9]+_)*${id}_" src tests/it || {
		echo "docs/security.md names $id, which no test has" >&2
		missing=1
	}
done < <(grep -oE '`[A-Z][0-9]+`' docs/security.md | tr -d '`' | sort -u)
[ "$missing" = 0 ]

docs/run.sh "$directory/run" "$@"
