"""A crew of one clerk with a scripted model, as the cells run it here and in other processes.

python crew_app.py LEDGER crew RUN_ID    a crew that pays, waiting for a person
python crew_app.py LEDGER flow           a flow that asks; prints its id
python crew_app.py LEDGER resume FLOW    goes on with that flow
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.update(CREWAI_DISABLE_TELEMETRY="true", OTEL_SDK_DISABLED="true", CREWAI_TRACING_ENABLED="false")

from acting import PAYMENT, TOOLS, Ledger
from crewai import Agent, Crew, Task
from crewai.flow.flow import Flow, listen, start
from crewai.flow.human_feedback import HumanFeedbackResult, human_feedback
from crewai.flow.persistence import SQLiteFlowPersistence
from crewai.llms.base_llm import BaseLLM
from crewai.tools import BaseTool, tool

from countersign import Client, Guard
from countersign.crewai import ApprovalProvider, guard_tools, resume_flow, tool_call


class Script(BaseLLM):
    """Says what stands in the script: calls of tools as `(name, arguments)`, else text."""

    lines: list[Any] = []
    native: bool = True
    #: The tools that it was told of, call by call, and the messages of the last one.
    offered: list[list[str]] = []
    heard: list[Any] = []

    def supports_function_calling(self) -> bool:
        return self.native

    def call(self, messages: Any, tools: Any = None, *args: Any, **kwargs: Any) -> Any:
        self.offered.append([each["function"]["name"] for each in tools or []])
        self.heard[:] = messages if isinstance(messages, list) else [{"content": messages}]
        line = self.lines.pop(0)
        if isinstance(line, str):
            return line if self.native else f"Thought: I know it.\nFinal Answer: {line}"
        calls = line if isinstance(line, list) else [line]
        if self.native:
            return [
                {"id": f"call-{len(self.offered)}-{n}", "type": "function", "function": {"name": name, "arguments": json.dumps(args)}}
                for n, (name, args) in enumerate(calls)
            ]
        name, arguments = calls[0]
        return f"Thought: I must.\nAction: {name}\nAction Input: {json.dumps(arguments)}"

    async def acall(self, messages: Any, tools: Any = None, *args: Any, **kwargs: Any) -> Any:
        return self.call(messages, tools)

    def told(self) -> str:
        """All that the model was told at last."""
        return "\n".join(str(message.get("content")) for message in self.heard)


def tools_of(ledger: Ledger) -> list[BaseTool]:
    """The tools of the cells, unguarded."""

    @tool("read_invoice")
    def read_invoice(number: str) -> str:
        """Reads an invoice."""
        ledger.write("read_invoice", number=number)
        return f"Invoice {number}: 500 EUR"

    @tool("pay_invoice")
    def pay_invoice(number: str, amount: int, currency: str) -> str:
        """Pays an invoice."""
        ledger.write("pay_invoice", number=number, amount=amount, currency=currency)
        return f"Paid {amount} {currency} on {number}"

    @tool("close_ledger")
    def close_ledger() -> str:
        """Closes the ledger."""
        ledger.write("close_ledger")
        return "Closed"

    return [read_invoice, pay_invoice, close_ledger]


def run_crew(tools: Sequence[BaseTool], script: Script, way: str = "kickoff") -> str:
    """One kickoff of a crew with these tools; what it says at the end."""
    clerk = Agent(role="Clerk", goal="Pay invoices", backstory="A clerk.", llm=script, tools=list(tools), max_iter=6, verbose=False)
    task = Task(description="Do what is due.", expected_output="What was done.", agent=clerk)
    crew = Crew(agents=[clerk], tasks=[task], verbose=False)
    if way == "akickoff":
        return str(asyncio.run(crew.akickoff()))
    return str(crew.kickoff())


def flow_of(provider: ApprovalProvider, pay_invoice: BaseTool) -> type[Flow]:
    """A flow that asks for a payment, and makes it once somebody has approved."""

    class Payment(Flow):
        @start()
        @human_feedback(message="May it be paid?", provider=provider)
        def ask(self) -> dict[str, Any]:
            return tool_call("pay_invoice", **PAYMENT)

        @listen(ask)
        def pay(self, asked: HumanFeedbackResult) -> str:
            return str(pay_invoice.format_output_for_agent(pay_invoice.run(**asked.output["args"])))

    return Payment


def main(ledger_path: str, what: str, which: str | None = None) -> Any:
    ledger = Ledger(Path(ledger_path))
    with Client() as client:
        guard = Guard(client, TOOLS, mode="wait", max_wait=60)
        guarded = guard_tools(tools_of(ledger), guard, run_id=which if what == "crew" else None)
        if what == "crew":
            script = Script(model="scripted", lines=[("pay_invoice", PAYMENT), "done"])
            return {"answer": run_crew(guarded, script), "told": script.told()}
        provider = ApprovalProvider(guard)
        payment = flow_of(provider, {each.name: each for each in guarded}["pay_invoice"])
        persistence = SQLiteFlowPersistence(ledger_path + ".flows")
        if what == "flow":
            paused = payment(persistence=persistence).kickoff()
            return {"flow": paused.context.flow_id, "request": paused.callback_info["id"]}
        return {"answer": str(resume_flow(payment.from_pending(which, persistence), provider))}


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
