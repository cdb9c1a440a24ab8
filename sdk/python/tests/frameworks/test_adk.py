"""The cells of Google ADK on a FakeAuthority."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("google.adk", reason="needs requirements-adk.txt")
pytest.register_assert_rewrite("adk_cells", "adk_past_the_guard")

from adk_cells import *  # noqa: F403
from adk_past_the_guard import *  # noqa: F403
from authorities import Authority, Fake


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Authority]:
    """A FakeAuthority, whose agent is found in the environment."""
    made = Fake(tmp_path)
    for name, value in made.environment.items():
        monkeypatch.setenv(name, value)
    yield made
    made.authority.stop()
