"""The revocation feed at its edges: at the beginning, in a forked process, and where time goes back."""

from __future__ import annotations

import asyncio
import os
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from test_processes import in_child

from countersign import CountersignError, RevocationUnknown, TokenRejected, TokenRevoked
from countersign._flow import Clock
from countersign.feed_state import Event
from countersign.revocation import RevocationFeed
from countersign.testing import FakeAuthority
from countersign.tokens import unverified
from countersign.verifier import AsyncVerifier, Verifier

AUDIENCE = "https://api.example.com"
#: What a token for a user says, without who vouched for her.
ADA: dict[str, Any] = {"sub": "user:ada", "act": {"sub": "agent:test/bot"}}


class Moved(Clock):
    """A clock that somebody sets, and one beside it that only grows."""

    def __init__(self) -> None:
        self.set, self.passed = 0.0, 0.0

    def now(self) -> float:
        return time.time() + self.set

    def ticks(self) -> float:
        return time.monotonic() + self.passed


def test_all_who_come_first_wait_for_the_first_state(authority: FakeAuthority) -> None:
    authority.slow(0.2)
    token = authority.token_for("x")
    with Verifier(authority.url, AUDIENCE) as verifier, ThreadPoolExecutor(20) as threads:
        found = list(threads.map(lambda _: verifier.verify(token).jti, range(20)))
    assert len(set(found)) == 1

    async def all_at_once() -> list[Any]:
        async with AsyncVerifier(authority.url, AUDIENCE) as verifier:
            return await asyncio.gather(*(verifier.verify(token) for _ in range(20)))

    assert {verified.jti for verified in asyncio.run(all_at_once())} == set(found)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_verifier_in_a_forked_process_follows_the_feed_itself(authority: FakeAuthority) -> None:
    token = authority.token_for("x")
    with Verifier(authority.url, AUDIENCE) as verifier:
        verifier.verify(token)

        def follow() -> str:
            verifier.verify(token)
            until = time.monotonic() + 5
            while time.monotonic() < until:
                try:
                    verifier.verify(token)
                except TokenRevoked:
                    return "revoked"
                time.sleep(0.05)
            return "alive"

        assert in_child(follow, lambda: (time.sleep(0.5), authority.revoke(token))) == "revoked"


def test_a_state_ends_also_if_the_clock_is_set_back(authority: FakeAuthority) -> None:
    clock = Moved()
    token = authority.token_for("x", iat=0)
    with Verifier(authority.url, AUDIENCE) as verifier:
        feed = verifier.feed
        assert feed is not None
        feed._clock = clock
        verifier.verify(token)
        authority.down()
        time.sleep(0.1)
        clock.set = -3600.0
        verifier.verify(token)
        clock.passed = 11.0
        with pytest.raises(RevocationUnknown):
            verifier.verify(token)


def test_a_view_that_lags_brings_nothing_back_to_life(authority: FakeAuthority) -> None:
    feed = RevocationFeed(authority.url)
    before = authority.state()
    authority.suspend()
    after = {**authority.state(), "as_of": before["as_of"] + 1}
    feed._hear(Event("snapshot", authority.sign("revocations+jwt", after)))
    with pytest.raises(CountersignError) as old:
        feed._hear(Event("snapshot", authority.sign("revocations+jwt", before)))
    assert old.value.code == "feed_too_old"
    assert feed.state is not None
    assert feed.state.agents == {}
    feed.stop()


@pytest.mark.parametrize(
    "said",
    [
        {"exp": 10**400},
        {"exp": -1},
        {"iat": 10**400},
        {"nbf": 10**400},
        {"user": None},
        {"user": None, **ADA},
        {"user": {}, **ADA},
        {"user": {"issuer": {"uid": ["x"]}}, **ADA},
        {"authorization_details": [{"type": ["x"]}]},
        {"authorization_details": [{}]},
        {"ancestors": [["x"]]},
        {"ancestors": {"x": 1}},
        {"links": [{"sub": "agent:test/bot", "agent_uid": ["x"], "epoch": 0}]},
        {"links": [{"sub": "agent:test/bot", "epoch": 0}]},
        {"links": [{"sub": "agent:test/bot", "agent_uid": "x", "epoch": 0, "issuer": "x"}]},
        {"links": [{"sub": "agent:test/bot", "agent_uid": "x", "epoch": 0, "issuer": {"uid": {}}}]},
    ],
)
def test_claims_of_no_known_shape_are_refused_and_nothing_else(authority: FakeAuthority, said: dict[str, Any]) -> None:
    token = authority.sign("at+jwt", {**unverified(authority.token_for("x")), **said})
    with Verifier(authority.url, AUDIENCE) as verifier, pytest.raises(TokenRejected) as refused:
        verifier.verify(token)
    assert refused.value.code == "claims_malformed"


@pytest.mark.parametrize("token", [None, b"a.b.c", 5, ""])
def test_what_is_no_text_is_no_token(authority: FakeAuthority, token: Any) -> None:
    with Verifier(authority.url, AUDIENCE) as verifier, pytest.raises(TokenRejected):
        verifier.verify(token)
