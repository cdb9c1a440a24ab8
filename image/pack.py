#!/usr/bin/env python3
"""Packs files into a container image of one layer: an OCI archive, without a
container engine. The same files give the same bytes.

    pack.py --output ARCHIVE --name REPOSITORY:TAG --file SOURCE=/PATH... [options]
"""

import argparse
import gzip
import hashlib
import io
import json
import os
import platform
import tarfile
from datetime import datetime, timezone

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
OCI = "application/vnd.oci.image"


def add(archive, path, data, mode=0o644, epoch=0, kind=tarfile.REGTYPE):
    """Adds a file or folder of root's."""
    entry = tarfile.TarInfo(path)
    entry.type, entry.mode, entry.mtime, entry.size = kind, mode, epoch, len(data)
    archive.addfile(entry, io.BytesIO(data))


def make_layer(files, epoch):
    """The tar of a file system with these (source, path) pairs, the folders above each before it."""
    buffer, folders = io.BytesIO(), set()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as layer:
        for source, path in sorted(files, key=lambda file: file[1]):
            parts = path.strip("/").split("/")
            for depth in range(1, len(parts)):
                folder = "/".join(parts[:depth])
                if folder not in folders:
                    folders.add(folder)
                    add(layer, folder, b"", 0o755, epoch, tarfile.DIRTYPE)
            with open(source, "rb") as file:
                data = file.read()
            add(layer, "/".join(parts), data, 0o755 if os.access(source, os.X_OK) else 0o644, epoch)
    return buffer.getvalue()


def full_name(name):
    """With the registry and the folder that `countersign:1.0.0` has by convention."""
    first, *rest = name.split("/")
    if not rest:
        return f"docker.io/library/{name}"
    return name if first == "localhost" or "." in first or ":" in first else f"docker.io/{name}"


class Blobs:
    """What an archive holds by digest."""

    def __init__(self):
        self.content = {}

    def put(self, data, media_type):
        """Keeps it and returns its descriptor."""
        digest = hashlib.sha256(data).hexdigest()
        self.content[digest] = data
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}

    def put_json(self, value, media_type):
        return self.put(json.dumps(value, sort_keys=True, separators=(",", ":")).encode(), media_type)


def pack(arguments):
    epoch = arguments.epoch
    created = datetime.fromtimestamp(epoch, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    architecture = ARCHITECTURES[platform.machine()]
    labels = dict(label.split("=", 1) for label in arguments.label)
    blobs = Blobs()

    layer = make_layer([file.split("=", 1) for file in arguments.file], epoch)
    # No time and no name in its header.
    compressed = gzip.compress(layer, 9, mtime=0)
    settings = {"Entrypoint": [arguments.entrypoint], "Cmd": arguments.argument, "User": arguments.user, "Labels": labels}
    config = {
        "architecture": architecture,
        "os": "linux",
        "created": created,
        "config": {name: value for name, value in settings.items() if value},
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(layer).hexdigest()]},
        "history": [{"created": created, "created_by": "image/pack.py"}],
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{OCI}.manifest.v1+json",
        "config": blobs.put_json(config, f"{OCI}.config.v1+json"),
        "layers": [blobs.put(compressed, f"{OCI}.layer.v1.tar+gzip")],
        "annotations": labels,
    }
    descriptor = blobs.put_json(manifest, manifest["mediaType"])
    _, tag = arguments.name.rsplit(":", 1)
    index = {
        "schemaVersion": 2,
        "mediaType": f"{OCI}.index.v1+json",
        "manifests": [
            descriptor
            | {
                "platform": {"architecture": architecture, "os": "linux"},
                # By the first, containerd names what it imports; the second is the specification's.
                "annotations": {
                    "io.containerd.image.name": full_name(arguments.name),
                    "org.opencontainers.image.ref.name": tag,
                },
            }
        ],
    }
    part = arguments.output + ".part"
    with tarfile.open(part, "w", format=tarfile.USTAR_FORMAT) as archive:
        add(archive, "oci-layout", b'{"imageLayoutVersion":"1.0.0"}', epoch=epoch)
        add(archive, "index.json", json.dumps(index, sort_keys=True, separators=(",", ":")).encode(), epoch=epoch)
        for folder in ("blobs", "blobs/sha256"):
            add(archive, folder, b"", 0o755, epoch, tarfile.DIRTYPE)
        for digest, data in sorted(blobs.content.items()):
            add(archive, f"blobs/sha256/{digest}", data, epoch=epoch)
    os.replace(part, arguments.output)
    return descriptor["digest"]


def main():
    parser = argparse.ArgumentParser(description="Packs files into an OCI archive and prints the digest of its manifest.")
    parser.add_argument("--output", required=True, help="the archive")
    parser.add_argument("--name", required=True, help="repository and tag: registry.example.com/countersign:1.0.0")
    parser.add_argument("--file", action="append", required=True, metavar="SOURCE=/PATH", help="a file of the image")
    parser.add_argument("--entrypoint", required=True, help="the program that it runs")
    parser.add_argument("--argument", action="append", default=[], help="what the program is told unless somebody says otherwise")
    parser.add_argument("--user", default="", help="as whom it runs: 65532:65532")
    parser.add_argument("--label", action="append", default=[], metavar="NAME=VALUE", help="what the image says of itself")
    parser.add_argument(
        "--epoch", type=int, default=int(os.environ.get("SOURCE_DATE_EPOCH", 0)), help="the time of everything in it"
    )
    print(pack(parser.parse_args()))


if __name__ == "__main__":
    main()
