"""The agents that are registered: the registration API, with the caller's own credential for the Kubernetes API."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any, Final, TypeVar
from urllib.parse import quote, urlencode

from . import _calls as calls
from ._drive import AsyncDriver, SyncDriver
from ._flow import Clock, Flow, Reply, Request
from ._refusals import refusal
from ._routes import json_of
from ._wire import AsyncClients, Clients
from .config import Settings
from .credentials import Credential, Supplied, TokenFile
from .errors import Unavailable

__all__ = ["AsyncRegistry", "RegisteredAgent", "Registry"]

T = TypeVar("T")
#: The credential of a pod for the Kubernetes API.
POD_TOKEN_FILE: Final = "/var/run/secrets/kubernetes.io/serviceaccount/token"
PAGE: Final = 100
Given = str | os.PathLike[str] | Callable[[], str] | None


@dataclass(frozen=True)
class RegisteredAgent:
    """An Agent as it is registered. `spec` and `status` are those of the resource: `kubectl explain agent.spec`."""

    namespace: str
    name: str
    spec: Mapping[str, Any]
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    uid: str = ""
    #: Changes with every write: what `replace` takes the place of.
    resource_version: str = ""
    generation: int = 0
    created_at: str = ""
    status: Mapping[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """Its subject and client_id."""
        return f"agent:{self.namespace}/{self.name}"

    def with_spec(self, **changes: Any) -> RegisteredAgent:
        """The same with some fields of the spec changed, to be handed to `replace`."""
        return replace(self, spec={**self.spec, **changes})

    @classmethod
    def of(cls, value: Mapping[str, Any]) -> RegisteredAgent:
        """Reads what the API says."""
        try:
            return cls(
                namespace=str(value["namespace"]),
                name=str(value["name"]),
                spec=dict(value["spec"]),
                labels=dict(value.get("labels") or {}),
                annotations=dict(value.get("annotations") or {}),
                uid=str(value.get("uid", "")),
                resource_version=str(value.get("resourceVersion", "")),
                generation=int(value.get("generation", 0)),
                created_at=str(value.get("createdAt", "")),
                status=dict(value.get("status") or {}),
            )
        except (KeyError, TypeError, ValueError):
            failure = Unavailable("the answer is no Agent", code="unreadable_answer")
        raise failure


class _Flows:
    """What both registries do."""

    def __init__(self, settings: Settings, token: Given, timeout: float, max_retries: int) -> None:
        self._url = settings.issuer().rstrip("/") + "/api/v1/agents"
        self._clock, self._timeout, self._retries = Clock(), timeout, max_retries
        self._credential = _credential(token)

    def register(
        self,
        namespace: str,
        name: str,
        spec: Mapping[str, Any],
        labels: Mapping[str, str] | None,
        annotations: Mapping[str, str] | None,
    ) -> Flow[RegisteredAgent]:
        body = {"namespace": namespace, "name": name, "spec": spec, "labels": labels, "annotations": annotations}
        # A lost answer is not asked for again: the second would say that there is one of that name.
        reply = yield from self._ask("POST", "", {k: v for k, v in body.items() if v is not None}, repeatable=False)
        return RegisteredAgent.of(calls.expect(reply, "registry"))

    def get(self, namespace: str, name: str) -> Flow[RegisteredAgent]:
        reply = yield from self._ask("GET", _path(namespace, name))
        return RegisteredAgent.of(calls.expect(reply, "registry"))

    def page(self, namespace: str | None, after: str | None) -> Flow[tuple[list[RegisteredAgent], str | None]]:
        asked = {"limit": str(PAGE), **({"namespace": namespace} if namespace else {}), **({"continue": after} if after else {})}
        said = calls.expect((yield from self._ask("GET", "?" + urlencode(asked))), "registry")
        items, rest = said.get("items"), said.get("continue")
        if not isinstance(items, list):
            raise Unavailable("the answer has no items", code="unreadable_answer")
        return [RegisteredAgent.of(item) for item in items], rest if isinstance(rest, str) and rest else None

    def replace(self, agent: RegisteredAgent) -> Flow[RegisteredAgent]:
        body = {"spec": agent.spec, "labels": agent.labels, "annotations": agent.annotations, "uid": agent.uid}
        headers = {"If-Match": f'"{agent.resource_version}"'}
        # Once more would be of another version.
        reply = yield from self._ask("PUT", _path(agent.namespace, agent.name), body, headers, repeatable=False)
        return RegisteredAgent.of(calls.expect(reply, "registry"))

    def delete(self, namespace: str, name: str) -> Flow[None]:
        reply = yield from self._ask("DELETE", _path(namespace, name), repeatable=False)
        if reply.status not in (200, 204):
            raise refusal(reply, "registry")

    def _ask(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        repeatable: bool = True,
    ) -> Flow[Reply]:
        content = None if body is None else json_of(body)

        def make() -> Flow[Request]:
            token = yield from self._credential.assertion("", self._clock)
            sent = {"Authorization": f"Bearer {token.reveal()}", **(headers or {})}
            if content is None:
                return Request(method, self._url + path, sent)
            return Request(method, self._url + path, {**sent, "Content-Type": "application/json"}, content)

        asking = calls.ask(make, "registry", clock=self._clock, timeout=self._timeout, retries=self._retries, repeatable=repeatable)
        return (yield from asking)


class Registry:
    """Registers, reads, replaces and removes Agents. The caller needs the rights for that in Kubernetes, as with kubectl.

    `token` is the path of a file or a function; else COUNTERSIGN_REGISTRY_TOKEN_FILE, else the pod's own for the Kubernetes API.
    """

    def __init__(
        self,
        *,
        url: str | None = None,
        ca_file: str | None = None,
        token: Given = None,
        timeout: float = 30.0,
        max_retries: int = 2,
        http_client: Any = None,
    ) -> None:
        settings = Settings.read(url, ca_file)
        self._flows = _Flows(settings, token, timeout, max_retries)
        self._driver = SyncDriver(Clients(http_client, settings.ca_file))

    def __enter__(self) -> Registry:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections."""
        self._driver.close()

    def register(
        self,
        namespace: str,
        name: str,
        spec: Mapping[str, Any],
        *,
        labels: Mapping[str, str] | None = None,
        annotations: Mapping[str, str] | None = None,
    ) -> RegisteredAgent:
        """Registers an Agent. Raises Conflict if there is one of that name."""
        return self._driver.run(self._flows.register(namespace, name, spec, labels, annotations))

    def get(self, namespace: str, name: str) -> RegisteredAgent:
        """One Agent."""
        return self._driver.run(self._flows.get(namespace, name))

    def list(self, namespace: str | None = None) -> Iterator[RegisteredAgent]:
        """All of them, or those of a namespace, page by page."""
        after: str | None = None
        while True:
            agents, after = self._driver.run(self._flows.page(namespace, after))
            yield from agents
            if after is None:
                return

    def replace(self, agent: RegisteredAgent) -> RegisteredAgent:
        """Replaces an Agent. Raises Conflict if it was changed since it was read."""
        return self._driver.run(self._flows.replace(agent))

    def delete(self, namespace: str, name: str) -> None:
        """Removes an Agent. Its tokens are dead."""
        self._driver.run(self._flows.delete(namespace, name))


