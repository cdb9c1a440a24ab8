"""The cells of LangChain on a real operator."""

# ruff: noqa: E402

from __future__ import annotations

import pytest

pytest.importorskip("langchain", reason="needs requirements-langchain.txt")
pytest.register_assert_rewrite("langchain_cells", "langchain_past_the_guard", "langchain_rig")

from langchain_cells import *  # noqa: F403
from langchain_past_the_guard import *  # noqa: F403
from langchain_rig import plain, rig  # noqa: F401

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
