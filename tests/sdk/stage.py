"""The stage of the cells of CrewAI and Agno on a real operator: an agent with a pod, bob with kubectl, and a way that can be cut."""

from __future__ import annotations

from pathlib import Path

from cluster import Approver, Namespace, eventually, kubectl
from countersign import Client
from proxy import Proxy

EXAMPLES = Path(__file__).parents[2] / "examples"


class OperatorStage:
    """See `acting.Stage`, beside the cells."""

    def __init__(self, namespace: Namespace, approver: Approver, proxy: Proxy) -> None:
        self._approver, self._proxy = approver, proxy
        # The whole cluster has one catalogue; that entry is the same for every test, and stays.
        kubectl("apply", "-f", str(EXAMPLES / "payments/catalogue.yaml"))
        kubectl("wait", "--for=condition=Ready", "--timeout=30s", "capability/payments.authorize")
        rules = [
            {"apiGroups": ["countersign.dev"], "resources": ["capabilities"], "resourceNames": ["payments.authorize"], "verbs": ["approve"]}
        ]
        role = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"namespace": namespace.name, "name": "payer"}}
        kubectl("apply", "-f", "-", given={**role, "rules": rules})
        kubectl("create", "rolebinding", "payer", f"--namespace={namespace.name}", "--role=payer", "--user=bob")
        self._agent = namespace.agent(
            {"name": "invoice.read", "resources": ["invoice:*"]},
            {"name": "payments.authorize", "resources": ["invoice:*"], "approval": "Required"},
            audiences=["https://pay.example.com"],
        )

    def client(self) -> Client:
        return self._agent.client(url=self._proxy.url, max_retries=0)

    def environment(self) -> dict[str, str]:
        return self._agent.environment()

    def waiting(self) -> list[str]:
        return [request["metadata"]["uid"] for request in self._approver.pending()]

    def approve(self, request: str) -> None:
        self._approver.approve(request)
        self._decided(request)

    def refuse(self, request: str) -> None:
        self._approver.deny(request)
        self._decided(request)

    def _decided(self, request: str) -> None:
        eventually(lambda: request not in self.waiting(), "the decision counts")

    def killed(self) -> None:
        """The operator sees by itself that whoever asked is gone."""

    def down(self) -> None:
        self._proxy.cut()

    def up(self) -> None:
        self._proxy.restore()
