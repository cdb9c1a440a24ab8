"""Asking a person, waiting for the answer, and using it once."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from typing import Final, Literal

from . import _calls as calls
from ._core import Core, secret_of
from ._flow import Clock, Flow, Reply, Sleep
from ._refusals import members, refusal
from ._routes import Form
from .approvals import INTERVAL, ApprovalRequest
from .errors import AccessDenied, AlreadyCompleted, ApprovalPending, CountersignError, Unavailable
from .operation import Decision, Operation
from .secret import Secret
from .tokens import AccessToken

#: How a pending approval is met: waited for, or handed back to the framework in one of two ways.
Mode = Literal["wait", "interrupt", "reject"]

#: How long the service holds one look, in seconds.
HOLD_MAX: Final = 25


def file(
    core: Core,
    operation: Operation,
    *,
    justification: str | None = None,
    subject_token: Secret | None = None,
    expires_in: int | None = None,
    idempotency_key: str | None = None,
) -> Flow[ApprovalRequest]:
    """Asks a person. With a key of its own for each call, so that a lost answer makes no second request."""
    route = yield from core.route()
    # Whoever is called says by whose token; the sidecar says itself who asks.
    me = None if route.keeps_tokens or subject_token is not None else (yield from core.me())
    parameters: Form = [
        ("authorization_details", _details(operation)),
        ("audience", operation.audience or core.settings.audience),
        ("binding_message", justification),
        ("requested_expiry", None if expires_in is None else str(expires_in)),
        ("login_hint_token", subject_token),
    ]
    key = idempotency_key or secrets.token_hex(16)
    reply = yield from core.ask(lambda route: route.file(parameters, key, me), "file")
    said = calls.expect(reply, "file")
    request_id, life, interval = said.get("auth_req_id"), said.get("expires_in"), said.get("interval", INTERVAL)
    if not isinstance(request_id, str) or not isinstance(life, int | float) or not isinstance(interval, int | float):
        raise Unavailable("the answer names no request", code="unreadable_answer")
    return ApprovalRequest(request_id, reply.sent_at + life, float(interval), operation)


def look(core: Core, request: ApprovalRequest, *, wait: float, insist: bool = False, at_least_once: bool = False) -> Flow[AccessToken]:
    """The token of a request, once somebody has approved it, waiting for at most `wait` seconds.

    Never asks more often than it may. With `insist` it goes on while nobody answers, until the time is over. With `at_least_once` it
    does not say that nobody has decided without having asked, and waits until it may, if that is later.
    """
    until = core.clock.ticks() + max(wait, 0.0)
    pace, failures = core.paces.of(request), 0
    if at_least_once:
        # But not as long as an authority that was away may have said.
        until = max(until, min(pace.next_at, core.clock.ticks() + max(pace.interval, core.timeout)))
    while True:
        now = core.clock.ticks()
        if pace.next_at > now:
            if pace.next_at > until:
                if until > now:
                    yield Sleep(until - now)
                raise _pending(request, pace.next_at - core.clock.ticks())
            yield Sleep(pace.next_at - now)
            now = core.clock.ticks()
        hold = max(0, min(HOLD_MAX, int(until - now)))
        pace.looked(now)
        try:
            reply = yield from _poll(core, request, hold)
            token = core.take(reply, "poll")
        except ApprovalPending as pending:
            failures, answered = 0, core.clock.ticks()
            if pending.code == "slow_down":
                pace.slow_down(answered)
            else:
                # The service counts from when it was asked, which may be later than when we began to ask.
                pace.looked(max(now, answered - hold))
        except Unavailable as error:
            if not insist:
                raise
            failures += 1
            pace.next_at = max(pace.next_at, core.clock.ticks() + calls.backoff(failures), now + (error.retry_after or 0.0))
        except CountersignError:
            # It is over: whoever asks again hears so at once.
            core.paces.forget(request)
            raise
        else:
            core.paces.forget(request)
            return token
        if core.clock.ticks() >= until:
            raise _pending(request, pace.next_at - core.clock.ticks())


def _poll(core: Core, request: ApprovalRequest, hold: int) -> Flow[Reply]:
    # One attempt: how soon one may look again is the pace's to say.
    timeout = hold + core.timeout
    return (yield from core.ask(lambda route: route.poll(request.id, hold), "poll", timeout=timeout, retries=0))


def obtain(
    core: Core,
    operation: Operation,
    *,
    timeout: float,
    justification: str | None = None,
    idempotency_key: str | None = None,
    mode: Mode = "wait",
) -> Flow[AccessToken]:
    """A token for an operation, approved by a person if it needs that. Whoever may not even ask is told before anybody is bothered."""
    decision = yield from core.evaluate(operation)
    if decision.allowed and decision.approval is None:
        return (yield from core.token_for(operation))
    if not decision.allowed and not decision.requestable:
        raise denied(operation, decision)
    waiting = None if decision.approval is None else decision.approval.get("auth_req_id")
    if isinstance(waiting, str) and idempotency_key is None:
        request = ApprovalRequest(waiting, operation=operation)
    else:
        request = yield from file(core, operation, justification=justification, idempotency_key=idempotency_key)
    if mode == "wait":
        return (yield from look(core, request, wait=timeout, insist=True))
    return (yield from look(core, request, wait=0.0))


def denied(operation: Operation, decision: Decision) -> AccessDenied:
    """The error that a no is."""
    reason = decision.reason
    return AccessDenied(
        reason.message if reason is not None and reason.message else f"{operation.capability} is not allowed",
        code=None if reason is None else reason.code,
        reason=reason,
        evaluation_id=decision.evaluation_id,
        request_id=decision.evaluation_id,
    )


def complete(core: Core, token: AccessToken | Secret | str) -> Flow[None]:
    """Reports that an operation is done: whoever returns from here is the only one who ever does."""
    secret = secret_of(token)

    def once(timeout: float) -> Flow[Reply]:
        asking = core.ask(lambda route: route.complete(secret), "complete", timeout=timeout, repeatable=False)
        return (yield from asking)

    yield from once_only(once, core.clock, core.timeout)


def once_only(once: Callable[[float], Flow[Reply]], clock: Clock, timeout: float) -> Flow[None]:
    """Does what is answered with 200 exactly once.

    A lost answer is asked for once more. If it then was completed before, nobody can tell whether that was us.
    """
    lost, until = False, clock.ticks() + timeout
    while True:
        failure: CountersignError
        try:
            reply = yield from once(until - clock.ticks())
            # A page of somebody in between says nothing of the operation, nor does half an answer.
            if reply.status == 200 and members(reply).get("completed") is True:
                return
            failure = refusal(reply, "complete")
        except Unavailable as error:
            failure = error
        if isinstance(failure, AlreadyCompleted) and lost:
            raise Unavailable(
                "an answer was lost, and it cannot be told whether the operation was completed by us",
                code="completion_unknown",
                advice="Look at what the operation has changed before doing it again.",
                request_id=failure.request_id,
            )
        if lost or not isinstance(failure, Unavailable):
            raise failure
        lost = True


def _pending(request: ApprovalRequest, again: float) -> ApprovalPending:
    return ApprovalPending(f"nobody has decided on request {request.id} yet", request=request, retry_after=max(again, 0.0))


def _details(operation: Operation) -> str:
    return json.dumps([operation.details()])
