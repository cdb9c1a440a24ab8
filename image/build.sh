#!/usr/bin/env bash
# Builds the operator as it goes into the image, and prints the path of the
# binary: static, so that an image needs nothing else, and the same bytes
# wherever it is built with the same compiler and C library.
#
# CARGO_TARGET_DIR says where to build. It lists its own crates (cargo-auditable),
# from which sbom.py makes the SBOM.
set -euo pipefail
cd "$(dirname "$0")/.."
repository=$PWD
cargo_home=${CARGO_HOME:-$HOME/.cargo}
target=$(rustc --print host-tuple)
directory=${CARGO_TARGET_DIR:-$repository/target}
cache=${COUNTERSIGN_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/countersign}
auditable=0.7.7

case $target in
*-unknown-linux-gnu) ;;
*)
	echo "image: the image is for Linux, and this is $target: use the Dockerfile" >&2
	exit 1
	;;
esac

# A tool of its own version, so that all builds embed the same.
tools=$cache/tools/cargo-auditable-$auditable
if [ ! -x "$tools/bin/cargo-auditable" ]; then
	echo "image: installing cargo-auditable $auditable, once per machine" >&2
	env -u CARGO_TARGET_DIR cargo install --locked --quiet --root "$tools" "cargo-auditable@$auditable" >&2
fi

# No path of this machine may be in the binary: panics and assertions name files.
# For rustc and for the C compiler the last prefix that fits wins.
prefixes=("$repository=/countersign" "$cargo_home=/cargo" "$directory=/build")
flags=(-Ctarget-feature=+crt-static "${prefixes[@]/#/--remap-path-prefix=}")
CARGO_ENCODED_RUSTFLAGS=$(IFS=$'\x1f' && echo "${flags[*]}")
CFLAGS="${prefixes[*]/#/-ffile-prefix-map=}"
export CARGO_ENCODED_RUSTFLAGS CFLAGS CXXFLAGS=$CFLAGS
# An archiver and a compiler that note no times.
export SOURCE_DATE_EPOCH=0 ZERO_AR_DATE=1 LC_ALL=C TZ=UTC
unset RUSTFLAGS CARGO_INCREMENTAL

PATH="$tools/bin:$PATH" CARGO_TARGET_DIR=$directory \
	cargo auditable build --locked --profile dist --target "$target" --bin countersign >&2
echo "$directory/$target/dist/countersign"
