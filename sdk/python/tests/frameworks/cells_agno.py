"""What must hold for Agno, whichever authority is asked: the module that imports it has the fixture `stage`."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from acting import PAYMENT, TOOLS, Ledger, Person, Process, Stage, end_processes, until
from agno.agent import Agent
from agno.team import Team
from agno.tools import Toolkit, tool
from agno_app import SESSION, Script, database, tools_of

from countersign import AsyncClient, ConfigurationError, Guard, Tool, Unavailable, current_permit
from countersign.agno import ToolGuard, apending, aresume, guard_agent, pending, resume

PAY = ("pay_invoice", PAYMENT)
READ = ("read_invoice", {"number": "INV-7"})


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger")


@pytest.fixture(autouse=True)
def nothing_is_left() -> Any:
    yield
    end_processes()


class Play:
    """One way of running Agno: `run` or `arun`, with tools that are asynchronous or not."""

    def __init__(self, stage: Stage, ledger: Ledger, way: str) -> None:
        how, self.tools = way.split("-")
        self.stage, self.ledger, self.asynchronous = stage, ledger, how == "arun"

    def guard(self, mode: str = "wait", tools: Any = TOOLS) -> Guard:
        return Guard(self.stage.client(), tools, mode=mode, max_wait=60)  # type: ignore[arg-type]

    def agent(self, *lines: Any, guard: Guard | None = None, confirm: bool = False, **more: Any) -> Agent:
        """A guarded agent that says these lines, and then `done`."""
        tools = more.pop("tools", None) or tools_of(self.ledger, confirm=confirm, asynchronous=self.tools == "async")
        registry = more.pop("registry", True)
        made = Agent(id="clerk", model=Script(lines=[*lines, "done"]), tools=tools, telemetry=False, **more)
        return guard_agent(made, guard or self.guard(), registry=registry, arun_only=self.tools == "async")

    def run(self, agent: Any, **more: Any) -> Any:
        more = {"session_id": SESSION, **more}
        return self._await(agent.arun("Do it.", **more)) if self.asynchronous else agent.run("Do it.", **more)

    def pending(self, agent: Any, run: Any) -> list[str]:
        return [request.id for request in (self._await(apending(agent, run)) if self.asynchronous else pending(agent, run))]

    def resume(self, agent: Any, run: Any = None, **more: Any) -> Any:
        return self._await(aresume(agent, run, **more)) if self.asynchronous else resume(agent, run, **more)

    def continue_anyway(self, agent: Any, run: Any) -> Any:
        """What Agno offers itself: goes on with the run as its requirements say."""
        more = {"run_id": run.run_id, "session_id": SESSION, "requirements": run.requirements}
        return self._await(agent.acontinue_run(**more)) if self.asynchronous else agent.continue_run(**more)

    def _await(self, awaitable: Any) -> Any:
        async def awaited() -> Any:
            return await awaitable

        return asyncio.run(awaited())


@pytest.fixture(params=["run-sync", "arun-sync", "arun-async"])
def play(request: pytest.FixtureRequest, stage: Stage, ledger: Ledger) -> Play:
    return Play(stage, ledger, request.param)


def told(agent: Any) -> str:
    return agent.model.told()


def test_agno_registry(play: Play, ledger: Ledger) -> None:
    """The model hears of the tools that the agent could come to use, and of no others."""
    agent = play.agent()
    play.run(agent)
    assert [set(offered) for offered in agent.model.offered] == [{"read_invoice", "pay_invoice"}]


def test_agno_allow(play: Play, ledger: Ledger) -> None:
    """What is allowed runs, and the model has its result."""
    agent = play.agent(READ)
    assert play.run(agent).content == "done"
    assert ledger.read() == [{"tool": "read_invoice", "number": "INV-7"}]
    assert "Invoice INV-7: 500 EUR" in told(agent)


def test_agno_deny(play: Play, stage: Stage, ledger: Ledger) -> None:
    """What is not granted does not run, the model is told, and no person is asked."""
    agent = play.agent(("close_ledger", {}), registry=False)
    play.run(agent)
    assert ledger.read() == []
    assert "This is not allowed. Nothing was done. Do not try again." in told(agent)
    assert stage.waiting() == []


def test_agno_jit_approve(play: Play, stage: Stage, ledger: Ledger) -> None:
    """What a person approves meanwhile runs."""
    agent = play.agent(PAY)
    with Person(stage, stage.approve):
        play.run(agent)
    assert ledger.read() == [{"tool": "pay_invoice", **PAYMENT}]
    assert "Paid 500 EUR on INV-7" in told(agent)


def test_agno_jit_deny(play: Play, stage: Stage, ledger: Ledger) -> None:
    """What a person refuses does not run, and the model is told."""
    agent = play.agent(PAY)
    with Person(stage, stage.refuse):
        play.run(agent)
    assert ledger.read() == []
    assert "A person was asked and said no." in told(agent)


def test_agno_restart_mid_wait(stage: Stage, ledger: Ledger) -> None:
    """A paused run is no process: another goes on with it, once somebody has decided, and only once."""
    paused = Process(stage, "agno_app.py", str(ledger.path), "run").said()
    assert paused["paused"]
    assert paused["requests"] == stage.waiting()
    too_early = Process(stage, "agno_app.py", str(ledger.path), "resume", paused["run"]).said()
    assert too_early["paused"]
    assert too_early["requests"] == paused["requests"]
    stage.approve(paused["requests"][0])
    resumed = Process(stage, "agno_app.py", str(ledger.path), "resume", paused["run"]).said()
    assert not resumed["paused"]
    assert "Paid 500 EUR on INV-7" in resumed["told"]
    assert ledger.read() == [{"tool": "pay_invoice", **PAYMENT}]


def test_agno_restart_mid_wait_within_the_run(stage: Stage, ledger: Ledger) -> None:
    """A run that is killed while it waits, and begun anew in another process, carries the approved call out once."""
    first = Process(stage, "agno_app.py", str(ledger.path), "wait")
    request = until(stage.waiting)
    first.kill()
    stage.killed()
    assert ledger.read() == []
    stage.approve(request[0])
    assert "Paid 500 EUR on INV-7" in Process(stage, "agno_app.py", str(ledger.path), "wait").said()["told"]
    assert "It was not done again." in Process(stage, "agno_app.py", str(ledger.path), "wait").said()["told"]
    assert ledger.read() == [{"tool": "pay_invoice", **PAYMENT}]
    assert stage.waiting() == []


def test_agno_backend_down(play: Play, stage: Stage, ledger: Ledger) -> None:
    """While nobody can tell whether it is allowed, nothing runs, and the model is told shortly."""
    agent = play.agent(READ, PAY, registry=False)
    stage.down()
    play.run(agent)
    assert ledger.read() == []
    assert told(agent).count("It cannot be checked now whether this is allowed") == 2


def test_agno_backend_down_when_tools_are_listed(play: Play, stage: Stage, ledger: Ledger) -> None:
    """A run for which nobody can tell which tools there are fails, and nothing runs."""
    agent = play.agent(READ)
    stage.down()
    with contextlib.suppress(Unavailable):
        assert play.run(agent).status.value == "ERROR"
    assert agent.model.offered == []
    assert ledger.read() == []


def test_agno_hook_raises(play: Play, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever goes wrong in the hook, the tool does not run."""
    guard = play.guard()
    agent = play.agent(READ, guard=guard, registry=False)

    def broken(*_: Any, **__: Any) -> Any:
        raise PermissionError("secret words")

    monkeypatch.setattr(guard, "check", broken)
    play.run(agent)
    assert ledger.read() == []
    assert "It cannot be checked whether this is allowed" in told(agent)
    assert "secret words" not in told(agent)


