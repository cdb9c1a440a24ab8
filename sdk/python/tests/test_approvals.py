"""Questions, and a person's approval."""

from __future__ import annotations

import json
import pickle
import threading
import time
from typing import Any

import pytest

from countersign import (
    AccessDenied,
    AlreadyCompleted,
    ApprovalDenied,
    ApprovalExpired,
    ApprovalPending,
    ApprovalRequest,
    ApprovalUsed,
    InvalidRequest,
    InvalidScope,
    Operation,
    Sidecar,
    Unavailable,
)
from countersign import _waiting as waiting
from countersign.testing import FakeAuthority
from countersign.testing.server import Answer

PAY = Operation("payments.authorize", "invoice:INV-7", {"amount": 500, "currency": "EUR"})


@pytest.fixture(params=["direct", "sidecar"])
def asking(request: pytest.FixtureRequest, client_of: Any, authority: FakeAuthority) -> Any:
    """A client by each way to the authority."""
    authority.allow("document.read")
    if request.param == "sidecar":
        return client_of(credential=Sidecar(authority.sidecar_url), timeout=5.0)
    return client_of(url=authority.url, credential=lambda: "a.b.c", timeout=5.0)


def test_a_decision_says_yes_or_no_and_why(asking: Any, authority: FakeAuthority) -> None:
    authority.deny("document.delete", code="condition_unmet", message="not on Sundays")
    authority.require_approval("payments.authorize")
    yes = asking.evaluate(Operation("document.read", "document:a"))
    assert yes.allowed
    assert yes.evaluation_id
    no = asking.evaluate(Operation("document.delete"))
    assert not no.allowed
    assert no.reason is not None
    assert (no.reason.code, no.reason.message, no.requestable) == ("condition_unmet", "not on Sundays", False)
    perhaps = asking.evaluate(PAY)
    assert not perhaps.allowed
    assert perhaps.requestable


def test_a_decision_is_no_bool(asking: Any) -> None:
    decision = asking.evaluate(Operation("document.delete"))
    with pytest.raises(TypeError, match="allowed"):
        bool(decision)
    with pytest.raises(TypeError, match="allowed"):
        bool(asking.ask("may I?"))


def test_an_answer_without_a_decision_is_no_answer(asking: Any, authority: FakeAuthority) -> None:
    authority.fail(200, path="/access/v1/evaluation")
    with pytest.raises(Unavailable, match="decision"):
        asking.evaluate(PAY)


def test_many_questions_are_asked_a_hundred_at_a_time(asking: Any, authority: FakeAuthority) -> None:
    operations = [Operation("document.read", f"document:{n}") if n % 2 else Operation("no.such", f"x:{n}") for n in range(250)]
    decisions = asking.evaluate_many(operations)
    assert [d.allowed for d in decisions] == [bool(n % 2) for n in range(250)]
    assert authority.count("/access/v1/evaluations") == 3


def test_capabilities_are_those_that_need_nobody(asking: Any, authority: FakeAuthority) -> None:
    authority.allow("web.search")
    authority.require_approval("payments.authorize")
    authority.allow("refund.issue", resource="order:O-*")
    assert asking.capabilities() == ["document.read", "web.search"]
    assert asking.capabilities("order:O-1") == ["document.read", "refund.issue", "web.search"]


def test_a_question_in_plain_words_shows_how_it_was_read(asking: Any) -> None:
    yes = asking.ask("may I document.read ?")
    assert yes.allowed
    assert [part.capability for part in yes.interpretation] == ["document.read"]
    no = asking.ask("gibberish")
    assert not no.allowed
    assert no.unresolved == ("gibberish",)


def test_a_person_approves_and_the_token_is_for_that_alone(asking: Any, authority: FakeAuthority) -> None:
    authority.require_approval("payments.authorize")
    request = asking.request_approval(PAY, justification="It is due.", expires_in=60)
    assert authority.approvals[request.id].justification == "It is due."
    assert request.expires_at is not None
    assert 50 < request.expires_at - time.time() <= 61
    with pytest.raises(ApprovalPending) as pending:
        asking.approval(request)
    assert pending.value.request == request
    authority.approve(request.id)
    token = asking.approval(request, wait=5)
    (details,) = token.claims()["authorization_details"]
    assert details["jit_request"] == request.id
    assert (details["resource"], details["parameters"]) == (PAY.resource, PAY.parameters)
    assert asking.approval(request.id, wait=5) == token, "a lost answer burns no approval"
    asking.complete(token)
    with pytest.raises(AlreadyCompleted):
        asking.complete(token)
    with pytest.raises(ApprovalUsed):
        asking.approval(request.id, wait=5)


