"""What a guard answers: that a call may run, that it may not, or that a person has to approve it first."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar, Token
from types import TracebackType
from typing import Any, Final

from ._flow import Flow
from .approvals import ApprovalRequest
from .client import AsyncClient, Client
from .errors import ConfigurationError, CountersignError
from .operation import Decision, Operation, Reason
from .secret import Secret
from .tokens import AccessToken

_FOR_MODEL: Final[dict[str, str]] = {
    "unmapped": "This tool may not be used. Do not try again.",
    "approval_denied": "A person was asked and said no. Nothing was done. Do not try again.",
    "approval_expired": "Nobody approved this in time. Nothing was done. Ask the user before trying again.",
    "approval_used": "This call was already carried out, or its approval is used up. It was not done again. Do not try again.",
    "approval_mismatch": "This call is not the one that was approved. Nothing was done.",
    "authority_unavailable": "It cannot be checked now whether this is allowed, so nothing was done. It may be tried again later.",
    "guard_failed": "It cannot be checked whether this is allowed, so nothing was done. Do not try again.",
}
_DENIED: Final = "This is not allowed. Nothing was done. Do not try again."


class Denied(CountersignError):
    """The tool does not run.

    `code` is the authority's reason (such as `capability_not_granted`), or `unmapped`, `approval_denied`, `approval_expired`,
    `approval_used`, `approval_mismatch`, `authority_refused`, `authority_unavailable` or `guard_failed`.
    """

    default_code = "denied"

    def __init__(self, message: str, *, reason: Reason | None = None, evaluation_id: str | None = None, **more: Any) -> None:
        super().__init__(message, **more)
        self.reason = reason
        self.evaluation_id = evaluation_id

    def for_model(self) -> str:
        """What the model is told: short, without the rules behind it, and whether to try again."""
        return _FOR_MODEL.get(self.code, _DENIED)


class Pending(CountersignError):
    """The tool does not run yet: a person has to approve it. The same call works once somebody has."""

    default_code = "authorization_pending"

    def __init__(self, message: str, *, request: ApprovalRequest, **more: Any) -> None:
        super().__init__(message, **more)
        self.request = request

    def for_model(self) -> str:
        """What the model is told, which it may tell the user."""
        return (
            f"A person must approve this first: request {self.request.id}, `kubectl countersign approve {self.request.id}`. "
            "Nothing was done yet. Once it is approved, make the same call with the same arguments."
        )


class Permit:
    """A tool may run, once, as it was asked. As a context it is `current_permit()` for whatever runs within."""

    def __init__(
        self,
        runner: Client | AsyncClient,
        tool: str,
        operation: Operation,
        *,
        decision: Decision,
        request: ApprovalRequest | None = None,
        token: AccessToken | None = None,
        completed: bool = False,
        subject_token: Secret | None = None,
    ) -> None:
        self.tool, self.operation, self.decision, self.request = tool, operation, decision, request
        #: Whether the operation was reported as done already, so that its token is good for nothing any more.
        self.completed = completed
        self._runner, self._token, self._subject_token = runner, token, subject_token
        self._entered: list[Token[Permit | None]] = []

    def token(self) -> AccessToken:
        """A token for this operation. In asyncio, and with an AsyncClient: `atoken`."""
        if not isinstance(self._runner, Client):
            raise ConfigurationError("the guard has an AsyncClient: await atoken()")
        self._token = self._runner.run(self._obtain())
        return self._token

    async def atoken(self) -> AccessToken:
        """The same for asyncio."""
        if isinstance(self._runner, Client):
            return await asyncio.to_thread(self.token)
        self._token = await self._runner.run(self._obtain())
        return self._token

    def _obtain(self) -> Flow[AccessToken]:
        if self.completed:
            raise ConfigurationError(
                "the operation was reported as done before the tool ran, so its token is dead",
                code="permit_completed",
                advice="Say sends_token=True for a tool that sends its token to a resource server.",
            )
        if self._token is not None:
            return self._token
        return (yield from self._runner.core.token_for(self.operation, self._subject_token))

    def __enter__(self) -> Permit:
        self._entered.append(_current.set(self))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        _current.reset(self._entered.pop())

    def __repr__(self) -> str:
        return f"Permit({self.tool}, {self.operation.capability}, request={self.request and self.request.id})"


_current: ContextVar[Permit | None] = ContextVar("countersign_permit", default=None)


def current_permit() -> Permit | None:
    """The permit by which the tool runs that asks; None outside of one."""
    return _current.get()
