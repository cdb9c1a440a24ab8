"""Calls that a framework gives no id, and what whoever decides on them is shown."""

from __future__ import annotations

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
