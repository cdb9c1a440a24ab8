#!/usr/bin/env bash
# Runs a command beside a real Kubernetes of one node, which ends with it.
#
#   run.sh LOGS COMMAND [ARGUMENT...]
#
# LOGS is a folder that must not exist. node.sh says what the command finds. The exit status is the command's, or 0 if there can be no node
# here: then it says why.
#
# The node has namespaces of its own for processes, mounts and the network. So
# nothing of it meets what else is on the machine, the ports are always free, and
# all of it is gone when the first process in there is, however that ends.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd -P)

if [ "$#" -lt 2 ]; then
	echo "usage: $0 LOGS COMMAND [ARGUMENT...]" >&2
	exit 2
fi
logs=$1
shift

skip() {
	echo "SKIPPED: $*"
	exit 0
}
problem=$("$here/preflight.sh") || skip "$problem"

# The pods get a cgroup of this run, in each hierarchy that there is.
name=countersign-node-$$
cgroups=()
mapfile -t hierarchies < <(awk '$3 ~ /^cgroup2?$/ { print $2 }' /proc/mounts)

# remove WHAT COMMAND...: the kernel takes a moment to bury the last process, and with it what it uses.
remove() {
	local what=$1 tries
	shift
	for ((tries = 100; tries > 0; tries--)); do
		"$@" 2>/dev/null || true
		[ -e "$what" ] || return 0
		sleep 0.1
	done
	echo "tests/node: $what is still in use" >&2
}

inside=''
# The namespaces' first process is killed by --kill-child, and the kernel kills the others with it.
leave() {
	trap '' INT TERM
	if [ -n "$inside" ] && kill -KILL "$inside" 2>/dev/null; then wait "$inside" 2>/dev/null || true; fi
	for cgroup in "${cgroups[@]}"; do
		remove "$cgroup" find "$cgroup" -depth -type d -exec rmdir {} +
	done
	remove "$state" rm -rf --one-file-system "$state"
}
cluster=$("$here/../cluster/build.sh")
binaries=$("$here/build.sh") || {
	[ "$?" = 3 ] || exit 1
	skip 'containerd, the CNI plugins or CoreDNS cannot be had'
}
mkdir -p "$(dirname "$logs")"
mkdir "$logs"
logs=$(cd "$logs" && pwd -P)
# Here, so that servers that are not root's can reach theirs.
state=/tmp/$name
trap leave EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
mkdir -m 0711 "$state"
for hierarchy in "${hierarchies[@]}"; do
	problem=$(mkdir "$hierarchy/$name" 2>&1) || skip "no cgroup can be made here: $problem"
	cgroups+=("$hierarchy/$name")
	# A new cpuset of v1 is empty, and nothing could run in it.
	for file in cpuset.cpus cpuset.mems; do
		[ ! -e "$hierarchy/$file" ] || cat "$hierarchy/$file" >"$hierarchy/$name/$file"
	done
done

setpriv --pdeathsig KILL unshare --net --mount --propagation private --pid --mount-proc --fork --kill-child \
	"$here/node.sh" "$logs" "$state" "$cluster" "$binaries" "$name" "$@" &
inside=$!
status=0
wait "$inside" || status=$?
inside=''
[ "$status" = 0 ] || exit "$status"
