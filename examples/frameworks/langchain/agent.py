"""An agent of LangChain that reads an invoice, and pays it once a person has approved that. README.md says how to run it."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import Any

from countersign import Client, Guard, Tool
from countersign.langchain import (
    CountersignMiddleware,
    pending_approvals,
    resume_command,
)
from langchain.agents import create_agent
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver


@tool
def read_invoice(number: str) -> str:
    """Reads an invoice."""
    return f"{number}: 500 EUR, due today"


@tool
def pay_invoice(number: str, amount: int, currency: str) -> str:
    """Pays an invoice."""
    return f"{number} is paid: {amount} {currency}"


@tool
def delete_mailbox(user: str) -> str:
    """Deletes a mailbox, which nobody has granted."""
    return f"the mailbox of {user} is gone"


SCRIPT = [
    ("read_invoice", {"number": "INV-7"}),
    ("delete_mailbox", {"user": "alice"}),
    ("pay_invoice", {"number": "INV-7", "amount": 500, "currency": "EUR"}),
]


class Scripted(BaseChatModel):
    """Stands for a model, so that this runs without one: it says what the script says."""

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(self, tools: Sequence[Any], **more: Any) -> Scripted:
        return self

    def _generate(self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **more: Any) -> ChatResult:
        said = sum(isinstance(message, AIMessage) for message in messages)
        calls = [{"name": name, "args": args, "id": f"call-{said}", "type": "tool_call"} for name, args in SCRIPT[said : said + 1]]
        return ChatResult(generations=[ChatGeneration(message=AIMessage("" if calls else "Done.", tool_calls=calls))])


def main() -> None:
    """Runs the agent to its end. A call that waits pauses it meanwhile."""
    thread: Any = {"configurable": {"thread_id": sys.argv[1] if len(sys.argv) > 1 else str(time.time_ns())}}
    model, tools = Scripted(), [read_invoice, pay_invoice, delete_mailbox]
    # ANCHOR: guard
    guard = Guard(
        Client(),
        {
            "read_invoice": Tool("invoice.read", resource="invoice:{number}", parameters=None),
            "pay_invoice": Tool("payments.authorize", resource="invoice:{number}", parameters=["amount", "currency"]),
            "delete_mailbox": Tool("mailbox.delete", resource="mailbox:{user}"),
        },
        mode="interrupt",
    )
    agent = create_agent(model, tools, middleware=[CountersignMiddleware(guard)], checkpointer=InMemorySaver())
    # ANCHOR_END: guard
    # ANCHOR: resume
    result = agent.invoke({"messages": [{"role": "user", "content": "Pay invoice INV-7."}]}, thread)
    while waiting := pending_approvals(result):
        for each in waiting:
            print(f"{each.tool} waits for somebody to approve request {each.request.id}", flush=True)
        time.sleep(3)  # or wait for the notification that somebody has decided, in this process or another
        result = agent.invoke(resume_command(result), thread)
    # ANCHOR_END: resume
    for message in result["messages"]:
        if message.text:
            print(f"{message.type}: {message.text}")


if __name__ == "__main__":
    main()
