# shellcheck shell=sh
# Runs a command and stops it when this script's standard input closes.
#
#   sh -c "$(cat watchdog.sh)" watchdog PID_FILE COMMAND [ARGUMENT...]
#
# Standard input is a pipe whose other end the test process holds and never
# writes to. The kernel closes that end however the test process ends, SIGKILL
# included, so nothing that was started can outlive it.
#
# Standard output carries one line, the pid of COMMAND. COMMAND's own output
# goes to standard error (a log file). The exit status is COMMAND's.
pid_file=$1
shift
# A signal for the whole process group must not take the watchdog away while
# its child lives. A handler that does nothing, unlike ignoring the signal, is
# not inherited by the child.
trap : HUP INT TERM
exec 3<&0 # a background job finds /dev/null at 0, so the pipe needs another number

(exec "$@" </dev/null >&2 3<&-) &
child=$!
echo "$child" >"$pid_file.part" && mv "$pid_file.part" "$pid_file"
echo "$child"

(
	# shellcheck disable=SC2034 # what is read does not matter, only that the pipe closes
	read -r closed <&3
	kill -TERM "$child"
	kill -CONT "$child" # a stopped process sees no other signal until it continues
	tenths=0
	while [ "$tenths" -lt 50 ] && kill -0 "$child"; do
		sleep 0.1
		tenths=$((tenths + 1))
	done
	kill -KILL "$child"
) >/dev/null 2>&1 &
stopper=$!

while :; do
	wait "$child"
	status=$?
	kill -0 "$child" 2>/dev/null || break # else a signal for us ended the wait
done
kill "$stopper" 2>/dev/null
rm -f "$pid_file"
exit "$status"
