"""What an answer means: the one place where a status and an error code become an error."""

from __future__ import annotations

import email.utils
import json
import time
from typing import Any, Final, Literal

from ._flow import NoAnswer, Reply
from .errors import (
    AccessDenied,
    AlreadyCompleted,
    ApprovalDenied,
    ApprovalExpired,
    ApprovalPending,
    ApprovalUsed,
    Conflict,
    CountersignError,
    DeadlineExceeded,
    InvalidRequest,
    InvalidScope,
    InvalidTarget,
    NotFound,
    RateLimited,
    Refused,
    TokenRejected,
    Unauthenticated,
    Unavailable,
)

#: What was asked: the same code means one thing here and another there.
Asked = Literal["token", "file", "poll", "complete", "question", "revoke", "registry", "introspect", "read"]

#: Answers that may be another if the same is asked again.
PASSING: Final = frozenset({429, 502, 503, 504})

_POLL: Final[dict[str, type[CountersignError]]] = {
    "authorization_pending": ApprovalPending,
    "slow_down": ApprovalPending,
    "access_denied": ApprovalDenied,
    "expired_token": ApprovalExpired,
    "invalid_grant": ApprovalUsed,
}
_CODES: Final[dict[str, type[CountersignError]]] = {
    "invalid_scope": InvalidScope,
    "invalid_target": InvalidTarget,
    "invalid_request": InvalidRequest,
    "invalid_authorization_details": InvalidRequest,
    "invalid_binding_message": InvalidRequest,
    "unknown_user_id": InvalidRequest,
    "expired_login_hint_token": InvalidRequest,
    "invalid_token": TokenRejected,
}
#: The longest that is waited because an answer says so, in seconds.
_RETRY_AFTER_MAX: Final = 3600.0
_STATUSES: Final[dict[int, type[CountersignError]]] = {
    401: Unauthenticated,
    403: AccessDenied,
    404: NotFound,
    409: Conflict,
    412: Conflict,
    422: InvalidRequest,
    428: InvalidRequest,
}


class Members(dict[str, Any]):
    """The members of an answer. Their values may be secrets, so only their names are printed."""

    def __repr__(self) -> str:
        return f"<{', '.join(sorted(self))}>"

    __str__ = __repr__


def members(reply: Reply) -> Members:
    """The JSON object that an answer of status 200 must be."""
    found = _members(reply.body)
    if found is None:
        raise Unavailable(
            "the answer is no JSON object",
            code="unreadable_answer",
            advice="Does COUNTERSIGN_URL name the issuer, and not a proxy or a login page before it?",
            status=reply.status,
            request_id=request_id(reply),
        )
    return found


def _members(body: bytes) -> Members | None:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return Members(value) if isinstance(value, dict) else None


def request_id(reply: Reply) -> str | None:
    """By which the audit record is found."""
    said = reply.headers.get("x-request-id", "")
    return said if said and len(said) <= 128 and said.isprintable() else None


def refusal(reply: Reply, asked: Asked) -> CountersignError:
    """The error that an answer other than the one that was hoped for is."""
    status, found = reply.status, _members(reply.body) or Members()
    error, description = found.get("error"), found.get("error_description")
    code = error if isinstance(error, str) and error else f"http_{status}"
    message = f"the service answered {status} {code}"
    if isinstance(description, str) and description:
        message += f": {description}"
    retry_after = _retry_after(reply.headers.get("retry-after"))
    common: dict[str, Any] = {"status": status, "request_id": request_id(reply), "retry_after": retry_after}
    if 200 <= status < 400:
        code = "unexpected_redirect" if status >= 300 else "unexpected_answer"
        advice = "Redirects are not followed. Does COUNTERSIGN_URL name the issuer itself?" if status >= 300 else None
        return Unavailable(f"the service answered {status}", code=code, advice=advice, **common)
    if status == 429:
        return RateLimited(message, code=code, **common)
    if status >= 500:
        return Unavailable(message, code=code, **common)
    return _kind(status, code, asked)(message, code=code, **common)


def _kind(status: int, code: str, asked: Asked) -> type[CountersignError]:
    if asked == "poll" and code in _POLL:
        return _POLL[code]
    if asked == "complete" and status == 409:
        return AlreadyCompleted
    return _STATUSES.get(status) or _CODES.get(code) or Refused


def unavailable(lost: NoAnswer, what: str) -> Unavailable:
    """The error that no answer is."""
    if lost.kind == "timeout":
        return DeadlineExceeded(f"{what}: {lost.words}")
    advice = "Is the CA of the service in COUNTERSIGN_CA?" if lost.kind == "tls" else None
    return Unavailable(f"{what}: {lost.words}", code=f"no_answer_{lost.kind}", advice=advice)


def _retry_after(text: str | None) -> float | None:
    """Seconds, or a date (RFC 9110 section 10.2.3)."""
    if not text:
        return None
    if text.isascii() and text.strip().isdigit():
        return min(float(text), _RETRY_AFTER_MAX)
    try:
        at = email.utils.parsedate_to_datetime(text).timestamp()
    except (TypeError, ValueError, OverflowError):
        return None
    return min(max(0.0, at - time.time()), _RETRY_AFTER_MAX)
