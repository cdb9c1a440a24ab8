"""An agent of the OpenAI Agents SDK that reads an invoice, and pays it once a person has approved that. README.md says how to run it."""

from __future__ import annotations

import asyncio

from agents import Agent, RunConfig, Runner, RunState, function_tool
from agents.items import ToolCallOutputItem
from agents.testing import ScriptedModel, assistant_message, function_call
from countersign import AsyncClient, Guard, Tool
from countersign.openai_agents import guard_agent, settle


@function_tool
def read_invoice(number: str) -> str:
    """Reads an invoice."""
    return f"{number}: 500 EUR, due today"


@function_tool
def pay_invoice(number: str, amount: int, currency: str) -> str:
    """Pays an invoice."""
    return f"{number} is paid: {amount} {currency}"


#: Stands for a model, so that this runs without one: it says what is written here.
SCRIPT = [
    [function_call("read_invoice", {"number": "INV-7"}, call_id="call-1")],
    [function_call("pay_invoice", {"number": "INV-7", "amount": 500, "currency": "EUR"}, call_id="call-2")],
    [assistant_message("Done.")],
]


async def main() -> None:
    """Runs the agent to its end. A call that waits interrupts it meanwhile."""
    model, tools = ScriptedModel(SCRIPT), [read_invoice, pay_invoice]
    config = RunConfig(tracing_disabled=True)
    async with AsyncClient() as client:
        # ANCHOR: guard
        guard = Guard(
            client,
            {
                "read_invoice": Tool("invoice.read", resource="invoice:{number}", parameters=None),
                "pay_invoice": Tool("payments.authorize", resource="invoice:{number}", parameters=["amount", "currency"]),
            },
            mode="interrupt",
        )
        agent = guard_agent(Agent(name="Payments Bot", model=model, tools=tools), guard)
        # ANCHOR_END: guard
        # ANCHOR: resume
        result = await Runner.run(agent, "Pay invoice INV-7.", run_config=config)
        while result.interruptions:
            kept = result.to_state().to_string()  # to be kept, and gone on with in this process or another
            state = await RunState.from_string(agent, kept)
            for each in await settle(state, guard):
                print(f"{each.item.tool_name} waits for somebody to approve request {each.request.id}", flush=True)
                await asyncio.sleep(3)  # or wait for the notification that somebody has decided
            result = await Runner.run(agent, state, run_config=config)
        # ANCHOR_END: resume
    for item in result.new_items:
        if isinstance(item, ToolCallOutputItem):
            print(f"tool: {item.output}")
    print(result.final_output)


if __name__ == "__main__":
    asyncio.run(main())