def test_agno_pauses_and_goes_on_when_it_is_approved(play: Play, stage: Stage, ledger: Ledger) -> None:
    agent = play.agent(PAY, guard=play.guard("interrupt"), confirm=True, db=database(ledger))
    run = play.run(agent)
    assert run.is_paused
    assert stage.waiting() == [], "nobody is asked before the authority is"
    asked = play.pending(agent, run)
    assert asked == stage.waiting()
    assert play.resume(agent, run).is_paused
    stage.approve(asked[0])
    assert until(lambda: _done(play.resume(agent, run))).content == "done"
    assert ledger.read() == [{"tool": "pay_invoice", **PAYMENT}]
    assert "Paid 500 EUR on INV-7" in told(agent)


def test_agno_pauses_and_tells_the_model_what_a_person_refused(play: Play, stage: Stage, ledger: Ledger) -> None:
    agent = play.agent(PAY, guard=play.guard("interrupt"), confirm=True, db=database(ledger))
    run = play.run(agent)
    stage.refuse(play.pending(agent, run)[0])
    assert until(lambda: _done(play.resume(agent, run))).content == "done"
    assert ledger.read() == []
    assert "A person was asked and said no." in told(agent)


def test_agno_refuses_a_paused_call_that_no_person_could_approve_without_asking_any(play: Play, stage: Stage, ledger: Ledger) -> None:
    guard = play.guard("interrupt", {**TOOLS, "pay_invoice": Tool("ledger.close", parameters=None)})
    agent = play.agent(PAY, guard=guard, confirm=True, registry=False, db=database(ledger))
    run = play.run(agent)
    assert run.is_paused
    assert play.pending(agent, run) == []
    assert play.resume(agent, run).content == "done"
    assert "This is not allowed." in told(agent)
    assert ledger.read() == []
    assert stage.waiting() == []


