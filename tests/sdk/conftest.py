"""What the tests on a real operator stand on. `run.sh` starts it, and says in the environment where it is."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster import Approver, Namespace
from proxy import Proxy


def pytest_configure() -> None:
    if "COUNTERSIGN_URL" not in os.environ or "BOB_KUBECONFIG" not in os.environ:
        pytest.exit("there is no operator: run tests/sdk/run.sh", returncode=2)


@pytest.fixture
def namespace(tmp_path: Path) -> Iterator[Namespace]:
    """A namespace of the test's own, for its agents and capabilities."""
    made = Namespace(tmp_path)
    yield made
    made.remove()


@pytest.fixture
def approver(namespace: Namespace) -> Approver:
    """Whoever decides on requests in that namespace."""
    return Approver(namespace.name)


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    """A way to the operator that can be cut. Its `url` takes the place of the operator's."""
    made = Proxy(os.environ["COUNTERSIGN_URL"])
    yield made
    made.close()
