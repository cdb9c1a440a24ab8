"""The cells of the OpenAI Agents SDK on a FakeAuthority."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("agents", reason="needs requirements-openai-agents.txt")
pytest.register_assert_rewrite("openai_agents_cells", "openai_agents_rig")

from authorities import Authority, Fake
from openai_agents_cells import *  # noqa: F403
from openai_agents_rig import every, plain, rig  # noqa: F401


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Authority]:
    """A FakeAuthority, whose agent is found in the environment."""
    made = Fake(tmp_path)
    for name, value in made.environment.items():
        monkeypatch.setenv(name, value)
    yield made
    made.authority.stop()
