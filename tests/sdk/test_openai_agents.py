"""The cells of the OpenAI Agents SDK on a real operator."""

# ruff: noqa: E402

from __future__ import annotations

import pytest

pytest.importorskip("agents", reason="needs requirements-openai-agents.txt")
pytest.register_assert_rewrite("openai_agents_cells", "openai_agents_rig")

from openai_agents_cells import *  # noqa: F403
from openai_agents_rig import every, plain, rig  # noqa: F401

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
