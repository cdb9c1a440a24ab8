"""The real operator, as the authority that the cells of a framework are run against (sdk/python/tests/frameworks/authorities.py)."""

from __future__ import annotations

import json
from typing import Any

from authorities import Authority

from cluster import Approver, Namespace, eventually, kubectl
from proxy import Proxy

PAY = "payments.authorize"


class Operator(Authority):
    """An agent of the operator, which it reaches by a way that can be cut, and Bob, who decides with kubectl."""

    def __init__(self, namespace: Namespace, approver: Approver, proxy: Proxy) -> None:
        self._namespace, self._approver, self._proxy = namespace.name, approver, proxy
        _may_approve(namespace.name)
        agent = namespace.agent(
            {"name": "invoice.read", "resources": ["invoice:INV-*"]},
            {"name": PAY, "resources": ["invoice:INV-*"], "approval": "Required"},
        )
        self.environment = {**agent.environment(), "COUNTERSIGN_URL": proxy.url}

    def filed(self) -> list[str]:
        found = json.loads(kubectl("get", "jit", f"--namespace={self._namespace}", "-o", "json"))["items"]
        found.sort(key=lambda request: request["metadata"]["creationTimestamp"])
        return [request["metadata"]["uid"] for request in found]

    def wait_for_request(self, timeout: float = 30.0) -> str:
        request = eventually(self._approver.pending, "somebody asks for approval", timeout)[0]
        return str(request["metadata"]["uid"])

    def approve(self, request_id: str) -> None:
        self._approver.approve(request_id)
        self._decided(request_id)

    def deny(self, request_id: str) -> None:
        self._approver.deny(request_id)
        self._decided(request_id)

    def down(self) -> None:
        self._proxy.cut()

    def up(self) -> None:
        self._proxy.restore()

    def _decided(self, request_id: str) -> None:
        """Returns once the operator has seen the decision."""

        def pending() -> bool:
            return any(request["metadata"]["uid"] == request_id for request in self._approver.pending())

        eventually(lambda: not pending(), f"request {request_id} is decided")


def _may_approve(namespace: str) -> None:
    """The catalogue knows what a payment is, for all tests alike, and Bob may approve it in this namespace."""
    entry: dict[str, Any] = {
        "apiVersion": "countersign.dev/v1alpha1",
        "kind": "Capability",
        "metadata": {"name": PAY},
        "spec": {"title": "Authorize a payment", "description": "An invoice is paid.", "approval": {"approvals": 1}},
    }
    # On the server, as tests of several frameworks make it at the same time.
    kubectl("apply", "--server-side", "-f", "-", given=entry)
    kubectl("wait", "--for=condition=Ready", "--timeout=30s", f"capability/{PAY}")
    rules = [{"apiGroups": ["countersign.dev"], "resources": ["capabilities"], "resourceNames": [PAY], "verbs": ["approve"]}]
    role = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"namespace": namespace, "name": PAY}}
    kubectl("apply", "-f", "-", given={**role, "rules": rules})
    kubectl("create", "rolebinding", PAY, f"--namespace={namespace}", f"--role={PAY}", "--user=bob")