def test_agno_tells_the_model_no_of_a_tool_that_is_hidden_by_the_time_of_the_resume(play: Play, stage: Stage, ledger: Ledger) -> None:
    """The capability was taken away while the run was paused."""
    guard = play.guard("interrupt")
    agent = play.agent(PAY, guard=guard, confirm=True, db=database(ledger))
    run = play.run(agent)
    guard.tools["pay_invoice"] = Tool("ledger.close", parameters=None)
    assert play.resume(agent, run).content == "done"
    assert "This is not allowed." in told(agent)
    assert ledger.read() == []


def test_agno_stays_paused_while_nobody_can_be_asked(play: Play, stage: Stage, ledger: Ledger) -> None:
    agent = play.agent(PAY, guard=play.guard("interrupt"), confirm=True, db=database(ledger))
    run = play.run(agent)
    stage.approve(play.pending(agent, run)[0])
    stage.down()
    assert play.resume(agent, run).is_paused
    assert ledger.read() == []
    stage.up()
    assert until(lambda: _done(play.resume(agent, run))).content == "done"
    assert len(ledger.read()) == 1


def test_agno_goes_on_when_all_calls_of_a_pause_are_decided(play: Play, stage: Stage, ledger: Ledger) -> None:
    other = ("pay_invoice", {**PAYMENT, "number": "INV-8"})
    agent = play.agent([PAY, other], guard=play.guard("interrupt"), confirm=True, db=database(ledger))
    run = play.run(agent)
    first, second = play.pending(agent, run)
    stage.approve(first)
    assert play.resume(agent, run).is_paused
    assert ledger.read() == []
    stage.refuse(second)
    assert until(lambda: _done(play.resume(agent, run))).content == "done"
    assert [entry["number"] for entry in ledger.read()] == ["INV-7"]
    assert "A person was asked and said no." in told(agent)


def test_agno_the_confirmation_of_a_pause_is_no_approval(play: Play, stage: Stage, ledger: Ledger) -> None:
    """Whoever can continue a run can confirm; whether the tool may run, the authority says."""
    agent = play.agent(PAY, guard=play.guard("interrupt"), confirm=True, db=database(ledger))
    run = play.run(agent)
    run.requirements[0].confirm()
    play.continue_anyway(agent, run)
    assert ledger.read() == []
    assert "A person must approve this first" in told(agent)


