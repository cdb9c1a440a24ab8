"""The cells of LangChain on a FakeAuthority."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("langchain", reason="needs requirements-langchain.txt")
pytest.register_assert_rewrite("langchain_cells", "langchain_past_the_guard", "langchain_rig")

from authorities import Authority, Fake
from langchain_cells import *  # noqa: F403
from langchain_past_the_guard import *  # noqa: F403
from langchain_rig import plain, rig  # noqa: F401


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Authority]:
    """A FakeAuthority, whose agent is found in the environment."""
    made = Fake(tmp_path)
    for name, value in made.environment.items():
        monkeypatch.setenv(name, value)
    yield made
    made.authority.stop()
