"""CrewAI on the authority for tests. Run by `check-framework.sh crewai`, in an environment that has it."""
# ruff: noqa: F403, F405

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

if find_spec("crewai") is None:
    pytest.skip("run by check-framework.sh crewai", allow_module_level=True)

pytest.register_assert_rewrite("acting", "cells_crewai")

from acting import FakeStage
from cells_crewai import *

from countersign.testing import FakeAuthority


@pytest.fixture
def stage(authority: FakeAuthority, tmp_path: Path) -> Iterator[FakeStage]:
    made = FakeStage(authority, tmp_path)
    yield made
    made.close()


def test_crewai_an_approval_that_nobody_gave_in_time_is_told_to_the_model(stage: FakeStage, ledger: Ledger, way: str) -> None:
    guarded = guard_tools(tools_of(ledger), guard_of(stage))
    with Person(stage, stage.authority.expire):
        _, script = play(way, guarded, PAY)
    assert ledger.read() == []
    assert "Nobody approved this in time." in script.told()
