"""What the tests stand on: an authority of their own, and clients of it that find nothing in the environment."""

from __future__ import annotations

import asyncio
import inspect
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from countersign import AsyncClient, Client
from countersign.testing import FakeAuthority

VECTORS = Path(__file__).parents[2] / "vectors.json"


def vectors() -> dict[str, Any]:
    """The cases of all languages."""
    return json.loads(VECTORS.read_text(encoding="utf-8"))


@pytest.fixture(autouse=True)
def _nothing_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("COUNTERSIGN_", "AWS_", "AZURE_", "IDENTITY_", "GCE_", "K_SERVICE")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("COUNTERSIGN_CLOUD", "none")


@pytest.fixture
def authority() -> Iterator[FakeAuthority]:
    with FakeAuthority() as found:
        yield found


class Blocking:
    """An AsyncClient, or what is built on one, called as if it were a Client, so that one test says the same of both."""

    def __init__(self, of: Any, loop: asyncio.AbstractEventLoop) -> None:
        self.of, self.loop = of, loop

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.of, name)
        if not inspect.iscoroutinefunction(found):
            return found
        return lambda *args, **more: self.loop.run_until_complete(found(*args, **more))


@pytest.fixture(params=["threads", "asyncio"])
def client_of(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Makes clients, of both kinds in turn."""
    opened: list[Any] = []
    loop = asyncio.new_event_loop()

    def make(**more: Any) -> Any:
        made = Client(**more) if request.param == "threads" else AsyncClient(**more)
        opened.append(made)
        return made if isinstance(made, Client) else Blocking(made, loop)

    make.kind = request.param  # type: ignore[attr-defined]
    make.loop = loop  # type: ignore[attr-defined]
    yield make
    for made in opened:
        if isinstance(made, Client):
            made.close()
        else:
            loop.run_until_complete(made.aclose())
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()


@pytest.fixture
def client(client_of: Any, authority: FakeAuthority) -> Any:
    return client_of(url=authority.url, credential=lambda: "a.platform.token", timeout=5.0)
