#!/usr/bin/env python3
"""Checks an image that pack.py packed: whether it is whole, and whether it holds
what it promises to hold, and nothing else.

    check.py ARCHIVE [SBOM]

Prints a line for each check; ends with 1 at the first that fails.
"""

import gzip
import hashlib
import io
import json
import re
import subprocess
import sys
import tarfile

import leaks
from elf import Elf

# In megabytes: what is fetched, and what is then on the disk of the node.
COMPRESSED, UNPACKED = 25, 45
USER = "65532:65532"
PROGRAM = "usr/bin/countersign"
FILES = {PROGRAM, "etc/ssl/certs/ca-certificates.crt", "usr/share/doc/countersign/LICENSE"}


def check(what, holds, detail=""):
    if not holds:
        sys.exit(f"✗ {what}{': ' if detail else ''}{detail}")
    print(f"✓ {what}")


def digest_of(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


class Archive:
    """An OCI archive. What is read by a digest has that digest."""

    def __init__(self, path):
        with tarfile.open(path) as archive:
            self.files = {entry.name: archive.extractfile(entry).read() for entry in archive if entry.isfile()}
        self.used = {"oci-layout", "index.json"}

    def blob(self, descriptor):
        name = "blobs/" + descriptor["digest"].replace(":", "/")
        data = self.files.get(name, b"")
        check(
            f"{descriptor['mediaType']} has its digest and its size",
            digest_of(data) == descriptor["digest"] and len(data) == descriptor["size"],
            descriptor["digest"],
        )
        self.used.add(name)
        return data


def check_chain(archive):
    """From the index to the layer, each by its digest; returns the configuration, the layer and its compressed size."""
    layout = json.loads(archive.files["oci-layout"])
    check("it is an OCI archive", layout == {"imageLayoutVersion": "1.0.0"}, layout)
    [descriptor] = json.loads(archive.files["index.json"])["manifests"]
    manifest = json.loads(archive.blob(descriptor))
    config = json.loads(archive.blob(manifest["config"]))
    [layer_descriptor] = manifest["layers"]
    compressed = archive.blob(layer_descriptor)
    layer = gzip.decompress(compressed)
    check("the layer is the one that the configuration names", config["rootfs"]["diff_ids"] == [digest_of(layer)])
    check("the archive holds nothing else", archive.used == set(archive.files), set(archive.files) - archive.used)
    return config, layer, len(compressed)


def check_config(config):
    settings = config["config"]
    check(f"it runs as {USER}", settings.get("User") == USER, settings.get("User"))
    check("it runs the operator", settings.get("Entrypoint") == ["/" + PROGRAM], settings.get("Entrypoint"))
    check("it brings no environment and no volume", not settings.get("Env") and not settings.get("Volumes"))
    labels = settings.get("Labels", {})
    wanted = {f"org.opencontainers.image.{name}" for name in ("title", "description", "version", "licenses")}
    check("it says what it is", wanted <= set(labels), wanted - set(labels))


def check_layer(layer, compressed):
    for what, size, limit in (("compressed", compressed, COMPRESSED), ("unpacked", len(layer), UNPACKED)):
        check(f"it has at most {limit} MB {what}: {size / 1e6:.1f} MB", size <= limit * 1e6)
    with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
        entries = tar.getmembers()
        files = {entry.name: tar.extractfile(entry).read() for entry in entries if entry.isfile()}
    check("it holds these files and no others, no shell among them", set(files) == FILES, set(files) ^ FILES)
    odd = [entry.name for entry in entries if not (entry.isfile() or entry.isdir()) or entry.mode & 0o7022 or entry.uid]
    check("all is root's, and nobody else may write", not odd, odd)
    runnable = {entry.name for entry in entries if entry.isfile() and entry.mode & 0o111}
    check("one of them is a program", runnable == {PROGRAM}, runnable)
    check("the program is static", Elf(files[PROGRAM]).is_static())
    found = [f"/{name}: {what}" for name, data in files.items() for what, _ in leaks.find(data)]
    check("nothing in it looks like a secret", not found, found)
    path = re.search(rb"/(?:home|root|Users|work|builds?)/[\w.-]+/[\w./-]+\.(?:rs|c|h|cc|S)\b", files[PROGRAM])
    allowed = path is None or path.group().startswith(b"/build/")
    check("the program names no folder of the machine that built it", allowed, path and path.group())
    return files[PROGRAM]


def check_sbom(path, program):
    with open(path, encoding="utf-8") as file:
        sbom = json.load(file)
    [root] = [r["relatedSpdxElement"] for r in sbom["relationships"] if r["relationshipType"] == "DESCRIBES"]
    [described] = [package for package in sbom["packages"] if package["SPDXID"] == root]
    check("the SBOM is of this program", described["checksums"][0]["checksumValue"] == hashlib.sha256(program).hexdigest())
    listed = {(package["name"], package["versionInfo"]) for package in sbom["packages"]}
    tree = ["cargo", "tree", "--locked", "--edges=normal", "--prefix=none", "--no-dedupe", "--format={p}"]
    lines = set(subprocess.run(tree, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines())
    crates = {(name, version.removeprefix("v")) for name, version, *_ in (line.split() for line in lines if line)}
    check(f"the SBOM lists each of the {len(crates)} crates", crates <= listed, crates - listed)


def main():
    if len(sys.argv) not in (2, 3):
        sys.exit(f"usage: {sys.argv[0]} ARCHIVE [SBOM]")
    config, layer, compressed = check_chain(Archive(sys.argv[1]))
    check_config(config)
    program = check_layer(layer, compressed)
    if len(sys.argv) == 3:
        check_sbom(sys.argv[2], program)


if __name__ == "__main__":
    main()
