"""The authority that the cells of a framework are run against: a FakeAuthority here, the real operator in tests/sdk.

Each grants the same: `invoice.read` at once, `payments.authorize` once a person approves, and no `mailbox.delete`.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

from countersign import AsyncClient, Client
from countersign.guard import Tool, current_permit
from countersign.testing import FakeAuthority

#: What each tool of the tests needs. `wire_money` is in no map.
TOOLS: dict[str, str | Tool] = {
    "read_invoice": Tool("invoice.read", resource="invoice:{number}", parameters=None),
    "pay_invoice": Tool("payments.authorize", resource="invoice:{number}", parameters=["amount", "currency"]),
    "delete_mailbox": Tool("mailbox.delete", resource="mailbox:{user}"),
}
PAYMENT: dict[str, Any] = {"number": "INV-7", "amount": 500, "currency": "EUR"}


def done(ran: Path, what: str) -> str:
    """What a tool of the tests does: a line in a file, which outlives the process, with the permit by which it ran."""
    permit = current_permit()
    with ran.open("a", encoding="utf-8") as file:
        file.write(f"{what} {permit is not None and permit.operation.capability}\n")
    return f"ok: {what}"


class Authority(ABC):
    """What a test may do to it, and what it may see."""

    #: The environment of the agent, for clients of this process and of others.
    environment: dict[str, str]

    def client(self, **more: Any) -> Client:
        """A client of the agent."""
        return Client(**{"timeout": 5.0, "max_retries": 1, **more})

    def async_client(self, **more: Any) -> AsyncClient:
        """The same for asyncio."""
        return AsyncClient(**{"timeout": 5.0, "max_retries": 1, **more})

    @abstractmethod
    def filed(self) -> list[str]:
        """The requests that were ever filed, in their order."""

    @abstractmethod
    def wait_for_request(self, timeout: float = 30.0) -> str:
        """The first request of which nobody has decided, once there is one."""

    @abstractmethod
    def approve(self, request_id: str) -> None:
        """A person says yes."""

    @abstractmethod
    def deny(self, request_id: str) -> None:
        """A person says no."""

    @abstractmethod
    def down(self) -> None:
        """The agent does not reach it any more."""

    @abstractmethod
    def up(self) -> None:
        """It does again."""

    def soon(self, decide: Callable[[str], None]) -> threading.Thread:
        """Decides on the next request from beside, as a person does while the agent waits."""
        beside = threading.Thread(target=lambda: decide(self.wait_for_request()), daemon=True)
        beside.start()
        return beside


class Fake(Authority):
    """A FakeAuthority."""

    def __init__(self, directory: Path) -> None:
        self.authority = FakeAuthority()
        self.authority.start()
        self.authority.allow("invoice.read", resource="invoice:INV-*")
        self.authority.require_approval("payments.authorize", resource="invoice:INV-*")
        token = directory / "token"
        token.write_text("a.platform.token", encoding="utf-8")
        self.environment = {"COUNTERSIGN_URL": self.authority.url, "COUNTERSIGN_TOKEN_FILE": str(token), "COUNTERSIGN_CLOUD": "none"}

    def filed(self) -> list[str]:
        return list(self.authority.approvals)

    def wait_for_request(self, timeout: float = 30.0) -> str:
        return self.authority.wait_for_request(timeout).id

    def approve(self, request_id: str) -> None:
        self.authority.approve(request_id)

    def deny(self, request_id: str) -> None:
        self.authority.deny_request(request_id)

    def down(self) -> None:
        self.authority.down()

    def up(self) -> None:
        self.authority.up()