def test_agno_refuses_arguments_that_were_changed_after_the_approval(play: Play, stage: Stage, ledger: Ledger) -> None:
    agent = play.agent(PAY, guard=play.guard("interrupt"), confirm=True, db=database(ledger))
    run = play.run(agent)
    stage.approve(play.pending(agent, run)[0])
    until(lambda: not stage.waiting())
    run.requirements[0].tool_execution.tool_args["amount"] = 501
    run.requirements[0].confirm()
    play.continue_anyway(agent, run)
    assert ledger.read() == []
    assert "A person must approve this first" in told(agent)


def test_agno_carries_an_approved_call_out_once_within_a_run(play: Play, stage: Stage, ledger: Ledger) -> None:
    agent = play.agent(PAY, PAY)
    with Person(stage, stage.approve):
        play.run(agent)
    assert len(ledger.read()) == 1
    assert "It was not done again." in told(agent)


def test_agno_asks_again_for_the_same_call_of_another_run(play: Play, stage: Stage, ledger: Ledger) -> None:
    for _ in range(2):
        with Person(stage, stage.approve):
            play.run(play.agent(PAY))
    assert len(ledger.read()) == 2


def test_agno_runs_what_was_asked_about_whatever_other_hooks_do(play: Play, stage: Stage, ledger: Ledger) -> None:
    """Agno runs the tool with the arguments of the call, not with those that a hook hands on."""

    def raises_the_amount(name: str, func: Callable[..., Any], args: dict[str, Any]) -> Any:
        args["amount"] = 900
        return func(**{**args, "amount": 901})

    agent = play.agent(PAY, tool_hooks=[raises_the_amount])
    with Person(stage, stage.approve):
        play.run(agent)
    assert [entry["amount"] for entry in ledger.read()] == [500]


def test_agno_denies_when_another_hook_was_put_before_the_guard(play: Play, ledger: Ledger) -> None:
    def another(name: str, func: Callable[..., Any], args: dict[str, Any]) -> Any:
        return func(**args)

    agent = play.agent(READ)
    agent.tool_hooks.insert(0, another)
    play.run(agent)
    assert ledger.read() == []
    assert "It cannot be checked whether this is allowed" in told(agent)


def test_agno_guards_tools_that_have_hooks_of_their_own(play: Play, ledger: Ledger) -> None:
    """Agno forgets those when the agent has any; it must not be the other way round."""

    def own(name: str, func: Callable[..., Any], args: dict[str, Any]) -> Any:
        return func(**args)

    @tool(tool_hooks=[own])
    def close_ledger() -> str:
        """Closes the ledger."""
        ledger.write("close_ledger")
        return "Closed"

    agent = play.agent(("close_ledger", {}), tools=[close_ledger], registry=False)
    play.run(agent)
    assert ledger.read() == []


def test_agno_asks_before_a_result_comes_from_the_cache(play: Play, stage: Stage, ledger: Ledger, tmp_path: Path) -> None:
    @tool(cache_results=True, cache_dir=str(tmp_path / "cache"))
    def read_invoice(number: str) -> str:
        """Reads an invoice."""
        ledger.write("read_invoice", number=number)
        return "secret figures"

    play.run(play.agent(READ, tools=[read_invoice]))
    agent = play.agent(READ, tools=[read_invoice], registry=False)
    stage.down()
    play.run(agent)
    assert len(ledger.read()) == 1
    assert "secret figures" not in told(agent)


