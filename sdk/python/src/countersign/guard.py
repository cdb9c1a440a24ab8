"""The guard: whether a tool may run, asked before it does. Every adapter of a framework is built on it.

It fails closed: a tool that is not in the map, an authority that does not answer, and an error of any kind are all a no, and there is no
option to change that.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, TypeVar

from . import _waiting as waiting
from ._core import Core, secret_if_any
from ._flow import Flow, while_wanted
from ._permits import Denied, Pending, Permit, current_permit
from ._waiting import Mode
from .approvals import ApprovalRequest
from .canonical import idempotency_key, same
from .client import AsyncClient, Client
from .errors import (
    AccessDenied,
    AlreadyCompleted,
    ApprovalDenied,
    ApprovalExpired,
    ApprovalPending,
    ApprovalUsed,
    ConfigurationError,
    CountersignError,
    InvalidScope,
    Refused,
    Unavailable,
)
from .mapping import Tool
from .operation import Decision, Operation
from .secret import Secret
from .tokens import AccessToken

__all__ = ["Denied", "Guard", "Mode", "Pending", "Permit", "Tool", "current_permit"]

_log = logging.getLogger("countersign")
T = TypeVar("T")

#: Denials that depend on the call: the tool as such may be of use.
_DEPENDS: Final = frozenset({"approval_required", "resource_not_granted", "parameters_refused", "condition_unmet", "condition_undecided"})


class Guard:
    """Asks the authority before a tool runs.

    `tools` says for each tool which capability it needs. `mode` says what becomes of a call that a person must approve: it waits for at
    most `max_wait` seconds, or is Pending at once. With `interrupt` a framework resumes the same call. Else a model is told to call
    again, so that an approval of exactly the same operation counts for a call of another name. `justification` is shown to whoever
    decides.
    """

    def __init__(
        self,
        client: Client | AsyncClient,
        tools: Mapping[str, str | Tool],
        *,
        mode: Mode = "wait",
        max_wait: float = 120.0,
        justification: str | None = None,
    ) -> None:
        if mode not in ("wait", "interrupt", "reject"):
            raise ConfigurationError("mode is wait, interrupt or reject")
        self.client, self.mode, self.max_wait, self.justification = client, mode, max_wait, justification
        self.tools: dict[str, Tool] = {name: Tool.of(tool) for name, tool in tools.items()}

    def check(
        self,
        tool: str,
        args: Mapping[str, Any],
        *,
        call_id: str,
        run_id: str | None = None,
        subject_token: str | AccessToken | None = None,
        request_id: str | None = None,
    ) -> Permit:
        """Whether a call may run: a Permit, else Denied or Pending, and nothing else.

        The same `run_id` and `call_id` are the same call, however often and wherever it is asked. `subject_token` is the token with which
        the agent was called. `request_id` is that of the request which a framework says was approved: it must be the one of this call.
        """
        if not isinstance(self.client, Client):
            raise Denied("the guard has an AsyncClient: await acheck()", code="guard_failed")
        flow = self._closed(tool, call_id, lambda: self._check(tool, args, call_id, run_id, secret_if_any(subject_token), request_id))
        return self.client.run(flow)

    async def acheck(
        self,
        tool: str,
        args: Mapping[str, Any],
        *,
        call_id: str,
        run_id: str | None = None,
        subject_token: str | AccessToken | None = None,
        request_id: str | None = None,
    ) -> Permit:
        """The same for asyncio. With a Client it waits in a thread."""
        flow = self._closed(tool, call_id, lambda: self._check(tool, args, call_id, run_id, secret_if_any(subject_token), request_id))
        return await self._arun(flow)

    def peek(
        self,
        tool: str,
        args: Mapping[str, Any],
        *,
        call_id: str,
        run_id: str | None = None,
        subject_token: str | AccessToken | None = None,
    ) -> ApprovalRequest | None:
        """What `check` would come to, without using an approval up: the request for which it would wait, None if it would be a Permit.

        Raises Denied where `check` would. For frameworks that must know beforehand whether a call pauses, or whether it still does.
        """
        if not isinstance(self.client, Client):
            raise Denied("the guard has an AsyncClient: await apeek()", code="guard_failed")
        return self.client.run(self._closed(tool, call_id, lambda: self._peek(tool, args, call_id, run_id, secret_if_any(subject_token))))

    async def apeek(
        self,
        tool: str,
        args: Mapping[str, Any],
        *,
        call_id: str,
        run_id: str | None = None,
        subject_token: str | AccessToken | None = None,
    ) -> ApprovalRequest | None:
        """The same for asyncio. With a Client it waits in a thread."""
        flow = self._closed(tool, call_id, lambda: self._peek(tool, args, call_id, run_id, secret_if_any(subject_token)))
        return await self._arun(flow)

    def visible(self, names: Iterable[str]) -> list[str]:
        """Those of the tools that the agent could come to use, at once, depending on the call, or once somebody approves."""
        if not isinstance(self.client, Client):
            raise ConfigurationError("the guard has an AsyncClient: await avisible()")
        return self.client.run(self._visible(list(names)))

    async def avisible(self, names: Iterable[str]) -> list[str]:
        """The same for asyncio."""
        return await self._arun(self._visible(list(names)))

    def allowed(self, names: Iterable[str]) -> list[str]:
        """Those of the tools that may run at once, whatever the call is: for what a model's provider runs, before which nobody asks."""
        if not isinstance(self.client, Client):
            raise ConfigurationError("the guard has an AsyncClient: await aallowed()")
        return self.client.run(self._allowed(list(names)))

    async def aallowed(self, names: Iterable[str]) -> list[str]:
        """The same for asyncio."""
        return await self._arun(self._allowed(list(names)))

    async def _arun(self, flow: Flow[T]) -> T:
        if not isinstance(self.client, Client):
            return await self.client.run(flow)
        gone = threading.Event()
        try:
            return await asyncio.to_thread(self.client.run, while_wanted(flow, gone))
        finally:
            gone.set()

    def _visible(self, names: Sequence[str]) -> Flow[list[str]]:
        return (yield from self._those(names, _could))

    def _allowed(self, names: Sequence[str]) -> Flow[list[str]]:
        return (yield from self._those(names, lambda decision: decision.allowed and decision.approval is None))

    def _those(self, names: Sequence[str], are: Callable[[Decision], bool]) -> Flow[list[str]]:
        mapped = [name for name in names if name in self.tools]
        asked = [Operation(self.tools[n].capability, self.tools[n].usual_resource, None, self.tools[n].audience) for n in mapped]
        decisions = yield from self.client.core.evaluate_many(asked)
        return [name for name, decision in zip(mapped, decisions, strict=True) if are(decision)]

    def _closed(self, tool: str, call_id: str, make: Callable[[], Flow[T]]) -> Flow[T]:
        """Whatever goes wrong is a no."""
        outcome: Denied | Pending
        try:
            return (yield from make())
        except (Denied, Pending) as answer:
            outcome = answer
        except Exception as error:
            outcome = _outcome(error)
        _log.info("%s, call %s: %s", tool, call_id, outcome.code)
        # Outside of the handler, so that what went wrong is nobody's context.
        raise outcome

    def _check(
        self,
        tool: str,
        args: Mapping[str, Any],
        call_id: str,
        run_id: str | None,
        subject: Secret | None,
        request_id: str | None,
    ) -> Flow[Permit]:
        mapped, operation, decision = yield from self._asked(tool, args, call_id, subject)
        if decision is not None and decision.allowed and decision.approval is None:
            return Permit(self.client, tool, operation, decision=decision, subject_token=subject)
        core = self.client.core
        request = yield from self._request(tool, operation, decision, call_id, run_id, subject, request_id)
        if request_id is not None and request_id != request.id:
            raise Denied(f"request {request_id} is not that of this call", code="approval_mismatch")
        waits = self.mode == "wait"
        token = yield from waiting.look(core, request, wait=self.max_wait if waits else 0.0, insist=waits, at_least_once=True)
        if not _is_for(token, operation):
            raise Denied("the token is for another operation than the call", code="approval_mismatch")
        if not mapped.sends_token:
            # Before the tool runs: whoever gets past this line is the only one.
            yield from waiting.complete(core, token)
        return Permit(
            self.client,
            tool,
            operation,
            decision=Decision(True) if decision is None else decision,
            request=request,
            token=token,
            completed=not mapped.sends_token,
            subject_token=subject,
        )

    def _peek(
        self, tool: str, args: Mapping[str, Any], call_id: str, run_id: str | None, subject: Secret | None
    ) -> Flow[ApprovalRequest | None]:
        _, operation, decision = yield from self._asked(tool, args, call_id, subject)
        if decision is not None and decision.allowed and decision.approval is None:
            return None
        request = yield from self._request(tool, operation, decision, call_id, run_id, subject)
        if _approved(decision) == request.id:
            return None
        try:
            yield from waiting.look(self.client.core, request, wait=0.0, at_least_once=True)
        except ApprovalPending:
            return request
        # Somebody has decided since. The service gives the same token again to the `check` that follows.
        return None

    def _asked(
        self, tool: str, args: Mapping[str, Any], call_id: str, subject: Secret | None
    ) -> Flow[tuple[Tool, Operation, Decision | None]]:
        """What a call is, and what the authority says of it. Raises Denied if no person could lift the no."""
        mapped = self.tools.get(tool)
        if mapped is None:
            raise Denied(f"the tool {tool} is not in the map of the guard", code="unmapped")
        if not call_id:
            raise Denied("the call has no id", code="guard_failed")
        operation = mapped.operation(dict(args))
        decision = yield from self._decide(self.client.core, operation, subject)
        if decision is not None and not decision.allowed and not decision.requestable:
            denied = waiting.denied(operation, decision)
            raise Denied(denied.message, code=denied.code, reason=decision.reason, evaluation_id=decision.evaluation_id)
        return mapped, operation, decision

    def _request(
        self,
        tool: str,
        operation: Operation,
        decision: Decision | None,
        call_id: str,
        run_id: str | None,
        subject: Secret | None,
        request_id: str | None = None,
    ) -> Flow[ApprovalRequest]:
        """The request of a call."""
        approved = _approved(decision)
        if self.mode != "interrupt" and request_id is None and approved is not None:
            # A model that was told to call again does so by another id.
            return ApprovalRequest(approved, operation=operation)
        key = idempotency_key(run_id, call_id, tool, operation.details())
        core, asks = self.client.core, self.justification
        return (yield from waiting.file(core, operation, justification=asks, subject_token=subject, idempotency_key=key))

    def _decide(self, core: Core, operation: Operation, subject: Secret | None) -> Flow[Decision | None]:
        """What the authority says; None if the chain holds nothing without approval, so that only filing can tell."""
        if subject is None:
            return (yield from core.evaluate(operation))
        try:
            token = yield from core.exchange(subject, audience=operation.audience)
        except InvalidScope:
            return None
        return (yield from core.evaluate(operation, context={"access_token": token.secret}))


