#!/usr/bin/env bash
# An agent outside the cluster as one run: it gets a key of its own, obtains
# tokens with it, and changes the key for another while it keeps asking for
# tokens. Each step is verified; the script ends with 0 only if every one of them
# went as it says, and no request failed meanwhile.
#
#   COUNTERSIGN   the countersign command, by default the one in PATH
#
# ../lib.sh says which other variables it needs; `make demo` sets all of them.
set -euo pipefail
cd "$(dirname "$0")"
# shellcheck source=examples/lib.sh
. ../lib.sh
countersign=${COUNTERSIGN:-countersign}

# make_key NAME: a key pair in $work/NAME.pem, and what to paste in $work/NAME.entry.
make_key() {
	say "countersign keygen --private-key $1.pem --not-after 90d"
	"$countersign" keygen --private-key "$work/$1.pem" --not-after 90d >"$work/$1.entry"
}
# Its thumbprint, which is also its kid.
thumbprint() { sed -n 's/^ *- kid: "\(.*\)"$/\1/p' "$work/$1.entry"; }
# The patch that keygen printed.
patch_of() { sed -n "s/^#.*--patch='\(.*\)'\$/\1/p" "$work/$1.entry"; }

# assertion NAME: a new one, signed with that key, as the credential of the next form.
assertion() {
	"$countersign" assert --private-key "$work/$1.pem" --client-id agent:ci/release-bot --issuer "$COUNTERSIGN_URL" |
		tr -d '\n' >"$credential"
}
ask_with() {
	assertion "$1"
	shift
	client_credentials "$@"
}
# What the agent does all day: it takes the key that is current, and asks. Nothing is tried twice.
keep_asking() {
	local key
	answer_file=$work/asking.json credential=$work/asking
	until [ -e "$work/enough" ]; do
		key=$(readlink "$work/current")
		ask_with "$key" --retry 0 || status=000
		printf '%s %s\n' "$status" "$key" >>"$work/asked"
		if [ "$status" != 200 ]; then cat "$answer_file" >>"$work/failed"; fi
		sleep 0.05
	done
}
# asked_by NAME: how often that key was answered with a token.
asked_by() { grep -c "^200 $1\$" "$work/asked" || true; }
asked_at_least() { [ "$(asked_by "$1")" -ge "$2" ]; }
# five_more NAME: waits until it has been five times more.
five_more() { eventually asked_at_least "$1" $(($(asked_by "$1") + 5)); }
none_failed() {
	if ! grep -v '^200 ' "$work/asked"; then return; fi
	cat "$work/failed"
	return 1
}

# eventually COMMAND...: tries for 30 s.
eventually() {
	local tries
	for ((tries = 300; tries > 0; tries--)); do
		if "$@" >/dev/null 2>&1; then return; fi
		sleep 0.1
	done
	"$@"
}
# keys_are NAME...: whether the operator says that exactly these keys count.
keys_are() {
	local name wanted listed
	wanted=$(for name in "$@"; do thumbprint "$name"; done | sort)
	listed=$(admin get agent release-bot --namespace=ci --output=json | jq -r '.status.keyThumbprints // [] | .[]' | sort)
	echo "it lists: ${listed:-none}"
	[ "$listed" = "$wanted" ]
}

step 'Setup: two people, and no agent yet'
admin apply -f rbac.yaml >/dev/null
# What an earlier run left.
admin delete agent release-bot --namespace=ci --ignore-not-found >/dev/null
say 'alice and bob may both write Agents in namespace ci; only alice may grant artifact.publish.'

step 'On the machine of the agent, which is outside the cluster: a key pair'
make_key first
show <"$work/first.entry"
check 'the private key is for its owner alone' test "$(stat -c %a "$work/first.pem")" = 600
check 'what was printed holds the public key only' grep -q 'BEGIN PUBLIC KEY' "$work/first.entry"
if grep -q PRIVATE "$work/first.entry"; then fail 'the private key was printed'; fi
if "$countersign" keygen --private-key "$work/first.pem" >"$work/refused" 2>&1; then fail 'a key was overwritten'; fi
check 'no key is ever overwritten' grep -q 'exists already' "$work/refused"