@pytest.mark.parametrize(("what", "error"), [("deny_request", ApprovalDenied), ("expire", ApprovalExpired), ("withdraw", ApprovalDenied)])
def test_what_is_not_approved_is_told_while_one_waits(asking: Any, authority: FakeAuthority, what: str, error: type) -> None:
    authority.require_approval("payments.authorize")
    request = asking.request_approval(PAY)
    if what == "withdraw":
        asking.withdraw(request)
    else:
        threading.Timer(0.3, getattr(authority, what), [request.id]).start()
    with pytest.raises(error):
        asking.wait_for_approval(request, timeout=10)


def test_a_wait_ends_when_it_was_said_to(asking: Any, authority: FakeAuthority) -> None:
    authority.require_approval("payments.authorize")
    request = asking.request_approval(PAY)
    begun = time.monotonic()
    with pytest.raises(ApprovalPending) as pending:
        asking.wait_for_approval(request, timeout=1.2)
    assert 0.9 < time.monotonic() - begun < 3
    assert pending.value.retry_after is not None


def test_nobody_looks_more_often_than_allowed(client_of: Any, authority: FakeAuthority) -> None:
    authority.interval = 0.5
    authority.require_approval("payments.authorize")
    client = client_of(url=authority.url, credential=lambda: "a.b.c")
    client.core._name = authority.agent
    request = client.request_approval(PAY)
    with pytest.raises(ApprovalPending):
        client.approval(request)
    before = authority.count("/oauth2/token")
    for _ in range(20):
        with pytest.raises(ApprovalPending) as pending:
            client.approval(request)
        assert pending.value.code == "authorization_pending"
    assert authority.count("/oauth2/token") == before, "it is said without asking"
    assert 0 < pending.value.retry_after <= 0.5
    time.sleep(0.5)
    with pytest.raises(ApprovalPending):
        client.approval(request)
    assert authority.count("/oauth2/token") == before + 1


def test_who_is_told_to_slow_down_pauses_longer_from_then_on(client_of: Any, authority: FakeAuthority) -> None:
    authority.require_approval("payments.authorize")
    client = client_of(url=authority.url, credential=lambda: "a.b.c")
    client.core._name = authority.agent
    request = client.request_approval(PAY)
    authority.approvals[request.id].polled_at = time.monotonic() + 100
    with pytest.raises(ApprovalPending) as pending:
        client.approval(request)
    assert pending.value.retry_after > 4


def test_another_process_goes_on_with_a_request(asking: Any, authority: FakeAuthority) -> None:
    authority.require_approval("payments.authorize")
    request = asking.request_approval(PAY)
    text = json.dumps(request.to_dict())
    assert ApprovalRequest.from_dict(json.loads(text)) == request
    assert pickle.loads(pickle.dumps(request)) == request
    authority.approve(request.id)
    assert asking.approval(ApprovalRequest.from_dict(json.loads(text))).scope == {"payments.authorize"}
    with pytest.raises(InvalidRequest):
        ApprovalRequest.from_dict({"id": 5})


def test_the_same_key_is_the_same_request(asking: Any, authority: FakeAuthority) -> None:
    authority.require_approval("payments.authorize")
    one, other = asking.request_approval(PAY, idempotency_key="k1"), asking.request_approval(PAY, idempotency_key="k1")
    assert one.id == other.id
    assert asking.request_approval(PAY, idempotency_key="k2").id != one.id
    with pytest.raises(InvalidRequest):
        asking.request_approval(Operation("payments.authorize", "invoice:INV-8"), idempotency_key="k1")


def test_whoever_was_called_asks_for_whom_it_was_called(asking: Any, authority: FakeAuthority) -> None:
    authority.require_approval("payments.authorize")
    called_with = authority.token_for("x", audience=authority.agent, agent="agent:test/caller", user="alice")
    request = asking.request_approval(PAY, subject_token=called_with)
    authority.approve(request.id)
    assert asking.approval(request).claims()["sub"] == "user:alice"
    assert "login_hint" not in authority.requests[0].body


def test_require_approval_asks_nobody_where_nobody_could_allow_it(asking: Any, authority: FakeAuthority) -> None:
    with pytest.raises(AccessDenied) as denied:
        asking.require_approval(PAY)
    assert denied.value.code == "capability_not_granted"
    assert denied.value.evaluation_id
    assert authority.approvals == {}


def test_require_approval_waits_for_the_person(asking: Any, authority: FakeAuthority) -> None:
    authority.require_approval("payments.authorize")
    threading.Thread(target=lambda: authority.approve(authority.wait_for_request().id)).start()
    token = asking.require_approval(PAY, timeout=10)
    assert token.claims()["authorization_details"][0]["resource"] == PAY.resource


