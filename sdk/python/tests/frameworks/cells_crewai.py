"""What must hold for CrewAI, whichever authority is asked: the module that imports it has the fixture `stage`."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest
from acting import PAYMENT, TOOLS, Ledger, Person, Process, Stage, end_processes, guard_of, until
from crew_app import Script, flow_of, run_crew, tools_of
from crewai.flow.async_feedback import HumanFeedbackPending
from crewai.flow.persistence import SQLiteFlowPersistence
from crewai.hooks import clear_all_global_hooks
from crewai.tools import BaseTool, tool

from countersign import AsyncClient, ConfigurationError, Guard, current_permit
from countersign.crewai import ApprovalProvider, GuardedTool, GuardHooks, guard_tools, resume_flow

PAY = ("pay_invoice", PAYMENT)
READ = ("read_invoice", {"number": "INV-7"})


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger")


@pytest.fixture(params=["kickoff-native", "kickoff-react", "akickoff-native", "akickoff-react"])
def way(request: pytest.FixtureRequest) -> str:
    """How the crew is run, and how the model calls tools."""
    return str(request.param)


@pytest.fixture(autouse=True)
def nothing_is_left() -> Any:
    yield
    clear_all_global_hooks()
    end_processes()


def play(way: str, tools: list[BaseTool], *lines: Any) -> tuple[str, Script]:
    """Runs a crew by a script; what it said, and the model."""
    how, kind = way.split("-")
    script = Script(model="scripted", lines=[*lines, "done"], native=kind == "native")
    return run_crew(tools, script, how), script


def test_crewai_registry(stage: Stage, ledger: Ledger) -> None:
    """The model hears of the tools that the agent could come to use, and of no others."""
    guarded = guard_tools(tools_of(ledger), guard_of(stage))
    _, script = play("kickoff-native", guarded)
    assert script.offered == [["read_invoice", "pay_invoice"]]


def test_crewai_allow(stage: Stage, ledger: Ledger, way: str) -> None:
    """What is allowed runs, and the model has its result."""
    answer, script = play(way, guard_tools(tools_of(ledger), guard_of(stage)), READ)
    assert ledger.read() == [{"tool": "read_invoice", "number": "INV-7"}]
    assert "Invoice INV-7: 500 EUR" in script.told()
    assert "done" in answer


def test_crewai_deny(stage: Stage, ledger: Ledger, way: str) -> None:
    """What is not granted does not run, the model is told why, and no person is asked."""
    guarded = guard_tools(tools_of(ledger), guard_of(stage), registry=False)
    _, script = play(way, guarded, ("close_ledger", {}))
    assert ledger.read() == []
    assert "This is not allowed. Nothing was done. Do not try again." in script.told()
    assert "(code: capability_not_granted)" in script.told()
    assert stage.waiting() == []


def test_crewai_jit_approve(stage: Stage, ledger: Ledger, way: str) -> None:
    """What a person approves meanwhile runs."""
    guarded = guard_tools(tools_of(ledger), guard_of(stage))
    with Person(stage, stage.approve):
        _, script = play(way, guarded, PAY)
    assert ledger.read() == [{"tool": "pay_invoice", **PAYMENT}]
    assert "Paid 500 EUR on INV-7" in script.told()


def test_crewai_jit_deny(stage: Stage, ledger: Ledger, way: str) -> None:
    """What a person refuses does not run, and the model is told."""
    guarded = guard_tools(tools_of(ledger), guard_of(stage))
    with Person(stage, stage.refuse):
        _, script = play(way, guarded, PAY)
    assert ledger.read() == []
    assert "A person was asked and said no." in script.told()


def test_crewai_restart_mid_wait(stage: Stage, ledger: Ledger) -> None:
    """A crew that is killed while it waits, and run again in another process, carries the approved call out once."""
    first = Process(stage, "crew_app.py", str(ledger.path), "crew", "order-17")
    request = until(stage.waiting)
    first.kill()
    stage.killed()
    assert ledger.read() == []
    stage.approve(request[0])
    second = Process(stage, "crew_app.py", str(ledger.path), "crew", "order-17").said()
    assert "Paid 500 EUR on INV-7" in second["told"]
    third = Process(stage, "crew_app.py", str(ledger.path), "crew", "order-17").said()
    assert "It was not done again." in third["told"]
    assert ledger.read() == [{"tool": "pay_invoice", **PAYMENT}]
    assert stage.waiting() == []


def test_crewai_restart_mid_wait_of_a_flow(stage: Stage, ledger: Ledger) -> None:
    """A flow that waits for a person is no process: another goes on with it, once somebody has decided."""
    paused = Process(stage, "crew_app.py", str(ledger.path), "flow").said()
    assert stage.waiting() == [paused["request"]]
    too_early = Process(stage, "crew_app.py", str(ledger.path), "resume", paused["flow"]).said()
    assert "Human feedback pending" in too_early["answer"]
    assert ledger.read() == []
    stage.approve(paused["request"])
    resumed = Process(stage, "crew_app.py", str(ledger.path), "resume", paused["flow"]).said()
    assert resumed["answer"] == "Paid 500 EUR on INV-7"
    assert ledger.read() == [{"tool": "pay_invoice", **PAYMENT}]


def test_crewai_backend_down(stage: Stage, ledger: Ledger, way: str) -> None:
    """While nobody can tell whether it is allowed, nothing runs, and the model is told shortly."""
    guarded = guard_tools(tools_of(ledger), guard_of(stage))
    stage.down()
    _, script = play(way, guarded, READ, PAY)
    assert ledger.read() == []
    assert script.told().count("It cannot be checked now whether this is allowed") >= 2


def test_crewai_hook_raises(stage: Stage, ledger: Ledger, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """CrewAI runs the tool when a hook raises anything of its own; neither our hook nor our tools do."""
    guard = guard_of(stage)

    def broken(*_: Any, **__: Any) -> Any:
        raise PermissionError("secret words")

    guarded = guard_tools(tools_of(ledger), guard)
    monkeypatch.setattr(guard, "check", broken)
    _, script = play(way, guarded, READ)
    assert ledger.read() == []
    assert "It cannot be checked whether this is allowed" in script.told()
    with GuardHooks(guard):
        _, script = play(way, tools_of(ledger), READ)
    assert ledger.read() == []
    assert "It cannot be checked whether this is allowed" in script.told()
    assert "secret words" not in script.told()


def test_crewai_covers_tools_that_are_not_wrapped_and_says_why(stage: Stage, ledger: Ledger, way: str) -> None:
    """CrewAI's own words for a hook's no have no reason in them; the hook after the call gives it."""
    with GuardHooks(guard_of(stage)):
        _, script = play(way, tools_of(ledger), ("close_ledger", {}), READ)
    assert ledger.read() == [{"tool": "read_invoice", "number": "INV-7"}]
    assert "This is not allowed. Nothing was done. Do not try again." in script.told()
    assert "blocked by hook" not in script.told()


def test_crewai_denies_a_tool_that_nobody_mapped(stage: Stage, ledger: Ledger, way: str) -> None:
    ran: list[str] = []

    @tool("shell")
    def shell(command: str) -> str:
        """Runs a command."""
        ran.append(command)
        return "ok"

    with GuardHooks(guard_of(stage)):
        _, script = play(way, [shell], ("shell", {"command": "ls"}))
    assert ran == []
    assert "This tool may not be used." in script.told()


def test_crewai_asks_once_for_a_tool_that_hook_and_wrapper_guard(stage: Stage, ledger: Ledger, way: str) -> None:
    guard = guard_of(stage)
    with GuardHooks(guard), Person(stage, stage.approve):
        play(way, guard_tools(tools_of(ledger), guard), PAY)
    assert ledger.read() == [{"tool": "pay_invoice", **PAYMENT}]


def test_crewai_asks_about_a_tool_that_has_the_name_of_a_guarded_one(stage: Stage, ledger: Ledger, way: str) -> None:
    ran: list[str] = []

    @tool("close_ledger")
    def forgotten() -> str:
        """Closes the ledger."""
        ran.append("close_ledger")
        return "Closed"

    guard = guard_of(stage)
    guarded = guard_tools(tools_of(ledger)[2:], guard, registry=False)
    for tools in ([forgotten, *guarded], [*guarded, forgotten]):
        with GuardHooks(guard):
            play(way, tools, ("close_ledger", {}), ("close_ledger_2", {}))
    assert ran == []
    assert ledger.read() == []


def test_crewai_enforces_after_all_hooks_are_cleared(stage: Stage, ledger: Ledger, way: str) -> None:
    guard = guard_of(stage)
    GuardHooks(guard).install()
    guarded = guard_tools(tools_of(ledger), guard, registry=False)
    clear_all_global_hooks()
    _, script = play(way, guarded, ("close_ledger", {}))
    assert ledger.read() == []
    assert "This is not allowed." in script.told()


def test_crewai_enforces_a_direct_call(stage: Stage, ledger: Ledger) -> None:
    guarded = {each.name: each for each in guard_tools(tools_of(ledger), guard_of(stage, mode="reject"), registry=False)}
    assert guarded["read_invoice"].run(number="INV-7") == "Invoice INV-7: 500 EUR"
    assert "not allowed" in guarded["close_ledger"].run().message
    assert "A person must approve this first" in asyncio.run(guarded["pay_invoice"].arun(**PAYMENT)).message
    assert [entry["tool"] for entry in ledger.read()] == ["read_invoice"]


def test_crewai_never_takes_a_result_from_the_cache_without_asking(stage: Stage, ledger: Ledger, way: str) -> None:
    guarded = guard_tools(tools_of(ledger), guard_of(stage))
    play(way, guarded, READ, ("read_invoice", {"number": "INV-8"}), READ)
    assert [entry["number"] for entry in ledger.read()] == ["INV-7", "INV-8", "INV-7"]


def test_crewai_carries_an_approved_call_out_once_within_a_run(stage: Stage, ledger: Ledger, way: str) -> None:
    guarded = guard_tools(tools_of(ledger), guard_of(stage))
    with Person(stage, stage.approve):
        _, script = play(way, guarded, PAY, READ, PAY)
    assert [entry["tool"] for entry in ledger.read()] == ["pay_invoice", "read_invoice"]
    assert "It was not done again." in script.told()


def test_crewai_asks_again_for_the_same_call_of_another_kickoff(stage: Stage, ledger: Ledger, way: str) -> None:
    guarded = guard_tools(tools_of(ledger), guard_of(stage))
    for _ in range(2):
        with Person(stage, stage.approve):
            play(way, guarded, PAY)
    assert len(ledger.read()) == 2


def test_crewai_refuses_arguments_that_were_changed_after_the_approval(stage: Stage, ledger: Ledger, way: str) -> None:
    guarded = guard_tools(tools_of(ledger), guard_of(stage, mode="reject"), run_id="order-18")
    play(way, guarded, PAY)
    stage.approve(until(stage.waiting)[0])
    _, script = play(way, guarded, ("pay_invoice", {**PAYMENT, "amount": 501}))
    assert ledger.read() == []
    assert "A person must approve this first" in script.told()


def test_crewai_tells_the_model_how_a_person_approves_when_it_does_not_wait(stage: Stage, ledger: Ledger, way: str) -> None:
    """And the same call works once somebody has."""
    guarded = guard_tools(tools_of(ledger), guard_of(stage, mode="reject"), run_id="order-19")
    _, script = play(way, guarded, PAY)
    request = until(stage.waiting)[0]
    assert f"kubectl countersign approve {request}" in script.told()
    stage.approve(request)
    _, script = play(way, guarded, PAY)
    assert ledger.read() == [{"tool": "pay_invoice", **PAYMENT}]


def test_crewai_a_denial_is_never_the_final_answer(stage: Stage, ledger: Ledger, way: str) -> None:
    @tool("close_ledger", result_as_answer=True)
    def close_ledger() -> str:
        """Closes the ledger."""
        ledger.write("close_ledger")
        return "Closed"

    guarded = guard_tools([close_ledger], guard_of(stage), registry=False)
    answer, _ = play(way, guarded, ("close_ledger", {}))
    assert "done" in answer
    assert ledger.read() == []


def test_crewai_runs_an_asynchronous_tool_either_way(stage: Stage, ledger: Ledger, way: str) -> None:
    @tool("read_invoice")
    async def read_invoice(number: str) -> str:
        """Reads an invoice."""
        await asyncio.sleep(0)
        assert current_permit() is not None
        ledger.write("read_invoice", number=number)
        return f"Invoice {number}: 500 EUR"

    _, script = play(way, guard_tools([read_invoice], guard_of(stage)), READ)
    assert ledger.read() == [{"tool": "read_invoice", "number": "INV-7"}]
    assert "Invoice INV-7: 500 EUR" in script.told()


def test_crewai_a_tool_has_its_permit(stage: Stage, ledger: Ledger, way: str) -> None:
    seen: list[Any] = []

    @tool("read_invoice")
    def read_invoice(number: str) -> str:
        """Reads an invoice."""
        permit = current_permit()
        assert permit is not None
        seen.append((permit.operation.resource, threading.get_ident()))
        return "read"

    play(way, guard_tools([read_invoice], guard_of(stage)), READ)
    assert [resource for resource, _ in seen] == ["invoice:INV-7"]
    assert current_permit() is None


def test_crewai_calls_that_run_at_once_each_wait_for_their_own_person(stage: Stage, ledger: Ledger) -> None:
    other = {**PAYMENT, "number": "INV-8"}
    guarded = guard_tools(tools_of(ledger), guard_of(stage))

    def decide(_: str) -> None:
        for request in until(lambda: len(stage.waiting()) == 2 and stage.waiting()):
            stage.approve(request)

    with Person(stage, decide):
        play("kickoff-native", guarded, [PAY, ("pay_invoice", other)])
    assert sorted(entry["number"] for entry in ledger.read()) == ["INV-7", "INV-8"]


def test_crewai_a_tool_from_a_checkpoint_has_no_guard_and_does_not_run(stage: Stage, ledger: Ledger) -> None:
    pay = {each.name: each for each in guard_tools(tools_of(ledger), guard_of(stage))}["pay_invoice"]
    fields = ("name", "description", "args_schema")
    restored = GuardedTool.model_validate({name: getattr(pay, name) for name in fields})
    assert "It cannot be checked" in restored.run(**PAYMENT).message
    assert ledger.read() == []


def test_crewai_a_flow_is_told_no_before_anybody_is_asked(stage: Stage, ledger: Ledger, tmp_path: Path) -> None:
    guard = Guard(stage.client(), {**TOOLS, "pay_invoice": "ledger.close"}, mode="wait")
    pay = {each.name: each for each in guard_tools(tools_of(ledger), guard, registry=False)}["pay_invoice"]
    flow = flow_of(ApprovalProvider(guard), pay)(persistence=SQLiteFlowPersistence(str(tmp_path / "flows")))
    assert "This is not allowed." in str(flow.kickoff())
    assert ledger.read() == []
    assert stage.waiting() == []


def test_crewai_the_feedback_of_a_flow_is_no_approval(stage: Stage, ledger: Ledger, tmp_path: Path) -> None:
    """Whoever can resume a flow can say `approved`; what the tool may do, the authority says."""
    guard = guard_of(stage, mode="interrupt")
    pay = {each.name: each for each in guard_tools(tools_of(ledger), guard)}["pay_invoice"]
    payment = flow_of(ApprovalProvider(guard), pay)
    persistence = SQLiteFlowPersistence(str(tmp_path / "flows"))
    paused = payment(persistence=persistence).kickoff()
    assert isinstance(paused, HumanFeedbackPending)
    assert "A person must approve this first" in payment.from_pending(paused.context.flow_id, persistence).resume("approved")
    assert ledger.read() == []


def test_crewai_a_flow_stays_paused_while_nobody_can_be_asked(stage: Stage, ledger: Ledger, tmp_path: Path) -> None:
    guard = guard_of(stage, mode="interrupt")
    provider = ApprovalProvider(guard)
    pay = {each.name: each for each in guard_tools(tools_of(ledger), guard)}["pay_invoice"]
    payment = flow_of(provider, pay)
    persistence = SQLiteFlowPersistence(str(tmp_path / "flows"))
    stage.down()
    paused = payment(persistence=persistence).kickoff()
    assert "unavailable" in paused.callback_info
    stage.up()
    asked = resume_flow(payment.from_pending(paused.context.flow_id, persistence), provider)
    stage.approve(asked.callback_info["id"])
    stage.down()
    assert isinstance(resume_flow(payment.from_pending(paused.context.flow_id, persistence), provider), HumanFeedbackPending)
    stage.up()
    answer = until(lambda: _text(resume_flow(payment.from_pending(paused.context.flow_id, persistence), provider)))
    assert answer == "Paid 500 EUR on INV-7"
    assert len(ledger.read()) == 1


def _text(answer: Any) -> str | None:
    return None if isinstance(answer, HumanFeedbackPending) else str(answer)


def test_crewai_a_wrong_way_to_guard_is_said_when_it_is_written(stage: Stage, ledger: Ledger) -> None:
    tools = tools_of(ledger)
    guard = guard_of(stage)
    with pytest.raises(ConfigurationError, match="threads"):
        guard_tools(tools, Guard(AsyncClient(url="http://127.0.0.1:1"), TOOLS))
    with pytest.raises(ConfigurationError, match="two tools"):
        guard_tools([*tools, *tools], guard)
    with pytest.raises(ConfigurationError, match="guarded already"):
        guard_tools(guard_tools(tools, guard, registry=False), guard, registry=False)
    with pytest.raises(ConfigurationError, match="no tool of CrewAI"):
        guard_tools([print], guard)  # type: ignore[list-item]
    tools[0].name = "Read Invoice"
    with pytest.raises(ConfigurationError, match="read_invoice"):
        guard_tools(tools[:1], Guard(stage.client(), {"Read Invoice": "invoice.read"}))
