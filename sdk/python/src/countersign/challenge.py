"""What a resource server answers to a request that it does not take (RFC 6750, RFC 9728), and how a client reads it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

from .errors import CountersignError, InsufficientScope, RevocationUnknown, TokenRejected

__all__ = ["Challenge", "Refusal", "bearer", "metadata", "metadata_url", "parse", "refusal"]

_TOKEN: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_PARAMETER: Final = re.compile(rf'\s*({_TOKEN})\s*=\s*(?:"((?:[^"\\]|\\.)*)"|({_TOKEN}))\s*(,|$)')


@dataclass(frozen=True)
class Refusal:
    """An answer: status, headers and a JSON body."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Challenge:
    """What WWW-Authenticate says."""

    scheme: str
    parameters: Mapping[str, str]


def bearer(values: Sequence[str]) -> str | None:
    """The token in the Authorization headers of a request; None if there is no header at all.

    Raises TokenRejected if there is more than one, or one of another kind. Tokens anywhere else are nobody's (RFC 9700 section 4.3.2).
    """
    if not values:
        return None
    scheme, _, token = values[0].partition(" ")
    token = token.strip(" ")
    if len(values) != 1 or scheme.lower() != "bearer" or not token or any(not "!" <= c <= "~" or c == "," for c in token):
        raise TokenRejected("the Authorization header is not one Bearer token", code="token_malformed")
    return token


def refusal(error: CountersignError | None, resource_metadata: str) -> Refusal:
    """The answer to a request without a token (None), or to one whose token was not taken.

    What cannot be told is 503 and never 401: the token may be good, and getting another would not help.
    """
    base = f'Bearer resource_metadata="{resource_metadata}"'
    if error is None:
        return Refusal(401, {"WWW-Authenticate": base}, {"error": "unauthorized", "error_description": "a Bearer token is needed"})
    if isinstance(error, InsufficientScope):
        scope = re.sub(r"[^!#-\[\]-~ ]", "", error.scope)
        headers = {"WWW-Authenticate": f'{base}, error="insufficient_scope", scope="{scope}"'}
        return Refusal(403, headers, {"error": "insufficient_scope", "error_description": error.message})
    if isinstance(error, TokenRejected) and not isinstance(error, RevocationUnknown):
        # Which check failed is for the log: the caller needs a new token either way.
        headers = {"WWW-Authenticate": f'{base}, error="invalid_token"'}
        return Refusal(401, headers, {"error": "invalid_token", "error_description": "the token is not accepted"})
    body = {"error": "temporarily_unavailable", "error_description": "the token cannot be checked now; try again shortly"}
    return Refusal(503, {"Retry-After": "1"}, body)


def metadata(resource: str, issuer: str, scopes: Sequence[str] = ()) -> dict[str, Any]:
    """The metadata of a protected resource (RFC 9728 section 2)."""
    document: dict[str, Any] = {
        "resource": resource,
        "authorization_servers": [issuer],
        "bearer_methods_supported": ["header"],
    }
    return {**document, "scopes_supported": list(scopes)} if scopes else document


def metadata_url(resource: str) -> str:
    """Where that metadata is (RFC 9728 section 3.1): between host and path."""
    parts = urlsplit(resource)
    path = parts.path.rstrip("/")
    return f"{parts.scheme}://{parts.netloc}/.well-known/oauth-protected-resource{path}"


def parse(header: str) -> Challenge | None:
    """Reads WWW-Authenticate with one challenge; None for whatever cannot be read in one way only."""
    scheme, _, rest = header.strip().partition(" ")
    if not re.fullmatch(_TOKEN, scheme):
        return None
    parameters: dict[str, str] = {}
    at = 0
    while at < len(rest):
        found = _PARAMETER.match(rest, at)
        if found is None or found.end() == at or found.group(1).lower() in parameters:
            return None
        quoted, plain = found.group(2), found.group(3)
        parameters[found.group(1).lower()] = plain if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
        at = found.end()
    return Challenge(scheme.lower(), parameters)
