# shellcheck shell=sh
# Removes a directory once this script's standard input closes and nothing that
# runs under watchdog.sh uses it any more (at most 20 seconds later).
#
#   sh -c "$(cat janitor.sh)" janitor DIRECTORY
directory=$1
trap '' HUP INT TERM
# shellcheck disable=SC2034 # what is read does not matter, only that the pipe closes
read -r closed
tenths=0
while [ "$tenths" -lt 200 ] && [ -n "$(find "$directory" -name '*.pid' 2>/dev/null)" ]; do
	sleep 0.1
	tenths=$((tenths + 1))
done
rm -rf -- "$directory"
