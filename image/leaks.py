#!/usr/bin/env python3
"""Finds what looks like a secret: private keys, tokens, and the keys of well-known services.

    leaks.py [FILE...]      without files: everything that git would commit

Prints where, never what, and ends with 1 if there is anything.
"""

import re
import subprocess
import sys

# With content behind the marker: programs that read keys have the marker alone.
KEY = rb"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----(?:\\n|\s)*[A-Za-z0-9+/=]{24,}"
PATTERNS = {
    "a private key": re.compile(KEY),
    "a signed token": re.compile(rb"eyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{40,}"),
    "a private key as JWK": re.compile(rb'"d"\s*:\s*"[A-Za-z0-9_-]{40,}"'),
    "a key of AWS": re.compile(rb"\b(?:AKIA|ASIA)[A-Z2-7]{16}\b"),
    "a token of GitHub": re.compile(rb"\b(?:gh[pousr]_[A-Za-z0-9]{36}|github_pat_[A-Za-z0-9_]{60,})\b"),
    "a token of Slack": re.compile(rb"\bxox[abeoprs]-[0-9]{6,}-[A-Za-z0-9-]{10,}"),
    "a key of Google": re.compile(rb"\bAIza[A-Za-z0-9_-]{35}\b"),
    "a secret of a webhook": re.compile(rb"\bwhsec_[A-Za-z0-9+/]{32,}={0,2}"),
    "a password in a URL": re.compile(rb"\b(?:postgres(?:ql)?|https?)://[A-Za-z0-9_.-]+:[A-Za-z0-9_%+-]{12,}@"),
    "a token of a crate registry": re.compile(rb"\bcio[A-Za-z0-9]{32}\b"),
}
# Examples that everybody knows, and tests use: they are in a standard.
PUBLISHED = (
    b"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",  # Standard Webhooks
    b"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A",  # RFC 8037, appendix A.1
    b"2-GxA6T8lP4vfrg8v-FdWP0A0zdrj8igiMLvqRMUvwn",  # RFC 9449, figure 2
)


def find(data):
    """(what, number of the line) of everything in the bytes that looks like a secret."""
    for what, pattern in PATTERNS.items():
        for match in pattern.finditer(data):
            if not any(example in match.group() for example in PUBLISHED):
                yield what, data.count(b"\n", 0, match.start()) + 1


def main():
    files = sys.argv[1:]
    if not files:
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], check=True, stdout=subprocess.PIPE
        )
        files = [name for name in listed.stdout.decode().split("\0") if name]
    found = 0
    for name in files:
        try:
            with open(name, "rb") as file:
                data = file.read()
        except FileNotFoundError:  # git still lists what was deleted
            continue
        for what, line in find(data):
            print(f"{name}:{line}: this looks like {what}", file=sys.stderr)
            found += 1
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
