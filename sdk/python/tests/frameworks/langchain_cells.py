"""What must hold of the adapter for LangChain, whatever authority answers. The fixture `authority` is of whoever imports this."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from authorities import PAYMENT, TOOLS, Authority
from langchain.agents.middleware import HumanInTheLoopMiddleware
from langchain_core.messages import AIMessage
from langchain_rig import (
    ASKED,
    EXAMPLE,
    LOOK,
    PAID,
    THREAD,
    Between,
    Changes,
    Rig,
    call,
    code,
    file_with_short_life,
    finished,
    graph,
    process,
    told,
)
from langgraph.types import Command

from countersign import Operation
from countersign.guard import Guard
from countersign.langchain import CountersignMiddleware, pending_approvals, resume_command


def test_langchain_registry_shows_the_model_what_the_agent_could_use(rig: Rig) -> None:
    rig.build().invoke()
    assert rig.model.offered == [["read_invoice", "pay_invoice"]]


def test_langchain_registry_unanswered_shows_the_mapped_tools_and_runs_none(plain: Rig) -> None:
    plain.build([call("read_invoice", {"number": "INV-7"})])
    plain.authority.down()
    result = plain.invoke()
    assert plain.model.offered[0] == ["read_invoice", "pay_invoice", "delete_mailbox"]
    assert (code(told(result)[0]), plain.did()) == ("authority_unavailable", [])


def test_langchain_allow_runs_the_tool_within_its_permit(rig: Rig) -> None:
    result = rig.build([call("read_invoice", {"number": "INV-7"})]).invoke()
    assert rig.did() == ["read INV-7 invoice.read"]
    assert [(m.content, m.status) for m in told(result)] == [("ok: read INV-7", "success")]
    assert (result["messages"][-1].content, rig.authority.filed()) == ("Done.", [])


def test_langchain_deny_is_told_to_the_model_and_nobody_is_asked(rig: Rig) -> None:
    result = rig.build([call("delete_mailbox", {"user": "alice"})]).invoke()
    assert (rig.did(), rig.authority.filed()) == ([], [])
    [message] = told(result)
    assert code(message) == "capability_not_granted"
    assert "not allowed" in message.content
    assert "Do not try again" in message.content
    assert result["messages"][-1].content == "Done."


def test_langchain_deny_of_a_tool_that_is_in_no_map(plain: Rig) -> None:
    result = plain.build([call("wire_money", {"amount": 1})]).invoke()
    assert (code(told(result)[0]), plain.did(), plain.authority.filed()) == ("unmapped", [], [])


def test_langchain_jit_approve_pauses_and_runs_once_somebody_approved(rig: Rig) -> None:
    paused = rig.build([call("pay_invoice")]).invoke()
    [waiting] = pending_approvals(paused)
    assert (waiting.tool, waiting.call_id, rig.did()) == ("pay_invoice", "c1", [])
    assert waiting.request.operation == Operation("payments.authorize", "invoice:INV-7", {"amount": 500, "currency": "EUR"})
    assert rig.authority.filed() == [waiting.request.id]
    rig.authority.approve(waiting.request.id)
    result = rig.invoke(resume_command(paused))
    assert rig.did() == [PAID]
    assert (told(result)[0].content, result["messages"][-1].content) == ("ok: paid INV-7 500 EUR", "Done.")
    assert rig.authority.filed() == [waiting.request.id]


def test_langchain_jit_approve_is_waited_for(rig: Rig) -> None:
    rig.build([call("pay_invoice")], mode="wait")
    beside = rig.authority.soon(rig.authority.approve)
    rig.invoke()
    beside.join()
    assert rig.did() == [PAID]


def test_langchain_jit_approve_is_waited_for_where_a_pause_could_not_be_resumed(rig: Rig) -> None:
    rig.build([call("pay_invoice")], mode="interrupt", saver=None)
    beside = rig.authority.soon(rig.authority.approve)
    result = rig.invoke()
    beside.join()
    assert (rig.did(), result["messages"][-1].content) == ([PAID], "Done.")


def test_langchain_jit_approve_shows_the_same_justification_where_a_pause_could_not_be_resumed(plain: Rig) -> None:
    guard = Guard(plain.client, TOOLS, mode="interrupt", max_wait=7.0, justification="the invoice is due")
    patient = CountersignMiddleware(guard)._gate._patient
    assert (patient.mode, patient.max_wait, patient.justification) == ("wait", 7.0, "the invoice is due")


def test_langchain_jit_approve_in_vain_waited_for_is_told_to_the_model(plain: Rig) -> None:
    result = plain.build([call("pay_invoice")], mode="wait", max_wait=0.2).invoke()
    [message] = told(result)
    assert (code(message), plain.did()) == ("authorization_pending", [])
    assert f"kubectl countersign approve {plain.authority.filed()[0]}" in message.content


def test_langchain_jit_approve_counts_for_the_same_call_made_again(plain: Rig) -> None:
    plain.build([call("pay_invoice")], [call("pay_invoice", call_id="c2")], mode="reject", before=[Between(plain)])
    result = plain.invoke()
    assert [message.status for message in told(result)] == ["error", "success"]
    assert (plain.did(), len(plain.authority.filed())) == ([PAID], 1)


def test_langchain_jit_approve_in_words_of_the_framework_approves_nothing(plain: Rig) -> None:
    paused = plain.build([call("pay_invoice")]).invoke()
    for said in (True, "approved", {"decisions": [{"type": "approve"}]}, {"type": "countersign_approval", "approved": True}):
        again = plain.invoke(Command(resume=said))
        assert [each.request.id for each in pending_approvals(again)] == [each.request.id for each in pending_approvals(paused)]
    assert plain.did() == []


def test_langchain_jit_approve_early_resumes_pause_again(plain: Rig) -> None:
    paused = plain.build([call("pay_invoice")]).invoke()
    for _ in range(2):
        paused = plain.invoke(resume_command(paused))
    [waiting] = pending_approvals(paused)
    plain.authority.approve(waiting.request.id)
    plain.invoke(resume_command(paused))
    assert (plain.did(), len(plain.authority.filed())) == ([PAID], 1)


def test_langchain_jit_approve_of_several_calls_at_once(rig: Rig) -> None:
    other = {**PAYMENT, "number": "INV-8"}
    turn = [call("read_invoice", {"number": "INV-7"}), call("pay_invoice", call_id="c2"), call("pay_invoice", other, "c3")]
    paused = rig.build(turn).invoke()
    waiting = {each.call_id: each.request.id for each in pending_approvals(paused)}
    assert sorted(waiting) == ["c2", "c3"]
    rig.authority.approve(waiting["c3"])
    paused = rig.invoke(resume_command(paused))
    assert [each.call_id for each in pending_approvals(paused)] == ["c2"]
    rig.authority.approve(waiting["c2"])
    result = rig.invoke(resume_command(paused))
    assert sorted(rig.did()) == [PAID, "paid INV-8 500 EUR payments.authorize", "read INV-7 invoice.read"]
    assert [message.status for message in told(result)] == ["success"] * 3


def test_langchain_jit_deny_is_told_to_the_model(rig: Rig) -> None:
    paused = rig.build([call("pay_invoice")]).invoke()
    rig.authority.deny(pending_approvals(paused)[0].request.id)
    result = rig.invoke(resume_command(paused))
    [message] = told(result)
    assert (code(message), rig.did()) == ("approval_denied", [])
    assert "said no" in message.content
    assert result["messages"][-1].content == "Done."


def test_langchain_jit_deny_while_it_waits(plain: Rig) -> None:
    plain.build([call("pay_invoice")], mode="wait")
    beside = plain.authority.soon(plain.authority.deny)
    result = plain.invoke()
    beside.join()
    assert (code(told(result)[0]), plain.did()) == ("approval_denied", [])


def test_langchain_backend_down_runs_nothing_and_the_model_is_told(rig: Rig) -> None:
    rig.build([call("read_invoice", {"number": "INV-7"}), call("pay_invoice", call_id="c2")])
    rig.authority.down()
    result = rig.invoke()
    assert [code(message) for message in told(result)] == ["authority_unavailable"] * 2
    assert all("cannot be checked" in message.content for message in told(result))
    assert (rig.did(), result["messages"][-1].content) == ([], "Done.")


def test_langchain_backend_down_after_the_approval_runs_nothing(plain: Rig) -> None:
    paused = plain.build([call("pay_invoice")]).invoke()
    plain.authority.approve(pending_approvals(paused)[0].request.id)
    plain.authority.down()
    result = plain.invoke(resume_command(paused))
    assert (code(told(result)[0]), plain.did()) == ("authority_unavailable", [])


def test_langchain_backend_down_for_a_while_is_waited_out(plain: Rig) -> None:
    plain.build([call("pay_invoice")], mode="wait")

    def outage(request_id: str) -> None:
        plain.authority.down()
        plain.authority.approve(request_id)
        time.sleep(0.3)
        plain.authority.up()

    beside = plain.authority.soon(outage)
    plain.invoke()
    beside.join()
    assert plain.did() == [PAID]


@pytest.mark.parametrize("mode", ["wait", "interrupt"])
def test_langchain_hook_raises_and_nothing_runs(rig: Rig, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.build([call("read_invoice", {"number": "INV-7"}), call("pay_invoice", call_id="c2")], mode=mode)

    def broken(*args: Any, **more: Any) -> Any:
        raise RuntimeError("the secret of INV-7")

    monkeypatch.setattr(Guard, "check", broken)
    monkeypatch.setattr(Guard, "acheck", broken)
    result = rig.invoke()
    assert [code(message) for message in told(result)] == ["guard_failed"] * 2
    assert "the secret" not in str(result)
    assert (rig.did(), result["messages"][-1].content) == ([], "Done.")


def test_langchain_hook_raises_in_what_the_application_has_given(plain: Rig) -> None:
    def broken(request: Any) -> str:
        raise KeyError("the secret")

    result = plain.build([call("read_invoice", {"number": "INV-7"})], subject_token=broken).invoke()
    assert (code(told(result)[0]), plain.did()) == ("guard_failed", [])
    tools = {"read_invoice": TOOLS["pay_invoice"].__class__("invoice.read", resource=broken)}
    result = plain.build([call("read_invoice", {"number": "INV-7"})], tools=tools).invoke(config={"configurable": {"thread_id": "t2"}})
    assert (code(told(result)[0]), plain.did()) == ("guard_failed", [])


def test_langchain_arguments_changed_after_the_approval_are_refused(rig: Rig) -> None:
    changes = Changes()
    paused = rig.build([call("pay_invoice")], before=[changes]).invoke()
    rig.authority.approve(pending_approvals(paused)[0].request.id)
    changes.amount = 900
    result = rig.invoke(resume_command(paused))
    [message] = told(result)
    assert (code(message), rig.did()) == ("approval_mismatch", [])
    assert "not the one that was approved" in message.content


def test_langchain_arguments_changed_after_the_approval_need_another_where_nobody_says_which(plain: Rig) -> None:
    changes = Changes()
    paused = plain.build([call("pay_invoice")], before=[changes]).invoke()
    plain.authority.approve(pending_approvals(paused)[0].request.id)
    changes.amount = 900
    again = plain.invoke(Command(resume=True))
    [waiting] = pending_approvals(again)
    assert waiting.request.operation is not None
    assert waiting.request.operation.details()["parameters"]["amount"] == 900
    assert plain.did() == []


def test_langchain_arguments_that_a_person_edited_are_those_that_are_approved(plain: Rig) -> None:
    people = HumanInTheLoopMiddleware(interrupt_on={"pay_invoice": True})
    asked = plain.build([call("pay_invoice")], before=[people]).invoke()
    assert pending_approvals(asked) == []
    edited = {"name": "pay_invoice", "args": {**PAYMENT, "amount": 20}}
    paused = plain.invoke(Command(resume={"decisions": [{"type": "edit", "edited_action": edited}]}))
    [waiting] = pending_approvals(paused)
    assert waiting.request.operation is not None
    assert waiting.request.operation.details()["parameters"]["amount"] == 20
    plain.authority.approve(waiting.request.id)
    plain.invoke(resume_command(paused))
    assert plain.did() == ["paid INV-7 20 EUR payments.authorize"]


def test_langchain_approval_expired_is_told_to_the_model(plain: Rig) -> None:
    request_id = file_with_short_life(plain, 15)
    until = time.monotonic() + 16
    paused = plain.build([call("pay_invoice")]).invoke()
    assert [each.request.id for each in pending_approvals(paused)] == [request_id]
    time.sleep(max(0.0, until - time.monotonic()))
    result = plain.invoke(resume_command(paused))
    assert (code(told(result)[0]), plain.did()) == ("approval_expired", [])
    assert "in time" in told(result)[0].content


def test_langchain_runs_exactly_once_however_often_a_checkpoint_is_resumed(rig: Rig) -> None:
    paused = rig.build([call("pay_invoice")]).invoke()
    rig.authority.approve(pending_approvals(paused)[0].request.id)
    before = rig.agent.get_state(THREAD).config
    rig.invoke(resume_command(paused))
    result = rig.invoke(resume_command(paused), before)
    assert rig.did() == [PAID]
    assert code(told(result)[0]) == "approval_used"
    assert "already carried out" in told(result)[0].content


def test_langchain_the_same_call_in_another_thread_is_another_call(plain: Rig) -> None:
    paused = plain.build([call("pay_invoice")]).invoke()
    plain.authority.approve(pending_approvals(paused)[0].request.id)
    plain.invoke(resume_command(paused))
    paused = plain.invoke(config={"configurable": {"thread_id": "t2"}})
    assert len(pending_approvals(paused)) == 1
    assert (plain.did(), len(plain.authority.filed())) == ([PAID], 2)


def test_langchain_asyncio_guard_in_a_synchronous_run_runs_nothing(authority: Authority, tmp_path: Path) -> None:
    rig = Rig(authority, tmp_path / "ran", "ainvoke")
    try:
        rig.build([call("read_invoice", {"number": "INV-7"})], saver=None)
        result = rig.agent.invoke(ASKED)
        assert (code(told(result)[0]), rig.did()) == ("guard_failed", [])
    finally:
        rig.close()


def test_langchain_allow_in_asyncio_with_a_client_for_threads(authority: Authority, tmp_path: Path) -> None:
    rig = Rig(authority, tmp_path / "ran", "ainvoke with threads")
    try:
        rig.build([call("read_invoice", {"number": "INV-7"})]).invoke()
        assert rig.did() == ["read INV-7 invoice.read"]
    finally:
        rig.close()


# --- a graph of one's own -----------------------------------------------------------------------------------------------------------


def test_langchain_allow_and_deny_in_a_tool_node(rig: Rig) -> None:
    graph(rig.build())
    denied = [call("delete_mailbox", {"user": "alice"}, "c2"), call("wire_money", {"amount": 1}, "c3")]
    result = rig.invoke({"messages": [AIMessage("", tool_calls=[call("read_invoice", {"number": "INV-7"}), *denied])]})
    assert rig.did() == ["read INV-7 invoice.read"]
    assert [code(message) for message in told(result)[1:]] == ["capability_not_granted", "unmapped"]


def test_langchain_jit_approve_in_a_tool_node_runs_once(rig: Rig) -> None:
    graph(rig.build())
    paused = rig.invoke({"messages": [AIMessage("", tool_calls=[call("pay_invoice")])]})
    rig.authority.approve(pending_approvals(paused)[0].request.id)
    result = rig.invoke(resume_command(paused))
    assert (rig.did(), told(result)[0].status) == ([PAID], "success")


def test_langchain_jit_approve_of_several_calls_in_one_tool_node_runs_each_at_most_once(plain: Rig) -> None:
    graph(plain.build())
    other = {**PAYMENT, "number": "INV-8"}
    paused = plain.invoke({"messages": [AIMessage("", tool_calls=[call("pay_invoice"), call("pay_invoice", other, "c2")])]})
    approved: set[str] = set()
    while waiting := {each.request.id for each in pending_approvals(paused)} - approved:
        for request_id in waiting:
            plain.authority.approve(request_id)
        approved |= waiting
        paused = plain.invoke(resume_command(paused))
    did = plain.did()
    assert len(did) == len(set(did))
    assert set(did) <= {PAID, "paid INV-8 500 EUR payments.authorize"}


# --- another process ----------------------------------------------------------------------------------------------------------------


def test_langchain_restart_mid_wait_goes_on_in_another_process(authority: Authority, tmp_path: Path) -> None:
    first = process(authority, "start-waiting", tmp_path)
    request_id = authority.wait_for_request(300)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    time.sleep(LOOK)  # what the dead process has still asked must not be answered with the one token
    assert not (tmp_path / "ran").exists()
    authority.approve(request_id)
    assert finished(process(authority, "go-on", tmp_path)) == "Done."
    assert (tmp_path / "ran").read_text(encoding="utf-8").splitlines() == [PAID]
    assert authority.filed() == [request_id]


def test_langchain_restart_mid_wait_of_a_pause_is_resumed_by_another_process(authority: Authority, tmp_path: Path) -> None:
    assert finished(process(authority, "start", tmp_path)) == "paused"
    authority.approve(authority.wait_for_request())
    assert finished(process(authority, "resume", tmp_path)) == "Done."
    assert (tmp_path / "ran").read_text(encoding="utf-8").splitlines() == [PAID]
    assert len(authority.filed()) == 1


def test_langchain_restart_mid_wait_resumed_by_two_processes_at_once_runs_once(authority: Authority, tmp_path: Path) -> None:
    assert finished(process(authority, "start", tmp_path)) == "paused"
    authority.approve(authority.wait_for_request())
    both = [process(authority, "resume", tmp_path) for _ in range(2)]
    for each in both:
        each.communicate(timeout=300)
    assert (tmp_path / "ran").read_text(encoding="utf-8").splitlines() == [PAID]


def test_langchain_example_pays_what_was_approved_and_deletes_nothing(authority: Authority) -> None:
    environment = {**os.environ, **authority.environment, "PYTHONPATH": os.pathsep.join(sys.path), "LANGSMITH_TRACING": "false"}
    agent = subprocess.Popen([sys.executable, str(EXAMPLE)], env=environment, stdout=subprocess.PIPE, text=True)
    assert agent.stdout is not None
    first = agent.stdout.readline()
    [request_id] = authority.filed()
    assert first.strip() == f"pay_invoice waits for somebody to approve request {request_id}"
    authority.approve(request_id)
    said = finished(agent)
    assert "tool: INV-7: 500 EUR, due today" in said
    assert "tool: This is not allowed." in said
    assert "tool: INV-7 is paid: 500 EUR" in said
