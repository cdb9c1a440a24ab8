#!/usr/bin/env bash
# Packs the plugin for one platform, and adds the archive to the krew manifest.
#
#   package.sh VERSION PLATFORM BINARY DIRECTORY
#
# PLATFORM is linux-amd64, linux-arm64, darwin-amd64 or darwin-arm64, and BINARY the
# kubectl-countersign that was built for it. DIRECTORY afterwards has the archive,
# with the license, and countersign.yaml with all the platforms packed so far.
# HOMEPAGE is the URL of the repository that publishes it, and RELEASES that of its
# releases, if they are elsewhere than on GitHub.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd -P)

if [ "$#" != 4 ]; then
	echo "usage: $0 VERSION PLATFORM BINARY DIRECTORY" >&2
	exit 2
fi
version=${1#v} platform=$2 binary=$3 directory=$4
case $platform in
linux-amd64 | linux-arm64 | darwin-amd64 | darwin-arm64) ;;
*)
	echo "$0: $platform is none of linux-amd64, linux-arm64, darwin-amd64, darwin-arm64" >&2
	exit 2
	;;
esac
if ! [[ $version =~ ^[0-9]+\.[0-9]+\.[0-9]+(-[0-9A-Za-z.-]+)?$ ]]; then
	echo "$0: $version is no version such as 0.1.0" >&2
	exit 2
fi
if ! [[ ${HOMEPAGE:-} =~ ^https://[A-Za-z0-9./_-]+$ ]]; then
	echo "$0: HOMEPAGE must be the https URL of the repository" >&2
	exit 2
fi
releases=${RELEASES:-$HOMEPAGE/releases/download}

mkdir -p "$directory"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
install -m 0644 "$here/../LICENSE" "$work/LICENSE"
install -m 0755 "$binary" "$work/kubectl-countersign"
name=kubectl-countersign-v$version-$platform.tar.gz
# The same files make the same archive, whoever packs it and when.
tar --create --sort=name --owner=0 --group=0 --numeric-owner --mtime=@0 --directory "$work" LICENSE kubectl-countersign |
	gzip -9 --no-name >"$work/archive"
sum=$(sha256sum "$work/archive" | cut -d ' ' -f 1)
mv "$work/archive" "$directory/$name"

manifest=$directory/countersign.yaml
if ! grep -qs "version: \"v$version\"" "$manifest"; then
	sed -e '/^#/d' -e "s/@VERSION@/$version/" -e "s|@HOMEPAGE@|$HOMEPAGE|" -e 's/^  platforms: \[\]$/  platforms:/' "$here/krew.yaml" >"$manifest"
fi
if grep -qF "/$name" "$manifest"; then
	echo "$0: $manifest has $platform already: begin with an empty directory" >&2
	exit 1
fi
cat >>"$manifest" <<ENTRY
  - selector:
      matchLabels:
        os: ${platform%-*}
        arch: ${platform#*-}
    uri: $releases/v$version/$name
    sha256: $sum
    bin: kubectl-countersign
ENTRY
echo "$directory/$name"
