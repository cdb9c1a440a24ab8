#!/usr/bin/env bash
# Says why there can be no node on this machine, and ends with 1, or with 0 if
# there can. As root on a machine with apt-get it installs the programs that a node
# calls.
set -euo pipefail

cannot() {
	echo "$*"
	exit 1
}
[ "$(uname -s)" = Linux ] || cannot 'a node needs Linux'
[ "$(id -u)" = 0 ] || cannot 'a node needs root'
command -v go >/dev/null || cannot 'a node is built with go, which is not here'

declare -A package=(
	[runc]=runc # with seccomp
	[iptables]=iptables
	[ip]=iproute2
	[setpriv]=util-linux
	[unshare]=util-linux
)
absent=()
for command in "${!package[@]}"; do
	command -v "$command" >/dev/null || absent+=("${package[$command]}")
done
if [ "${#absent[@]}" -gt 0 ] && command -v apt-get >/dev/null; then
	echo "installing ${absent[*]}" >&2
	{
		apt-get update -q &&
			DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${absent[@]}"
	} >&2 || true
fi
for command in "${!package[@]}"; do
	command -v "$command" >/dev/null || cannot "a node needs $command: package ${package[$command]}"
done

problem=$(unshare --net --mount --pid --fork true 2>&1) || cannot "there are no namespaces to be had: $problem"
problem=$(unshare --net iptables --table nat --list-rules 2>&1) || cannot "iptables does not work: $problem"
grep -qE '^[^ ]+ [^ ]+ cgroup2? ' /proc/mounts || cannot 'no cgroups are mounted'
