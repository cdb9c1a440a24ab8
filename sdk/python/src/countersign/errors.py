"""What can go wrong, as one tree.

Every error says what was wrong and where (`message`), what to do about it (`advice`), and how it is called by programs (`code`).
None of them ever holds a token, a key or an assertion: not in its texts, its arguments, its cause or its context.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .approvals import ApprovalRequest
    from .operation import Reason

__all__ = [
    "AccessDenied",
    "AlreadyCompleted",
    "ApprovalDenied",
    "ApprovalExpired",
    "ApprovalPending",
    "ApprovalUsed",
    "ConfigurationError",
    "Conflict",
    "CountersignError",
    "CredentialInvalid",
    "CredentialNotFound",
    "DeadlineExceeded",
    "InsufficientScope",
    "InvalidRequest",
    "InvalidScope",
    "InvalidTarget",
    "NotFound",
    "RateLimited",
    "Refused",
    "RevocationUnknown",
    "TokenExpired",
    "TokenRejected",
    "TokenRevoked",
    "Unauthenticated",
    "Unavailable",
]


class CountersignError(Exception):
    """Everything that this package raises.

    `code` is stable and for programs; the service's own code where the service refused. `request_id` names the audit record of the
    request. `status` is that of the HTTP answer. `retry_after` is in seconds: it need not be tried earlier. All may be None.
    """

    default_code = "error"
    default_advice = ""

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        advice: str | None = None,
        request_id: str | None = None,
        status: int | None = None,
        retry_after: float | None = None,
    ) -> None:
        self.message = message
        self.code = code or self.default_code
        self.advice = advice if advice is not None else self.default_advice
        self.request_id = request_id
        self.status = status
        self.retry_after = retry_after
        super().__init__(message)

    def __str__(self) -> str:
        text = f"{self.message} [{self.code}]"
        if self.advice:
            text += f" {self.advice}"
        if self.request_id:
            text += f" (request {self.request_id})"
        return text

    def __reduce__(self) -> tuple[Any, ...]:
        # By its members and not by its arguments, so that it can be copied for each who waits, and sent between processes.
        return (_rebuilt, (type(self), self.message, dict(self.__dict__)))


def _rebuilt(kind: type[CountersignError], message: str, members: dict[str, Any]) -> CountersignError:
    error = kind.__new__(kind, message)
    error.__dict__.update(members)
    error.args = (message,)
    return error


class ConfigurationError(CountersignError):
    """What was configured cannot work."""

    default_code = "configuration"


class CredentialNotFound(ConfigurationError):
    """No link of the credential chain is there. The message lists each and what it lacked."""

    default_code = "credential_not_found"


class CredentialInvalid(ConfigurationError):
    """A credential is there, and cannot be used. No other is tried in its place."""

    default_code = "credential_invalid"


class Unavailable(CountersignError):
    """There is no answer that means anything: no connection, a broken answer, or the service says that it cannot tell now."""

    default_code = "unavailable"
    default_advice = "Try again later."


class DeadlineExceeded(Unavailable):
    """There was no answer in time."""

    default_code = "deadline_exceeded"


class RateLimited(Unavailable):
    """More was asked than is answered (429)."""

    default_code = "rate_limited"


class Refused(CountersignError):
    """The service has understood, and says no (4xx)."""

    default_code = "refused"

    @property
    def error(self) -> str:
        """The service's code."""
        return self.code

    @property
    def description(self) -> str:
        """The service's words."""
        return self.message


class Unauthenticated(Refused):
    """The credential was not accepted, or belongs to no Agent that is Ready."""

    default_code = "invalid_client"
    default_advice = "The audit record of the request names the rule; `kubectl get agents` says whether the Agent is Ready."


class InvalidScope(Refused):
    """A capability is not granted, or needs approval."""

    default_code = "invalid_scope"


class InvalidTarget(Refused):
    """An audience is not allowed, or must be named."""

    default_code = "invalid_target"


class InvalidRequest(Refused):
    """The request says something that cannot be."""

    default_code = "invalid_request"


class NotFound(Refused):
    """There is no such thing, or it may not be seen."""

    default_code = "not_found"


class Conflict(Refused):
    """It is there already, or was changed meanwhile."""

    default_code = "conflict"


class AccessDenied(CountersignError):
    """The answer is no. Asking again without a change is answered alike."""

    default_code = "access_denied"

    def __init__(self, message: str, *, reason: Reason | None = None, evaluation_id: str | None = None, **more: Any) -> None:
        super().__init__(message, **more)
        self.reason = reason
        self.evaluation_id = evaluation_id


class ApprovalPending(CountersignError):
    """Nobody has decided yet. `request` is what to go on with, here or in another process."""

    default_code = "authorization_pending"
    default_advice = "Somebody who may approve decides with `kubectl countersign approve`; then ask again."

    def __init__(self, message: str, *, request: ApprovalRequest | None = None, **more: Any) -> None:
        super().__init__(message, **more)
        self.request = request


class ApprovalDenied(CountersignError):
    """A person said no, the request was withdrawn, or it is not allowed any more."""

    default_code = "access_denied"


class ApprovalExpired(CountersignError):
    """Nobody decided in time, or the approval was not used in time."""

    default_code = "expired_token"


class ApprovalUsed(CountersignError):
    """The one token of this approval was issued already, or there is no such request of this agent."""

    default_code = "invalid_grant"


class AlreadyCompleted(CountersignError):
    """The operation was reported as done before, or its token is dead. Do not do it again."""

    default_code = "already_completed"


class TokenRejected(CountersignError):
    """A resource server does not take this token."""

    default_code = "invalid_token"


class TokenExpired(TokenRejected):
    """It has ended."""

    default_code = "token_expired"


class TokenRevoked(TokenRejected):
    """It, or something on which it depends, was ended."""

    default_code = "token_revoked"


class InsufficientScope(TokenRejected):
    """The token is good, and not for this. `scope` is what is missing."""

    default_code = "insufficient_scope"

    def __init__(self, message: str, *, scope: str = "", **more: Any) -> None:
        super().__init__(message, **more)
        self.scope = scope


class RevocationUnknown(TokenRejected):
    """Nobody can tell whether it is still alive, so it is not accepted: 503, not 401."""

    default_code = "unknown"
    default_advice = "Try again shortly."
