"""What must hold for an agent of Google ADK, against any authority: `test_adk` has a FakeAuthority, `tests/sdk/test_adk` the operator."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import adk_agent
import pytest
from adk_agent import WHO, Script, runner_of, said, user
from authorities import PAYMENT, TOOLS, Authority
from google.adk.events.event import Event
from google.adk.runners import Runner
from google.adk.sessions import InMemorySessionService
from google.genai import types

from countersign.adk import CountersignPlugin, pending_approvals, resume_message
from countersign.canonical import idempotency_key
from countersign.guard import Guard, Tool

PAY = f"pay_invoice {json.dumps(PAYMENT)}"
READ = 'read_invoice {"number": "INV-7"}'
DELETE = 'delete_mailbox {"user": "ana"}'


@dataclass
class Bench:
    """An agent, and ways to run it: ADK's sync and async runner, with a client of threads or of asyncio."""

    authority: Authority
    journal: Path
    drive: Callable[[Runner, types.Content], list[Event]]
    client: Any
    sessions: InMemorySessionService = field(default_factory=InMemorySessionService)
    model: Script = field(default_factory=Script)

    def guard(self, mode: Any = "interrupt", tools: Any = None, max_wait: float = 30.0) -> Guard:
        return Guard(self.client, tools or TOOLS, mode=mode, max_wait=max_wait)

    def runner(self, guard: Guard | None = None, **more: Any) -> Runner:
        return runner_of(guard or self.guard(), self.journal, self.sessions, **{"model": self.model, **more})

    def run(self, runner: Runner, message: str | types.Content) -> list[Event]:
        return self.drive(runner, user(message) if isinstance(message, str) else message)

    @property
    def ran(self) -> list[dict[str, Any]]:
        """What the tools have done."""
        return [json.loads(line) for line in self.journal.read_text().splitlines()] if self.journal.exists() else []


@pytest.fixture(params=["run", "run_async", "run_async with an AsyncClient"])
def bench(request: pytest.FixtureRequest, authority: Authority, tmp_path: Path) -> Iterator[Bench]:
    loop = asyncio.new_event_loop()

    def sync(runner: Runner, message: types.Content) -> list[Event]:
        return list(runner.run(**WHO, new_message=message))

    def through_asyncio(runner: Runner, message: types.Content) -> list[Event]:
        async def collect() -> list[Event]:
            return [event async for event in runner.run_async(**WHO, new_message=message)]

        return loop.run_until_complete(collect())

    is_async = request.param.endswith("AsyncClient")
    client = authority.async_client() if is_async else authority.client()
    yield Bench(authority, tmp_path / "journal", sync if request.param == "run" else through_asyncio, client)
    if is_async:
        loop.run_until_complete(client.aclose())
    else:
        client.close()
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()


def paused(events: Sequence[Event]) -> str:
    """The one request for which a run waits."""
    (one,) = pending_approvals(events)
    return one.request.id


def woken(bench: Bench, runner: Runner, events: list[Event]) -> list[Event]:
    """Wakes a run until it waits no more: who has looked too often is told to slow down, and looks again later."""
    until = time.monotonic() + 60
    while pending_approvals(events):
        assert time.monotonic() < until
        events = bench.run(runner, resume_message(pending_approvals(events)))
    return events


# --- the cells of every framework -----------------------------------------------------------------------------------------------------


def test_adk_registry(bench: Bench) -> None:
    """The model is shown the tools that its agent could come to use, and no other."""
    bench.run(bench.runner(), READ)
    assert bench.model.shown[0] == ["pay_invoice", "read_invoice"]


def test_adk_allow(bench: Bench) -> None:
    """A tool that is allowed runs, under its permit, and nobody is asked."""
    events = bench.run(bench.runner(), READ)
    assert bench.ran == [{"tool": "read_invoice", "number": "INV-7", "permit": "read_invoice"}]
    assert "done" in said(events)
    assert bench.authority.filed() == []


def test_adk_deny(bench: Bench) -> None:
    """A tool that is denied does not run, the model is told, the run goes on, and nobody is asked."""
    events = bench.run(bench.runner(), DELETE)
    assert bench.ran == []
    assert "This is not allowed. Nothing was done." in said(events)
    assert bench.authority.filed() == []


def test_adk_jit_approve(bench: Bench) -> None:
    """A call that needs approval pauses the run; once it is approved it runs, exactly once."""
    runner = bench.runner()
    events = bench.run(runner, PAY)
    request = paused(events)
    assert bench.ran == []
    # The model was not asked to go on without the tool's result.
    assert len(bench.model.shown) == 1
    bench.authority.approve(request)
    after = bench.run(runner, resume_message(pending_approvals(events)))
    assert bench.ran == [{"tool": "pay_invoice", **PAYMENT, "permit": "pay_invoice"}]
    assert "done" in said(after)
    assert bench.authority.filed() == [request]


