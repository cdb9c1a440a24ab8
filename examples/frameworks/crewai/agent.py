"""A crew that reads an invoice, and a flow that pays it once a person has approved that. README.md says how to run it."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from typing import Any

os.environ.update(CREWAI_DISABLE_TELEMETRY="true", OTEL_SDK_DISABLED="true", CREWAI_TRACING_ENABLED="false")

from countersign import Client, Guard, Tool
from countersign.crewai import ApprovalProvider, GuardHooks, guard_tools, resume_flow, tool_call
from crewai import Agent, Crew, Task
from crewai.flow.async_feedback import HumanFeedbackPending
from crewai.flow.flow import Flow, listen, start
from crewai.flow.human_feedback import HumanFeedbackResult, human_feedback
from crewai.flow.persistence import SQLiteFlowPersistence
from crewai.llms.base_llm import BaseLLM
from crewai.tools import tool


@tool("read_invoice")
def read_invoice(number: str) -> str:
    """Reads an invoice."""
    return f"{number}: 500 EUR, due today"


@tool("pay_invoice")
def pay_invoice(number: str, amount: int, currency: str) -> str:
    """Pays an invoice."""
    return f"{number} is paid: {amount} {currency}"


@tool("delete_mailbox")
def delete_mailbox(user: str) -> str:
    """Deletes a mailbox, which nobody has granted."""
    return f"the mailbox of {user} is gone"


SCRIPT = [
    ("read_invoice", {"number": "INV-7"}),
    ("delete_mailbox", {"user": "alice"}),
    "500 EUR are due.",
]


class Scripted(BaseLLM):
    """Stands for a model, so that this runs without one: it says what the script says."""

    script: list[Any]

    def supports_function_calling(self) -> bool:
        return True

    def call(self, messages: Any, *args: Any, **more: Any) -> Any:
        if messages[-1]["role"] == "tool":
            print(f"tool: {messages[-1]['content']}")
        line = self.script.pop(0)
        if isinstance(line, str):
            return line
        return [{"id": "call", "type": "function", "function": {"name": line[0], "arguments": json.dumps(line[1])}}]


# ANCHOR: guard
guard = Guard(
    Client(),
    {
        "read_invoice": Tool("invoice.read", resource="invoice:{number}", parameters=None),
        "pay_invoice": Tool("payments.authorize", resource="invoice:{number}", parameters=["amount", "currency"]),
        "delete_mailbox": Tool("mailbox.delete", resource="mailbox:{user}", parameters=None),
    },
)
# Without delete_mailbox, because nobody has granted that.
tools = {each.name: each for each in guard_tools([read_invoice, pay_invoice, delete_mailbox], guard)}
GuardHooks(guard).install()
# ANCHOR_END: guard


# ANCHOR: flow
class Payment(Flow):
    """Asks for a payment, and makes it once somebody has approved."""

    @start()
    @human_feedback(message="May it be paid?", provider=ApprovalProvider(guard))
    def ask(self) -> dict[str, Any]:
        return tool_call("pay_invoice", number="INV-7", amount=500, currency="EUR")

    @listen(ask)
    def pay(self, asked: HumanFeedbackResult) -> str:
        pay_invoice = tools["pay_invoice"]
        return pay_invoice.format_output_for_agent(pay_invoice.run(**asked.output["args"]))


# ANCHOR_END: flow


def main(database: str) -> None:
    """Runs the crew, then the flow to its end. The flow is paused while it waits."""
    llm = Scripted(model="scripted", script=list(SCRIPT))
    # delete_mailbox is here without its guard, as a tool that somebody forgot: the hooks cover it.
    clerk = Agent(role="Clerk", goal="Find what is due", backstory="A clerk.", llm=llm, tools=[tools["read_invoice"], delete_mailbox])
    task = Task(description="What is due on INV-7?", expected_output="The amount.", agent=clerk)
    print(f"crew: {Crew(agents=[clerk], tasks=[task]).kickoff()}")
    # ANCHOR: resume
    persistence = SQLiteFlowPersistence(database)
    result = Payment(persistence=persistence).kickoff()
    while isinstance(result, HumanFeedbackPending):
        print(f"waits for somebody to approve request {result.callback_info.get('id')}", flush=True)
        time.sleep(3)  # or wait for the notification that somebody has decided
        # This could be another process: the flow is in the database.
        result = resume_flow(Payment.from_pending(result.context.flow_id, persistence), ApprovalProvider(guard))
    # ANCHOR_END: resume
    print(f"flow: {result}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else f"{tempfile.mkdtemp()}/crewai.db")
