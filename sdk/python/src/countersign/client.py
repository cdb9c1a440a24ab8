"""The clients: `Client` for threads, `AsyncClient` for asyncio. They say the same, and decide nothing; see `_core` and `_waiting`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, TypeVar

from . import _waiting as waiting
from ._chain import Chain
from ._core import Core, secret_if_any
from ._drive import AsyncDriver, SyncDriver
from ._flow import Clock, Flow
from ._waiting import Mode
from ._wire import AsyncClients, Clients
from .approvals import ApprovalRequest
from .config import Settings
from .credentials import Credential
from .operation import Answer, Decision, Operation
from .registry import AsyncRegistry, Registry
from .tokens import AccessToken

__all__ = ["AsyncClient", "Client"]

T = TypeVar("T")
GivenCredential = Credential | Callable[[], str] | None


class Client:
    """An agent's way to its authority. Safe for threads; use one for all, and close it.

    Whatever is not given is read from the environment (README, "Configuration"). `timeout` is in seconds, for the whole of a call with
    its repetitions; a person's decision is waited for longer. `http_client` is an `httpx.Client` for requests to the authority.
    """

    def __init__(
        self,
        *,
        url: str | None = None,
        ca_file: str | None = None,
        credential: GivenCredential = None,
        audience: str | None = None,
        timeout: float = 30.0,
        max_retries: int = 2,
        http_client: Any = None,
    ) -> None:
        settings = Settings.read(url, ca_file, audience)
        self._core = Core(settings, Chain(credential, settings), timeout=timeout, max_retries=max_retries, clock=Clock())
        self._driver = SyncDriver(Clients(http_client, settings.ca_file))
        self._registry: Registry | None = None

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Client({self._core.settings.url}, {self._core.chain.describe()})"

    def close(self) -> None:
        """Closes the connections. Whoever waits is told."""
        self._driver.close()
        if self._registry is not None:
            self._registry.close()

    def run(self, flow: Flow[T]) -> T:
        """Runs a flow: for what is built on this client, such as the guard."""
        return self._driver.run(flow)

    @property
    def core(self) -> Core:
        """What is behind both clients: for what is built on this one."""
        return self._core

    @property
    def credential(self) -> Credential:
        """The credential that is used. `.describe()` says which that is, without its secrets."""
        return self.run(self._core.chain.choose())

    @property
    def registry(self) -> Registry:
        """The agents that are registered. It needs a credential of its own, one for the Kubernetes API."""
        if self._registry is None:
            settings = self._core.settings
            self._registry = Registry(url=settings.url, ca_file=settings.ca_file, timeout=self._core.timeout)
        return self._registry

    def token(
        self,
        *,
        audience: str | None = None,
        scope: str | Iterable[str] | None = None,
        operation: Operation | None = None,
        fresh: bool = False,
    ) -> AccessToken:
        """A token of the agent. It is kept and renewed early; however many ask at once, one request is made.

        Without `scope` it has all that the agent holds without approval. `operation` is for a token for exactly that, which is never
        kept. `fresh` is for after a resource server has refused a token.
        """
        return self.run(self._core.token(audience, scope, operation, fresh=fresh))

    def exchange(
        self,
        subject_token: str | AccessToken,
        *,
        subject_token_type: str = "access_token",
        audience: str | None = None,
        scope: str | Iterable[str] | None = None,
    ) -> AccessToken:
        """A token on behalf of whoever called this agent (`access_token`), or of a user (`id_token`)."""
        return self.run(self._core.exchange(subject_token, subject_token_type, audience, scope))

    def revoke(self, token_or_request: AccessToken | ApprovalRequest | str) -> None:
        """Gives up a token with all that descends from it, or a request for approval."""
        self.run(self._core.revoke(token_or_request))

    def evaluate(self, operation: Operation, *, on_behalf_of: str | None = None, context: Mapping[str, Any] | None = None) -> Decision:
        """May the agent do this? Nothing is used by asking."""
        return self.run(self._core.evaluate(operation, on_behalf_of, context))

    def evaluate_many(self, operations: Sequence[Operation]) -> list[Decision]:
        """May it do each of these? In their order."""
        return self.run(self._core.evaluate_many(operations))

    def capabilities(self, resource: str | None = None) -> list[str]:
        """The capabilities that may be used on a resource at once; without one, those that are limited to none."""
        return self.run(self._core.capabilities(resource))

    def ask(self, question: str) -> Answer:
        """May it, in plain words? The answer shows how the question was read."""
        return self.run(self._core.plain(question))

    def request_approval(
        self,
        operation: Operation,
        *,
        justification: str | None = None,
        subject_token: str | AccessToken | None = None,
        expires_in: int | None = None,
        idempotency_key: str | None = None,
    ) -> ApprovalRequest:
        """Asks a person to approve one operation. The same `idempotency_key` is the same request. `expires_in` is in seconds."""
        flow = waiting.file(
            self._core,
            operation,
            justification=justification,
            subject_token=secret_if_any(subject_token),
            expires_in=expires_in,
            idempotency_key=idempotency_key,
        )
        return self.run(flow)

    def approval(self, request: ApprovalRequest | str, *, wait: float = 0.0) -> AccessToken:
        """Looks whether somebody has decided, waiting for at most `wait` seconds. Raises ApprovalPending if nobody has."""
        return self.run(waiting.look(self._core, ApprovalRequest.named(request), wait=wait))

    def wait_for_approval(self, request: ApprovalRequest | str, *, timeout: float) -> AccessToken:
        """Waits for the decision, also while the authority is away. Raises ApprovalPending when `timeout` seconds are over."""
        return self.run(waiting.look(self._core, ApprovalRequest.named(request), wait=timeout, insist=True))

    def require_approval(
        self,
        operation: Operation,
        *,
        timeout: float = 120.0,
        justification: str | None = None,
        idempotency_key: str | None = None,
        mode: Mode = "wait",
    ) -> AccessToken:
        """A token for an operation, approved by a person if it needs that.

        Raises AccessDenied before anybody is asked if no person could lift the no. With a `mode` other than `wait`, a decision that is
        not there yet is ApprovalPending at once.
        """
        flow = waiting.obtain(
            self._core,
            operation,
            timeout=timeout,
            justification=justification,
            idempotency_key=idempotency_key,
            mode=mode,
        )
        return self.run(flow)

    def complete(self, token: AccessToken | str) -> None:
        """Reports that an approved operation is done. It returns exactly once for each token; else AlreadyCompleted."""
        self.run(waiting.complete(self._core, token))

    def withdraw(self, request: ApprovalRequest | str) -> None:
        """Takes a request for approval back."""
        self.run(self._core.revoke(ApprovalRequest.named(request)))


class AsyncClient:
    """The same for asyncio; use it within one event loop. See `Client` for what each means."""

    def __init__(
        self,
        *,
        url: str | None = None,
        ca_file: str | None = None,
        credential: GivenCredential = None,
        audience: str | None = None,
        timeout: float = 30.0,
        max_retries: int = 2,
        http_client: Any = None,
    ) -> None:
        settings = Settings.read(url, ca_file, audience)
        self._core = Core(settings, Chain(credential, settings), timeout=timeout, max_retries=max_retries, clock=Clock())
        self._driver = AsyncDriver(AsyncClients(http_client, settings.ca_file))
        self._registry: AsyncRegistry | None = None

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        return f"AsyncClient({self._core.settings.url}, {self._core.chain.describe()})"

    async def aclose(self) -> None:
        """Closes the connections."""
        await self._driver.close()
        if self._registry is not None:
            await self._registry.aclose()

    async def run(self, flow: Flow[T]) -> T:
        """Runs a flow: for what is built on this client, such as the guard."""
        return await self._driver.run(flow)

    @property
    def core(self) -> Core:
        """What is behind both clients: for what is built on this one."""
        return self._core

    async def credential(self) -> Credential:
        """The credential that is used. `.describe()` says which that is, without its secrets."""
        return await self.run(self._core.chain.choose())

    @property
    def registry(self) -> AsyncRegistry:
        """The agents that are registered."""
        if self._registry is None:
            settings = self._core.settings
            self._registry = AsyncRegistry(url=settings.url, ca_file=settings.ca_file, timeout=self._core.timeout)
        return self._registry

    async def token(
        self,
        *,
        audience: str | None = None,
        scope: str | Iterable[str] | None = None,
        operation: Operation | None = None,
        fresh: bool = False,
    ) -> AccessToken:
        """A token of the agent. A caller that is cancelled takes nothing from the others who wait."""
        return await self.run(self._core.token(audience, scope, operation, fresh=fresh))

    async def exchange(
        self,
        subject_token: str | AccessToken,
        *,
        subject_token_type: str = "access_token",
        audience: str | None = None,
        scope: str | Iterable[str] | None = None,
    ) -> AccessToken:
        """A token on behalf of whoever called this agent, or of a user."""
        return await self.run(self._core.exchange(subject_token, subject_token_type, audience, scope))

    async def revoke(self, token_or_request: AccessToken | ApprovalRequest | str) -> None:
        """Gives up a token with all that descends from it, or a request for approval."""
        await self.run(self._core.revoke(token_or_request))

    async def evaluate(
        self, operation: Operation, *, on_behalf_of: str | None = None, context: Mapping[str, Any] | None = None
    ) -> Decision:
        """May the agent do this?"""
        return await self.run(self._core.evaluate(operation, on_behalf_of, context))

    async def evaluate_many(self, operations: Sequence[Operation]) -> list[Decision]:
        """May it do each of these? In their order."""
        return await self.run(self._core.evaluate_many(operations))

    async def capabilities(self, resource: str | None = None) -> list[str]:
        """The capabilities that may be used on a resource at once."""
        return await self.run(self._core.capabilities(resource))

    async def ask(self, question: str) -> Answer:
        """May it, in plain words?"""
        return await self.run(self._core.plain(question))

    async def request_approval(
        self,
        operation: Operation,
        *,
        justification: str | None = None,
        subject_token: str | AccessToken | None = None,
        expires_in: int | None = None,
        idempotency_key: str | None = None,
    ) -> ApprovalRequest:
        """Asks a person to approve one operation."""
        flow = waiting.file(
            self._core,
            operation,
            justification=justification,
            subject_token=secret_if_any(subject_token),
            expires_in=expires_in,
            idempotency_key=idempotency_key,
        )
        return await self.run(flow)

    async def approval(self, request: ApprovalRequest | str, *, wait: float = 0.0) -> AccessToken:
        """Looks whether somebody has decided, waiting for at most `wait` seconds."""
        return await self.run(waiting.look(self._core, ApprovalRequest.named(request), wait=wait))

    async def wait_for_approval(self, request: ApprovalRequest | str, *, timeout: float) -> AccessToken:
        """Waits for the decision, also while the authority is away."""
        return await self.run(waiting.look(self._core, ApprovalRequest.named(request), wait=timeout, insist=True))

    async def require_approval(
        self,
        operation: Operation,
        *,
        timeout: float = 120.0,
        justification: str | None = None,
        idempotency_key: str | None = None,
        mode: Mode = "wait",
    ) -> AccessToken:
        """A token for an operation, approved by a person if it needs that."""
        flow = waiting.obtain(
            self._core,
            operation,
            timeout=timeout,
            justification=justification,
            idempotency_key=idempotency_key,
            mode=mode,
        )
        return await self.run(flow)

    async def complete(self, token: AccessToken | str) -> None:
        """Reports that an approved operation is done. It returns exactly once for each token."""
        await self.run(waiting.complete(self._core, token))

    async def withdraw(self, request: ApprovalRequest | str) -> None:
        """Takes a request for approval back."""
        await self.run(self._core.revoke(ApprovalRequest.named(request)))
