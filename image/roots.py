#!/usr/bin/env python3
"""Prints the certificate authorities that Mozilla trusts, as a PEM bundle.

They come from the crate webpki-root-certs, which Cargo.lock pins, and not from
the machine: so the image is the same wherever it is made, and the authorities
change by a commit that says so.
"""

import ast
import base64
import json
import pathlib
import re
import subprocess
import sys
import textwrap

CRATE = "webpki-root-certs"


def main():
    command = ["cargo", "metadata", "--locked", "--format-version=1"]
    metadata = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    [crate] = [package for package in metadata["packages"] if package["name"] == CRATE]
    source = pathlib.Path(crate["manifest_path"]).with_name("src").joinpath("lib.rs").read_text()
    # "// "Name"" and then CertificateDer::from_slice(b"\x30…"). A byte string of Rust with nothing but \x is one of Python.
    found = re.findall(r'// "(.*)"\n\s*CertificateDer::from_slice\((b"[\\x0-9A-Fa-f]+")\)', source)
    if len(found) < 50 or len(found) != source.count("from_slice("):
        sys.exit(f"{CRATE} {crate['version']} looks other than expected: {len(found)} certificates were read")
    print(f"# The certificate authorities of Mozilla, from {CRATE} {crate['version']}")
    for name, literal in found:
        der = base64.b64encode(ast.literal_eval(literal)).decode()
        print(f"\n# {name}\n-----BEGIN CERTIFICATE-----")
        print("\n".join(textwrap.wrap(der, 64)))
        print("-----END CERTIFICATE-----")


if __name__ == "__main__":
    main()
