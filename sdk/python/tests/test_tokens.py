"""Tokens: how they are obtained, kept, renewed and dropped."""

from __future__ import annotations

import asyncio
import base64
import json
import pickle
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from countersign import (
    AccessToken,
    AsyncClient,
    Client,
    InvalidRequest,
    InvalidScope,
    Operation,
    Refused,
    Sidecar,
    Unauthenticated,
    Unavailable,
)
from countersign._cache import Cache
from countersign._flow import Clock
from countersign.testing import FakeAuthority

TOKEN = "/oauth2/token"


class SetClock(Clock):
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.wall, self.since = 1_000_000.0, 50.0

    def now(self) -> float:
        return self.wall

    def ticks(self) -> float:
        return self.since

    def pass_(self, seconds: float) -> None:
        self.wall += seconds
        self.since += seconds


def set_clock(client: Any) -> SetClock:
    clock = SetClock()
    clock.wall = time.time()
    client.core.clock = clock
    client.core.cache._clock = clock
    return clock


def eventually(condition: Any, seconds: float = 5.0, loop: asyncio.AbstractEventLoop | None = None) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not come to that"
        loop.run_until_complete(asyncio.sleep(0.01)) if loop else time.sleep(0.01)


def test_a_token_has_what_was_asked_for(client: Any, authority: FakeAuthority) -> None:
    authority.allow("document.read")
    authority.allow("web.search")
    token = client.token(scope="web.search", audience="https://docs.example.com")
    assert token.scope == {"web.search"}
    assert token.claims()["aud"] == "https://docs.example.com"
    assert token.headers() == {"Authorization": f"Bearer {token.value}"}
    assert 290 < token.expires_at - time.time() <= 300
    assert client.token().scope == {"document.read", "web.search"}


def test_a_token_is_kept_for_the_same_question_and_no_other(client: Any, authority: FakeAuthority) -> None:
    authority.allow("a.b")
    authority.allow("c.d")
    first = client.token(scope="a.b c.d")
    assert client.token(scope=["c.d", "a.b"]) == first
    assert client.token(scope="a.b") != first
    assert client.token(scope="a.b c.d", audience="https://else.example") != first
    assert client.token(scope="a.b c.d", fresh=True) != first
    assert authority.count(TOKEN) == 4


def test_a_thousand_threads_make_one_request(authority: FakeAuthority) -> None:
    authority.allow("a.b")
    authority.slow(0.2)
    with Client(url=authority.url, credential=lambda: "a.b.c") as client, ThreadPoolExecutor(1000) as threads:
        values = {token.value for token in threads.map(lambda _: client.token(), range(1000))}
    assert len(values) == 1
    assert authority.count(TOKEN) == 1


def test_a_thousand_tasks_make_one_request(authority: FakeAuthority) -> None:
    authority.allow("a.b")
    authority.slow(0.2)

    async def ask() -> set[str]:
        async with AsyncClient(url=authority.url, credential=lambda: "a.b.c") as client:
            return {token.value for token in await asyncio.gather(*(client.token() for _ in range(1000)))}

    assert len(asyncio.run(ask())) == 1
    assert authority.count(TOKEN) == 1


def test_whoever_asks_the_sidecar_at_once_shares_one_request(authority: FakeAuthority) -> None:
    authority.allow("a.b")
    authority.slow(0.5)
    with Client(credential=Sidecar(authority.sidecar_url)) as client, ThreadPoolExecutor(100) as threads:
        assert len({token.value for token in threads.map(lambda _: client.token(), range(100))}) == 1
    assert authority.count("/token") == 1


def test_a_thousand_who_are_refused_make_one_request(authority: FakeAuthority) -> None:
    authority.slow(0.2)

    async def ask() -> list[Any]:
        async with AsyncClient(url=authority.url, credential=lambda: "a.b.c") as client:
            return await asyncio.gather(*(client.token(scope="no.such") for _ in range(1000)), return_exceptions=True)

    answers = asyncio.run(ask())
    assert {type(answer) for answer in answers} == {InvalidScope}
    assert len({id(answer) for answer in answers}) == 1000, "each has an error of its own"
    assert authority.count(TOKEN) == 1


