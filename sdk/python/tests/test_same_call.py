"""Calls that a framework gives no id, and what whoever decides on them is shown."""

from __future__ import annotations

import asyncio
import time

import pytest

from countersign import Client, Guard, Pending
from countersign._same_call import Call
from countersign.testing import FakeAuthority


def test_whoever_decides_is_shown_the_justification_also_if_a_look_has_asked(authority: FakeAuthority) -> None:
    authority.allow("read")
    authority.require_approval("pay")
    with Client(url=authority.url, credential=lambda: "a.b.c") as client:
        guard = Guard(client, {"pay": "pay"}, mode="interrupt", justification="the invoice is due")
        call = Call("pay", {"amount": 5}, "run-1")
        with pytest.raises(Pending):
            call.look(guard)
        assert [request.justification for request in authority.pending] == ["the invoice is due"]


def test_a_call_that_was_cancelled_while_it_waited_in_a_thread_completes_nothing(authority: FakeAuthority) -> None:
    authority.allow("read")
    authority.require_approval("pay")
    with Client(url=authority.url, credential=lambda: "a.b.c") as client:
        guard = Guard(client, {"pay": "pay"}, mode="wait", max_wait=10.0)

        async def cancelled() -> None:
            asking = asyncio.create_task(guard.acheck("pay", {"amount": 5}, call_id="c1", run_id="r1"))
            request = await asyncio.to_thread(authority.wait_for_request)
            await asyncio.sleep(0.3)
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
            authority.approve(request.id)

        asyncio.run(cancelled())
        time.sleep(0.3)
        assert authority.count("/jit/complete") == 0
        assert guard.check("pay", {"amount": 5}, call_id="c1", run_id="r1").completed
