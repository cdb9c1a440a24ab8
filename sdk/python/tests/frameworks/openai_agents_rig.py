"""An agent of the OpenAI Agents SDK for the cells, whatever authority it has.

Run as a program it is one process of that agent: `openai_agents_rig.py start|resume DIRECTORY`.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from agents import Agent, RunConfig, Runner, RunState, ToolExecutionConfig, function_tool
from agents.items import ToolCallOutputItem
from agents.testing import ScriptedModel, assistant_message, function_call
from authorities import PAYMENT, TOOLS, Authority, done

from countersign.guard import Denied, Guard
from countersign.openai_agents import guard_agent, settle

EXAMPLE = Path(__file__).parents[4] / "examples" / "frameworks" / "openai-agents" / "agent.py"
PAID = "paid INV-7 500 EUR payments.authorize"


def call(name: str, args: dict[str, Any] | None = None, call_id: str = "c1") -> Any:
    """A call of a tool, as a model writes it."""
    return function_call(name, PAYMENT if args is None else args, call_id=call_id)


def tools_of(ran: Path) -> list[Any]:
    """The tools of the tests. What they do is a line in a file, which outlives the process."""

    did = partial(done, ran)

    @function_tool
    def read_invoice(number: str) -> str:
        """Reads an invoice."""
        return did(f"read {number}")

    @function_tool
    async def pay_invoice(number: str, amount: int, currency: str) -> str:
        """Pays an invoice."""
        return did(f"paid {number} {amount} {currency}")

    @function_tool
    def delete_mailbox(user: str) -> str:
        """Deletes a mailbox."""
        return did(f"deleted {user}")

    @function_tool
    def wire_money(amount: int) -> str:
        """Sends money."""
        return did(f"wired {amount}")

    return [read_invoice, pay_invoice, delete_mailbox, wire_money]


def config(*, early: bool = False) -> RunConfig:
    """How a run is run: without anything that leaves the machine."""
    return RunConfig(tracing_disabled=True, tool_execution=ToolExecutionConfig(pre_approval_tool_input_guardrails=early))


class Rig:
    """An agent, run in one of the ways that the SDK knows."""

    def __init__(self, authority: Authority, ran: Path, way: str) -> None:
        self.authority, self.ran, self.way = authority, ran, way
        self.loop = asyncio.new_event_loop()
        asyncio.set_event_loop(self.loop)
        self.client: Any = authority.async_client() if way != "run_sync" else authority.client()
        self.config = config(early=way == "run, guardrails first")
        self.model = ScriptedModel([])
        self.guard: Any = None
        self.agent: Any = None

    def close(self) -> None:
        if self.way != "run_sync":
            self.loop.run_until_complete(self.client.aclose())
        else:
            self.client.close()
        self.loop.run_until_complete(self.loop.shutdown_default_executor())
        self.loop.close()

    def build(
        self, *turns: list[Any], mode: Any = "interrupt", max_wait: float = 30.0, tools: Any = None, of: Any = None, **more: Any
    ) -> Rig:
        """An agent whose model says this."""
        self.guard = Guard(self.client, TOOLS if tools is None else tools, mode=mode, max_wait=max_wait)
        self.model = ScriptedModel([*turns, [assistant_message("Done.")]])
        agent = Agent(name="bot", model=self.model, tools=tools_of(self.ran) if of is None else of)
        self.agent = guard_agent(agent, self.guard, **more)
        return self

    def run(self, given: Any = "Do your work.") -> Any:
        """Runs it until it ends or is interrupted."""
        if self.way == "run_sync":
            return Runner.run_sync(self.agent, given, run_config=self.config)
        if self.way == "run_streamed":
            return self.loop.run_until_complete(self._streamed(given))
        return self.loop.run_until_complete(Runner.run(self.agent, given, run_config=self.config))

    async def _streamed(self, given: Any) -> Any:
        result = Runner.run_streamed(self.agent, given, run_config=self.config)
        async for _ in result.stream_events():
            pass
        return result

    def settle(self, state: Any) -> list[Any]:
        """Wakes what was decided."""
        return self.loop.run_until_complete(settle(state, self.guard))

    def did(self) -> list[str]:
        """What the tools have done."""
        return self.ran.read_text(encoding="utf-8").splitlines() if self.ran.exists() else []


@pytest.fixture(params=["run", "run_sync", "run_streamed", "run, guardrails first"])
def every(request: pytest.FixtureRequest, authority: Authority, tmp_path: Path) -> Iterator[Rig]:
    """Every way there is."""
    made = Rig(authority, tmp_path / "ran", request.param)
    yield made
    made.close()


@pytest.fixture(params=["run", "run_sync"])
def rig(request: pytest.FixtureRequest, authority: Authority, tmp_path: Path) -> Iterator[Rig]:
    made = Rig(authority, tmp_path / "ran", request.param)
    yield made
    made.close()


@pytest.fixture
def plain(authority: Authority, tmp_path: Path) -> Iterator[Rig]:
    """One way, for what is the same in all."""
    made = Rig(authority, tmp_path / "ran", "run")
    yield made
    made.close()


def told(result: Any) -> list[str]:
    """What the model was told by its tools, in this run."""
    return [str(item.output) for item in result.new_items if isinstance(item, ToolCallOutputItem)]


def says(text: str, code: str) -> bool:
    """Whether it is what the model is told for this reason."""
    return text == Denied("", code=code).for_model()


def codes(result: Any) -> list[str]:
    """Why calls were refused, as the application sees it. The SDK keeps this of turns that were not interrupted."""
    found = [each.output.output_info for each in result.tool_input_guardrail_results if each.output.behavior["type"] != "allow"]
    return [info["countersign"]["code"] for info in found]


def process(authority: Authority, step: str, directory: Path) -> subprocess.Popen[str]:
    """A process of the agent."""
    environment = {**os.environ, **authority.environment, "PYTHONPATH": os.pathsep.join(sys.path), "OPENAI_AGENTS_DISABLE_TRACING": "1"}
    return subprocess.Popen([sys.executable, __file__, step, str(directory)], env=environment, stdout=subprocess.PIPE, text=True)


def finished(started: subprocess.Popen[str]) -> str:
    """What a process has said, once it is over."""
    said, _ = started.communicate(timeout=300)
    assert started.returncode == 0
    return said.strip()


async def main(step: str, directory: Path) -> None:
    """One process of the agent. The first keeps its state, and then waits for ever."""
    from countersign import AsyncClient

    kept = directory / "state"
    model = ScriptedModel([*([[call("pay_invoice")]] if step == "start" else []), [assistant_message("Done.")]])
    async with AsyncClient() as client:
        guard = Guard(client, TOOLS, mode="interrupt")
        agent = guard_agent(Agent(name="bot", model=model, tools=tools_of(directory / "ran")), guard)
        if step == "start":
            result = await Runner.run(agent, "Do your work.", run_config=config())
            (directory / "new").write_text(result.to_state().to_string(), encoding="utf-8")
            (directory / "new").rename(kept)
            await asyncio.sleep(600)
        state = await RunState.from_string(agent, kept.read_text(encoding="utf-8"))
        if await settle(state, guard):
            print("waits")
            return
        print((await Runner.run(agent, state, run_config=config())).final_output)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2])))
