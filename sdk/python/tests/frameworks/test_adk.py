"""The cells of Google ADK on a FakeAuthority."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("google.adk", reason="needs requirements-adk.txt")

from adk_cells import *  # noqa: F403
from authorities import Authority, Fake


@pytest.fixture
def authority(tmp_path: Path) -> Iterator[Authority]:
    """A FakeAuthority, which knows the agent by any credential."""
    made = Fake(tmp_path)
    yield made
    made.authority.stop()
