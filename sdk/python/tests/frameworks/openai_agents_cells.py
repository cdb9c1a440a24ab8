"""What must hold of the adapter for the OpenAI Agents SDK, whatever authority answers. The fixture `authority` is of the importer."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from agents import Agent, RunState, WebSearchTool, handoff
from agents.exceptions import ModelBehaviorError
from agents.sandbox import SandboxAgent
from agents.testing import assistant_message, function_call
from agents.tool_context import ToolContext
from agents.tool_guardrails import ToolGuardrailFunctionOutput, ToolInputGuardrail
from authorities import PAYMENT, Authority
from openai_agents_rig import EXAMPLE, PAID, Rig, call, codes, finished, process, says, told, tools_of

from countersign import ConfigurationError, Operation
from countersign.canonical import idempotency_key
from countersign.guard import Denied, Guard, Tool
from countersign.openai_agents import guard_agent, guard_tools


def test_openai_agents_registry_shows_the_model_what_the_agent_could_use(rig: Rig) -> None:
    rig.build().run()
    assert [tool.name for tool in rig.model.calls[0].tools] == ["read_invoice", "pay_invoice"]


def test_openai_agents_registry_unanswered_shows_the_mapped_tools_and_runs_none(plain: Rig) -> None:
    plain.build([call("read_invoice", {"number": "INV-7"})])
    plain.authority.down()
    result = plain.run()
    assert [tool.name for tool in plain.model.calls[0].tools] == ["read_invoice", "pay_invoice", "delete_mailbox"]
    assert (codes(result), plain.did()) == (["authority_unavailable"], [])


def test_openai_agents_allow_runs_the_tool_within_its_permit(rig: Rig) -> None:
    result = rig.build([call("read_invoice", {"number": "INV-7"})]).run()
    assert rig.did() == ["read INV-7 invoice.read"]
    assert (told(result), result.final_output, rig.authority.filed()) == (["ok: read INV-7"], "Done.", [])


class Shown:
    """Tools of which the model has heard, whatever it is shown now."""

    @staticmethod
    def all(rig: Rig) -> Rig:
        for tool in rig.agent.tools:
            tool.is_enabled = True
        return rig


def test_openai_agents_deny_is_told_to_the_model_and_nobody_is_asked(every: Rig) -> None:
    result = Shown.all(every.build([call("delete_mailbox", {"user": "alice"})])).run()
    assert (every.did(), every.authority.filed(), result.interruptions) == ([], [], [])
    assert codes(result) == ["capability_not_granted"]
    assert "not allowed" in told(result)[0]
    assert "Do not try again" in told(result)[0]
    assert result.final_output == "Done."


def test_openai_agents_deny_of_a_tool_that_is_in_no_map(plain: Rig) -> None:
    result = Shown.all(plain.build([call("wire_money", {"amount": 1})])).run()
    assert (codes(result), plain.did(), plain.authority.filed()) == (["unmapped"], [], [])


def test_openai_agents_deny_comes_before_the_application_asks_a_person(plain: Rig) -> None:
    of = tools_of(plain.ran)
    of[2].needs_approval = True
    result = Shown.all(plain.build([call("delete_mailbox", {"user": "alice"})], of=of)).run()
    assert (result.interruptions, codes(result), plain.did()) == ([], ["capability_not_granted"], [])


def test_openai_agents_allow_leaves_it_to_the_application_to_ask_a_person_too(plain: Rig) -> None:
    of = tools_of(plain.ran)
    of[0].needs_approval = True
    result = plain.build([call("read_invoice", {"number": "INV-7"})], of=of).run()
    assert len(result.interruptions) == 1
    state = result.to_state()
    state.approve(state.get_interruptions()[0])
    plain.run(state)
    assert plain.did() == ["read INV-7 invoice.read"]


def test_openai_agents_allow_leaves_the_answer_to_the_application_that_asks_too(plain: Rig) -> None:
    of = tools_of(plain.ran)
    of[0].needs_approval = of[1].needs_approval = True
    state = plain.build([call("read_invoice", {"number": "INV-7"}), call("pay_invoice", call_id="c2")], of=of).run().to_state()
    [waiting] = plain.settle(state)
    plain.authority.approve(waiting.request.id)
    assert plain.settle(state) == []
    state = plain.run(state).to_state()
    assert (len(state.get_interruptions()), plain.did()) == (2, [])
    for item in state.get_interruptions():
        state.approve(item)
    plain.run(state)
    assert sorted(plain.did()) == [PAID, "read INV-7 invoice.read"]


def test_openai_agents_jit_approve_interrupts_and_runs_once_somebody_approved(every: Rig) -> None:
    result = every.build([call("pay_invoice")]).run()
    assert [item.tool_name for item in result.interruptions] == ["pay_invoice"]
    state = result.to_state()
    [waiting] = every.settle(state)
    assert waiting.request.operation == Operation("payments.authorize", "invoice:INV-7", {"amount": 500, "currency": "EUR"})
    assert (every.authority.filed(), every.did()) == ([waiting.request.id], [])
    every.authority.approve(waiting.request.id)
    assert every.settle(state) == []
    result = every.run(state)
    assert (every.did(), result.final_output) == ([PAID], "Done.")
    assert every.authority.filed() == [waiting.request.id]


def test_openai_agents_jit_approve_is_waited_for(rig: Rig) -> None:
    rig.build([call("pay_invoice")], mode="wait")
    beside = rig.authority.soon(rig.authority.approve)
    result = rig.run()
    beside.join()
    assert (rig.did(), result.interruptions) == ([PAID], [])


def test_openai_agents_jit_approve_in_vain_waited_for_is_told_to_the_model(plain: Rig) -> None:
    result = plain.build([call("pay_invoice")], mode="wait", max_wait=0.2).run()
    assert (codes(result), plain.did()) == (["authorization_pending"], [])
    assert f"kubectl countersign approve {plain.authority.filed()[0]}" in told(result)[0]


def test_openai_agents_jit_approve_in_words_of_the_framework_approves_nothing(plain: Rig) -> None:
    state = plain.build([call("pay_invoice")]).run().to_state()
    state.approve(state.get_interruptions()[0], always_approve=True)
    result = plain.run(state)
    assert (plain.did(), "A person must approve this first" in told(result)[-1]) == ([], True)


def test_openai_agents_jit_approve_early_resumes_interrupt_again(plain: Rig) -> None:
    state = plain.build([call("pay_invoice")]).run().to_state()
    for _ in range(2):
        [waiting] = plain.settle(state)
        result = plain.run(state)
        assert len(result.interruptions) == 1
        state = result.to_state()
    plain.authority.approve(waiting.request.id)
    assert plain.settle(state) == []
    plain.run(state)
    assert (plain.did(), len(plain.authority.filed())) == ([PAID], 1)


def test_openai_agents_jit_approve_of_several_calls_at_once(rig: Rig) -> None:
    other = {**PAYMENT, "number": "INV-8"}
    turn = [call("read_invoice", {"number": "INV-7"}), call("pay_invoice", call_id="c2"), call("pay_invoice", other, "c3")]
    state = rig.build(turn).run().to_state()
    waiting = {each.item.call_id: each.request.id for each in rig.settle(state)}
    assert sorted(waiting) == ["c2", "c3"]
    rig.authority.approve(waiting["c3"])
    assert [each.item.call_id for each in rig.settle(state)] == ["c2"]
    state = rig.run(state).to_state()
    rig.authority.approve(waiting["c2"])
    assert rig.settle(state) == []
    result = rig.run(state)
    assert sorted(rig.did()) == [PAID, "paid INV-8 500 EUR payments.authorize", "read INV-7 invoice.read"]
    assert result.final_output == "Done."


def test_openai_agents_jit_deny_is_told_to_the_model(every: Rig) -> None:
    state = every.build([call("pay_invoice")]).run().to_state()
    [waiting] = every.settle(state)
    every.authority.deny(waiting.request.id)
    assert every.settle(state) == []
    result = every.run(state)
    assert (says(told(result)[-1], "approval_denied"), every.did()) == (True, [])
    assert "said no" in told(result)[-1]
    assert result.final_output == "Done."


def test_openai_agents_jit_deny_while_it_waits(plain: Rig) -> None:
    plain.build([call("pay_invoice")], mode="wait")
    beside = plain.authority.soon(plain.authority.deny)
    result = plain.run()
    beside.join()
    assert (codes(result), plain.did()) == (["approval_denied"], [])


def test_openai_agents_backend_down_runs_nothing_and_the_model_is_told(rig: Rig) -> None:
    rig.build([call("read_invoice", {"number": "INV-7"}), call("pay_invoice", call_id="c2")])
    rig.authority.down()
    result = rig.run()
    assert codes(result) == ["authority_unavailable"] * 2
    assert all("cannot be checked" in text for text in told(result))
    assert (rig.did(), result.interruptions, result.final_output) == ([], [], "Done.")


def test_openai_agents_backend_down_after_the_approval_leaves_the_run_interrupted(plain: Rig) -> None:
    state = plain.build([call("pay_invoice")]).run().to_state()
    plain.authority.approve(plain.settle(state)[0].request.id)
    plain.authority.down()
    with pytest.raises(Denied) as no:
        plain.settle(state)
    assert no.value.code == "authority_unavailable"
    assert (len(plain.run(state).interruptions), plain.did()) == (1, [])
    plain.authority.up()
    assert plain.settle(state) == []
    plain.run(state)
    assert plain.did() == [PAID]


def test_openai_agents_backend_down_when_the_call_wakes_runs_nothing(rig: Rig) -> None:
    state = rig.build([call("pay_invoice")]).run().to_state()
    rig.authority.approve(rig.settle(state)[0].request.id)
    assert rig.settle(state) == []
    rig.authority.down()
    result = rig.run(state)
    assert (says(told(result)[-1], "authority_unavailable"), rig.did()) == (True, [])


@pytest.mark.parametrize("mode", ["wait", "interrupt"])
def test_openai_agents_hook_raises_and_nothing_runs(rig: Rig, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.build([call("read_invoice", {"number": "INV-7"}), call("pay_invoice", call_id="c2")], mode=mode)

    def broken(*args: Any, **more: Any) -> Any:
        raise RuntimeError("the secret of INV-7")

    monkeypatch.setattr(Guard, "acheck", broken)
    monkeypatch.setattr(Guard, "apeek", broken)
    result = rig.run()
    assert codes(result) == ["guard_failed"] * 2
    assert not any("the secret" in text for text in told(result))
    assert (rig.did(), result.interruptions, result.final_output) == ([], [], "Done.")


def test_openai_agents_hook_raises_in_what_the_application_has_given(plain: Rig) -> None:
    def broken(of: Any) -> str:
        raise KeyError("the secret")

    result = plain.build([call("read_invoice", {"number": "INV-7"})], subject_token=broken).run()
    assert (codes(result), plain.did()) == (["guard_failed"], [])
    tools = {"read_invoice": Tool("invoice.read", resource=broken)}
    result = Shown.all(plain.build([call("read_invoice", {"number": "INV-7"})], tools=tools)).run()
    assert (codes(result), plain.did()) == (["guard_failed"], [])


def test_openai_agents_hook_raises_for_arguments_that_are_no_json(plain: Rig) -> None:
    result = plain.build([function_call("read_invoice", "{not json", call_id="c1")]).run()
    if result.interruptions:  # the SDK asks a person about what no policy can read
        state = result.to_state()
        assert plain.settle(state) == []
        result = plain.run(state)
    assert (says(told(result)[-1], "guard_failed"), plain.did()) == (True, [])


def test_openai_agents_arguments_changed_after_the_approval_are_not_approved(plain: Rig) -> None:
    state = plain.build([call("pay_invoice")]).run().to_state()
    plain.authority.approve(plain.settle(state)[0].request.id)
    kept = state.to_string()
    changed = plain.loop.run_until_complete(RunState.from_string(plain.agent, kept.replace("500", "900")))
    [waiting] = plain.settle(changed)
    assert waiting.request.operation.details()["parameters"]["amount"] == 900
    with pytest.raises(ModelBehaviorError):  # the SDK notices by itself
        plain.run(changed)
    assert plain.did() == []


def test_openai_agents_approval_expired_is_told_to_the_model(plain: Rig) -> None:
    operation = Operation("payments.authorize", "invoice:INV-7", {"amount": 500, "currency": "EUR"})
    key = idempotency_key(None, "c1", "pay_invoice", operation.details())
    with plain.authority.client() as client:
        request_id = client.request_approval(operation, expires_in=15, idempotency_key=key).id
    until = time.monotonic() + 16
    state = plain.build([call("pay_invoice")]).run().to_state()
    assert [each.request.id for each in plain.settle(state)] == [request_id]
    time.sleep(max(0.0, until - time.monotonic()))
    assert plain.settle(state) == []
    result = plain.run(state)
    assert (says(told(result)[-1], "approval_expired"), plain.did()) == (True, [])
    assert "in time" in told(result)[-1]


def test_openai_agents_runs_exactly_once_however_often_a_state_is_resumed(rig: Rig) -> None:
    kept = rig.build([call("pay_invoice")], [assistant_message("Done.")]).run().to_state().to_string()
    states = [rig.loop.run_until_complete(RunState.from_string(rig.agent, kept)) for _ in range(2)]
    rig.authority.approve(rig.settle(states[0])[0].request.id)
    results = []
    for state in states:
        assert rig.settle(state) == []
        results.append(rig.run(state))
    assert rig.did() == [PAID]
    assert says(told(results[1])[-1], "approval_used")
    assert "already carried out" in told(results[1])[-1]


def test_openai_agents_a_tool_that_is_called_past_the_guardrails_asks_all_the_same(plain: Rig) -> None:
    plain.build()
    said = {}
    for tool, args in (("delete_mailbox", '{"user": "alice"}'), ("read_invoice", '{"number": "INV-7"}')):
        [found] = [each for each in plain.agent.tools if each.name == tool]
        context = ToolContext(None, tool_name=tool, tool_call_id="c9", tool_arguments=args)
        said[tool] = plain.loop.run_until_complete(found.on_invoke_tool(context, args))
    assert "not allowed" in said["delete_mailbox"]
    assert plain.did() == ["read INV-7 invoice.read"]


def test_openai_agents_what_the_application_rejects_uses_no_approval_up(plain: Rig) -> None:
    of = tools_of(plain.ran)
    said: list[Any] = [ToolGuardrailFunctionOutput.reject_content("Not on Fridays.")]
    of[0].tool_input_guardrails = [ToolInputGuardrail(lambda data: said[0], "fridays")]
    result = plain.build([call("read_invoice", {"number": "INV-7"})], of=of).run()
    assert (told(result), plain.did()) == (["Not on Fridays."], [])


def test_openai_agents_agents_to_which_is_handed_over_are_guarded_too(plain: Rig) -> None:
    plain.build()
    second = Agent(name="second", tools=tools_of(plain.ran))
    first = Agent(name="first", tools=[], handoffs=[second])
    second.handoffs = [first]
    guarded = guard_agent(first, plain.guard)
    reached: Any = guarded.handoffs[0]
    assert reached.handoffs == [guarded]
    assert len(guard_tools(reached.tools, plain.guard)) == 4
    assert second.tools[0] is not reached.tools[0]
    assert second.handoffs == [first]


def test_openai_agents_what_would_not_go_through_the_guard_is_refused(plain: Rig) -> None:
    plain.build()
    bare = Agent(name="bare", tools=tools_of(plain.ran))
    guarded = guard_agent(bare, plain.guard)
    # An agent without tools of its own, behind which there are others.
    router = Agent(name="router", handoffs=[bare])
    further = Agent(name="further", handoffs=[handoff(router)])
    bad: list[dict[str, Any]] = [
        {"handoffs": [handoff(router)]},
        {"handoffs": [handoff(further)]},
        {"tools": [router.as_tool("ask", "Asks.")]},
        {"tools": [WebSearchTool()]},
        {"tools": [bare.as_tool("ask", "Asks.")]},
        {"handoffs": [handoff(bare)]},
        {"mcp_servers": [object()]},
    ]
    for each in bad:
        with pytest.raises(ConfigurationError):
            guard_agent(Agent(name="bot", **each), plain.guard)
    sandbox: Any = SandboxAgent(name="shell")
    hidden = [{"handoffs": [sandbox]}, {"handoffs": [handoff(sandbox)]}, {"tools": [sandbox.as_tool("ask", "Asks.")]}]
    for agent in [sandbox, *(Agent(name="bot", **each) for each in hidden)]:
        with pytest.raises(ConfigurationError):
            guard_agent(agent, plain.guard)
    behind = guard_agent(router, plain.guard)
    assert guard_agent(Agent(name="bot", tools=[behind.as_tool("ask", "Asks.")], handoffs=[handoff(behind)]), plain.guard).name == "bot"
    bare.mcp_servers.append(object())  # type: ignore[arg-type]
    assert guarded.mcp_servers == [], "what comes to the agent that was given comes not to this one"
    assert guard_agent(Agent(name="bot", tools=[guarded.as_tool("ask", "Asks.")], handoffs=[handoff(guarded)]), plain.guard).name == "bot"


# --- another process ----------------------------------------------------------------------------------------------------------------


def killed_while_it_waits(authority: Authority, directory: Path) -> str:
    """A process that has kept its state, and was killed while its call waits: the request."""
    first = process(authority, "start", directory)
    until = time.monotonic() + 300
    while not (directory / "state").exists():
        assert first.poll() is None
        assert time.monotonic() < until
        time.sleep(0.05)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    return authority.wait_for_request()


def test_openai_agents_restart_mid_wait_goes_on_in_another_process(authority: Authority, tmp_path: Path) -> None:
    request_id = killed_while_it_waits(authority, tmp_path)
    assert finished(process(authority, "resume", tmp_path)) == "waits"
    authority.approve(request_id)
    assert finished(process(authority, "resume", tmp_path)) == "Done."
    assert (tmp_path / "ran").read_text(encoding="utf-8").splitlines() == [PAID]
    assert authority.filed() == [request_id]


def test_openai_agents_restart_mid_wait_resumed_by_two_processes_at_once_runs_once(authority: Authority, tmp_path: Path) -> None:
    authority.approve(killed_while_it_waits(authority, tmp_path))
    both = [process(authority, "resume", tmp_path) for _ in range(2)]
    for each in both:
        each.communicate(timeout=300)
    assert (tmp_path / "ran").read_text(encoding="utf-8").splitlines() == [PAID]


def test_openai_agents_example_pays_what_was_approved(authority: Authority) -> None:
    environment = {**os.environ, **authority.environment, "PYTHONPATH": os.pathsep.join(sys.path), "OPENAI_AGENTS_DISABLE_TRACING": "1"}
    agent = subprocess.Popen([sys.executable, str(EXAMPLE)], env=environment, stdout=subprocess.PIPE, text=True)
    assert agent.stdout is not None
    said = agent.stdout.readline()
    [request_id] = authority.filed()
    assert said.strip() == f"pay_invoice waits for somebody to approve request {request_id}"
    authority.approve(request_id)
    assert finished(agent).splitlines()[-3:] == ["tool: INV-7: 500 EUR, due today", "tool: INV-7 is paid: 500 EUR", "Done."]
