# shellcheck shell=bash
# Sourced by the scripts that build, once per machine, what the tests run.
#
# The cache lies outside target/, so that `cargo clean` does not cost minutes,
# and is keyed by what a thing is made from, so that nothing is ever tested with
# an old binary.

# cached NAME KEY FILE WHAT INSTEAD
#
# Prints the path of FILE, of the NAME that is made from KEY, and ends the script
# if it is there. Otherwise sets `built` to the path where it is to be made, says
# that WHAT is built, and holds a lock until the script ends: two builds side by
# side would each take twice as long. Without Go it says what would do INSTEAD.
cached() {
	local cache="${COUNTERSIGN_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/countersign}/$1"
	built="$cache/$2/$3"
	there "$built"
	command -v go >/dev/null || {
		echo "tests: 'go' is needed to build $4 (https://go.dev/dl)$5" >&2
		exit 1
	}
	mkdir -p "$(dirname "$built")"
	exec 9>"$cache/lock"
	flock 9
	there "$built"
	echo "tests: building $4 from source, once per machine" >&2
}

there() {
	[ -x "$1" ] || return 0
	echo "$1"
	exit 0
}
