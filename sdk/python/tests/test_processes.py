"""A client that outlives its process, its event loop, or the thread that began something."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from countersign import AccessToken, AsyncClient, Client, ConfigurationError, Operation
from countersign.testing import FakeAuthority

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")

#: Connections of a loop that is gone are closed by nobody but the garbage collector, which says so.
of_a_loop_that_ended = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore:unclosed:ResourceWarning")


def in_child(run: Callable[[], str], meanwhile: Callable[[], object] = lambda: None) -> str:
    """What `run` returns in a process that is forked off here."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            said = run()
        except BaseException as error:
            said = type(error).__name__
        os.write(write, said.encode())
        os._exit(0)
    os.close(write)
    meanwhile()
    with os.fdopen(read, "rb") as pipe:
        said = pipe.read().decode()
    os.waitpid(pid, 0)
    return said


def test_no_process_reads_the_answer_that_is_for_the_one_it_was_forked_off_from(authority: FakeAuthority) -> None:
    authority.allow("read")
    client = Client(url=authority.url, credential=lambda: "a.b.c")
    client.token()

    def answers(capability: str) -> list[bool]:
        until, found = time.monotonic() + 1.0, []
        while time.monotonic() < until:
            found.append(client.evaluate(Operation(capability)).allowed)
        return found

    ours: list[bool] = []
    theirs = in_child(lambda: str(set(answers("pay"))), lambda: ours.extend(answers("read")))
    assert theirs == "{False}", "nobody was granted it"
    assert set(ours) == {True}
    client.close()


def test_a_client_of_the_applications_own_is_not_used_on_after_a_fork(authority: FakeAuthority) -> None:
    authority.allow("read")
    with httpx.Client() as given:
        client = Client(url=authority.url, credential=lambda: "a.b.c", http_client=given)
        assert in_child(lambda: str(client.evaluate(Operation("read")).allowed)) == "True", "it had no connections yet"
        client.token()
        assert in_child(lambda: str(client.evaluate(Operation("read")).allowed)) == ConfigurationError.__name__
        client.close()


def test_what_another_thread_had_begun_holds_no_child_up(authority: FakeAuthority) -> None:
    authority.allow("read")
    client = Client(url=authority.url, credential=lambda: "a.b.c", timeout=5.0)
    authority.slow(0.5)
    asking = threading.Thread(target=client.token)
    asking.start()
    time.sleep(0.1)
    with client.core.cache._lock:
        said: list[str] = []
        begun = time.monotonic()
        said.append(in_child(lambda: type(client.token()).__name__))
        assert time.monotonic() - begun < 4.0
    asking.join()
    assert said == [AccessToken.__name__]
    client.close()


@of_a_loop_that_ended
def test_another_event_loop_has_connections_of_its_own(authority: FakeAuthority) -> None:
    authority.allow("read")
    authority.require_approval("pay")
    client = AsyncClient(url=authority.url, credential=lambda: "a.b.c", max_retries=0)
    loops: list[asyncio.AbstractEventLoop] = []

    def run(coroutine: Any) -> Any:
        loops.append(asyncio.new_event_loop())
        return loops[-1].run_until_complete(coroutine)

    request = run(client.request_approval(Operation("pay")))
    authority.approve(request.id)
    token = run(client.approval(request))
    run(client.complete(token))
    assert authority.count("/jit/complete") == 1, "no answer was lost with a connection of another loop"
    run(client.aclose())
    for loop in loops:
        loop.close()
    del client
    gc.collect()


@of_a_loop_that_ended
def test_what_was_begun_in_a_loop_that_ended_is_begun_anew_in_the_next(authority: FakeAuthority) -> None:
    authority.allow("read")
    client = AsyncClient(url=authority.url, credential=lambda: "a.b.c")
    authority.slow(0.3)
    first = asyncio.new_event_loop()
    asking = first.create_task(client.token())
    first.run_until_complete(asyncio.sleep(0.1))
    second = asyncio.new_event_loop()
    assert isinstance(second.run_until_complete(asyncio.wait_for(client.token(), 5)), AccessToken)
    second.run_until_complete(client.aclose())
    second.close()
    first.run_until_complete(asking)
    first.close()
    del client, asking
    gc.collect()