def test_agno_a_tool_has_its_permit_also_one_that_streams(play: Play, ledger: Ledger) -> None:
    seen: list[Any] = []

    def note() -> None:
        permit = current_permit()
        seen.append(permit and permit.operation.resource)

    def read_invoice(number: str) -> Any:
        """Reads an invoice."""
        note()
        yield "one"
        note()
        yield "two"

    async def aread_invoice(number: str) -> Any:
        """Reads an invoice."""
        note()
        yield "one"
        note()
        yield "two"

    streaming = aread_invoice if play.tools == "async" else read_invoice
    agent = play.agent(READ, tools=[tool(name="read_invoice")(streaming)])
    play.run(agent)
    assert seen == ["invoice:INV-7", "invoice:INV-7"]
    assert "onetwo" in told(agent)


def test_agno_lists_a_part_of_a_toolkit(play: Play, ledger: Ledger) -> None:
    kit = Toolkit(name="kit", tools=tools_of(ledger, asynchronous=play.tools == "async"))
    agent = play.agent(READ, tools=[kit])
    play.run(agent)
    assert set(agent.model.offered[0]) == {"read_invoice", "pay_invoice"}
    assert len(ledger.read()) == 1
    assert len({*kit.functions, *kit.async_functions}) == 3


def test_agno_guards_a_copy_of_the_agent(play: Play, ledger: Ledger) -> None:
    agent = play.agent(READ, ("close_ledger", {}), registry=False).deep_copy()
    play.run(agent)
    assert [entry["tool"] for entry in ledger.read()] == ["read_invoice"]


def test_agno_guards_a_team_and_its_members(play: Play, ledger: Ledger) -> None:
    """Its own tool for delegation needs a place in the map like any other."""
    member = Agent(
        id="clerk",
        name="clerk",
        model=Script(lines=[("close_ledger", {}), READ, "read"]),
        tools=tools_of(ledger, asynchronous=play.tools == "async"),
        telemetry=False,
    )
    delegate = ("delegate_task_to_member", {"member_id": "clerk", "task": "Do it."})
    guard = play.guard(tools={**TOOLS, "delegate_task_to_member": Tool("invoice.read", "invoice:any", None)})
    team = Team(members=[member], model=Script(lines=[delegate, "done"]), telemetry=False)
    guard_agent(team, guard, registry=False)
    play.run(team)
    assert [entry["tool"] for entry in ledger.read()] == ["read_invoice"]
    assert "This is not allowed." in told(member)


def test_agno_denies_delegation_that_nobody_mapped(play: Play, ledger: Ledger) -> None:
    member = Agent(id="clerk", name="clerk", model=Script(lines=[READ, "read"]), tools=tools_of(ledger), telemetry=False)
    delegate = ("delegate_task_to_member", {"member_id": "clerk", "task": "Do it."})
    team = guard_agent(Team(members=[member], model=Script(lines=[delegate, "done"]), telemetry=False), play.guard())
    play.run(team)
    assert ledger.read() == []
    assert "This tool may not be used." in told(team)


def test_agno_a_wrong_way_to_guard_is_said_when_it_is_written(stage: Stage, ledger: Ledger) -> None:
    guard = Guard(stage.client(), TOOLS)
    agent = guard_agent(Agent(model=Script(), tools=tools_of(ledger)), guard)
    with pytest.raises(ConfigurationError, match="threads"):
        guard_agent(Agent(model=Script()), Guard(AsyncClient(url="http://127.0.0.1:1"), TOOLS))
    with pytest.raises(ConfigurationError, match="guarded already"):
        guard_agent(agent, guard)
    with pytest.raises(ConfigurationError, match="provider"):
        guard_agent(Agent(model=Script(), tools=[{"type": "web_search"}]), guard)
    with pytest.raises(ConfigurationError, match="made by a function"):
        guard_agent(Agent(model=Script(), tools=lambda: tools_of(ledger)), guard)
    with pytest.raises(ConfigurationError, match="not guarded"):
        resume(Agent(model=Script()), None, run_id="run", session_id=SESSION)
    assert isinstance(agent.tool_hooks[0], ToolGuard)


def _done(run: Any) -> Any:
    return None if run.is_paused else run
