"""The stage on which the cells of CrewAI and Agno play: one agent, one authority, and somebody who decides.

The agent may read invoices, needs approval to pay them, and holds nothing of the ledger. `FakeStage` has the authority for tests; the
tests on the real operator have a stage of their own that does the same with kubectl.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from countersign import Client, Guard, Tool
from countersign.testing import FakeAuthority

HERE = Path(__file__).parent

#: What the guard of the cells maps. No cell maps `shell`.
TOOLS: dict[str, str | Tool] = {
    "read_invoice": Tool("invoice.read", resource="invoice:{number}", parameters=None),
    "pay_invoice": Tool("payments.authorize", resource="invoice:{number}", parameters=["amount", "currency"]),
    "close_ledger": Tool("ledger.close", parameters=None),
}
#: The payment that the cells ask for.
PAYMENT: dict[str, Any] = {"number": "INV-7", "amount": 500, "currency": "EUR"}


class Stage(Protocol):
    """What the cells need of an authority."""

    def client(self) -> Client: ...
    def environment(self) -> dict[str, str]: ...
    def waiting(self) -> list[str]: ...
    def approve(self, request: str) -> None: ...
    def refuse(self, request: str) -> None: ...
    def killed(self) -> None: ...
    def down(self) -> None: ...
    def up(self) -> None: ...


def guard_of(stage: Stage, mode: str = "wait", max_wait: float = 60.0) -> Guard:
    """The guard of the cells, for threads."""
    return Guard(stage.client(), TOOLS, mode=mode, max_wait=max_wait)  # type: ignore[arg-type]


class Ledger:
    """What the tools of the cells did, in a file, so that another process sees it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, tool: str, **args: Any) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"tool": tool, **args}) + "\n")

    def read(self) -> list[dict[str, Any]]:
        if not self.path.exists():
            return []
        return [json.loads(line) for line in self.path.read_text(encoding="utf-8").splitlines()]


class FakeStage:
    """On the authority for tests."""

    def __init__(self, authority: FakeAuthority, directory: Path) -> None:
        self.authority, self.directory = authority, directory
        authority.allow("invoice.read", resource="invoice:*")
        authority.require_approval("payments.authorize", resource="invoice:*")
        self._clients: list[Client] = []

    def client(self) -> Client:
        made = Client(url=self.authority.url, credential=lambda: "a.platform.token", timeout=3.0, max_retries=0)
        self._clients.append(made)
        return made

    def environment(self) -> dict[str, str]:
        token = self.directory / "token"
        token.write_text("a.platform.token", encoding="utf-8")
        token.chmod(0o600)
        return {"COUNTERSIGN_URL": self.authority.url, "COUNTERSIGN_TOKEN_FILE": str(token)}

    def waiting(self) -> list[str]:
        return [request.id for request in self.authority.pending]

    def approve(self, request: str) -> None:
        self.authority.approve(request)

    def refuse(self, request: str) -> None:
        self.authority.deny_request(request)

    def killed(self) -> None:
        # The operator sees that the one who asked is gone. This authority would answer it, and so hand out the token.
        self.authority.down()
        time.sleep(0.5)
        self.authority.up()

    def down(self) -> None:
        self.authority.down()

    def up(self) -> None:
        self.authority.up()

    def close(self) -> None:
        for client in self._clients:
            client.close()


def until(condition: Callable[[], Any], seconds: float = 240.0) -> Any:
    """What `condition` returns once that is anything."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise AssertionError("it did not happen in time")
        time.sleep(0.05)
    return found


class Person:
    """Decides on the first request that waits, as soon as it does, while a run waits for that."""

    def __init__(self, stage: Stage, decide: Callable[[str], None]) -> None:
        self._stage, self._decide = stage, decide
        self._thread = threading.Thread(target=self._watch)
        self.failed: BaseException | None = None
        self.seen: list[str] = []

    def _watch(self) -> None:
        try:
            self.seen = until(self._stage.waiting)
            self._decide(self.seen[0])
        except BaseException as error:
            self.failed = error

    def __enter__(self) -> Person:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join(300)
        if self.failed is not None:
            raise self.failed


#: What was started, so that a test that fails leaves nothing behind.
_processes: list[subprocess.Popen[bytes]] = []


def end_processes() -> None:
    """Ends what still runs."""
    while _processes:
        process = _processes.pop()
        process.kill()
        process.wait(10)


class Process:
    """Another process of the same agent: `python APP.py ARGUMENT...`, with what it needs in the environment."""

    def __init__(self, stage: Stage, app: str, *arguments: str) -> None:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("COUNTERSIGN_")}
        environment = {**kept, **stage.environment(), "COUNTERSIGN_CLOUD": "none", "PYTHONPATH": str(HERE.parents[1] / "src")}
        command = [sys.executable, "-W", "ignore", str(HERE / app), *arguments]
        self.log = Path(arguments[0]).with_suffix(f".{time.monotonic_ns()}.log")
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=log)
        _processes.append(self._process)

    def kill(self) -> None:
        """As a node that loses power ends it."""
        self._process.kill()
        self._process.wait(10)
        assert self._process.returncode == -9, "it ended before it was killed: " + self.log.read_text(encoding="utf-8")[-2000:]
        assert self._process.stdout is not None
        self._process.stdout.close()

    def output(self, seconds: float = 300.0) -> str:
        """What it printed, once it has ended well."""
        out, _ = self._process.communicate(timeout=seconds)
        assert self._process.returncode == 0, self.log.read_text(encoding="utf-8")[-4000:]
        return out.decode()

    def said(self) -> Any:
        """What it printed last, as JSON, once it has ended well."""
        return json.loads(self.output().strip().splitlines()[-1])
