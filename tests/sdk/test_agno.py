"""Agno on a real operator. Run by `run.sh` with the interpreter of `check-framework.sh agno --python`."""
# ruff: noqa: E402, F403, F405

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

if find_spec("agno") is None:
    pytest.skip("needs the environment of check-framework.sh agno", allow_module_level=True)

sys.path.insert(0, str(Path(__file__).parents[2] / "sdk/python/tests/frameworks"))
pytest.register_assert_rewrite("acting", "agno_past_the_guard", "cells_agno")

from agno_past_the_guard import *
from cells_agno import *

from cluster import Approver, Namespace
from proxy import Proxy
from stage import OperatorStage


@pytest.fixture
def stage(namespace: Namespace, approver: Approver, proxy: Proxy) -> OperatorStage:
    return OperatorStage(namespace, approver, proxy)


@pytest.fixture(params=["run-sync", "arun-async"])
def play(request: pytest.FixtureRequest, stage: OperatorStage, ledger: Ledger) -> Play:
    """Two ways suffice here: what differs between them is not the operator's."""
    return Play(stage, ledger, request.param)


def test_agno_example(stage: OperatorStage, tmp_path: Path) -> None:
    """The example runs as its README says, and says what the guide shows."""
    example = Path(__file__).parents[2] / "examples/frameworks/agno/agent.py"
    running = Process(stage, str(example), str(tmp_path / "example"))
    stage.approve(until(stage.waiting)[0])
    said = running.output()
    assert "tool: INV-7: 500 EUR, due today" in said
    assert "waits for somebody to approve request" in said
    assert "INV-7 is paid: 500 EUR" in said
    assert "is gone" not in said