class AsyncRegistry:
    """The same for asyncio."""

    def __init__(
        self,
        *,
        url: str | None = None,
        ca_file: str | None = None,
        token: Given = None,
        timeout: float = 30.0,
        max_retries: int = 2,
        http_client: Any = None,
    ) -> None:
        settings = Settings.read(url, ca_file)
        self._flows = _Flows(settings, token, timeout, max_retries)
        self._driver = AsyncDriver(AsyncClients(http_client, settings.ca_file))

    async def __aenter__(self) -> AsyncRegistry:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Closes the connections."""
        await self._driver.close()

    async def register(
        self,
        namespace: str,
        name: str,
        spec: Mapping[str, Any],
        *,
        labels: Mapping[str, str] | None = None,
        annotations: Mapping[str, str] | None = None,
    ) -> RegisteredAgent:
        """Registers an Agent."""
        return await self._driver.run(self._flows.register(namespace, name, spec, labels, annotations))

    async def get(self, namespace: str, name: str) -> RegisteredAgent:
        """One Agent."""
        return await self._driver.run(self._flows.get(namespace, name))

    async def list(self, namespace: str | None = None) -> AsyncIterator[RegisteredAgent]:
        """All of them, or those of a namespace, page by page."""
        after: str | None = None
        while True:
            agents, after = await self._driver.run(self._flows.page(namespace, after))
            for agent in agents:
                yield agent
            if after is None:
                return

    async def replace(self, agent: RegisteredAgent) -> RegisteredAgent:
        """Replaces an Agent."""
        return await self._driver.run(self._flows.replace(agent))

    async def delete(self, namespace: str, name: str) -> None:
        """Removes an Agent."""
        await self._driver.run(self._flows.delete(namespace, name))


def _credential(token: Given) -> Credential:
    if callable(token):
        return Supplied(token)
    return TokenFile(token or os.environ.get("COUNTERSIGN_REGISTRY_TOKEN_FILE") or POD_TOKEN_FILE)


def _path(namespace: str, name: str) -> str:
    return f"/{quote(namespace, safe='')}/{quote(name, safe='')}"
