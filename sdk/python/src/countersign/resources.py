"""Resources and patterns of them, as the authority reads them (docs/decisions.md, "Resources").

A resource is `type:segment/segment`. In a pattern `*` stands for any characters of one segment, and `**`, as the last segment, for the
rest of the path, one segment at least. Both are compared from end to end, byte by byte.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["is_pattern", "is_resource", "matches"]

_LENGTH_MAX: Final = 256
_KIND: Final = re.compile(r"[a-z][-a-z0-9]*(?:\.[-a-z0-9]+)*", re.ASCII)
_SEGMENT: Final = re.compile(r"[-A-Za-z0-9._~@%+=,:*]+", re.ASCII)


def is_pattern(text: str) -> bool:
    """Whether it is one that could be granted."""
    kind, colon, path = text.partition(":")
    if not colon or len(text) > _LENGTH_MAX or not _KIND.fullmatch(kind):
        return False
    segments = path.split("/")
    for index, segment in enumerate(segments):
        if segment in (".", "..") or not _SEGMENT.fullmatch(segment):
            return False
        if "**" in segment and (segment != "**" or index != len(segments) - 1):
            return False
    return True


def is_resource(text: str) -> bool:
    """Whether it names one thing."""
    return "*" not in text and is_pattern(text)


def matches(pattern: str, resource: str) -> bool:
    """Whether the pattern stands for the resource. What is no pattern, or no resource, matches nothing."""
    if not is_pattern(pattern) or not is_resource(resource):
        return False
    kind, _, wanted = pattern.partition(":")
    other, _, path = resource.partition(":")
    if kind != other:
        return False
    patterns, segments = wanted.split("/"), path.split("/")
    if patterns[-1] == "**":
        if len(segments) < len(patterns):
            return False
        patterns, segments = patterns[:-1], segments[: len(patterns) - 1]
    return len(patterns) == len(segments) and all(map(_segment, patterns, segments))


def _segment(pattern: str, segment: str) -> bool:
    """Goes back only to the last `*`, so that no pattern takes long."""
    p, s, star, taken = 0, 0, -1, 0
    while s < len(segment):
        if p < len(pattern) and pattern[p] == "*":
            star, taken = p, s
            p += 1
        elif p < len(pattern) and pattern[p] == segment[s]:
            p, s = p + 1, s + 1
        elif star >= 0:
            taken += 1
            p, s = star + 1, taken
        else:
            return False
    return all(c == "*" for c in pattern[p:])
