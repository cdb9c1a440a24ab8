"""What would come to run past the guard of Google ADK, whatever authority answers."""

from __future__ import annotations

import json
from typing import Any

import adk_agent
import pytest
from adk_agent import Script, said
from adk_cells import DELETE, PAY, READ, Bench
from authorities import TOOLS
from google.adk.agents import LlmAgent
from google.adk.code_executors import BuiltInCodeExecutor
from google.adk.plugins.base_plugin import BasePlugin
from google.adk.tools import google_search, url_context
from google.adk.tools.agent_tool import AgentTool
from google.adk.tools.base_tool import BaseTool
from google.adk.tools.base_toolset import BaseToolset
from google.adk.tools.function_tool import FunctionTool
from google.genai import types

from countersign.adk import CountersignPlugin, pending_approvals
from countersign.guard import Tool

GRANTED = Tool("invoice.read", resource="invoice:INV-7")


def offered(bench: Bench, mapped: dict[str, Any], **agent: Any) -> list[list[str]]:
    """What the provider of the model would run, each time it was asked."""
    model = Script(model="gemini-2.5-flash")
    bench.run(bench.runner(bench.guard(tools={**TOOLS, **mapped}), **{"model": model, **agent}), "hello")
    return model.provided


@pytest.mark.parametrize(
    ("needs", "provided"),
    [
        (GRANTED, ["google_search"]),
        (Tool("payments.authorize", resource="invoice:INV-7"), []),
        (Tool("invoice.read", resource="invoice:{number}"), []),
        (Tool("invoice.read", resource="mailbox:alice"), []),
        ("mailbox.delete", []),
    ],
    ids=["granted", "needs approval", "depends on the resource", "another resource", "not granted"],
)
def test_adk_a_tool_that_the_provider_runs_is_left_in_only_if_it_is_allowed_at_once(bench: Bench, needs: Any, provided: list[str]) -> None:
    """Nobody asks before it runs: not for an approval either."""
    tools = [*adk_agent.tools_of(bench.journal), google_search]
    assert offered(bench, {"google_search": needs}, tools=tools) == [provided]


def test_adk_what_the_provider_runs_is_asked_about_each_for_itself(bench: Bench) -> None:
    given: dict[str, Any] = {"tools": [google_search, url_context], "code_executor": BuiltInCodeExecutor()}
    assert offered(bench, {}, **given) == [[]]
    assert offered(bench, {"url_context": GRANTED}, **given) == [["url_context"]]
    assert offered(bench, {"code_execution": GRANTED, "google_search": GRANTED}, **given) == [["code_execution", "google_search"]]


def test_adk_nothing_that_the_provider_runs_is_left_in_while_the_authority_is_away(bench: Bench) -> None:
    bench.authority.down()
    tools = [*adk_agent.tools_of(bench.journal), google_search]
    assert offered(bench, {"google_search": GRANTED}, tools=tools) == [[]]
    bench.authority.up()
    assert offered(bench, {"google_search": GRANTED}, tools=tools) == [["google_search"]]


def test_adk_one_tool_of_the_request_may_be_run_by_both_sides(bench: Bench) -> None:
    """What is taken out of one request is not taken out of the tool, which others have too."""
    both = types.Tool(
        google_search=types.GoogleSearch(), function_declarations=[types.FunctionDeclaration(name=name) for name in ("read_invoice", "x")]
    )
    model = Script()
    for tools in (TOOLS, {"google_search": GRANTED}):
        bench.run(bench.runner(bench.guard(tools=tools), model=model, tools=[Adds(both)]), "hello")
    assert (model.shown, model.provided) == ([["read_invoice"], []], [[], ["google_search"]])


def test_adk_a_function_that_the_client_of_the_model_would_call_itself_is_taken_out(bench: Bench) -> None:
    """The client of Gemini calls a plain function in a request without asking anybody."""

    def read_invoice(number: str) -> str:
        """Reads an invoice."""
        return number

    assert offered(bench, {}, tools=[Adds(read_invoice)]) == [[]]


class Adds(BaseTool):
    """Puts what it was given into the request of the model."""

    def __init__(self, given: Any) -> None:
        super().__init__(name="adds", description="Adds to the request.")
        self.given = given

    async def process_llm_request(self, *, tool_context: Any, llm_request: Any) -> None:
        llm_request.config.tools = [*(llm_request.config.tools or []), self.given]


def test_adk_the_plugin_stands_before_toolsets_and_the_tools_of_sub_agents(bench: Bench) -> None:
    class Given(BaseToolset):
        async def get_tools(self, readonly_context: Any = None) -> list[Any]:
            return [FunctionTool(tool) for tool in adk_agent.tools_of(bench.journal)]

    sub = LlmAgent(name="helper", model=bench.model, tools=[Given()])
    tools = {**TOOLS, "transfer_to_agent": Tool("invoice.read", resource=lambda _: "invoice:INV-7", parameters=None)}
    runner = bench.runner(bench.guard(tools=tools), sub_agents=[sub])
    bench.run(runner, 'transfer_to_agent {"agent_name": "helper"}')
    assert "pay_invoice" in bench.model.shown[-1]
    assert "This is not allowed." in said(bench.run(runner, DELETE))
    assert "This tool may not be used." in said(bench.run(runner, 'wire_money {"to": "mallory"}'))
    assert len(pending_approvals(bench.run(runner, PAY))) == 1
    assert bench.ran == []


@pytest.mark.parametrize("include_plugins", [True, False])
def test_adk_the_tools_of_an_agent_that_is_a_tool_are_asked_about_or_it_does_not_run(bench: Bench, include_plugins: bool) -> None:
    inner = LlmAgent(name="helper", model=Script(), tools=adk_agent.tools_of(bench.journal))
    tools = {**TOOLS, "helper": Tool("invoice.read", resource=lambda _: "invoice:INV-7", parameters=None)}
    runner = bench.runner(bench.guard(tools=tools), tools=[AgentTool(inner, include_plugins=include_plugins)])
    bench.run(runner, f"helper {json.dumps({'request': DELETE})}")
    assert bench.ran == []
    assert ("helper" in bench.model.shown[0], bool(inner.model.shown)) == (include_plugins, include_plugins)  # type: ignore[union-attr]


def test_adk_a_tool_that_no_plugin_asked_about_does_not_run(bench: Bench) -> None:
    """A tool that was run by permit once runs by permit only: also where somebody has forgotten the plugin."""
    tool = FunctionTool(adk_agent.tools_of(bench.journal)[0])
    bench.run(bench.runner(tools=[tool]), READ)
    events = bench.run(bench.runner(tools=[tool], plugins=[]), READ)
    assert len(bench.ran) == 1
    assert "not the one that was approved" in said(events)


def test_adk_a_plugin_that_answers_first_keeps_the_tool_from_running(bench: Bench) -> None:
    class Cache(BasePlugin):
        async def before_tool_callback(self, **_: Any) -> dict[str, Any]:
            return {"cached": True}

    events = bench.run(bench.runner(plugins=[Cache(name="cache"), CountersignPlugin(bench.guard())]), READ)
    assert "cached" in said(events)
    assert bench.ran == []