def test_adk_jit_deny(bench: Bench) -> None:
    """A call that a person denies does not run, and the model is told."""
    runner = bench.runner()
    events = bench.run(runner, PAY)
    bench.authority.deny(paused(events))
    after = woken(bench, runner, events)
    assert bench.ran == []
    assert "A person was asked and said no." in said(after)


def test_adk_backend_down(bench: Bench) -> None:
    """While the authority is away no tool runs, also none that was approved; the model is told."""
    runner = bench.runner()
    events = bench.run(runner, PAY)
    bench.authority.approve(paused(events))
    bench.authority.down()
    after = bench.run(runner, resume_message(pending_approvals(events)))
    assert "It cannot be checked now" in said(after)
    assert "It cannot be checked now" in said(bench.run(runner, READ))
    assert bench.ran == []
    # What is shown permits nothing: the model can try, and be told.
    assert bench.model.shown[-1] == ["delete_mailbox", "pay_invoice", "read_invoice"]
    bench.authority.up()


def test_adk_hook_raises(bench: Bench) -> None:
    """Whatever raises in the guard or in the plugin, no tool runs, and the model is told nothing of the error's words."""

    def raising(*_: Any) -> str:
        raise PermissionError("secret words")

    mapping = bench.run(bench.runner(bench.guard(tools={"read_invoice": Tool("invoice.read", resource=raising)})), READ)
    token = bench.run(bench.runner(plugins=[CountersignPlugin(bench.guard(), subject_token=raising)]), READ)
    for events in (mapping, token):
        assert "It cannot be checked whether this is allowed" in said(events)
        assert "secret words" not in said(events)
    assert bench.ran == []


# --- another process -----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def life(authority: Authority, tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Begins a process with the agent, whose sessions are in a database."""
    begun: list[subprocess.Popen[str]] = []

    def begin(command: str, words: str = "") -> subprocess.Popen[str]:
        agent = [sys.executable, adk_agent.__file__, str(tmp_path / "sessions.db"), str(tmp_path / "journal"), command, words]
        path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
        environment = {**os.environ, **authority.environment, "PYTHONPATH": path}
        process = subprocess.Popen(agent, env=environment, stdout=subprocess.PIPE, text=True)
        begun.append(process)
        return process

    yield begin
    for process in begun:
        process.kill()
        process.communicate()


def last_words(process: subprocess.Popen[str]) -> dict[str, Any]:
    """What a process says before it ends."""
    out, _ = process.communicate(timeout=240)
    assert process.returncode == 0, out
    return json.loads(out.splitlines()[-1])


