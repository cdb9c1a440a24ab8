"""What the revocation feed says, and whether a token is alive by it (docs/revocation.md, "The algorithm"). It asks nobody."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

__all__ = ["Event", "FeedState", "Reader", "reason"]

#: Longest event that is read, in bytes.
EVENT_MAX: Final = 16 * 1024 * 1024


class OutOfStep(Exception):
    """What was said does not follow on what is known: it must be asked for anew."""


@dataclass(frozen=True)
class FeedState:
    """All that is alive. Nothing may be built on it from `exp` on."""

    iat: float
    exp: float
    as_of: float
    id: str
    agents: Mapping[str, int] = field(default_factory=dict)
    revoked: Mapping[str, list[str]] = field(default_factory=dict)
    issuers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @classmethod
    def of(cls, claims: Mapping[str, Any]) -> FeedState:
        """A whole state, whose signature was verified."""
        members: dict[str, Any] = {name: dict(claims.get(name) or {}) for name in _MEMBERS}
        return cls(**_times(claims), **members)

    def after(self, claims: Mapping[str, Any]) -> FeedState:
        """The state after a change."""
        if claims.get("prev") != self.id:
            raise OutOfStep("a change was missed")
        members: dict[str, Any] = {name: _merged(getattr(self, name), claims.get(name)) for name in _MEMBERS}
        return replace(self, **_times(claims), **members)

    def renewed(self, claims: Mapping[str, Any]) -> FeedState:
        """The same state, which still holds."""
        if claims.get("id") != self.id:
            raise OutOfStep("a change was missed")
        return replace(self, **_times(claims))


_MEMBERS: Final = ("agents", "revoked", "issuers")


def step(state: FeedState | None, event: str, claims: Mapping[str, Any]) -> FeedState:
    """The state after an event whose signature was verified."""
    if event == "snapshot":
        return FeedState.of(claims)
    if state is None:
        raise OutOfStep("there is no state to change")
    return state.after(claims) if event == "change" else state.renewed(claims)


def _times(claims: Mapping[str, Any]) -> dict[str, Any]:
    found = {name: claims.get(name) for name in ("iat", "exp", "as_of", "id")}
    if not isinstance(found["id"], str) or not all(isinstance(found[n], int | float) for n in ("iat", "exp", "as_of")):
        raise OutOfStep("a statement has no times or no name")
    return found


def _merged(known: Mapping[str, Any], changes: Any) -> dict[str, Any]:
    merged = {**known, **(changes or {})}
    return {name: value for name, value in merged.items() if value is not None}


def reason(state: FeedState | None, claims: Mapping[str, Any], now: float) -> str | None:
    """Why a token whose signature, audience and times were verified is dead; None if it is alive.

    `unknown`: nobody can tell. `agent_ended`, `token_revoked`, `issuer_ended`, `user_revoked`: something on which it depends has ended.
    """
    if state is None or now >= state.exp:
        return "unknown"
    names = {claims.get("jti"), claims.get("txn"), *(claims.get("ancestors") or ())}
    for link in claims.get("links") or [{}]:
        uid = link.get("agent_uid")
        if uid not in state.agents or state.agents[uid] != link.get("epoch"):
            return "agent_ended"
        if not names.isdisjoint(state.revoked.get(uid, ())):
            return "token_revoked"
        vouched = link.get("issuer")
        if vouched is not None and vouched.get("uid") not in state.issuers:
            return "issuer_ended"
    user = claims.get("user")
    if user is not None:
        uid = user["issuer"]["uid"]
        issuer = state.issuers.get(uid)
        if issuer is None:
            return "user_revoked"
        count = (issuer.get("users") or {}).get(user_hash(uid, str(claims.get("sub", ""))), issuer.get("epoch"))
        if count != user.get("epoch"):
            return "user_revoked"
    return None


def user_hash(issuer_uid: str, subject: str) -> str:
    """How the feed names a user, so that it names nobody."""
    name = subject.removeprefix("user:")
    digest = hashlib.sha256(f"{issuer_uid}:{name}".encode()).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


@dataclass(frozen=True)
class Event:
    """A server-sent event."""

    name: str
    data: str = field(repr=False)


class Reader:
    """Server-sent events out of the pieces in which they arrive."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, chunk: bytes) -> list[Event]:
        """The events that are whole now."""
        self._rest += chunk.replace(b"\r\n", b"\n")
        *whole, self._rest = self._rest.split(b"\n\n")
        if len(self._rest) > EVENT_MAX:
            raise OutOfStep("an event is too long")
        return [event for event in map(_event, whole) if event is not None]


def _event(text: bytes) -> Event | None:
    name, data = "message", []
    for line in text.decode("utf-8", "replace").split("\n"):
        member, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if member == "event":
            name = value
        elif member == "data":
            data.append(value)
    return Event(name, "\n".join(data)) if data else None
