"""Access tokens."""

from __future__ import annotations

import base64
import hmac
import json
from collections.abc import Mapping
from typing import Any, Final, NoReturn

from .errors import ConfigurationError, Unavailable
from .secret import Secret

__all__ = ["AccessToken"]

_LENGTH_MAX: Final = 16 * 1024
_LIFE_MAX: Final = 86_400
#: Later than any time that can be meant, in unix seconds: the year 10000.
NEVER: Final = 253_402_300_800


class AccessToken:
    """An access token. It is not printed and not pickled; `value` and `headers()` are the token itself."""

    __slots__ = ("_value", "expires_at", "scope", "token_type")

    def __init__(self, value: str, *, token_type: str = "Bearer", scope: frozenset[str] = frozenset(), expires_at: float = 0.0):
        self._value = Secret(value)
        #: `Bearer`, or `DPoP` for one that is bound to a key.
        self.token_type = token_type
        #: The capabilities in it.
        self.scope = scope
        #: When it ends, in unix seconds.
        self.expires_at = expires_at

    @property
    def value(self) -> str:
        """The token itself. Keep it from prompts, arguments of tools and logs."""
        return self._value.reveal()

    @property
    def secret(self) -> Secret:
        """The token, so wrapped that it is not printed."""
        return self._value

    def headers(self) -> dict[str, str]:
        """The header with which it is sent."""
        if self.token_type.lower() != "bearer":
            raise ConfigurationError(
                "the token is bound to a key, and each request needs a proof of its own",
                code="proof_needed",
                advice="Ask the sidecar at /proof for it: docs/dpop.md.",
            )
        return {"Authorization": f"Bearer {self.value}"}

    def claims(self) -> dict[str, Any]:
        """What it says, unverified: for looking, not for deciding."""
        return unverified(self.value)

    def __repr__(self) -> str:
        return f"AccessToken(<secret>, scope={sorted(self.scope)}, expires_at={self.expires_at:.0f})"

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AccessToken) and hmac.compare_digest(self.value.encode(), other.value.encode())

    def __hash__(self) -> int:
        return hash(self._value.digest())

    def __reduce__(self) -> NoReturn:
        raise TypeError("an AccessToken is not pickled: send .value where that is meant, and nowhere else")

    @classmethod
    def of(cls, body: Mapping[str, Any], asked_at: float) -> AccessToken:
        """Reads an answer (RFC 6749 section 5.1) to what was asked at that time."""
        kind, life = body.get("token_type"), body.get("expires_in")
        if not isinstance(kind, str) or kind.lower() not in ("bearer", "dpop"):
            raise Unavailable("the answer has a token of no known type", code="unreadable_answer")
        if isinstance(life, bool) or not isinstance(life, int) or not 1 <= life <= _LIFE_MAX:
            raise Unavailable("the answer does not say how long the token lives", code="unreadable_answer")
        # Last, so that no error above has it in a variable beside it.
        value = body.get("access_token")
        if not isinstance(value, str) or not value or len(value) > _LENGTH_MAX or not _graphic(value):
            value = None
            raise Unavailable("the answer has no access token", code="unreadable_answer")
        scope = body.get("scope")
        names = frozenset(scope.split(" ")) - {""} if isinstance(scope, str) else frozenset()
        # From when it was asked for: an answer that was long on its way is not younger for that.
        return cls(value, token_type=kind, scope=names, expires_at=asked_at + life)


def unverified(token: str) -> dict[str, Any]:
    """The claims of a JWT, of which nothing was checked; {} if it is none."""
    try:
        payload = token.split(".")[1]
        value = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except (IndexError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def end_of(token: Secret) -> float | None:
    """When a JWT says that it ends, in unix seconds, if it says so in a way that can be; unverified."""
    end = unverified(token.reveal()).get("exp")
    return float(end) if isinstance(end, int | float) and not isinstance(end, bool) and 0 <= end < NEVER else None


def _graphic(text: str) -> bool:
    return all("!" <= c <= "~" for c in text)
