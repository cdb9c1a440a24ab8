"""The examples of the JavaScript adapters, each run to its end on a real operator."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cluster import Approver, Namespace, eventually
from operator_authority import Operator
from proxy import Proxy

ROOT = Path(__file__).parents[2]
SDK = ROOT / "sdk/node"
#: How long an example may take, in seconds.
LONG = 120.0


class Example:
    """An example in a process of its own."""

    def __init__(self, program: Path, environment: dict[str, str], said: Path, *arguments: str) -> None:
        self._said = said
        with said.open("wb") as out:
            self.process = subprocess.Popen(
                ["node", str(program), *arguments], env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT
            )

    def said(self) -> str:
        """What it has printed by now."""
        return self._said.read_text(encoding="utf-8")

    def says(self, text: str) -> None:
        """Returns once it has printed that."""
        eventually(lambda: text in self.said() or self.process.poll() is not None, f"the example says {text}", LONG)
        assert text in self.said(), self.said()

    def end(self) -> str:
        """What it has printed, once it has ended well."""
        assert self.process.wait(LONG) == 0, self.said()
        return self.said()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)


Start = Callable[..., Example]


@pytest.fixture(scope="session")
def sdk() -> Path:
    """The package of this checkout, built."""
    if not (SDK / "dist/index.mjs").exists():
        for command in (["npm", "ci", "--no-audit", "--no-fund"], ["npm", "run", "--silent", "build"]):
            subprocess.run(command, cwd=SDK, check=True)
    return SDK


@pytest.fixture
def authority(namespace: Namespace, approver: Approver, proxy: Proxy) -> Operator:
    """An agent of the operator."""
    return Operator(namespace, approver, proxy)


@pytest.fixture
def start(authority: Operator, sdk: Path, tmp_path: Path) -> Iterator[Start]:
    """Starts the example of a framework, which finds what its package.json names, and nothing else."""
    started: list[Example] = []

    def begin(framework: str, *arguments: str) -> Example:
        folder = tmp_path / framework
        if not folder.exists():
            shutil.copytree(ROOT / "examples/frameworks" / framework, folder, ignore=shutil.ignore_patterns("node_modules"))
            install(folder, sdk)
        environment = {**os.environ, **authority.environment, "LANGSMITH_TRACING": "false"}
        started.append(Example(folder / "agent.mjs", environment, tmp_path / f"said-{len(started)}", *arguments))
        return started[-1]

    yield begin
    for example in started:
        example.kill()


def install(folder: Path, sdk: Path) -> None:
    """What `npm install` would do, with the packages that are there: those with which the SDK is tested."""
    tested = json.loads((sdk / "package.json").read_text(encoding="utf-8"))["devDependencies"]
    named = json.loads((folder / "package.json").read_text(encoding="utf-8"))["dependencies"]
    assert named.pop("@countersign/sdk") == "file:../../../sdk/node"
    assert named == {name: tested[name] for name in named}
    for name, target in {"@countersign/sdk": sdk, **{name: sdk / "node_modules" / name for name in named}}.items():
        link = folder / "node_modules" / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(target)


def decided(authority: Operator, example: Example, decide: Callable[[str], None]) -> str:
    """Bob has decided about what the example waits for."""
    example.says("waits for somebody to approve")
    [request] = authority.filed()
    decide(request)
    return request


@pytest.mark.parametrize("framework", ["langchain", "openai-agents", "adk"])
def test_an_example_pays_what_was_approved(framework: str, start: Start, authority: Operator) -> None:
    example = start(framework)
    request = decided(authority, example, authority.approve)
    said = example.end()
    assert "INV-7: 500 EUR, due today" in said
    assert "INV-7 is paid: 500 EUR" in said
    assert "is gone" not in said
    assert said.endswith("Done.\n")
    assert authority.filed() == [request]
    assert f"pay_invoice waits for somebody to approve request {request}" in said
    # That of OpenAI has no tool that is refused, as its model cannot call what it is not shown.
    if framework != "openai-agents":
        assert "This is not allowed. Nothing was done." in said


@pytest.mark.parametrize("framework", ["langchain", "openai-agents", "adk"])
def test_an_example_does_not_pay_what_was_denied(framework: str, start: Start, authority: Operator) -> None:
    example = start(framework)
    decided(authority, example, authority.deny)
    said = example.end()
    assert "A person was asked and said no. Nothing was done." in said
    assert "is paid" not in said
    assert said.endswith("Done.\n")


def test_the_example_of_langchain_waits_for_the_same_request_in_another_process(start: Start, authority: Operator) -> None:
    first = start("langchain", "thread-7")
    first.says("waits for somebody to approve")
    first.kill()
    [request] = authority.filed()
    authority.approve(request)
    assert "INV-7 is paid: 500 EUR" in start("langchain", "thread-7").end()
    # The approval is used up, whoever runs the thread anew.
    assert "is paid" not in start("langchain", "thread-7").end()
    assert authority.filed() == [request]


def test_the_example_of_openai_that_goes_on_before_anybody_has_decided_waits_on(start: Start, authority: Operator) -> None:
    example = start("openai-agents")
    example.says("waits for somebody to approve")
    [request] = authority.filed()
    eventually(lambda: example.said().count(f"waits for somebody to approve request {request}") > 2, "it has gone on", LONG)
    assert "is paid" not in example.said()
    authority.approve(request)
    assert "INV-7 is paid: 500 EUR" in example.end()
    assert authority.filed() == [request]
