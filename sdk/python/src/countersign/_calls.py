"""Asking, and asking again: every request goes through `ask`."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from typing import Final
from urllib.parse import urlsplit

from ._flow import Clock, Flow, NoAnswer, Reply, Request, Sleep, send
from ._refusals import PASSING, Asked, members, refusal, request_id, unavailable
from .errors import CountersignError, DeadlineExceeded

_log = logging.getLogger("countersign")

#: The first pause before something is asked again, in seconds. It doubles.
PAUSE: Final = 0.25
PAUSE_MAX: Final = 8.0


def ask(
    make: Callable[[], Flow[Request]],
    asked: Asked,
    *,
    clock: Clock,
    timeout: float,
    retries: int,
    repeatable: bool = True,
) -> Flow[Reply]:
    """Sends what `make` makes, anew for each attempt: an assertion counts once.

    Asks again where there was no answer or a passing one, after a pause that grows, and never past `timeout`, which is for all of it.
    What is not `repeatable` is sent again only if it cannot have arrived. The result is any other answer.
    """
    until = clock.ticks() + timeout
    attempt = 0
    while True:
        request = yield from make()
        begun = clock.ticks()
        if begun >= until:
            raise DeadlineExceeded("there was no answer in time")
        what = f"{request.method} {urlsplit(request.url).path}"
        failure: CountersignError
        try:
            reply = yield from send(request, until - begun)
        except NoAnswer as lost:
            failure, again = unavailable(lost, what), repeatable or not lost.sent
        else:
            took = 1000 * (clock.ticks() - begun)
            _log.debug("%s %d in %.0f ms, request %s", what, reply.status, took, request_id(reply))
            if reply.status not in PASSING:
                return reply
            failure, again = refusal(reply, asked), repeatable or reply.status == 429
        pause = backoff(attempt) if failure.retry_after is None else failure.retry_after
        attempt += 1
        if not again or attempt > retries or clock.ticks() + pause >= until:
            raise failure
        _log.debug("%s: %s; asking again in %.2f s", what, failure.code, pause)
        yield Sleep(pause)


def expect(reply: Reply, asked: Asked) -> dict[str, object]:
    """The members of an answer of status 200, or the error that it is."""
    if reply.status not in (200, 201):
        raise refusal(reply, asked)
    return members(reply)


def backoff(attempt: int) -> float:
    """How long to pause, with enough chance in it that not all ask at once."""
    full = min(PAUSE * 2.0**attempt, PAUSE_MAX)
    return full * random.uniform(0.5, 1.0)  # noqa: S311
