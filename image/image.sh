#!/usr/bin/env bash
# Makes the image and what goes with it, without a container engine, and checks it.
#
#   image.sh DIRECTORY [REPOSITORY:TAG]
#
# DIRECTORY afterwards has countersign-VERSION-linux-ARCHITECTURE.tar, an OCI
# archive: `docker load`, `podman load`, `ctr images import` and `skopeo copy
# oci-archive:…` take it. Beside it are its SBOM and the checksums of both. The same
# sources, compiler and C library make the same bytes; reproduce.sh shows that.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd -P)
cd "$here/.."

if [ "$#" != 1 ] && [ "$#" != 2 ]; then
	echo "usage: $0 DIRECTORY [REPOSITORY:TAG]" >&2
	exit 2
fi
directory=$1
field() { sed -n "s/^$1 = \"\\(.*\\)\"\$/\\1/p" Cargo.toml | head -n 1; }
version=$(field version)
name=${2:-countersign:$version}
case $(uname -m) in
x86_64) architecture=amd64 ;;
aarch64) architecture=arm64 ;;
*)
	echo "image: no image is made for $(uname -m)" >&2
	exit 1
	;;
esac

# The time of everything in it is that of the commit.
labels=(
	--label "org.opencontainers.image.title=$(field name)"
	--label "org.opencontainers.image.description=$(field description)"
	--label "org.opencontainers.image.version=$version"
	--label "org.opencontainers.image.licenses=$(field license)"
)
if [ -z "${SOURCE_DATE_EPOCH:-}" ]; then
	SOURCE_DATE_EPOCH=$(git log -1 --format=%ct 2>/dev/null) || SOURCE_DATE_EPOCH=0
fi
export SOURCE_DATE_EPOCH PYTHONDONTWRITEBYTECODE=1
if revision=$(git rev-parse HEAD 2>/dev/null) && [ -z "$(git status --porcelain)" ]; then
	labels+=(--label "org.opencontainers.image.revision=$revision")
fi

binary=$("$here/build.sh")
mkdir -p "$directory"
archive=countersign-$version-linux-$architecture.tar
sbom=${archive%.tar}.spdx.json
"$here/sbom.py" "$binary" >"$directory/$sbom"
roots=$(mktemp)
trap 'rm -f "$roots"' EXIT
chmod 0644 "$roots"
"$here/roots.py" >"$roots"
"$here/pack.py" --output "$directory/$archive" --name "$name" \
	--file "$binary=/usr/bin/countersign" \
	--file "$roots=/etc/ssl/certs/ca-certificates.crt" \
	--file "LICENSE=/usr/share/doc/countersign/LICENSE" \
	--entrypoint /usr/bin/countersign --user 65532:65532 "${labels[@]}" >"$directory/digest.part"
"$here/check.py" "$directory/$archive" "$directory/$sbom" >&2
(cd "$directory" && sha256sum "$archive" "$sbom" >SHA256SUMS)
mv "$directory/digest.part" "$directory/digest"
echo "$directory/$archive"