step 'alice pastes that into agent.yaml and applies it'
sed "/^    keys:/r $work/first.entry" agent.yaml >"$work/agent.yaml"
alice apply -f "$work/agent.yaml" | show
check 'the Agent becomes Ready' admin wait --namespace=ci --for=condition=Ready --timeout=30s agent/release-bot
check "its status lists the key by its thumbprint, $(thumbprint first)" eventually keys_are first

step 'The agent signs an assertion that is good for a minute and for one request'
assertion first
say "countersign assert --private-key first.pem --client-id agent:ci/release-bot --issuer $COUNTERSIGN_URL"
part 0 "$credential" >"$work/header"
part 1 "$credential" >"$work/claims"
jq . "$work/header" "$work/claims" | show
check 'it is for the token service alone, and lives for 60 s' \
	jq -e '.aud == env.COUNTERSIGN_URL and .iss == .sub and .exp - .iat == 60 and .jti' "$work/claims"

step 'With it the agent obtains an access token (client credentials, private_key_jwt)'
client_credentials
# A database that is seconds old takes no assertion that may be older than it: the agent signs another.
for ((tries = 10; tries > 0; tries--)); do
	if [ "$status" != 503 ]; then break; fi
	sleep 1
	ask_with first
done
check 'it is answered with a token' answers 200 '.access_token and .token_type == "Bearer"'
keep_token
part 1 "$work/access" >"$work/claims"
jq . "$work/claims" | show
check 'its subject is the agent, its scope what was granted' jq -e '
	.sub == "agent:ci/release-bot" and ([.aud] | flatten) == ["https://registry.example.com"] and .scope == "artifact.publish"' \
	"$work/claims"
client_credentials
answer . | show
check 'the same assertion a second time is refused' answers 401 '.error == "invalid_client"'

step 'From now on the agent asks for a token many times a second, and nothing is tried twice'
ln -s first "$work/current"
: >"$work/asked"
in_background keep_asking
check 'it has tokens, all by the first key' five_more first

step 'The 90 days are nearly over: a second key'
make_key second
patch=$(patch_of second)
if bob patch agent release-bot --namespace=ci --type=json --patch="$patch" >"$work/refused" 2>&1; then fail 'bob was not refused'; fi
show <"$work/refused"
check 'bob may write Agents, but a key would make him the agent: the API server refused' grep -q 'artifact\.publish' "$work/refused"
say 'alice runs the command that keygen printed.'
alice patch agent release-bot --namespace=ci --type=json --patch="$patch" | show
check 'the status lists both keys' eventually keys_are first second
check 'the agent, which still has the first, goes on' five_more first

step 'The agent takes the second key'
ln -s second "$work/next"
mv -T "$work/next" "$work/current"
check 'it has tokens by the second key' five_more second

step 'alice takes the first key out of the Agent'
patch=$(jq -nc --arg kid "$(thumbprint first)" '[
	{op: "test", path: "/spec/identity/keys/0/kid", value: $kid},
	{op: "remove", path: "/spec/identity/keys/0"}]')
say "kubectl patch agent release-bot --namespace=ci --type=json --patch='$patch'"
alice patch agent release-bot --namespace=ci --type=json --patch="$patch" | show
check 'the status lists the second key alone' eventually keys_are second
ask_with first
answer . | show
check 'the first key is refused, from now on and for good' answers 401 '.error == "invalid_client"'
check 'the agent goes on with the second' five_more second

step 'Did the agent notice anything?'
touch "$work/enough"
from_background
say "$(asked_by first) tokens by the first key, $(asked_by second) by the second."
check 'no request failed' none_failed

step 'Every one of these outcomes was recorded before its answer left'
if [ -z "$audit" ]; then
	say 'COUNTERSIGN_AUDIT is not set, so there is nothing to show.'
else
	records >"$work/audit"
	grep -F agent:ci/release-bot "$work/audit" | grep -F '"event":"token' | tail -n 3 |
		jq -r '[.time, .event, .outcome, .reason] | map(. // "-") | join("  ")' | show
	export issued=$(($(wc -l <"$work/asked") + 1))
	check "$issued tokens were issued to the agent" jq -es '
		map(select((.event | test("token")) and .subject == "agent:ci/release-bot" and .outcome == "allow"))
		| length == (env.issued | tonumber)' "$work/audit"
	check 'no token and no assertion is in the records' no_token_in "$work/audit"
fi

all_held
