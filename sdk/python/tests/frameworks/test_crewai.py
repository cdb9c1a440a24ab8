"""CrewAI on the authority for tests. Run by `check-framework.sh crewai`, in an environment that has it."""
# ruff: noqa: F403, F405

from __future__ import annotations

import copy
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

if find_spec("crewai") is None:
    pytest.skip("run by check-framework.sh crewai", allow_module_level=True)

pytest.register_assert_rewrite("acting", "cells_crewai")

from acting import FakeStage
from cells_crewai import *
from crewai import Agent, Crew, Task
from crewai.tools.agent_tools.agent_tools import AgentTools
from pydantic import SecretStr, create_model

from countersign import Tool
from countersign.testing import FakeAuthority


@pytest.fixture
def stage(authority: FakeAuthority, tmp_path: Path) -> Iterator[FakeStage]:
    made = FakeStage(authority, tmp_path)
    yield made
    made.close()


def test_crewai_an_approval_that_nobody_gave_in_time_is_told_to_the_model(stage: FakeStage, ledger: Ledger, way: str) -> None:
    guarded = guard_tools(tools_of(ledger), guard_of(stage))
    with Person(stage, stage.authority.expire):
        _, script = play(way, guarded, PAY)
    assert ledger.read() == []
    assert "Nobody approved this in time." in script.told()


CLOSE: tuple[str, dict[str, Any]] = ("close_ledger", {})
DELEGATE = ("delegate_work_to_coworker", {"task": "Close it.", "context": "None.", "coworker": "Helper"})


def agent_of(role: str, tools: list[BaseTool], *lines: Any, **more: Any) -> Agent:
    """An agent whose model says these lines."""
    script = Script(model="scripted", lines=[*lines, "done"], native=more.pop("native", True))
    return Agent(role=role, goal="Order", backstory="A clerk.", llm=script, tools=tools, verbose=False, **more)


def crew_of(*agents: Agent, **more: Any) -> Crew:
    """A crew with one task for each of them."""
    tasks = [Task(description="Do what is due.", expected_output="What was done.", agent=agent) for agent in agents]
    return Crew(agents=list(agents), tasks=tasks, verbose=False, **more)


def test_crewai_a_copy_of_a_guarded_tool_is_guarded(stage: FakeStage, ledger: Ledger) -> None:
    close = guard_tools(tools_of(ledger)[2:], guard_of(stage), registry=False)[0]
    crew = crew_of(agent_of("Clerk", [close], CLOSE, "done", CLOSE))
    tools = [copy.copy(close), copy.deepcopy(close), copy.deepcopy([close])[0], close.model_copy(deep=True)]
    for each in [*tools, *crew.agents[0].copy().tools, *crew.copy().agents[0].tools]:
        assert isinstance(each, GuardedTool)
        assert "not allowed" in each.run().message
    crew.kickoff_for_each(inputs=[{}, {}])
    assert "This is not allowed." in crew.agents[0].llm.told()
    assert ledger.read() == []


def test_crewai_a_tool_that_delegates_to_an_agent_which_asks_nobody_is_refused(stage: FakeStage, ledger: Ledger) -> None:
    guard = Guard(stage.client(), {**TOOLS, DELEGATE[0]: Tool("invoice.read", resource="invoice:INV-7", parameters=None)})
    guarded = guard_tools(tools_of(ledger), guard, registry=False)
    for helper in (agent_of("Helper", [*guarded, *tools_of(ledger)]), agent_of("Helper", guarded, mcps=["https://mcp.example.com/mcp"])):
        with pytest.raises(ConfigurationError, match="Helper"):
            guard_tools(AgentTools([helper]).tools(), guard, registry=False)
    helper = agent_of("Helper", guarded, CLOSE)
    delegates = guard_tools(AgentTools([helper]).tools(), guard, registry=False)
    crew_of(agent_of("Boss", delegates, DELEGATE)).kickoff()
    assert "This is not allowed." in helper.llm.told()
    assert ledger.read() == []