def test_require_approval_can_be_gone_on_with_later(asking: Any, authority: FakeAuthority) -> None:
    authority.require_approval("payments.authorize")
    with pytest.raises(ApprovalPending) as pending:
        asking.require_approval(PAY, mode="interrupt", idempotency_key="call-1")
    authority.approve(pending.value.request.id)
    time.sleep(authority.interval)
    assert asking.require_approval(PAY, mode="interrupt", idempotency_key="call-1").scope == {"payments.authorize"}
    assert len(authority.approvals) == 1


def test_require_approval_of_what_needs_none_is_a_token(asking: Any, authority: FakeAuthority) -> None:
    assert asking.require_approval(Operation("document.read", "document:a")).scope == {"document.read"}
    assert authority.approvals == {}


def test_an_approval_that_waits_is_used_and_not_asked_for_again(asking: Any, authority: FakeAuthority) -> None:
    authority.require_approval("payments.authorize")
    request = asking.request_approval(PAY)
    authority.approve(request.id)
    token = asking.require_approval(PAY)
    assert token.claims()["authorization_details"][0]["jit_request"] == request.id
    assert len(authority.approvals) == 1


def test_completing_is_not_sent_twice_unless_an_answer_was_lost(asking: Any, authority: FakeAuthority) -> None:
    authority.require_approval("payments.authorize")
    request = asking.request_approval(PAY)
    authority.approve(request.id)
    token = asking.approval(request)
    authority.lose("/jit/complete")
    with pytest.raises(Unavailable) as unknown:
        asking.complete(token)
    assert unknown.value.code == "completion_unknown"
    assert authority.count("/jit/complete") == 2
    with pytest.raises(AlreadyCompleted):
        asking.complete(token)


def test_completing_goes_through_when_only_the_question_was_lost(asking: Any, authority: FakeAuthority) -> None:
    authority.require_approval("payments.authorize")
    request = asking.request_approval(PAY)
    authority.approve(request.id)
    token = asking.approval(request)
    authority.fail(503, path="/jit/complete")
    asking.complete(token)
    assert authority.approvals[request.id].phase == "completed"


def test_what_cannot_be_asked_for_is_refused_at_filing(asking: Any, authority: FakeAuthority) -> None:
    with pytest.raises(InvalidScope):
        asking.request_approval(Operation("no.such"))


def test_an_operation_cannot_be_changed_after_it_was_made() -> None:
    parameters = {"amount": 500, "to": ["a"]}
    operation = Operation("pay", "x:1", parameters)
    before = operation.fingerprint()
    parameters["amount"] = 5_000_000
    parameters["to"].append("b")  # type: ignore[attr-defined]
    operation.details()["parameters"]["amount"] = 1
    assert operation.fingerprint() == before
    with pytest.raises(AttributeError):
        operation.capability = "other"  # type: ignore[misc]


@pytest.mark.parametrize("parameters", [{"n": 2**53}, {"n": float("nan")}, {"n": object()}, {5: "x"}, {"n": "\ud800"}])
def test_what_is_no_json_is_no_operation(parameters: Any) -> None:
    with pytest.raises(InvalidRequest):
        Operation("pay", "x:1", parameters)


def test_a_look_that_was_long_on_its_way_makes_the_next_one_no_sooner(client_of: Any) -> None:
    with FakeAuthority(interval=0.6) as authority:
        authority.allow("a.b")
        authority.require_approval("pay")
        client = client_of(url=authority.url, credential=lambda: "a.b.c")
        request = client.request_approval(Operation("pay"))
        authority.slow(0.4)
        for _ in range(2):
            with pytest.raises(ApprovalPending):
                client.run(waiting.look(client.core, request, wait=0.0, at_least_once=True))
            authority.slow(0.0)
        assert client.core.paces.of(request).interval == 0.6, "it was never told to slow down"


def test_a_page_of_somebody_in_between_completes_nothing(client: Any, authority: FakeAuthority) -> None:
    authority.allow("a.b")
    authority.require_approval("pay")
    request = client.request_approval(Operation("pay"))
    authority.approve(request.id)
    token = client.approval(request)
    authority.fail(200, 2, path="/jit/complete")
    with pytest.raises(Unavailable):
        client.complete(token)
    client.complete(token)


def test_half_an_answer_to_a_completion_is_a_lost_one(client: Any, authority: FakeAuthority, monkeypatch: pytest.MonkeyPatch) -> None:
    authority.allow("a.b")
    authority.require_approval("pay")
    request = client.request_approval(Operation("pay"))
    authority.approve(request.id)
    token = client.approval(request)
    answer = authority._server._answer_to

    def cut(asked: Any) -> Any:
        said = answer(asked)
        return Answer(200, '{"completed":tr') if asked.path == "/jit/complete" and said.status == 200 else said

    monkeypatch.setattr(authority._server, "_answer_to", cut)
    with pytest.raises(Unavailable) as unknown:
        client.complete(token)
    assert unknown.value.code == "completion_unknown"