def test_a_waiter_that_is_cancelled_takes_nothing_from_the_others(authority: FakeAuthority) -> None:
    authority.allow("a.b")
    authority.slow(0.2)

    async def ask() -> str:
        async with AsyncClient(url=authority.url, credential=lambda: "a.b.c") as client:
            first, second = asyncio.create_task(client.token()), asyncio.create_task(client.token())
            await asyncio.sleep(0.05)
            first.cancel()
            token = await second
            assert first.cancelled()
            return token.value

    assert asyncio.run(ask())
    assert authority.count(TOKEN) == 1


def test_a_token_is_renewed_early_while_the_old_one_is_used(client_of: Any, authority: FakeAuthority) -> None:
    authority.allow("a.b")
    client = client_of(url=authority.url, credential=lambda: "a.b.c")
    clock = set_clock(client)
    first = client.token()
    clock.pass_(150)
    assert client.token() == first
    assert authority.count(TOKEN) == 1
    clock.pass_(80)
    authority.slow(0.2)
    begun = time.monotonic()
    assert client.token() == first
    assert time.monotonic() - begun < 0.15, "nobody waits for it"
    loop = client_of.loop if client_of.kind == "asyncio" else None
    eventually(lambda: authority.count(TOKEN) == 2 and client.token() != first, loop=loop)
    assert authority.count(TOKEN) == 2


def test_a_renewal_that_is_not_answered_leaves_the_old_one_in_use(client_of: Any, authority: FakeAuthority) -> None:
    authority.allow("a.b")
    client = client_of(url=authority.url, credential=lambda: "a.b.c", max_retries=0)
    clock = set_clock(client)
    loop = client_of.loop if client_of.kind == "asyncio" else None
    first = client.token()
    clock.pass_(250)
    authority.fail(503, 10)
    assert client.token() == first
    eventually(lambda: authority.count(TOKEN) == 2, loop=loop)
    assert client.token() == first
    assert authority.count(TOKEN) == 2, "not with each use"
    clock.pass_(49.5)
    assert client.token() == first, "to its last second"
    clock.pass_(1)
    with pytest.raises(Unavailable):
        client.token()


def test_a_renewal_that_is_refused_drops_the_old_one_at_once(client_of: Any, authority: FakeAuthority) -> None:
    authority.allow("a.b")
    client = client_of(url=authority.url, credential=lambda: "a.b.c")
    clock = set_clock(client)
    loop = client_of.loop if client_of.kind == "asyncio" else None
    first = client.token(scope="a.b")
    authority.deny("a.b")
    clock.pass_(250)
    assert client.token(scope="a.b") == first
    eventually(lambda: len(client.core.cache) == 0, loop=loop)
    with pytest.raises(InvalidScope):
        client.token(scope="a.b")


def test_a_credential_that_is_refused_drops_everything(client_of: Any, authority: FakeAuthority) -> None:
    authority.allow("a.b")
    client = client_of(url=authority.url, credential=lambda: "a.b.c")
    client.token()
    client.token(scope="a.b")
    authority.suspend()
    with pytest.raises(Unauthenticated):
        client.token(fresh=True)
    assert len(client.core.cache) == 0


def test_no_more_than_128_tokens_are_kept_and_the_least_used_goes_first() -> None:
    clock = SetClock()
    cache = Cache(clock)
    for n in range(128):
        cache.keep((str(n), None, None), AccessToken("t", expires_at=clock.now() + 100))
    assert cache.find(("0", None, None)) is not None
    cache.keep(("one more", None, None), AccessToken("t", expires_at=clock.now() + 100))
    assert len(cache) == 128
    assert cache.find(("0", None, None)) is not None
    assert cache.find(("1", None, None)) is None


def test_a_token_is_not_used_after_its_end_by_either_clock() -> None:
    for wall, ticks in ((100, 0), (0, 100)):
        clock = SetClock()
        cache = Cache(clock)
        cache.keep(("a", None, None), AccessToken("t", expires_at=clock.now() + 60))
        clock.wall += wall
        clock.since += ticks
        assert cache.find(("a", None, None)) is None


def test_the_clock_of_the_machine_need_not_be_right(client_of: Any, authority: FakeAuthority) -> None:
    authority.allow("a.b")
    for skew in (-86_400, 86_400):
        client = client_of(url=authority.url, credential=lambda: "a.b.c")
        clock = set_clock(client)
        first = client.token()
        before = authority.count(TOKEN)
        clock.wall += skew
        client.token()
        # A clock that is set forward costs one request; set back, none. Neither hands out what has ended.
        assert authority.count(TOKEN) - before == (1 if skew > 0 else 0)
        assert first.value


