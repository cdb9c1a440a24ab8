#!/usr/bin/env python3
"""Prints the SBOM of a binary of build.sh, as SPDX 2.3 in JSON.

What is in it says the binary itself, by the list that cargo-auditable put there.
Cargo.lock adds the checksum of each crate, and its manifest the license. The same
binary gives the same bytes.

    sbom.py BINARY
"""

import hashlib
import json
import os
import subprocess
import sys
import tomllib
from datetime import datetime, timezone

from elf import Elf


def output(*command):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def identifier(name, version):
    """Of a package in the document: letters, digits, dots and hyphens."""
    return "SPDXRef-" + "".join(c if c.isalnum() or c == "." else "-" for c in f"{name}-{version}")


def package(name, version, **more):
    """What SPDX asks to be said of every package, whether or not there is something to say."""
    return {
        "SPDXID": identifier(name, version),
        "name": name,
        "versionInfo": version,
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": False,
        "licenseConcluded": "NOASSERTION",
        "licenseDeclared": "NOASSERTION",
        "copyrightText": "NOASSERTION",
    } | more


def license_expression(text):
    """Old manifests separate alternatives by a slash, which SPDX does not know."""
    return text.replace("/", " OR ") if text else "NOASSERTION"


def crate_package(crate, checksums, licenses):
    name, version = crate["name"], crate["version"]
    more = {"licenseDeclared": license_expression(licenses.get((name, version)))}
    if crate["source"] == "crates.io":
        purl = f"pkg:cargo/{name}@{version}"
        more["externalRefs"] = [
            {"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": purl}
        ]
        more["checksums"] = [{"algorithm": "SHA256", "checksumValue": checksums[name, version]}]
    return package(name, version, **more)


def relation(left, kind, right):
    return {"spdxElementId": left, "relationshipType": kind, "relatedSpdxElement": right}


def document(binary):
    crates = Elf(binary).crates()
    if not crates:
        sys.exit("the binary does not list its crates: it was not built by build.sh")
    with open("Cargo.lock", "rb") as file:
        locked = tomllib.load(file)["package"]
    checksums = {(p["name"], p["version"]): p["checksum"] for p in locked if "checksum" in p}
    metadata = json.loads(output("cargo", "metadata", "--locked", "--format-version=1"))
    licenses = {(p["name"], p["version"]): p["license"] for p in metadata["packages"]}

    packages = [crate_package(crate, checksums, licenses) for crate in crates]
    ids = [one["SPDXID"] for one in packages]
    relations = []
    for one, crate in zip(ids, crates):
        for number in crate.get("dependencies", []):
            if crates[number].get("kind") == "build":
                relations.append(relation(ids[number], "BUILD_DEPENDENCY_OF", one))
            else:
                relations.append(relation(one, "DEPENDS_ON", ids[number]))
    [root] = [number for number, crate in enumerate(crates) if crate.get("root")]
    digest = hashlib.sha256(binary).hexdigest()
    packages[root] |= {
        "primaryPackagePurpose": "APPLICATION",
        "checksums": [{"algorithm": "SHA256", "checksumValue": digest}],
    }

    # Linked into it as well, and in no list of crates. The roots are a file beside it: roots.py.
    rustc = output("rustc", "--version").split()[1]
    _, glibc = output("getconf", "GNU_LIBC_VERSION").split()
    gcc = output("cc", "-dumpfullversion").strip()
    [roots] = [p for p in locked if p["name"] == "webpki-root-certs"]
    others = [
        package("rust-std", rustc, licenseDeclared="MIT OR Apache-2.0"),
        package("glibc", glibc, licenseDeclared="LGPL-2.1-or-later"),
        package("libgcc", gcc, licenseDeclared="GPL-3.0-or-later WITH GCC-exception-3.1"),
        package(
            f"{roots['name']}-bundle",
            roots["version"],
            licenseDeclared=license_expression(licenses.get((roots["name"], roots["version"]))),
            primaryPackagePurpose="FILE",
        ),
    ]
    packages += others
    relations += [relation(ids[root], "DEPENDS_ON", other["SPDXID"]) for other in others]
    relations.insert(0, relation("SPDXRef-DOCUMENT", "DESCRIBES", ids[root]))

    created = datetime.fromtimestamp(int(os.environ.get("SOURCE_DATE_EPOCH", 0)), timezone.utc)
    name = f"{crates[root]['name']}-{crates[root]['version']}"
    return {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": name,
        # Every document needs a name of its own; this one is never fetched.
        "documentNamespace": f"https://countersign.dev/spdx/{name}-{digest}",
        "creationInfo": {
            "created": created.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "creators": ["Tool: countersign-image-sbom"],
        },
        "packages": packages,
        "relationships": relations,
    }


def main():
    if len(sys.argv) != 2:
        sys.exit(f"usage: {sys.argv[0]} BINARY")
    with open(sys.argv[1], "rb") as file:
        binary = file.read()
    json.dump(document(binary), sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
