"""Signed statements of the authority, read strictly: the header says little, and the key says how it signs."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import jwt

from .errors import TokenRejected

_LENGTH_MAX: Final = 16 * 1024
_FEED_LENGTH_MAX: Final = 16 * 1024 * 1024
_BASE64URL: Final = re.compile(r"[A-Za-z0-9_-]*", re.ASCII)
_ALGORITHMS: Final = ("EdDSA", "ES256")
#: What a header may say. What else there is would change how it must be read, or bring a key of its own.
_HEADER: Final = {"typ", "alg", "kid", "cty"}


@dataclass(frozen=True)
class Jws:
    """A compact JWS, taken apart. Nothing in it is verified."""

    header: Mapping[str, Any]
    claims: Mapping[str, Any] = field(repr=False)
    compact: str = field(repr=False)

    @property
    def kid(self) -> str | None:
        """The name of the key, if there is one."""
        kid = self.header.get("kid")
        return kid if isinstance(kid, str) else None


def parse(token: str, types: frozenset[str], *, feed: bool = False) -> Jws:
    """Takes a token apart, and refuses what could be read in two ways."""
    # What a framework has of a header that is not there.
    parts = token.split(".") if isinstance(token, str) else []
    if len(parts) != 3 or len(token) > (_FEED_LENGTH_MAX if feed else _LENGTH_MAX):
        raise _malformed("it has not three parts, or is too long")
    header, claims = _object(parts[0]), _object(parts[1])
    if header is None or claims is None or _decoded(parts[2]) is None:
        raise _malformed("a part of it cannot be read in one way only")
    if not _HEADER.issuperset(header):
        raise _malformed("its header says more than it may")
    kind = header.get("typ")
    if not isinstance(kind, str) or kind.lower().removeprefix("application/") not in types:
        raise TokenRejected("the token is of another type", code="wrong_type")
    return Jws(header, claims, token)


def verify(jws: Jws, keys: Mapping[str, jwt.PyJWK]) -> None:
    """Verifies the signature with the published key that the header names, by that key's own algorithm."""
    kid = jws.kid
    key = None if kid is None else keys.get(kid)
    algorithm = jws.header.get("alg")
    if algorithm not in _ALGORITHMS or (key is not None and algorithm != key.algorithm_name):
        raise TokenRejected("the token is signed in a way that is not accepted", code="algorithm_refused")
    if key is None:
        raise TokenRejected("the token is signed with a key that is not published", code="unknown_key")
    try:
        jwt.PyJWS(algorithms=[key.algorithm_name]).decode(jws.compact, key.key, algorithms=[key.algorithm_name])
    except jwt.PyJWTError:
        good = False
    else:
        good = True
    if not good:
        raise TokenRejected("the signature of the token is wrong", code="bad_signature")


def keys_of(document: Mapping[str, Any]) -> dict[str, jwt.PyJWK]:
    """The published keys by name. What is no key for a signature that is accepted is left out."""
    found: dict[str, jwt.PyJWK] = {}
    listed = document.get("keys")
    for value in listed if isinstance(listed, list) else []:
        if not isinstance(value, dict) or value.get("use", "sig") != "sig" or not isinstance(value.get("kid"), str):
            continue
        name = value.get("alg")
        expected = {("OKP", "Ed25519"): "EdDSA", ("EC", "P-256"): "ES256"}.get((str(value.get("kty")), str(value.get("crv"))))
        if expected is None or name not in (expected, None):
            continue
        try:
            found[value["kid"]] = jwt.PyJWK(value, algorithm=expected)
        except jwt.PyJWTError:
            continue
    return found


def _object(part: str) -> dict[str, Any] | None:
    decoded = _decoded(part)
    if decoded is None:
        return None
    try:
        value = json.loads(decoded.decode("utf-8"), object_pairs_hook=_once, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _decoded(part: str) -> bytes | None:
    """Base64url without padding, and with nothing in the bits that are left over (RFC 4648 section 3.5)."""
    if not _BASE64URL.fullmatch(part):
        return None
    try:
        decoded = base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
    except (binascii.Error, ValueError):
        return None
    return decoded if base64.urlsafe_b64encode(decoded).rstrip(b"=").decode() == part else None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member twice")
    return members


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON")


def _malformed(why: str) -> TokenRejected:
    return TokenRejected(f"the token is malformed: {why}", code="token_malformed")
