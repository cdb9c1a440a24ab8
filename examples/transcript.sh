# shellcheck shell=bash
# A transcript in which each step is verified, on the terminal of whoever runs it.
# $work is a folder for whatever is compared; it goes when the script ends.

umask 077
work=$(mktemp -d)
background=''
leave() {
	if [ -n "$background" ]; then kill -- "-$background" 2>/dev/null || true; fi
	rm -rf "$work"
}
trap leave EXIT

if [ -t 1 ]; then
	bold=$'\e[1m' green=$'\e[32m' red=$'\e[31m' dim=$'\e[2m' plain=$'\e[0m'
else
	bold='' green='' red='' dim='' plain=''
fi
step_number=0

# The transcript.
step() { printf '\n%s%d. %s%s\n' "$bold" "$((++step_number))" "$*" "$plain"; }
say() { printf '   %s\n' "$*"; }
show() { sed "s/^/   $dim| /; s/\$/$plain/"; }
fail() {
	printf '   %s✗ %s%s\n' "$red" "$*" "$plain"
	exit 1
}
all_held() { printf '\n%sAll of it held.%s\n' "$green" "$plain"; }

# check WHAT COMMAND...: ends the script unless the command succeeds.
check() {
	local what=$1
	shift
	if "$@" >"$work/check" 2>&1; then
		printf '   %s✓%s %s\n' "$green" "$plain" "$what"
	else
		show <"$work/check"
		fail "expected: $what"
	fi
}

# in_background COMMAND...: in a process group of its own, so that it ends as a whole if the script does.
in_background() {
	set -m
	"$@" &
	background=$!
	set +m
}
# Waits until it has ended.
from_background() {
	wait "$background"
	background=''
}
