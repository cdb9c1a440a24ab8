#!/usr/bin/env bash
# Shows that the image is the same bytes wherever it is built: builds the last
# commit twice, each time from nothing, in folders of different names, with crates
# below different folders, and compares archive and SBOM. Takes twice as long as a
# build.
#
#   reproduce.sh DIRECTORY
set -euo pipefail
cd "$(dirname "$0")/.."
repository=$PWD

if [ "$#" != 1 ]; then
	echo "usage: $0 DIRECTORY" >&2
	exit 2
fi
mkdir -p "$1"
directory=$(cd "$1" && pwd -P)
cargo_home=${CARGO_HOME:-$HOME/.cargo}

# build NAME: a checkout, a cargo home and a target folder of that name, and the image in $directory/NAME/image.
build() {
	local here=$directory/$1
	rm -rf "$here"
	git clone --quiet --no-hardlinks "$repository" "$here/source"
	# The crates are the same, in a folder of another name; so they are not fetched again.
	mkdir -p "$here/cargo/registry"
	for part in cache index; do
		[ ! -d "$cargo_home/registry/$part" ] || cp -R "$cargo_home/registry/$part" "$here/cargo/registry/"
	done
	CARGO_HOME=$here/cargo CARGO_TARGET_DIR=$here/target "$here/source/image/image.sh" "$here/image"
}
build first
build second-of-another-length

(cd "$directory/first/image" && sha256sum ./*.tar ./*.json) | tee "$directory/sums"
(cd "$directory/second-of-another-length/image" && sha256sum --check --strict "$directory/sums") || {
	echo 'image: two builds of one commit differ' >&2
	exit 1
}
for name in first second-of-another-length; do rm -rf "${directory:?}/$name"/{source,cargo,target}; done
echo 'Both builds are the same, byte for byte.'