def test_a_token_for_one_operation_is_never_kept(client: Any, authority: FakeAuthority) -> None:
    authority.allow("refund.issue", resource="order:O-*")
    operation = Operation("refund.issue", "order:O-12", {"amount": 50})
    first, second = client.token(operation=operation), client.token(operation=operation)
    assert first != second
    assert first.claims()["authorization_details"] == [operation.details()]


def test_a_delegated_token_is_kept_under_the_token_it_came_from_and_no_longer(client: Any, authority: FakeAuthority) -> None:
    authority.allow("a.b")
    alice = authority.token_for("x", audience=authority.agent, agent="agent:test/caller", user="alice", lifetime=60)
    bob = authority.token_for("x", audience=authority.agent, agent="agent:test/caller", user="bob", lifetime=60)
    clock = set_clock(client)
    first = client.exchange(alice)
    assert first.claims()["sub"] == "user:alice"
    assert first.claims()["act"]["act"]["sub"] == "agent:test/caller"
    assert client.exchange(alice) == first
    assert client.exchange(bob).claims()["sub"] == "user:bob"
    assert client.token().claims()["sub"] == authority.agent
    before = authority.count(TOKEN)
    clock.pass_(61)
    client.exchange(alice)
    assert authority.count(TOKEN) == before + 1


def test_a_sidecar_keeps_the_tokens_itself(client_of: Any, authority: FakeAuthority) -> None:
    authority.allow("a.b")
    client = client_of(credential=Sidecar(authority.sidecar_url))
    assert client.token() != client.token()
    assert authority.count("/token") == 2
    client.token(fresh=True)
    assert authority.requests[-1].headers["cache-control"] == "no-cache"
    assert all(asked.is_sidecar for asked in authority.requests)


def test_a_token_is_given_up(client: Any, authority: FakeAuthority) -> None:
    authority.allow("a.b")
    token = client.token()
    client.revoke(token)
    assert token.claims()["jti"] in str(authority.revoked)
    assert client.token() != token


def test_a_token_is_not_printed_pickled_or_written_as_json(client: Any, authority: FakeAuthority) -> None:
    authority.allow("a.b")
    token = client.token()
    for text in (repr(token), str(token), f"{token}", f"{token!r}", str([token]), str({"t": token})):
        assert token.value not in text
        assert token.value.split(".")[2] not in text
    with pytest.raises(TypeError):
        pickle.dumps(token)
    with pytest.raises(TypeError):
        json.dumps(token)
    assert not hasattr(token, "__dict__")


def test_a_bound_token_has_no_header_without_a_proof() -> None:
    with pytest.raises(Exception, match="proof"):
        AccessToken("t", token_type="DPoP").headers()


def test_flights_end_with_the_client_and_leave_no_thread(authority: FakeAuthority) -> None:
    authority.allow("a.b")
    with Client(url=authority.url, credential=lambda: "a.b.c") as client:
        client.token()
    eventually(lambda: not any(t.name == "countersign-flight" for t in threading.enumerate()))


@pytest.mark.parametrize("payload", [b"[" * 100_000, b'{"exp":1' + b"0" * 400 + b"}", b'{"exp":1e400}', b'{"exp":true}', b"\xff\xfe"])
def test_a_subject_token_of_any_shape_is_for_the_authority_to_judge(client: Any, authority: FakeAuthority, payload: bytes) -> None:
    authority.fail(400)
    with pytest.raises(Refused):
        client.exchange("a." + base64.urlsafe_b64encode(payload).rstrip(b"=").decode() + ".c")
    assert authority.count("/oauth2/token") == 1


@pytest.mark.parametrize("parameters", [[1], "text", 5, [["a", 1]]])
def test_parameters_without_names_are_none(parameters: Any) -> None:
    with pytest.raises(InvalidRequest):
        Operation("pay", None, parameters)


def test_the_credential_of_the_authority_for_tests_says_who_the_agent_is_also_while_nothing_is_allowed(
    client_of: Any, authority: FakeAuthority
) -> None:
    authority.require_approval("payments.authorize")
    operation, other = Operation("payments.authorize"), "agent:team/other"
    for agent, credential in (("agent:test/bot", authority.credential), (other, lambda: authority.credential(other))):
        client = client_of(url=authority.url, credential=credential)
        assert client.evaluate(operation).requestable
        client.request_approval(operation)
        assert [request.agent for request in authority.pending][-1] == agent
    authority.suspend(other)
    with pytest.raises(Unauthenticated):
        client.evaluate(operation)
