"""The control plane under test, by kubectl: agents, their credentials, and who approves."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from countersign import Client, TokenFile

#: How long something may take that the operator or the API server does in a moment, in seconds.
PATIENCE = 30.0


def kubectl(*arguments: str, user: str = "admin", given: Any = None, check: bool = True) -> str:
    """Runs kubectl as the administrator, as `alice` or as `bob`, with an object (or several) as its input."""
    name = {"admin": "KUBECONFIG", "alice": "ALICE_KUBECONFIG", "bob": "BOB_KUBECONFIG"}[user]
    command = ["kubectl", f"--kubeconfig={os.environ[name]}", *arguments]
    objects = given if isinstance(given, list) else [] if given is None else [given]
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}) if objects else None
    done = subprocess.run(command, input=text, text=True, capture_output=True, check=False, timeout=60)
    if check and done.returncode != 0:
        # Not the output: it may be a token.
        raise AssertionError(f"kubectl {' '.join(arguments[:3])}: {done.stderr}")
    return done.stdout


def eventually(condition: Callable[[], Any], what: str, seconds: float = PATIENCE) -> Any:
    """The first true value of a condition."""
    until = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < until, f"it did not come to that: {what}"
        time.sleep(0.05)
    return found


@dataclass
class Agent:
    """A registered Agent with a pod, and the token that a projected volume of that pod would hold."""

    namespace: str
    name: str
    audience: str
    token_file: Path
    opened: list[Any] = field(default_factory=list)

    @property
    def id(self) -> str:
        """Its subject and client_id."""
        return f"agent:{self.namespace}/{self.name}"

    def client(self, **more: Any) -> Client:
        """A client with its credential, which is closed at the end of the test."""
        settings = {"url": os.environ["COUNTERSIGN_URL"], "ca_file": os.environ["COUNTERSIGN_CA"], "timeout": 20.0}
        client = Client(**{**settings, "credential": TokenFile(self.token_file), **more})
        self.opened.append(client)
        return client

    def environment(self) -> dict[str, str]:
        """What a process of it would find in its environment."""
        return {
            "COUNTERSIGN_URL": os.environ["COUNTERSIGN_URL"],
            "COUNTERSIGN_CA": os.environ["COUNTERSIGN_CA"],
            "COUNTERSIGN_TOKEN_FILE": str(self.token_file),
            "COUNTERSIGN_CLOUD": "none",
        }

    def patch(self, spec: dict[str, Any]) -> None:
        """Changes its spec."""
        kubectl("patch", "agent", self.name, f"--namespace={self.namespace}", "--type=merge", "--patch", json.dumps({"spec": spec}))

    def suspend(self) -> None:
        """Stops it."""
        self.patch({"suspended": True})


class Namespace:
    """A namespace of one test."""

    def __init__(self, directory: Path) -> None:
        self.name = f"sdk-{secrets.token_hex(4)}"
        self.audience = f"https://{self.name}.example.com"
        self._directory, self._catalogue, self._agents = directory, [], []  # type: Path, list[str], list[Agent]
        kubectl("create", "namespace", self.name)
        bindings = ["countersign-approver"]
        for role in bindings:
            kubectl("create", "rolebinding", role, f"--namespace={self.name}", f"--clusterrole={role}", "--user=bob")

    def capability(self, name: str, **spec: Any) -> str:
        """An entry of the catalogue under a name of this test alone: the whole name. Bob may approve it here."""
        full = f"{name}.{self.name}"
        entry = {"title": name, "description": "A capability of a test.", **spec}
        kubectl("apply", "-f", "-", given=_object("Capability", full, entry))
        self._catalogue.append(full)
        rules = [{"apiGroups": ["countersign.dev"], "resources": ["capabilities"], "resourceNames": [full], "verbs": ["approve"]}]
        role = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"namespace": self.name, "name": full}}
        kubectl("apply", "-f", "-", given={**role, "rules": rules})
        kubectl("create", "rolebinding", full, f"--namespace={self.name}", f"--role={full}", "--user=bob")
        kubectl("wait", "--for=condition=Ready", "--timeout=30s", f"capability/{full}")
        return full

    def agent(self, *capabilities: str | dict[str, Any], name: str = "bot", audiences: Sequence[str] | None = None, **spec: Any) -> Agent:
        """An Agent that holds these, with a ServiceAccount, a pod and a token. Further members of its spec may be said."""
        listed = [{"name": held} if isinstance(held, str) else held for held in capabilities]
        names = [self.audience] if audiences is None else list(audiences)
        whole = {
            "owner": "team-sdk@example.com",
            "identity": {"serviceAccounts": [{"name": name}]},
            "capabilities": listed,
            "tokens": {"expirationSeconds": 300, "audiences": [{"name": audience} for audience in names]},
            **spec,
        }
        kubectl("create", "serviceaccount", name, f"--namespace={self.name}")
        kubectl("apply", "-f", "-", given=_object("Agent", name, whole, self.name))
        kubectl("wait", "--for=condition=Ready", "--timeout=30s", f"--namespace={self.name}", f"agent/{name}")
        made = Agent(self.name, name, names[0], self.pod_token(name))
        self._agents.append(made)
        return made

    def pod_token(self, account: str, audience: str | None = None) -> Path:
        """A file with the token that a pod of the ServiceAccount would have for the issuer."""
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"namespace": self.name, "name": account},
            "spec": {
                "serviceAccountName": account,
                "automountServiceAccountToken": False,
                "containers": [{"name": "main", "image": "pause"}],
            },
        }
        uid = kubectl("create", "-f", "-", "-o", "jsonpath={.metadata.uid}", given=pod)
        bound = ["--bound-object-kind=Pod", f"--bound-object-name={account}", f"--bound-object-uid={uid}"]
        return self._token(account, audience or os.environ["COUNTERSIGN_URL"], account, *bound)

    def server(self, audience: str, name: str = "server") -> Path:
        """A resource server that may introspect an audience: a file with its credential."""
        kubectl("create", "serviceaccount", name, f"--namespace={self.name}")
        rules = [{"apiGroups": ["countersign.dev"], "resources": ["audiences"], "resourceNames": [audience], "verbs": ["introspect"]}]
        role = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": f"{self.name}-{name}"}}
        kubectl("apply", "-f", "-", given={**role, "rules": rules})
        account = f"--serviceaccount={self.name}:{name}"
        kubectl("create", "clusterrolebinding", f"{self.name}-{name}", f"--clusterrole={self.name}-{name}", account)
        return self.pod_token(name)

    def kubernetes_token(self, account: str) -> Path:
        """A file with a credential for the Kubernetes API."""
        return self._token(account, None, f"{account}-kubernetes")

    def _token(self, account: str, audience: str | None, file: str, *bound: str) -> Path:
        wanted = [] if audience is None else [f"--audience={audience}"]
        text = kubectl("create", "token", account, f"--namespace={self.name}", "--duration=1h", *wanted, *bound)
        path = self._directory / f"{self.name}-{file}.token"
        path.write_text(text.strip(), encoding="ascii")
        path.chmod(0o600)
        return path

    def remove(self) -> None:
        """Ends it, without waiting for that."""
        for agent in self._agents:
            for client in agent.opened:
                client.close()
        kubectl("delete", "namespace", self.name, "--wait=false")
        for name in self._catalogue:
            kubectl("delete", "capability", name, "--wait=false")
        for kind in ("clusterrole", "clusterrolebinding"):
            kubectl("delete", kind, f"{self.name}-server", "--ignore-not-found")


class Approver:
    """Bob, who decides on requests with plain kubectl."""

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace

    def pending(self) -> list[dict[str, Any]]:
        """The requests that wait for him."""
        found = json.loads(kubectl("get", "jit", f"--namespace={self.namespace}", "-o", "json"))["items"]
        return [request for request in found if request.get("status", {}).get("phase") == "Pending"]

    def wait(self) -> dict[str, Any]:
        """The first request that waits, once there is one."""
        found: dict[str, Any] = eventually(self.pending, "somebody asks for approval")[0]
        return found

    def approve(self, request_id: str) -> None:
        """He says yes."""
        self._decide(request_id, "Approved")

    def deny(self, request_id: str) -> None:
        """He says no."""
        self._decide(request_id, "Denied")

    def _decide(self, request_id: str, verdict: str) -> None:
        def named() -> str | None:
            waiting = self.pending()
            return next((r["metadata"]["name"] for r in waiting if r["metadata"]["uid"] == request_id), None)

        name = eventually(named, f"request {request_id} is pending")
        decision: dict[str, Any] = {"verdict": verdict, "comment": "By a test."}
        arguments = ["patch", "jit", name, f"--namespace={self.namespace}", "--subresource=status", "--type=merge", "--patch"]
        kubectl(*arguments, json.dumps({"status": {"decision": decision}}), user="bob")


def _object(kind: str, name: str, spec: dict[str, Any], namespace: str | None = None) -> dict[str, Any]:
    metadata = {"name": name, **({"namespace": namespace} if namespace else {})}
    return {"apiVersion": "countersign.dev/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec}
