"""A token that was verified, and what it allows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeGuard

from ._jws import Jws
from .canonical import same
from .errors import InsufficientScope, TokenExpired, TokenRejected
from .resources import is_resource, matches
from .secret import Secret
from .tokens import NEVER

__all__ = ["VerifiedToken"]

_TEXTS: Final = ("iss", "sub", "client_id", "jti", "scope")
_CAPABILITY, _OPERATION = "countersign_capability", "countersign_operation"
#: Most agents in a chain that are looked at: more than the authority issues.
_DEPTH_MAX: Final = 16


@dataclass(frozen=True)
class VerifiedToken:
    """Who acts, for whom, and with what. Decide by `subject` and `actor` alone (RFC 8693 section 4.1)."""

    #: For whom: `user:<name>`, or the agent that began.
    subject: str
    #: The agent that acts and to which the token was issued: `agent:<namespace>/<name>`.
    actor: str
    #: The agents that called one another, first the one that began. Those before the last are for records and people.
    chain: tuple[str, ...]
    #: The name of the user for whom it is, if it is for one.
    user: str | None
    scopes: frozenset[str]
    #: `authorization_details` as they are.
    details: tuple[Mapping[str, Any], ...]
    jti: str
    #: The chain, the same in all its tokens. Write it into your records.
    txn: str
    #: Unix seconds.
    expires_at: int
    claims: Mapping[str, Any] = field(repr=False)
    token: Secret = field(repr=False)

    def require(self, capability: str, resource: str | None = None, parameters: Mapping[str, Any] | None = None) -> None:
        """Raises InsufficientScope unless the token allows this.

        A token for one operation allows exactly that. Conditions, and what has changed since, only `verifier.evaluate` knows.
        """
        if not self.allows(capability, resource, parameters):
            on = f" on {resource}" if resource else ""
            raise InsufficientScope(f"the token does not allow {capability}{on}", scope=capability)

    def allows(self, capability: str, resource: str | None = None, parameters: Mapping[str, Any] | None = None) -> bool:
        """The same as a yes or no."""
        if not capability or capability not in self.scopes:
            return False
        # What is no resource was granted to nobody, also where nothing is limited.
        if resource is not None and not is_resource(resource):
            return False
        kinds = {details.get("type") for details in self.details}
        if kinds == {_OPERATION}:
            return len(self.details) == 1 and _is_that(self.details[0], capability, resource, parameters)
        # What cannot be understood may be a limit.
        if not kinds <= {_CAPABILITY}:
            return False
        limits = [details.get("resources") for details in self.details if details.get("capability") == capability]
        return all(_within(limit, resource) for limit in limits)

    @property
    def operation(self) -> Mapping[str, Any] | None:
        """The one operation for which the token is good, if it is for one."""
        is_one = len(self.details) == 1 and self.details[0].get("type") == _OPERATION
        return self.details[0] if is_one else None


def _is_that(details: Mapping[str, Any], capability: str, resource: str | None, parameters: Mapping[str, Any] | None) -> bool:
    return (
        details.get("capability") == capability
        and details.get("resource") == resource
        and same(details.get("parameters") or {}, parameters or {})
    )


def _within(limit: object, resource: str | None) -> bool:
    if resource is None or not isinstance(limit, list):
        return False
    return any(isinstance(pattern, str) and matches(pattern, resource) for pattern in limit)


def read(jws: Jws, *, issuer: str, audience: str, now: float, leeway: float) -> VerifiedToken:
    """What a token says whose signature was verified: for this audience, now."""
    claims = jws.claims
    if claims.get("iss") != issuer:
        raise TokenRejected("the token is of another issuer", code="wrong_issuer")
    if claims.get("aud") != audience:
        raise TokenRejected("the token is for another audience", code="wrong_audience")
    issued, ends, begins = claims.get("iat"), claims.get("exp"), claims.get("nbf", claims.get("iat"))
    if not _is_time(issued) or not _is_time(ends) or not _is_time(begins):
        raise _malformed("its times are missing or no numbers")
    if now >= ends + leeway:
        raise TokenExpired("the token has ended")
    if max(issued, begins) > now + leeway:
        raise TokenRejected("the token is not valid yet", code="not_yet_valid")
    return _said(claims, Secret(jws.compact), int(ends))


def _said(claims: Mapping[str, Any], token: Secret, expires_at: int) -> VerifiedToken:
    if not all(isinstance(claims.get(name), str) for name in _TEXTS) or not claims["sub"] or not claims["jti"]:
        raise _malformed("a claim is missing")
    if "cnf" in claims:
        raise TokenRejected(
            "the token is bound to a key, and is taken only with a proof", code="proof_required", advice="See docs/dpop.md."
        )
    subject, chain = claims["sub"], _chain(claims)
    user = subject.removeprefix("user:") if subject.startswith("user:") else None
    details = claims.get("authorization_details", [])
    links = claims.get("links")
    if not isinstance(details, list) or not all(isinstance(entry, dict) and isinstance(entry.get("type"), str) for entry in details):
        raise _malformed("authorization_details is no list of objects that have a type")
    if not isinstance(links, list) or not links or [_sub(link) for link in links] != list(chain):
        raise _malformed("the agents on which it depends are not those of the chain")
    if not all(isinstance(link.get("agent_uid"), str) for link in links) or not _is_texts(claims.get("ancestors", [])):
        raise _malformed("it does not say on what it depends")
    if "user" in claims and not _is_vouched(claims["user"]):
        raise _malformed("it does not say who vouched for the user")
    if any(link.get("issuer") is not None and not _has_uid(link["issuer"]) for link in links):
        raise _malformed("it does not say who vouched for an agent")
    if (user is None) != ("user" not in claims) or chain[-1] != claims["client_id"]:
        raise _malformed("its claims do not fit each other")
    return VerifiedToken(
        subject=subject,
        actor=chain[-1],
        chain=chain,
        user=user,
        scopes=frozenset(claims["scope"].split(" ")) - {""},
        details=tuple(details),
        jti=claims["jti"],
        txn=str(claims.get("txn", "")),
        expires_at=expires_at,
        claims=claims,
        token=token,
    )


def _chain(claims: Mapping[str, Any]) -> tuple[str, ...]:
    """The agents, first the one that began: `act` has the newest outermost, and an agent that began alone is the subject."""
    actors: list[str] = []
    act = claims.get("act")
    while act is not None:
        actor = _sub(act)
        if actor is None or len(actors) >= _DEPTH_MAX:
            raise _malformed("act is no chain of agents")
        actors.append(actor)
        act = act.get("act")
    if not claims["sub"].startswith("user:"):
        actors.append(claims["sub"])
    if not actors:
        raise _malformed("no agent acts")
    return tuple(reversed(actors))


def _sub(value: object) -> str | None:
    sub = value.get("sub") if isinstance(value, dict) else None
    return sub if isinstance(sub, str) else None


def _is_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(text, str) for text in value)


def _is_vouched(user: object) -> bool:
    return isinstance(user, dict) and _has_uid(user.get("issuer"))


def _has_uid(issuer: object) -> bool:
    return isinstance(issuer, dict) and isinstance(issuer.get("uid"), str)


def _is_time(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < NEVER


def _malformed(why: str) -> TokenRejected:
    return TokenRejected(f"the token is malformed: {why}", code="claims_malformed")
