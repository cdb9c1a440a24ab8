"""One text for one value (RFC 8785), and what is made of it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import rfc8785

from .errors import InvalidRequest

__all__ = ["canonical", "idempotency_key", "same"]


def canonical(value: Any) -> bytes:
    """The canonical JSON of `value`.

    Raises InvalidRequest for what is no JSON, and for numbers that not every reader of JSON holds exactly.
    """
    try:
        return rfc8785.dumps(_plain(value))
    except (rfc8785.CanonicalizationError, RecursionError, UnicodeEncodeError) as error:
        kind = type(error).__name__
    raise InvalidRequest(
        f"a value has no canonical JSON ({kind})",
        code="not_canonical",
        advice="Parameters are JSON: texts, whole numbers below 2^53, lists and objects with texts as names.",
    )


def _plain(value: Any) -> Any:
    # The library takes dicts, and whoever has frozen a mapping has none.
    if isinstance(value, Mapping):
        return {name: _plain(member) for name, member in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    # A whole number is the same with and without a fraction (RFC 8785 section 3.2.2.3).
    return value


def same(one: Any, other: Any) -> bool:
    """Whether two values are one, however their numbers are written."""
    return canonical(one) == canonical(other)


def idempotency_key(run_id: str | None, call_id: str, tool: str, details: Mapping[str, Any]) -> str:
    """The name of one call of one tool: the same call is the same request for approval, in whichever process."""
    return hashlib.sha256(canonical([run_id, call_id, tool, details])).hexdigest()
