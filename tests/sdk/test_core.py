"""The client and the guard, against a real operator."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from cluster import Approver, Namespace, eventually, kubectl
from countersign import (
    AccessDenied,
    AlreadyCompleted,
    ApprovalDenied,
    ApprovalExpired,
    ApprovalPending,
    ApprovalUsed,
    Conflict,
    Denied,
    Guard,
    InvalidScope,
    NotFound,
    Operation,
    Pending,
    Registry,
    RevocationUnknown,
    TokenFile,
    TokenRevoked,
    Tool,
    Unauthenticated,
    Unavailable,
)
from countersign.verifier import Verifier
from proxy import Proxy


def paying(namespace: Namespace) -> tuple[str, str]:
    """The names of a capability that needs approval, and of one that does not."""
    pay = namespace.capability("pay", risk="High", approval={"approvals": 1, "maxExpirationSeconds": 120})
    return pay, namespace.capability("read")


def verifier(audience: str, credential: Path | None = None, revocation: str = "none") -> Verifier:
    url, ca_file = os.environ["COUNTERSIGN_URL"], os.environ["COUNTERSIGN_CA"]
    return Verifier(url, audience, ca_file=ca_file, revocation=revocation, credential=credential)  # type: ignore[arg-type]


def test_an_agent_gets_a_token_that_a_server_takes(namespace: Namespace) -> None:
    read = namespace.capability("read")
    agent = namespace.agent({"name": read, "resources": ["document:reports/*"]})
    token = agent.client().token()
    assert token.scope == {read}
    with verifier(agent.audience) as server:
        verified = server.verify(token.value)
    assert (verified.actor, verified.chain, verified.user) == (agent.id, (agent.id,), None)
    verified.require(read, "document:reports/q3")
    assert not verified.allows(read, "document:private/q3")


def test_the_environment_of_a_pod_is_all_that_is_needed(namespace: Namespace) -> None:
    agent = namespace.agent(namespace.capability("read"))
    program = "from countersign import Client\nwith Client() as c: print(c.token().claims()['client_id'])"
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path), **agent.environment()}
    done = subprocess.run([sys.executable, "-c", program], env=environment, text=True, capture_output=True, check=False)
    assert done.stdout.strip() == agent.id, done.stderr


def test_refusals_are_what_they_are(namespace: Namespace) -> None:
    agent = namespace.agent(namespace.capability("read"))
    with pytest.raises(InvalidScope):
        agent.client().token(scope="no.such")
    stranger = namespace.pod_token("default")
    with pytest.raises(Unauthenticated) as refused:
        agent.client(credential=TokenFile(stranger)).token()
    assert refused.value.request_id


def test_a_token_is_for_one_operation(namespace: Namespace) -> None:
    refund = namespace.capability("refund")
    agent = namespace.agent({"name": refund, "resources": ["order:O-*"], "when": "context.amount <= 50"})
    client = agent.client()
    allowed = Operation(refund, "order:O-12", {"amount": 50})
    with verifier(agent.audience) as server:
        token = server.verify(client.token(operation=allowed).value)
    token.require(refund, "order:O-12", {"amount": 50})
    assert not token.allows(refund, "order:O-12", {"amount": 49})
    with pytest.raises(InvalidScope):
        client.token(operation=Operation(refund, "order:O-12", {"amount": 51}))


def test_questions_are_answered_with_reasons(namespace: Namespace) -> None:
    pay, read = paying(namespace)
    refund = namespace.capability("refund")
    held = [pay, {"name": read, "resources": ["document:reports/*"]}, {"name": refund, "when": "context.amount <= 50"}]
    client = namespace.agent(*held).client()
    yes = client.evaluate(Operation(read, "document:reports/q3"))
    assert yes.allowed
    assert yes.evaluation_id
    codes = {}
    for name, operation in {
        "resource": Operation(read, "document:private/q3"),
        "none": Operation("no.such"),
        "condition": Operation(refund, "order:1", {"amount": 51}),
        "approval": Operation(pay, "invoice:1"),
        "without a resource": Operation(pay),
    }.items():
        decision = client.evaluate(operation)
        assert not decision.allowed
        assert decision.reason is not None
        codes[name] = (decision.reason.code, decision.requestable)
    assert codes == {
        "resource": ("resource_not_granted", False),
        "none": ("capability_not_granted", False),
        "condition": ("condition_unmet", False),
        "approval": ("approval_required", True),
        "without a resource": ("approval_required", True),
    }
    many = client.evaluate_many([Operation(read, f"document:reports/{n}") for n in range(101)])
    assert len(many) == 101
    assert all(decision.allowed for decision in many)
    assert client.capabilities("document:reports/q3") == [read]
    assert not client.ask("Can I launch the missiles?").allowed


def test_an_agent_calls_another_for_whom_it_acts(namespace: Namespace) -> None:
    read = namespace.capability("read")
    first = namespace.agent(read, name="first")
    callers = {"callers": [{"namespace": namespace.name, "name": "first"}]}
    second = namespace.agent(read, name="second", delegation=callers)
    called_with = first.client().token(audience=second.id)
    client = second.client()
    token = client.exchange(called_with)
    assert client.exchange(called_with) == token
    with verifier(second.audience) as server:
        verified = server.verify(token.value)
    assert (verified.subject, verified.actor, verified.chain) == (first.id, second.id, (first.id, second.id))
    permit = Guard(client, {"read": read}).check("read", {}, call_id="c", subject_token=called_with)
    assert permit.token().claims()["sub"] == first.id


def test_a_person_approves_and_the_token_is_good_once(namespace: Namespace, approver: Approver) -> None:
    pay, _ = paying(namespace)
    agent = namespace.agent({"name": pay, "resources": ["invoice:INV-*"]})
    client = agent.client()
    operation = Operation(pay, "invoice:INV-7", {"amount": 500})
    request = client.request_approval(operation, justification="It is due.")
    with pytest.raises(ApprovalPending):
        client.approval(request)
    threading.Thread(target=approver.approve, args=[request.id]).start()
    token = client.wait_for_approval(request, timeout=60)
    server_credential = namespace.server(agent.audience)
    with verifier(agent.audience, server_credential, "introspect") as server:
        verified = server.verify(token.value)
        verified.require(pay, "invoice:INV-7", {"amount": 500})
        assert server.evaluate(verified, operation).allowed
        server.complete(verified)
        with pytest.raises(AlreadyCompleted):
            server.complete(verified)
        with pytest.raises(TokenRevoked):
            server.verify(token.value)
    with pytest.raises(AlreadyCompleted):
        client.complete(token)
    with pytest.raises(ApprovalUsed):
        client.approval(request, wait=5)


def test_an_approval_that_waits_is_said_by_the_check_and_used(namespace: Namespace, approver: Approver) -> None:
    pay, _ = paying(namespace)
    client = namespace.agent(pay).client()
    operation = Operation(pay, "invoice:INV-7", {"amount": 500})
    request = client.request_approval(operation)
    approver.approve(request.id)
    eventually(lambda: client.evaluate(operation).allowed, "it is approved")
    approval = client.evaluate(operation).approval
    assert approval is not None
    assert approval["auth_req_id"] == request.id
    token = client.require_approval(operation)
    assert token.claims()["authorization_details"][0]["jit_request"] == request.id


@pytest.mark.parametrize("what", ["deny", "withdraw", "expire"])
def test_what_is_not_approved_is_told(namespace: Namespace, approver: Approver, what: str) -> None:
    pay, _ = paying(namespace)
    client = namespace.agent(pay).client()
    request = client.request_approval(Operation(pay, "invoice:INV-7"), expires_in=2 if what == "expire" else None)
    if what == "deny":
        approver.deny(request.id)
    elif what == "withdraw":
        client.withdraw(request)
    with pytest.raises(ApprovalExpired if what == "expire" else ApprovalDenied):
        client.wait_for_approval(request, timeout=30)


def test_nobody_is_asked_for_what_no_person_could_allow(namespace: Namespace, approver: Approver) -> None:
    pay, read = paying(namespace)
    client = namespace.agent(read).client()
    with pytest.raises(AccessDenied):
        client.require_approval(Operation(pay, "invoice:INV-7"))
    assert approver.pending() == []


def test_the_guard_runs_an_approved_call_once(namespace: Namespace, approver: Approver) -> None:
    pay, read = paying(namespace)
    client = namespace.agent({"name": pay, "resources": ["invoice:*"]}, {"name": read, "resources": ["document:*"]}).client()
    tools = {"pay": Tool(pay, resource="invoice:{number}"), "read": Tool(read, resource="document:{name}"), "shell": "no.such"}
    guard = Guard(client, tools, mode="interrupt")
    assert guard.visible(["pay", "read", "shell", "other"]) == ["pay", "read"]
    guard.check("read", {"name": "q3"}, call_id="1").token()
    with pytest.raises(Denied) as denied:
        guard.check("shell", {}, call_id="2")
    assert denied.value.code == "capability_not_granted"
    call = {"number": "INV-7", "amount": 500}
    with pytest.raises(Pending) as pending:
        guard.check("pay", call, call_id="3", run_id="run")
    approver.approve(pending.value.request.id)
    with pytest.raises(Denied) as changed:
        guard.check("pay", {**call, "amount": 5}, call_id="3", run_id="run", request_id=pending.value.request.id)
    assert changed.value.code == "approval_mismatch"
    permit = Guard(client, tools, mode="wait", max_wait=30).check("pay", call, call_id="3", run_id="run")
    assert permit.completed
    with pytest.raises(Denied) as again:
        Guard(client, tools, mode="wait", max_wait=30).check("pay", call, call_id="3", run_id="run")
    assert again.value.code == "approval_used"


def test_nothing_runs_while_the_way_to_the_operator_is_cut(namespace: Namespace, proxy: Proxy) -> None:
    read = namespace.capability("read")
    client = namespace.agent(read).client(url=proxy.url, timeout=3.0, max_retries=0)
    guard = Guard(client, {"read": read})
    guard.check("read", {}, call_id="1")
    for fault in (proxy.cut, proxy.hang):
        fault()
        begun = time.monotonic()
        with pytest.raises(Denied) as denied:
            guard.check("read", {}, call_id="1")
        assert denied.value.code == "authority_unavailable"
        assert time.monotonic() - begun < 10
    proxy.restore()
    eventually(lambda: _allowed(guard), "it is found again")


def _allowed(guard: Guard) -> bool:
    try:
        guard.check("read", {}, call_id="1")
    except Denied:
        return False
    return True


def test_a_wait_outlasts_a_cut(namespace: Namespace, approver: Approver, proxy: Proxy) -> None:
    pay, _ = paying(namespace)
    client = namespace.agent(pay).client(url=proxy.url, timeout=3.0)
    request = client.request_approval(Operation(pay, "invoice:INV-7"))

    def meanwhile() -> None:
        time.sleep(1)
        proxy.cut()
        approver.approve(request.id)
        proxy.restore()

    thread = threading.Thread(target=meanwhile)
    thread.start()
    assert client.wait_for_approval(request, timeout=60).scope == {pay}
    thread.join()


def test_the_feed_knows_within_moments_what_was_ended(namespace: Namespace) -> None:
    agent = namespace.agent(namespace.capability("read"))
    client = agent.client()
    with verifier(agent.audience, revocation="feed") as server:
        one, other = client.token(), client.token(fresh=True)
        eventually(lambda: _code(server, other.value) is None, "the agent is in the feed")
        server.verify(one.value)
        client.revoke(one)
        eventually(lambda: _code(server, one.value) == "token_revoked", "the token is dead", 5)
        assert _code(server, other.value) is None
        agent.suspend()
        eventually(lambda: _code(server, other.value) == "agent_ended", "the agent is stopped", 5)
    with pytest.raises(Unauthenticated):
        client.token(fresh=True)


def _code(server: Verifier, token: str) -> str | None:
    try:
        server.verify(token)
    except (TokenRevoked, RevocationUnknown) as refused:
        return refused.code
    return None


def test_agents_are_registered_over_http(namespace: Namespace) -> None:
    read = namespace.capability("read")
    kubectl("create", "serviceaccount", "registrar", f"--namespace={namespace.name}")
    account = f"--serviceaccount={namespace.name}:registrar"
    kubectl("create", "clusterrolebinding", f"{namespace.name}-server", "--clusterrole=cluster-admin", account)
    spec = {
        "owner": "team-sdk@example.com",
        "identity": {"serviceAccounts": [{"name": "new-bot"}]},
        "capabilities": [{"name": read}],
        "tokens": {"audiences": [{"name": namespace.audience}]},
    }
    token = namespace.kubernetes_token("registrar")
    with Registry(url=os.environ["COUNTERSIGN_URL"], ca_file=os.environ["COUNTERSIGN_CA"], token=token) as registry:
        agent = registry.register(namespace.name, "new-bot", spec, labels={"team": "sdk"})
        assert agent.id == f"agent:{namespace.name}/new-bot"
        with pytest.raises(Conflict):
            registry.register(namespace.name, "new-bot", spec)
        assert [found.name for found in registry.list(namespace.name)] == ["new-bot"]
        ready = kubectl("wait", "--for=condition=Ready", "--timeout=30s", f"--namespace={namespace.name}", "agent/new-bot")
        assert ready
        with pytest.raises(Conflict):
            registry.replace(agent.with_spec(suspended=True))
        changed = eventually(lambda: _replaced(registry, namespace), "it is replaced")
        assert changed.spec["suspended"] is True
        assert changed.labels == {"team": "sdk"}
        registry.delete(namespace.name, "new-bot")
        with pytest.raises(NotFound):
            registry.get(namespace.name, "new-bot")


def _replaced(registry: Registry, namespace: Namespace) -> object:
    try:
        return registry.replace(registry.get(namespace.name, "new-bot").with_spec(suspended=True))
    except Conflict:
        return None


def test_an_operator_that_cannot_be_reached_is_unavailable(namespace: Namespace, proxy: Proxy) -> None:
    client = namespace.agent(namespace.capability("read")).client(url=proxy.url, timeout=1.0, max_retries=0)
    proxy.cut()
    with pytest.raises(Unavailable):
        client.token()
