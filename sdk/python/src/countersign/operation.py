"""What an agent wants to do, and what it is told about that."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .canonical import canonical
from .errors import InvalidRequest, Unavailable

__all__ = ["Answer", "Decision", "Interpretation", "Operation", "Reason"]

_TYPE = "countersign_operation"


@dataclass(frozen=True, eq=False)
class Operation:
    """One operation: a capability, on what (`type:path`), with which parameters, for whom, and for how long its token should live.

    The parameters are copied, so that nobody changes them after they were shown to somebody.
    """

    capability: str
    resource: str | None = None
    parameters: Mapping[str, Any] | None = None
    audience: str | None = None
    expiration_seconds: int | None = None

    def __post_init__(self) -> None:
        if self.resource is not None and ":" not in self.resource:
            raise InvalidRequest("a resource is 'type:path'", advice="For example 'document:reports/q3'.")
        if self.parameters is not None:
            if not isinstance(self.parameters, Mapping):
                raise InvalidRequest("parameters are no object", code="not_canonical", advice="Parameters have names.")
            object.__setattr__(self, "parameters", json.loads(canonical(self.parameters)))

    def details(self) -> dict[str, Any]:
        """The object of `authorization_details` (RFC 9396)."""
        members: dict[str, Any] = {
            "type": _TYPE,
            "capability": self.capability,
            "resource": self.resource,
            "parameters": None if self.parameters is None else json.loads(canonical(self.parameters)),
            "audience": self.audience,
            "expiration_seconds": self.expiration_seconds,
        }
        return {name: value for name, value in members.items() if value is not None}

    def fingerprint(self) -> str:
        """`sha256:` and the SHA-256 of the canonical JSON of `details()`: the same for the same operation, in every language."""
        return "sha256:" + hashlib.sha256(canonical(self.details())).hexdigest()

    @classmethod
    def of(cls, details: Mapping[str, Any]) -> Operation:
        """The operation that `details()` was made from."""
        known = {"capability", "resource", "parameters", "audience", "expiration_seconds"}
        if details.get("type") != _TYPE or not known.issuperset(set(details) - {"type"}):
            raise InvalidRequest(f"this is no {_TYPE}")
        return cls(**{name: value for name, value in details.items() if name != "type"})

    def question(self) -> dict[str, Any]:
        """Action and resource as AuthZEN has them. It knows no action without a resource; the service takes null for that."""
        action: dict[str, Any] = {"name": self.capability}
        if self.parameters is not None:
            action["properties"] = dict(self.parameters)
        if self.resource is None:
            return {"action": action, "resource": None}
        kind, _, name = self.resource.partition(":")
        return {"action": action, "resource": {"type": kind, "id": name}}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Operation) and self.fingerprint() == other.fingerprint()

    def __hash__(self) -> int:
        return hash(self.fingerprint())


@dataclass(frozen=True)
class Reason:
    """Why: `code` is stable, `message` is for people, `rule` is the field of the resource that decided."""

    code: str
    message: str = ""
    rule: str | None = None

    @classmethod
    def of(cls, value: Any) -> Reason | None:
        """As the service says it."""
        if not isinstance(value, Mapping) or not isinstance(value.get("code"), str):
            return None
        return cls(value["code"], str(value.get("message", "")), value.get("rule"))


@dataclass(frozen=True)
class Decision:
    """An answer. It is no bool: write `.allowed`.

    `access_request` is there if a person could lift a no. `approval` is there if a person has: it names the request to redeem.
    """

    allowed: bool
    reason: Reason | None = None
    evaluation_id: str | None = None
    access_request: Mapping[str, Any] | None = None
    approval: Mapping[str, Any] | None = None

    def __bool__(self) -> bool:
        raise TypeError("a Decision is not a bool: write decision.allowed")

    @classmethod
    def of(cls, body: Mapping[str, Any]) -> Decision:
        """Reads an answer of AuthZEN. Whatever is not plainly yes is a no; whatever is no answer is none."""
        allowed = body.get("decision")
        if not isinstance(allowed, bool):
            raise Unavailable("the answer has no decision", code="unreadable_answer")
        context = body.get("context")
        if not isinstance(context, Mapping):
            context = {}
        reason = Reason.of(context.get("reason"))
        failed = context.get("error")
        if reason is None and isinstance(failed, Mapping):
            reason = Reason(f"error_{failed.get('status', 'unknown')}", str(failed.get("message", "")))

        def member(name: str) -> Mapping[str, Any] | None:
            value = context.get(name)
            return value if isinstance(value, Mapping) else None

        said = context.get("evaluation_id")
        evaluation_id = said if isinstance(said, str) else None
        return cls(allowed, reason, evaluation_id, member("access_request"), member("approval"))

    @property
    def requestable(self) -> bool:
        """Whether a person could lift the no."""
        return not self.allowed and self.access_request is not None


@dataclass(frozen=True)
class Interpretation:
    """What a part of a question in plain words was taken for, and the answer to that."""

    capability: str
    resource: str | None
    subject: str
    parameters: Mapping[str, Any]
    words: str
    allowed: bool
    reason: Reason | None
    requestable: bool


@dataclass(frozen=True)
class Answer:
    """The answer to a question in plain words, and how it was read."""

    allowed: bool
    reason: Reason | None
    interpretation: tuple[Interpretation, ...] = ()
    unresolved: tuple[str, ...] = ()
    evaluation_id: str | None = field(default=None)

    def __bool__(self) -> bool:
        raise TypeError("an Answer is not a bool: write answer.allowed")

    @classmethod
    def of(cls, body: Mapping[str, Any]) -> Answer:
        """Reads what `/ask` says."""
        allowed = body.get("decision")
        if not isinstance(allowed, bool):
            raise Unavailable("the answer has no decision", code="unreadable_answer")
        parts = tuple(
            Interpretation(
                capability=str(part.get("capability", "")),
                resource=part.get("resource"),
                subject=str(part.get("subject", "")),
                parameters=part.get("parameters") or {},
                words=str(part.get("words", "")),
                allowed=part.get("decision") is True,
                reason=Reason.of(part.get("reason")),
                requestable=part.get("requestable") is True,
            )
            for part in body.get("interpretation") or ()
        )
        unresolved = tuple(str(part.get("text", "")) for part in body.get("unresolved") or ())
        return cls(allowed, Reason.of(body.get("reason")), parts, unresolved, body.get("evaluation_id"))