def _outcome(error: Exception) -> Denied | Pending:
    """What an error is for a call."""
    if isinstance(error, ApprovalPending) and error.request is not None:
        return Pending(error.message, request=error.request, retry_after=error.retry_after)
    kinds: tuple[tuple[type[CountersignError], str], ...] = (
        (ApprovalDenied, "approval_denied"),
        (ApprovalExpired, "approval_expired"),
        (ApprovalUsed, "approval_used"),
        (AlreadyCompleted, "approval_used"),
        (Unavailable, "authority_unavailable"),
        (Refused, "authority_refused"),
        (AccessDenied, "authority_refused"),
    )
    if not isinstance(error, CountersignError):
        # Its words may quote the arguments of the call, and are not ours to repeat.
        return Denied(f"the guard failed ({type(error).__name__})", code="guard_failed")
    code = next((code for kind, code in kinds if isinstance(error, kind)), "guard_failed")
    return Denied(error.message, code=code, advice=error.advice, request_id=error.request_id, status=error.status)


def _is_for(token: AccessToken, operation: Operation) -> bool:
    """Whether a token says that it is for exactly this: what a person saw is what is done."""
    listed = token.claims().get("authorization_details")
    if not isinstance(listed, list) or len(listed) != 1 or not isinstance(listed[0], dict):
        return False
    said = listed[0]
    return (
        said.get("type") == "countersign_operation"
        and said.get("capability") == operation.capability
        and said.get("resource") == operation.resource
        and same(said.get("parameters") or {}, operation.parameters or {})
    )


def _approved(decision: Decision | None) -> str | None:
    """The request for exactly this that somebody has approved."""
    found = None if decision is None or decision.approval is None else decision.approval.get("auth_req_id")
    return found if isinstance(found, str) else None


def _could(decision: Decision) -> bool:
    return decision.allowed or decision.requestable or (decision.reason is not None and decision.reason.code in _DEPENDS)
