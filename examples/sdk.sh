# shellcheck shell=bash
# What the examples of the SDKs share, on top of lib.sh: programs in Python and Node.js that find the SDK of this checkout, and
# what a pod would have in its environment.
#
#   COUNTERSIGN_SDK_PYTHON   an interpreter with the packages of sdk/python/requirements-dev.txt; without it, one is made once per machine

# Of transcript.sh, by way of lib.sh.
: "${work:?}"
root=$(cd ../.. && pwd -P)
# What these programs talk to is on this machine.
export NO_PROXY=127.0.0.1,localhost no_proxy=127.0.0.1,localhost

sdk_python=${COUNTERSIGN_SDK_PYTHON:-$("$root/sdk/python/check.sh" --python)}
sdk_node=$root/sdk/node
if [ ! -e "$sdk_node/dist/index.mjs" ]; then (cd "$sdk_node" && npm ci --no-audit --no-fund && npm run --silent build) >&2; fi
# Beside copies of the programs, so that nothing is left in the checkout.
mkdir -p "$work/node/node_modules/@countersign"
ln -s "$sdk_node" "$work/node/node_modules/@countersign/sdk"
for package in @modelcontextprotocol express zod; do ln -s "$sdk_node/node_modules/$package" "$work/node/node_modules/$package"; done

# program FILE ARGUMENT...: runs a program of the example, by what its name ends in; or uvicorn, which serves one.
program() {
	local file=$1
	shift
	export PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 PYTHONPATH=$root/sdk/python/src
	case $file in
	*.py) exec "$sdk_python" "$file" "$@" ;;
	uvicorn) exec "$sdk_python" -m uvicorn "$@" ;;
	*.mjs) cp "$file" "$work/node/" && exec node "$work/node/$file" "$@" ;;
	*) fail "no program: $file" ;;
	esac
}
# as NAME FILE ARGUMENT...: the program with the credential $work/NAME, which in a pod is a projected volume.
as() {
	(
		unset COUNTERSIGN_SIDECAR_URL COUNTERSIGN_PRIVATE_KEY_FILE COUNTERSIGN_CLIENT_ID COUNTERSIGN_AUDIENCE
		export COUNTERSIGN_TOKEN_FILE="$work/$1" COUNTERSIGN_CLOUD=none
		shift
		program "$@"
	)
}

# eventually WHAT COMMAND...: a step that has to come true within 60 s.
eventually() {
	local what=$1 tries
	shift
	for ((tries = 300; tries > 0; tries--)); do
		if "$@" >/dev/null 2>&1; then break; fi
		sleep 0.2
	done
	# What the programs have printed may say why not; none of them prints a token.
	if [ "$tries" = 0 ]; then tail -n 20 "$work"/*.out 2>/dev/null | show || true; fi
	check "$what" "$@"
}
# Whether what a program printed has that line.
printed() { grep -qE -- "$2" "$work/$1.out"; }
# free_ports N: ports of this machine that are free, and that no outgoing connection takes in the meantime.
free_ports() {
	"$sdk_python" - "$1" <<-'PROGRAM'
		import random, socket, sys
		found = []
		while len(found) < int(sys.argv[1]):
		    listener = socket.socket()
		    try:
		        listener.bind(("127.0.0.1", random.randint(20000, 29999)))
		    except OSError:
		        continue
		    found.append(listener)
		print(*(listener.getsockname()[1] for listener in found), sep="\n")
	PROGRAM
}
