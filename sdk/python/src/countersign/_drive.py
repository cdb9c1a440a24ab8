"""The two drivers of flows: one with threads, one with asyncio. Nothing is decided here."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import threading
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Any, TypeVar, cast

from . import _wire as wire
from ._flow import Call, Effect, Flow, Join, NoAnswer, Reply, Send, Sleep, Spawn
from ._fork import anew_in_child
from .errors import CountersignError

T = TypeVar("T")


class SyncDriver:
    """Runs flows in the thread that asks, and those that are shared in a thread of their own."""

    def __init__(self, clients: wire.Clients) -> None:
        self._clients = clients
        self._flights: dict[Hashable, Future[Any]] = {}
        self._lock = threading.Lock()
        self._closed = threading.Event()
        anew_in_child(self)

    def forked(self) -> None:
        """What was begun elsewhere never ends here."""
        was_closed = self._closed.is_set()
        self._flights, self._lock, self._closed = {}, threading.Lock(), threading.Event()
        if was_closed:
            self._closed.set()

    def run(self, flow: Flow[T]) -> T:
        """Runs a flow to its end."""
        try:
            effect = next(flow)
            while True:
                try:
                    result = self._perform(effect)
                except Exception as error:
                    thrown = error
                else:
                    effect = flow.send(result)
                    continue
                effect = flow.throw(thrown)
        except StopIteration as stop:
            return cast(T, stop.value)
        finally:
            flow.close()

    def close(self) -> None:
        """Wakes whoever sleeps, and closes the connections."""
        self._closed.set()
        self._clients.close()

    def _perform(self, effect: Effect) -> Any:
        match effect:
            case Send(request, timeout):
                outcome = wire.exchange(self._clients.for_(request), request, timeout)
                if isinstance(outcome, NoAnswer):
                    raise outcome
                return outcome
            case Sleep(seconds):
                if self._closed.wait(seconds):
                    raise CountersignError("the client was closed", code="closed")
                return None
            case Call(function):
                return function()
            case Join(key, make):
                return self._result(self._flight(key, make))
            case Spawn(key, make):
                self._flight(key, make)
                return None

    def _flight(self, key: Hashable, make: Callable[[], Flow[Any]]) -> Future[Any]:
        with self._lock:
            flight = self._flights.get(key)
            if flight is not None:
                return flight
            flight = self._flights[key] = Future()
        # In a thread of its own, so that it outlives whoever began it; a daemon, so that it holds no process up.
        thread = threading.Thread(target=self._fly, args=(key, make, flight), name="countersign-flight", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # the interpreter ends, or there is no room for a thread
            self._fly(key, make, flight)
        return flight

    def _fly(self, key: Hashable, make: Callable[[], Flow[Any]], flight: Future[Any]) -> None:
        result: Any = None
        failure: BaseException | None = None
        try:
            result = self.run(make())
        except BaseException as error:  # whoever waits gets it
            failure = error
        with self._lock:
            del self._flights[key]
        if failure is not None:
            flight.set_exception(failure)
        else:
            flight.set_result(result)

    @staticmethod
    def _result(flight: Future[Any]) -> Any:
        failure = flight.exception()
        if failure is None:
            return flight.result()
        raise _own(failure)


class AsyncDriver:
    """Runs flows in the task that asks, and those that are shared in a task of their own."""

    def __init__(self, clients: wire.AsyncClients) -> None:
        self._clients = clients
        self._flights: dict[Hashable, asyncio.Task[Any]] = {}
        anew_in_child(self)

    def forked(self) -> None:
        """What was begun elsewhere never ends here."""
        self._flights = {}

    async def run(self, flow: Flow[T]) -> T:
        """Runs a flow to its end."""
        try:
            effect = next(flow)
            while True:
                try:
                    result = await self._perform(effect)
                except Exception as error:
                    thrown = error
                else:
                    effect = flow.send(result)
                    continue
                effect = flow.throw(thrown)
        except StopIteration as stop:
            return cast(T, stop.value)
        finally:
            flow.close()

    async def close(self) -> None:
        """Ends what runs, and closes the connections."""
        flights = [flight for flight in self._flights.values() if flight.get_loop() is asyncio.get_running_loop()]
        for flight in flights:
            flight.cancel()
        await asyncio.gather(*flights, return_exceptions=True)
        await self._clients.close()

    async def _perform(self, effect: Effect) -> Any:
        match effect:
            case Send(request, timeout):
                outcome: Reply | NoAnswer = NoAnswer("timeout", "no answer in time", sent=True)
                # The transport has limits of its own; this one holds for all of it together.
                with contextlib.suppress(asyncio.TimeoutError):
                    exchange = wire.exchange_async(self._clients.for_(request), request, timeout)
                    outcome = await asyncio.wait_for(exchange, timeout)
                if isinstance(outcome, NoAnswer):
                    raise outcome
                return outcome
            case Sleep(seconds):
                await asyncio.sleep(seconds)
                return None
            case Call(function):
                return await asyncio.to_thread(function)
            case Join(key, make):
                flight = self._flight(key, make)
                try:
                    # A waiter that is cancelled leaves the flight to the others.
                    return await asyncio.shield(flight)
                except CountersignError as error:
                    failure = error
                raise _own(failure)
            case Spawn(key, make):
                self._flight(key, make)
                return None

    def _flight(self, key: Hashable, make: Callable[[], Flow[Any]]) -> asyncio.Task[Any]:
        flight = self._flights.get(key)
        # One of a loop that was closed never lands.
        if flight is None or flight.done() or flight.get_loop() is not asyncio.get_running_loop():
            flight = self._flights[key] = asyncio.create_task(self.run(make()), name="countersign-flight")
            flight.add_done_callback(lambda done: self._landed(key, done))
        return flight

    def _landed(self, key: Hashable, flight: asyncio.Task[Any]) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]
        if not flight.cancelled():
            flight.exception()  # seen: whoever waited has it, and one that nobody waited for has dealt with it itself


def _own(error: BaseException) -> BaseException:
    """A copy for each who waits, so that their tracebacks do not grow into one another."""
    if not isinstance(error, CountersignError):
        return error
    return copy.copy(error)
