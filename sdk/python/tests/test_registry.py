"""The registry: what is sent, and what becomes of the answers. The real one is asked in tests/sdk."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from countersign import (
    AccessDenied,
    AsyncRegistry,
    ConfigurationError,
    Conflict,
    CredentialInvalid,
    NotFound,
    Registry,
    Unauthenticated,
    Unavailable,
)
from countersign.testing.server import Answer, Asked, Server

SPEC = {"owner": "team@acme.example", "capabilities": [{"name": "document.read"}]}


class Api:
    """As much of the registration API as is asked here."""

    def __init__(self) -> None:
        self.agents: dict[str, dict[str, Any]] = {}
        self.answers: list[Answer] = []
        self.server = Server(self.answer)
        self.server.up()

    def answer(self, asked: Asked) -> Answer:
        if self.answers:
            return self.answers.pop(0)
        name = asked.path.removeprefix("/api/v1/agents").strip("/")
        if asked.method == "POST":
            name = f"{asked.body['namespace']}/{asked.body['name']}"
            if name in self.agents:
                return refused(409, "conflict")
            self.agents[name] = {**asked.body, "uid": "u1", "resourceVersion": "1", "generation": 1}
            return Answer(201, self.agents[name])
        if asked.method == "GET" and not name:
            found = [agent for agent in self.agents.values() if asked.query.get("namespace") in (None, agent["namespace"])]
            start = int(asked.query.get("continue", 0))
            page = {"items": found[start : start + 2]}
            return Answer(200, {**page, "continue": str(start + 2)} if start + 2 < len(found) else page)
        if name not in self.agents:
            return refused(404, "not_found")
        if asked.method == "PUT":
            if asked.headers.get("if-match") != f'"{self.agents[name]["resourceVersion"]}"':
                return refused(412, "conflict")
            version = str(int(self.agents[name]["resourceVersion"]) + 1)
            self.agents[name] = {**self.agents[name], **asked.body, "resourceVersion": version}
        if asked.method == "DELETE":
            del self.agents[name]
            return Answer(204)
        return Answer(200, self.agents[name])


def refused(status: int, error: str) -> Answer:
    return Answer(status, {"error": error, "error_description": "why"})


@pytest.fixture
def api() -> Any:
    found = Api()
    yield found
    found.server.down()


@pytest.fixture
def registry(api: Api) -> Any:
    with Registry(url=api.server.url, token=lambda: "kubernetes.token.x", timeout=2.0) as found:
        yield found


def test_an_agent_is_registered_read_replaced_and_removed(registry: Registry, api: Api) -> None:
    agent = registry.register("research", "bot", SPEC, labels={"team": "research"})
    assert (agent.id, agent.resource_version, agent.labels) == ("agent:research/bot", "1", {"team": "research"})
    assert registry.get("research", "bot") == agent
    changed = registry.replace(agent.with_spec(suspended=True))
    assert changed.spec["suspended"] is True
    assert changed.spec["owner"] == "team@acme.example"
    registry.delete("research", "bot")
    with pytest.raises(NotFound):
        registry.get("research", "bot")
    assert {asked.headers["authorization"] for asked in api.server.asked} == {"Bearer kubernetes.token.x"}


def test_a_version_that_was_changed_meanwhile_is_not_replaced(registry: Registry) -> None:
    first = registry.register("research", "bot", SPEC)
    registry.replace(first.with_spec(suspended=True))
    with pytest.raises(Conflict):
        registry.replace(first)
    with pytest.raises(Conflict):
        registry.register("research", "bot", SPEC)


def test_a_list_goes_over_all_pages(registry: Registry) -> None:
    for n in range(5):
        registry.register("research" if n % 2 else "tools", f"bot-{n}", SPEC)
    assert [agent.name for agent in registry.list()] == [f"bot-{n}" for n in range(5)]
    assert [agent.name for agent in registry.list("research")] == ["bot-1", "bot-3"]


def test_the_same_is_said_in_asyncio(api: Api) -> None:
    async def run() -> list[str]:
        async with AsyncRegistry(url=api.server.url, token=lambda: "kubernetes.token.x") as registry:
            agents = [await registry.register("research", f"bot-{n}", SPEC) for n in range(3)]
            assert await registry.get("research", "bot-0") == agents[0]
            await registry.replace(agents[0].with_spec(suspended=True))
            with pytest.raises(Conflict):
                await registry.replace(agents[0])
            await registry.delete("research", "bot-1")
            return [agent.name async for agent in registry.list()]

    assert asyncio.run(run()) == ["bot-0", "bot-2"]


def test_refusals_are_what_they_are(registry: Registry, api: Api) -> None:
    for status, error, kind in ((401, "invalid_token", Unauthenticated), (403, "access_denied", AccessDenied)):
        api.answers = [refused(status, error)]
        with pytest.raises(kind):
            registry.get("a", "b")
    api.answers = [Answer(200, {"name": "half"})]
    with pytest.raises(Unavailable):
        registry.get("a", "b")


def test_writing_is_not_sent_twice(registry: Registry, api: Api) -> None:
    agent = registry.register("research", "bot", SPEC)
    for write in (
        lambda: registry.replace(agent),
        lambda: registry.delete("research", "bot"),
        lambda: registry.register("a", "b", SPEC),
    ):
        before = len(api.server.asked)
        api.answers = [refused(503, "temporarily_unavailable")]
        with pytest.raises(Unavailable):
            write()
        assert len(api.server.asked) == before + 1


def test_names_stay_within_their_segment(registry: Registry, api: Api) -> None:
    with pytest.raises(NotFound):
        registry.get("../../oauth2", "a/b?x#y")
    assert api.server.asked[-1].path == "/api/v1/agents/..%2F..%2Foauth2/a%2Fb%3Fx%23y"


def test_the_credential_is_one_for_kubernetes_and_not_the_agents(api: Api, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    agents = tmp_path / "agent"
    agents.write_text("agent.token.x")
    monkeypatch.setenv("COUNTERSIGN_TOKEN_FILE", str(agents))
    with Registry(url=api.server.url) as registry, pytest.raises(CredentialInvalid):
        registry.get("a", "b")
    mine = tmp_path / "kubernetes"
    mine.write_text("kubernetes.token.y")
    monkeypatch.setenv("COUNTERSIGN_REGISTRY_TOKEN_FILE", str(mine))
    with Registry(url=api.server.url) as registry, pytest.raises(NotFound):
        registry.get("a", "b")
    assert api.server.asked[-1].headers["authorization"] == "Bearer kubernetes.token.y"
    with pytest.raises(ConfigurationError):
        Registry()
