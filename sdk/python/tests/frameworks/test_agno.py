"""Agno on the authority for tests. Run by `check-framework.sh agno`, in an environment that has it."""
# ruff: noqa: F403, F405

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

if find_spec("agno") is None:
    pytest.skip("run by check-framework.sh agno", allow_module_level=True)

pytest.register_assert_rewrite("acting", "agno_past_the_guard", "cells_agno")

from acting import FakeStage
from agno_past_the_guard import *
from cells_agno import *

from countersign.testing import FakeAuthority


@pytest.fixture
def stage(authority: FakeAuthority, tmp_path: Path) -> Iterator[FakeStage]:
    made = FakeStage(authority, tmp_path)
    yield made
    made.close()


def test_agno_an_approval_that_nobody_gave_in_time_is_told_to_the_model(play: Play, stage: FakeStage, ledger: Ledger) -> None:
    agent = play.agent(PAY)
    with Person(stage, stage.authority.expire):
        play.run(agent)
    assert ledger.read() == []
    assert "Nobody approved this in time." in told(agent)
