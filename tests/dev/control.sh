#!/usr/bin/env bash
# Keeps a `dev run` (see main.rs) in the background, one per directory.
#
#   control.sh up DIRECTORY DEV COUNTERSIGN   start it unless it runs; returns when it is ready
#   control.sh down DIRECTORY                 stop it; returns when every process of it is gone
#
# DIRECTORY afterwards has dev.pid, dev.log, and env with the variables to use it.
set -euo pipefail

# True if the process runs and is one of this directory's. Each of them has the
# directory on its command line, so a pid that now belongs to somebody else,
# after a reboot for example, is never taken for ours.
ours() {
	local command_line
	command_line=$(tr '\0' '\n' 2>/dev/null <"/proc/$1/cmdline") || return 1
	[[ $command_line == *"$directory"* ]]
} 2>/dev/null

# Prints the pids of ours in the files of that name below the given paths.
running() {
	local name=$1 file pid
	shift
	find "$@" -name "$name" 2>/dev/null | while read -r file; do
		pid=$(cat "$file" 2>/dev/null) && [ -n "$pid" ] && ours "$pid" && echo "$pid"
	done || true # a path need not exist, and a file may go while it is read
}

# Stops every process whose pid file lies below the given paths.
stop() {
	local pids tenths=0
	mapfile -t pids < <(running dev.pid "$@")
	if [ "${#pids[@]}" -gt 0 ]; then
		kill -TERM "${pids[@]}" 2>/dev/null || true # its children end by themselves when it is gone
	fi
	while mapfile -t pids < <(running '*.pid' "$@") && [ "${#pids[@]}" -gt 0 ]; do
		if [ "$tenths" = 150 ]; then
			echo "killing what is still there after 15 s: ${pids[*]}" >&2
			kill -KILL "${pids[@]}" 2>/dev/null || true
		fi
		sleep 0.1
		tenths=$((tenths + 1))
	done
	find "$@" \( -name '*.pid' -o -name env \) -delete 2>/dev/null || true
}

up() {
	local dev=$1 binary=$2 pid
	# Not the whole directory: the demo's own lies within that of `make up`.
	local mine=("$directory/dev.pid" "$directory/env" "$directory/cluster")
	if [ -n "$(running dev.pid "$directory/dev.pid")" ]; then
		if [ -e "$directory/env" ]; then
			echo "already running (pid $(cat "$directory/dev.pid"))"
			return
		fi
		echo "already starting, see $directory/dev.log" >&2
		exit 1
	fi
	stop "${mine[@]}" # what a killed run may have left
	set -m            # a process group of its own, so that Ctrl-C here later is not for it
	nohup "$dev" run --dir "$directory" --binary "$binary" >"$directory/dev.log" 2>&1 </dev/null &
	pid=$!
	set +m
	echo "$pid" >"$directory/dev.pid"
	trap 'stop "${mine[@]}"; exit 130' INT TERM
	until [ -e "$directory/env" ]; do
		if ! kill -0 "$pid" 2>/dev/null; then
			echo "it did not start:" >&2
			tail -n 40 "$directory/dev.log" >&2
			stop "${mine[@]}"
			exit 1
		fi
		sleep 0.2
	done
	trap - INT TERM
}

down() {
	stop "$directory"
}

case "$#:${1:-}" in
4:up | 2:down)
	mkdir -p "$2"
	directory=$(cd "$2" && pwd -P)
	"$1" "${@:3}"
	;;
*)
	echo "usage: $0 up DIRECTORY DEV COUNTERSIGN | down DIRECTORY" >&2
	exit 2
	;;
esac