def test_crewai_the_hooks_see_delegation_and_the_tools_behind_it(stage: FakeStage, ledger: Ledger) -> None:
    delegation = {DELEGATE[0]: Tool("invoice.read", resource="invoice:INV-7", parameters=None)}
    for mapped in ({}, delegation):
        boss, helper = agent_of("Boss", [], DELEGATE, allow_delegation=True), agent_of("Helper", tools_of(ledger), CLOSE)
        crew = Crew(agents=[boss, helper], tasks=[Task(description="Do it.", expected_output="It.", agent=boss)], verbose=False)
        with GuardHooks(Guard(stage.client(), {**TOOLS, **mapped})):
            crew.kickoff()
        assert ("This tool may not be used." in boss.llm.told()) == (not mapped)
        assert ("This is not allowed." in helper.llm.told()) == bool(mapped)
    assert ledger.read() == []


@pytest.mark.parametrize("native", [True, False])
def test_crewai_a_result_that_another_agent_left_in_the_cache_stands_for_no_call(stage: FakeStage, ledger: Ledger, native: bool) -> None:
    """The cache of a crew knows tools by name: a tool of the name that nobody guards fills it as well."""
    guard = guard_of(stage)
    reader, clerk = (agent_of(role, [], READ, native=native) for role in ("Reader", "Clerk"))
    reader.tools, clerk.tools = tools_of(ledger), guard_tools(tools_of(ledger), guard)
    crew = crew_of(reader, clerk, cache=True)
    crew.tasks[0].callback = lambda _: stage.authority.deny("invoice.read")
    with GuardHooks(guard):
        crew.kickoff()
    assert len(ledger.read()) == 1
    assert "Invoice INV-7: 500 EUR" in reader.llm.told()
    assert "This is not allowed." in clerk.llm.told()
    assert "Invoice INV-7: 500 EUR" not in clerk.llm.told()


def test_crewai_a_secret_is_no_argument_because_nobody_could_see_it(stage: FakeStage) -> None:
    """Else one would be approved, which is shown as asterisks, and another one used."""
    used: list[str] = []

    @tool("pay_invoice")
    def pay_invoice(number: str, pins: Any) -> str:
        """Pays an invoice."""
        used.append(pins[0].get_secret_value())
        return "Paid"

    pay_invoice.args_schema = create_model("Payment", number=(str, ...), pins=(list[SecretStr], ...))
    needs = Tool("payments.authorize", resource="invoice:{number}", parameters=["pins"])
    guard = Guard(stage.client(), {"pay_invoice": needs}, mode="reject")
    pay = guard_tools([pay_invoice], guard, run_id="order-20")[0]
    assert "It cannot be checked" in pay.run(number="INV-7", pins=["1111"]).message
    for request in stage.waiting():
        stage.approve(request)
    assert "It cannot be checked" in pay.run(number="INV-7", pins=["2222"]).message
    assert used == []


def test_crewai_a_tool_that_raises_is_run_once_for_one_approval(stage: FakeStage, way: str) -> None:
    """Also where only the hooks ask. Where the model writes calls as text, CrewAI runs what raises up to six times."""
    ran: list[int] = []

    def pay_invoice(number: str, amount: int, currency: str) -> str:
        """Pays an invoice."""
        ran.append(amount)
        raise TimeoutError("no answer came from the bank")

    async def pay_later(number: str, amount: int, currency: str) -> str:
        """Pays an invoice."""
        return pay_invoice(number, amount, currency)

    class Pay(BaseTool):
        name: str = "pay_invoice"
        description: str = "Pays an invoice."

        async def _run(self, number: str, amount: int, currency: str) -> str:
            return pay_invoice(number, amount, currency)

    guard = guard_of(stage)
    for unguarded in (tool("pay_invoice")(pay_invoice), tool("pay_invoice")(pay_later), Pay()):
        for tools in (guard_tools([unguarded], guard), [unguarded]):
            ran.clear()
            with GuardHooks(guard), Person(stage, stage.approve):
                _, script = play(way, tools, PAY)
            assert ran == [500], unguarded
    assert "no answer came from the bank" in script.told()