def kill(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()


def ran_in(tmp_path: Path) -> list[str]:
    journal = tmp_path / "journal"
    return [json.loads(line)["tool"] for line in journal.read_text().splitlines()] if journal.exists() else []


def test_adk_restart_mid_wait(authority: Authority, life: Callable[..., subprocess.Popen[str]], tmp_path: Path) -> None:
    """A run that was paused goes on in another process after the first was killed, and its call runs exactly once."""
    first = life("start", PAY)
    assert first.stdout is not None
    (request,) = json.loads(first.stdout.readline())["waiting"]
    kill(first)
    # Woken before anybody has decided, it waits on.
    assert last_words(life("resume"))["waiting"] == [request]
    assert ran_in(tmp_path) == []
    authority.approve(request)
    assert "done" in last_words(life("resume"))["said"]
    assert ran_in(tmp_path) == ["pay_invoice"]
    last_words(life("resume"))
    assert ran_in(tmp_path) == ["pay_invoice"]
    assert authority.filed() == [request]


def test_adk_a_call_that_waits_goes_on_in_another_process(
    authority: Authority, life: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    """In the mode `wait`, killed while it waits and resumed by its invocation, it waits for the same request."""
    first = life("wait", PAY)
    request = authority.wait_for_request(120.0)
    kill(first)
    second = life("replay")
    time.sleep(1.0)
    authority.approve(request)
    assert "done" in last_words(second)["said"]
    assert ran_in(tmp_path) == ["pay_invoice"]
    assert authority.filed() == [request]


def test_adk_two_processes_that_resume_at_once_run_a_call_once(
    authority: Authority, life: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    first = life("start", PAY)
    assert first.stdout is not None
    (request,) = json.loads(first.stdout.readline())["waiting"]
    kill(first)
    authority.approve(request)
    for process in [life("resume"), life("resume")]:
        # One of them may find the session changed, which ADK does not survive; the tool runs in one.
        process.communicate(timeout=240)
    assert ran_in(tmp_path) == ["pay_invoice"]


def test_adk_arguments_changed_in_the_database_after_approval_are_refused(
    authority: Authority, life: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    first = life("start", PAY)
    assert first.stdout is not None
    (request,) = json.loads(first.stdout.readline())["waiting"]
    kill(first)
    authority.approve(request)
    with sqlite3.connect(tmp_path / "sessions.db") as database:
        changed = database.execute("""UPDATE events SET event_data = REPLACE(event_data, '500', '900000')""").rowcount
    assert changed > 0
    assert "This call is not the one that was approved." in last_words(life("resume"))["said"]
    assert ran_in(tmp_path) == []


def test_adk_the_example_of_the_guide_pays_what_was_approved(authority: Authority) -> None:
    example = Path(__file__).parents[4] / "examples" / "frameworks" / "adk" / "agent.py"
    environment = {**os.environ, **authority.environment, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen([sys.executable, str(example)], env=environment, stdout=subprocess.PIPE, text=True)
    authority.approve(authority.wait_for_request(120.0))
    out, _ = process.communicate(timeout=240)
    assert process.returncode == 0
    assert "INV-7 is paid: 500 EUR" in out
    assert "delete_mailbox: {'error': 'This is not allowed." in out
    assert out.endswith("model: Done.\n")


# --- what else must not happen --------------------------------------------------------------------------------------------------------


def test_adk_what_the_framework_was_answered_approves_nothing(bench: Bench) -> None:
    runner = bench.runner()
    events = bench.run(runner, PAY)
    for _ in range(2):
        # Confirmed, and nobody has approved.
        events = bench.run(runner, resume_message(pending_approvals(events)))
        assert len(pending_approvals(events)) == 1
    assert bench.ran == []
    assert len(bench.authority.filed()) == 1
    bench.authority.approve(paused(events))
    woken(bench, runner, events)
    assert len(bench.ran) == 1


def test_adk_a_call_that_is_not_confirmed_does_not_run_although_it_is_approved(bench: Bench) -> None:
    runner = bench.runner()
    events = bench.run(runner, PAY)
    bench.authority.approve(paused(events))
    no = resume_message(pending_approvals(events))
    no.parts[0].function_response.response = {"confirmed": False}
    assert "This was not confirmed." in said(bench.run(runner, no))
    assert bench.ran == []


def test_adk_an_approval_that_has_expired_is_told_to_the_model(bench: Bench) -> None:
    # The request of this very call, filed with a life of its own.
    operation = Tool.of(TOOLS["pay_invoice"]).operation(PAYMENT)
    key = idempotency_key(json.dumps(["billing", WHO["user_id"], WHO["session_id"]]), "c-7", "pay_invoice", operation.details())
    with bench.authority.client() as client:
        request = client.request_approval(operation, expires_in=8, idempotency_key=key)
    runner = bench.runner()
    events = bench.run(runner, f"c-7: {PAY}")
    assert paused(events) == request.id
    time.sleep(max(0.0, (request.expires_at or 0.0) - time.time()) + 0.5)
    assert "Nobody approved this in time." in said(woken(bench, runner, events))
    assert bench.ran == []


def test_adk_a_confirmation_that_is_sent_twice_runs_a_call_once(bench: Bench) -> None:
    runner = bench.runner()
    events = bench.run(runner, PAY)
    bench.authority.approve(paused(events))
    for _ in range(2):
        bench.run(runner, resume_message(pending_approvals(events)))
    assert len(bench.ran) == 1


def test_adk_arguments_that_a_callback_changes_are_refused(bench: Bench) -> None:
    """The callbacks of an agent come after every plugin. Without approval and with it, the tool does what was asked about or nothing."""

    def more(tool: Any, args: dict[str, Any], tool_context: Any) -> None:
        args["number"], args["amount"] = "INV-8", 900_000

    tools = {"pay_invoice": TOOLS["pay_invoice"], "read_invoice": TOOLS["read_invoice"]}
    runner = bench.runner(bench.guard(tools=tools), before_tool_callback=more)
    assert "This call is not the one that was approved." in said(bench.run(runner, READ))
    events = bench.run(runner, PAY)
    bench.authority.approve(paused(events))
    after = bench.run(runner, resume_message(pending_approvals(events)))
    assert "This call is not the one that was approved." in said(after)
    assert bench.ran == []


def test_adk_a_call_waits_for_a_person_in_the_mode_wait(bench: Bench) -> None:
    beside = bench.authority.soon(bench.authority.approve)
    events = bench.run(bench.runner(bench.guard("wait")), PAY)
    beside.join()
    assert "done" in said(events)
    assert len(bench.ran) == 1


def test_adk_a_model_is_told_to_come_back_in_the_mode_reject(bench: Bench) -> None:
    events = bench.run(bench.runner(bench.guard("reject")), PAY)
    assert pending_approvals(events) == []
    assert "kubectl countersign approve" in said(events)
    assert bench.ran == []


def test_adk_calls_of_one_turn_are_asked_about_each_for_itself(bench: Bench) -> None:
    runner = bench.runner()
    other = f"pay_invoice {json.dumps({**PAYMENT, 'amount': 1})}"
    events = bench.run(runner, "\n".join([PAY, other, READ, DELETE]))
    waiting = pending_approvals(events)
    assert [line["tool"] for line in bench.ran] == ["read_invoice"]
    assert len({each.request.id for each in waiting}) == 2
    bench.authority.approve(waiting[0].request.id)
    bench.authority.deny(waiting[1].request.id)
    bench.run(runner, resume_message(waiting))
    assert [line["amount"] for line in bench.ran if line["tool"] == "pay_invoice"] == [500]
