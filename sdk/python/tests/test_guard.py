"""The guard: nothing runs that was not allowed, and nothing twice."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from countersign import (
    Client,
    ConfigurationError,
    CountersignError,
    Denied,
    Guard,
    Pending,
    PrivateKey,
    Sidecar,
    Tool,
    current_permit,
)
from countersign import guard as guard_module
from countersign.testing import FakeAuthority

TOOLS: dict[str, str | Tool] = {
    "search": "web.search",
    "read": Tool("document.read", resource="document:{name}", parameters=None),
    "pay": Tool("payments.authorize", resource="invoice:{number}"),
    "wire": Tool("payments.authorize", resource="invoice:{number}", sends_token=True),
}
INVOICE = {"number": "INV-7", "amount": 500}


class Asking:
    """A guard whose check is called the same way in both worlds."""

    def __init__(self, client: Any, **more: Any) -> None:
        self.client = client
        self.guard = Guard(client if isinstance(client, Client) else client.of, TOOLS, **more)

    def check(self, tool: str, args: Any, call_id: str = "call-1", **more: Any) -> Any:
        if isinstance(self.client, Client):
            return self.guard.check(tool, args, call_id=call_id, **more)
        return self.client.loop.run_until_complete(self.guard.acheck(tool, args, call_id=call_id, **more))

    def peek(self, tool: str, args: Any, call_id: str = "call-1", **more: Any) -> Any:
        if isinstance(self.client, Client):
            return self.guard.peek(tool, args, call_id=call_id, **more)
        return self.client.loop.run_until_complete(self.guard.apeek(tool, args, call_id=call_id, **more))

    def token(self, permit: Any) -> Any:
        if isinstance(self.client, Client):
            return permit.token()
        return self.client.loop.run_until_complete(permit.atoken())

    def visible(self, names: list[str]) -> list[str]:
        if isinstance(self.client, Client):
            return self.guard.visible(names)
        return self.client.loop.run_until_complete(self.guard.avisible(names))


@pytest.fixture
def ready(client: Any, authority: FakeAuthority) -> Any:
    authority.allow("web.search")
    authority.allow("document.read", resource="document:*")
    authority.require_approval("payments.authorize")
    return client


@pytest.fixture
def interrupting(ready: Any) -> Asking:
    return Asking(ready, mode="interrupt")


def pending(asking: Asking, *args: Any, **more: Any) -> Pending:
    with pytest.raises(Pending) as found:
        asking.check(*args, **more)
    return found.value


def denied(asking: Asking, *args: Any, **more: Any) -> Denied:
    with pytest.raises(Denied) as found:
        asking.check(*args, **more)
    return found.value


def approved(asking: Asking, authority: FakeAuthority, tool: str = "pay", **more: Any) -> str:
    request = pending(asking, tool, INVOICE, **more).request
    authority.approve(request.id)
    time.sleep(authority.interval)
    return request.id


def test_what_is_allowed_runs_and_has_a_token_of_its_own(interrupting: Asking) -> None:
    permit = interrupting.check("read", {"name": "q3"})
    token = interrupting.token(permit)
    assert token.claims()["authorization_details"][0]["resource"] == "document:q3"


def test_a_tool_that_is_not_in_the_map_is_denied_and_nobody_is_asked(interrupting: Asking, authority: FakeAuthority) -> None:
    assert denied(interrupting, "shell", {}).code == "unmapped"
    assert authority.requests == []


def test_what_is_denied_is_denied_before_a_person_is_asked(interrupting: Asking, authority: FakeAuthority) -> None:
    authority.deny("payments.authorize", code="condition_unmet", message="amount <= 50")
    no = denied(interrupting, "pay", INVOICE)
    assert no.code == "condition_unmet"
    assert no.evaluation_id
    assert no.reason is not None
    assert authority.approvals == {}
    assert "50" not in no.for_model(), "the rules are not for the model"
    assert "not try again" in no.for_model()


def test_what_needs_approval_is_pending_and_says_how(interrupting: Asking, authority: FakeAuthority) -> None:
    found = pending(interrupting, "pay", INVOICE)
    assert found.request.id in authority.approvals
    assert f"kubectl countersign approve {found.request.id}" in found.for_model()


def test_the_same_call_is_the_same_request_however_often_it_is_asked(interrupting: Asking, authority: FakeAuthority) -> None:
    for _ in range(3):
        pending(interrupting, "pay", INVOICE, run_id="run-1")
    pending(interrupting, "pay", dict(reversed(INVOICE.items())), run_id="run-1")
    assert len(authority.approvals) == 1
    pending(interrupting, "pay", INVOICE, run_id="run-2")
    pending(interrupting, "pay", INVOICE, call_id="call-2", run_id="run-1")
    assert len(authority.approvals) == 3


def test_an_approved_call_runs_exactly_once_however_often_it_is_resumed(interrupting: Asking, authority: FakeAuthority) -> None:
    request_id = approved(interrupting, authority)
    permit = interrupting.check("pay", INVOICE, request_id=request_id)
    assert permit.completed
    assert authority.approvals[request_id].phase == "completed"
    assert denied(interrupting, "pay", INVOICE).code == "approval_used"
    assert denied(interrupting, "pay", INVOICE, request_id=request_id).code == "approval_used"
    with pytest.raises(ConfigurationError):
        interrupting.token(permit)


def test_a_resume_right_after_the_decision_is_not_told_that_nobody_has_decided(ready: Any, authority: FakeAuthority) -> None:
    authority.interval = 1.0
    asking = Asking(ready, mode="interrupt")
    approved_at_once, denied_at_once = pending(asking, "pay", INVOICE).request, pending(asking, "pay", INVOICE, "call-2").request
    authority.approve(approved_at_once.id)
    authority.deny_request(denied_at_once.id)
    assert asking.check("pay", INVOICE).completed
    assert denied(asking, "pay", INVOICE, "call-2").code == "approval_denied"


def test_the_model_makes_the_same_call_again_once_it_is_approved_under_another_id(ready: Any, authority: FakeAuthority) -> None:
    asking = Asking(ready, mode="reject")
    authority.approve(pending(asking, "pay", INVOICE, "call-1").request.id)
    assert pending(asking, "pay", {**INVOICE, "amount": 501}, "call-2").request.id in authority.approvals
    assert asking.check("pay", INVOICE, "call-3").completed
    assert denied(asking, "pay", INVOICE, "call-1").code == "approval_used"
    assert len(authority.approvals) == 2


def test_a_call_that_pauses_is_run_by_its_own_approval_and_no_other(interrupting: Asking, authority: FakeAuthority) -> None:
    approved(interrupting, authority)
    other = pending(interrupting, "pay", INVOICE, "call-2").request
    assert other.id in authority.approvals
    assert interrupting.peek("pay", INVOICE, "call-1") is None
    assert interrupting.peek("pay", INVOICE, "call-2").id == other.id
    assert interrupting.check("pay", INVOICE, "call-1").completed


def test_to_peek_says_whether_a_call_would_wait_and_uses_nothing(interrupting: Asking, authority: FakeAuthority) -> None:
    assert interrupting.peek("search", {}) is None
    request = interrupting.peek("pay", INVOICE)
    assert request.id in authority.approvals
    assert interrupting.peek("pay", INVOICE).id == pending(interrupting, "pay", INVOICE).request.id == request.id
    authority.approve(request.id)
    for _ in range(3):
        assert interrupting.peek("pay", INVOICE) is None
    assert interrupting.check("pay", INVOICE).completed
    with pytest.raises(Denied) as no:
        interrupting.peek("pay", INVOICE)
    assert no.value.code == "approval_used"


def test_to_peek_at_what_is_denied_is_denied(interrupting: Asking, authority: FakeAuthority) -> None:
    with pytest.raises(Denied) as no:
        interrupting.peek("shell", {})
    assert no.value.code == "unmapped"
    authority.deny_request(interrupting.peek("pay", INVOICE).id)
    with pytest.raises(Denied) as no:
        interrupting.peek("pay", INVOICE)
    assert no.value.code == "approval_denied"
    authority.down()
    with pytest.raises(Denied) as no:
        interrupting.peek("search", {})
    assert no.value.code == "authority_unavailable"


def test_of_many_processes_that_resume_one_runs(authority: FakeAuthority) -> None:
    authority.require_approval("payments.authorize")

    def resume(_: int) -> str:
        with Client(url=authority.url, credential=lambda: payload()) as client:
            try:
                Guard(client, TOOLS, mode="wait", max_wait=5).check("pay", INVOICE, call_id="call-1")
            except Denied as no:
                return no.code
            return "ran"

    threading.Thread(target=lambda: authority.approve(authority.wait_for_request().id)).start()
    with ThreadPoolExecutor(8) as threads:
        outcomes = list(threads.map(resume, range(8)))
    assert outcomes.count("ran") == 1
    assert set(outcomes) == {"ran", "approval_used"}


def payload() -> str:
    import jwt

    return jwt.encode({"sub": "system:serviceaccount:test:bot"}, "k" * 32, algorithm="HS256")


def test_a_call_that_sends_its_token_leaves_completing_to_the_server(interrupting: Asking, authority: FakeAuthority) -> None:
    request_id = approved(interrupting, authority, "wire")
    permit = interrupting.check("wire", INVOICE)
    assert not permit.completed
    token = interrupting.token(permit)
    assert token.claims()["authorization_details"][0]["jit_request"] == request_id
    assert authority.approvals[request_id].phase == "issued"


def test_arguments_that_were_changed_after_approval_are_denied(interrupting: Asking, authority: FakeAuthority) -> None:
    request_id = approved(interrupting, authority)
    no = denied(interrupting, "pay", {**INVOICE, "amount": 5_000_000}, request_id=request_id)
    assert no.code == "approval_mismatch"
    assert authority.approvals[request_id].phase == "approved", "what was approved is still to be had"


def test_a_framework_that_says_it_was_approved_is_not_believed(interrupting: Asking, authority: FakeAuthority) -> None:
    request = pending(interrupting, "pay", INVOICE).request
    time.sleep(authority.interval)
    assert pending(interrupting, "pay", INVOICE, request_id=request.id).request.id == request.id
    assert denied(interrupting, "pay", INVOICE, request_id="made-up").code == "approval_mismatch"


@pytest.mark.parametrize(("what", "code"), [("deny_request", "approval_denied"), ("expire", "approval_expired")])
def test_what_is_not_approved_is_denied(interrupting: Asking, authority: FakeAuthority, what: str, code: str) -> None:
    request = pending(interrupting, "pay", INVOICE).request
    getattr(authority, what)(request.id)
    time.sleep(authority.interval)
    assert denied(interrupting, "pay", INVOICE).code == code


def test_a_guard_that_waits_runs_the_call_once_it_is_approved(ready: Any, authority: FakeAuthority) -> None:
    waiting = Asking(ready, mode="wait", max_wait=10)
    threading.Thread(target=lambda: authority.approve(authority.wait_for_request().id)).start()
    assert waiting.check("pay", INVOICE).completed


def test_a_guard_that_has_waited_long_enough_says_pending(ready: Any) -> None:
    begun = time.monotonic()
    assert pending(Asking(ready, mode="wait", max_wait=0.6), "pay", INVOICE).code == "authorization_pending"
    assert time.monotonic() - begun < 3


@pytest.mark.parametrize("mode", ["wait", "interrupt", "reject"])
def test_nothing_runs_while_the_authority_is_away(client_of: Any, authority: FakeAuthority, mode: str) -> None:
    authority.allow("web.search")
    client = client_of(url=authority.url, credential=lambda: "a.b.c", timeout=0.5, max_retries=0)
    asking = Asking(client, mode=mode)
    asking.check("search", {})
    for fault in (
        authority.down,
        lambda: (authority.up(), authority.slow(2.0)),
        lambda: (authority.slow(0), authority.fail(503, 10)),
    ):
        fault()
        no = denied(asking, "search", {})
        assert no.code == "authority_unavailable"
        assert "later" in no.for_model()


def test_a_model_that_calls_again_by_another_id_has_what_was_approved_once(ready: Any, authority: FakeAuthority) -> None:
    rejecting = Asking(ready, mode="reject", justification="Said by a model.")
    request = pending(rejecting, "pay", INVOICE).request
    assert authority.approvals[request.id].justification == "Said by a model."
    authority.approve(request.id)
    assert rejecting.check("pay", INVOICE, call_id="call-2").request.id == request.id
    assert pending(rejecting, "pay", INVOICE, call_id="call-3").request.id != request.id


def test_a_call_that_is_resumed_waits_until_it_may_look_again(ready: Any, authority: FakeAuthority) -> None:
    authority.interval = 0.6
    interrupting = Asking(ready, mode="interrupt")
    request = pending(interrupting, "pay", INVOICE).request
    authority.approve(request.id)
    assert interrupting.check("pay", INVOICE).completed


def test_a_token_for_something_else_runs_nothing(interrupting: Asking, authority: FakeAuthority) -> None:
    request_id = approved(interrupting, authority)
    request = authority.approvals[request_id]
    request.phase, request.issued_at = "issued", time.monotonic()
    request.token = authority.token_for("payments.authorize", details=[{**request.details, "parameters": {"amount": 5_000_000}}])
    assert denied(interrupting, "pay", INVOICE).code == "approval_mismatch"
    assert request.phase == "issued", "and it is not used up"


def test_a_call_without_an_id_is_denied(interrupting: Asking) -> None:
    assert denied(interrupting, "search", {}, call_id="").code == "guard_failed"


def test_nothing_runs_when_completing_is_not_answered(interrupting: Asking, authority: FakeAuthority) -> None:
    approved(interrupting, authority)
    authority.fail(503, 10, path="/jit/complete")
    assert denied(interrupting, "pay", INVOICE).code == "authority_unavailable"


def test_nothing_runs_for_an_agent_that_was_stopped(interrupting: Asking, authority: FakeAuthority) -> None:
    interrupting.check("search", {})
    authority.suspend()
    assert denied(interrupting, "search", {}).code == "authority_refused"


@pytest.mark.parametrize(
    ("tool", "args"),
    [
        (Tool("document.read", resource="document:{name}"), {}),
        (Tool("document.read", resource="document:{name}"), {"name": "../secret"}),
        (Tool("document.read", resource="document:{name}"), {"name": "a/b"}),
        (Tool("document.read", resource="document:{name}"), {"name": "*"}),
        (Tool("document.read", resource="document:{name}"), {"name": ""}),
        (Tool("document.read", resource="document:{name}"), {"name": ["a"]}),
        (Tool("document.read", resource="document:{name.__class__}"), {"name": "a"}),
        (Tool("document.read", resource=lambda args: args["missing"]), {}),
        (Tool("document.read", resource=lambda args: None), {}),  # type: ignore[arg-type, return-value]
        (Tool("document.read", resource="no colon"), {}),
        (Tool("document.read", parameters=lambda args: {"n": float("inf")}), {}),
        (Tool("document.read"), {"when": object()}),
    ],
)
def test_a_mapping_that_fails_is_a_no(authority: FakeAuthority, tool: Tool, args: Any) -> None:
    authority.allow("document.read")
    with Client(url=authority.url, credential=lambda: "a.b.c") as client, pytest.raises(Denied) as no:
        Guard(client, {"t": tool}).check("t", args, call_id="c")
    assert no.value.code in ("guard_failed", "authority_refused")
    assert authority.requests == []
    assert no.value.__cause__ is None
    assert no.value.__context__ is None


def test_any_exception_at_all_is_a_no(interrupting: Asking, monkeypatch: pytest.MonkeyPatch) -> None:
    for error in (RuntimeError("token abc"), ValueError(), KeyError("x"), MemoryError(), RecursionError()):
        with monkeypatch.context() as patched:
            patched.setattr(guard_module.Core, "evaluate", lambda *_, error=error, **__: (_ for _ in ()).throw(error))
            no = denied(interrupting, "search", {})
        assert no.code == "guard_failed"
        assert "abc" not in str(no)


def test_there_is_no_way_to_fail_open() -> None:
    import inspect

    parameters = set(inspect.signature(Guard.__init__).parameters)
    assert parameters == {"self", "client", "tools", "mode", "max_wait", "justification"}
    with pytest.raises(ConfigurationError):
        Guard(None, {}, mode="allow")  # type: ignore[arg-type]


def test_a_guard_with_the_other_kind_of_client_denies(authority: FakeAuthority) -> None:
    from countersign import AsyncClient

    with pytest.raises(Denied) as no:
        Guard(AsyncClient(url=authority.url, credential=lambda: "t"), TOOLS).check("search", {}, call_id="c")
    assert no.value.code == "guard_failed"


def test_a_guard_with_a_client_for_threads_serves_asyncio_as_well(authority: FakeAuthority) -> None:
    authority.allow("web.search")
    with Client(url=authority.url, credential=lambda: "a.b.c") as client:
        guard = Guard(client, TOOLS)
        permit = asyncio.run(guard.acheck("search", {}, call_id="c"))
        assert asyncio.run(guard.avisible(["search"])) == ["search"]
        assert asyncio.run(permit.atoken()).scope == {"web.search"}


def test_a_tool_sees_the_permit_by_which_it_runs_and_no_other(interrupting: Asking) -> None:
    assert current_permit() is None
    one, other = interrupting.check("search", {"q": 1}), interrupting.check("search", {"q": 2}, call_id="call-2")
    with one:
        assert current_permit() is one
        with other:
            assert current_permit() is other
        assert current_permit() is one
    assert current_permit() is None


def test_tools_are_shown_that_the_agent_could_come_to_use(interrupting: Asking, authority: FakeAuthority) -> None:
    names = ["search", "shell", "pay", "read"]
    assert interrupting.visible(names) == ["search", "pay", "read"]
    authority.deny("web.search")
    authority.deny("payments.authorize")
    assert interrupting.visible(names) == ["read"]


def test_a_list_of_tools_that_cannot_be_had_is_an_error(interrupting: Asking, authority: FakeAuthority) -> None:
    authority.fail(503, 10)
    with pytest.raises(CountersignError):
        interrupting.visible(["search"])


def test_a_call_for_a_user_is_decided_and_approved_for_that_user(interrupting: Asking, authority: FakeAuthority) -> None:
    called_with = authority.token_for("x", audience=authority.agent, agent="agent:test/caller", user="alice")
    permit = interrupting.check("search", {"q": "x"}, subject_token=called_with)
    assert interrupting.token(permit).claims()["sub"] == "user:alice"
    asked = next(a for a in authority.requests if a.path == "/access/v1/evaluation")
    assert asked.body["context"]["access_token"].count(".") == 2
    request = pending(interrupting, "pay", INVOICE, subject_token=called_with).request
    assert authority.approvals[request.id].called_with["sub"] == "user:alice"


def test_the_guard_works_with_a_sidecar(client_of: Any, authority: FakeAuthority) -> None:
    authority.allow("web.search")
    authority.require_approval("payments.authorize")
    asking = Asking(client_of(credential=Sidecar(authority.sidecar_url)), mode="interrupt")
    assert asking.token(asking.check("search", {})).scope == {"web.search"}
    approved(asking, authority)
    assert asking.check("pay", INVOICE).completed


def test_the_guard_works_with_a_key(client_of: Any, authority: FakeAuthority, tmp_path: Any) -> None:
    from test_credentials import written

    authority.allow("web.search")
    authority.require_approval("payments.authorize")
    key = PrivateKey(written(tmp_path / "key.pem"), "agent:ci/bot")
    asking = Asking(client_of(url=authority.url, credential=key), mode="interrupt")
    asking.check("search", {})
    approved(asking, authority)
    assert asking.check("pay", INVOICE).completed
