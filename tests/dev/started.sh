# shellcheck shell=bash
# For scripts that need a control plane and an operator while they run: `. started.sh`, then
#
#   started DIRECTORY DEV COUNTERSIGN
#
# starts both in DIRECTORY, where `env` is afterwards, and stops them however the script ends.

started() {
	started_control=$(dirname "${BASH_SOURCE[0]}")/control.sh
	started_directory=$1
	trap '"$started_control" down "$started_directory"' EXIT
	trap 'exit 130' INT
	trap 'exit 143' TERM
	"$started_control" down "$started_directory"
	"$started_control" up "$@"
}
