"""The cells of Google ADK on a real operator."""

# ruff: noqa: E402

from __future__ import annotations

import pytest

pytest.importorskip("google.adk", reason="needs requirements-adk.txt")
pytest.register_assert_rewrite("adk_cells", "adk_past_the_guard")

from adk_cells import *  # noqa: F403
from adk_past_the_guard import *  # noqa: F403

from cluster import Approver, Namespace
from operator_authority import Operator
from proxy import Proxy


@pytest.fixture
def authority(namespace: Namespace, approver: Approver, proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> Operator:
    """An agent of the operator, which is found in the environment."""
    made = Operator(namespace, approver, proxy)
    for name, value in made.environment.items():
        monkeypatch.setenv(name, value)
    return made
