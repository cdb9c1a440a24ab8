"""Each way to the operator: a key of the agent's own, the sidecar beside it, and asyncio."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cluster import Agent, Approver, Namespace, eventually
from countersign import (
    AlreadyCompleted,
    AsyncClient,
    Client,
    CountersignError,
    Guard,
    Operation,
    PrivateKey,
    Sidecar,
    Tool,
    Unauthenticated,
)
from countersign.verifier import AsyncVerifier


@pytest.fixture
def granted(namespace: Namespace) -> tuple[str, str]:
    """The names of a capability that needs approval, and of one that does not."""
    pay = namespace.capability("pay", approval={"approvals": 1, "maxExpirationSeconds": 120})
    return pay, namespace.capability("read")


@pytest.fixture
def sidecar(namespace: Namespace, granted: tuple[str, str], tmp_path: Path) -> Iterator[str]:
    """The address of a real sidecar of an agent that holds both."""
    agent = namespace.agent(*granted)
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    log = (tmp_path / "sidecar.log").open("wb")
    where = [f"--url={os.environ['COUNTERSIGN_URL']}", f"--ca-file={os.environ['COUNTERSIGN_CA']}", f"--token-file={agent.token_file}"]
    process = subprocess.Popen(
        [os.environ["COUNTERSIGN"], "sidecar", *where, f"--listen-address={address}"], stdout=log, stderr=subprocess.STDOUT
    )
    try:
        eventually(lambda: _listens(address) or process.poll() is not None, "the sidecar listens")
        assert process.poll() is None, (tmp_path / "sidecar.log").read_text()
        yield f"http://{address}"
    finally:
        process.terminate()
        process.wait(10)
        log.close()


def _listens(address: str) -> bool:
    host, _, port = address.partition(":")
    with socket.socket() as attempt:
        return attempt.connect_ex((host, int(port))) == 0


def _signing(namespace: Namespace, path: Path, *capabilities: str) -> tuple[Agent, PrivateKey]:
    """An agent that proves itself with a key alone."""
    key = Ed25519PrivateKey.generate()
    kind = serialization.PrivateFormat.PKCS8
    path.write_bytes(key.private_bytes(serialization.Encoding.PEM, kind, serialization.NoEncryption()))
    path.chmod(0o600)
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    public = key.public_key().public_bytes(serialization.Encoding.PEM, form).decode()
    agent = namespace.agent(*capabilities, identity={"keys": [{"kid": "first", "publicKey": public}]})
    return agent, PrivateKey(path, agent.id, kid="first")


def test_an_agent_with_a_key_does_all_that_others_do(
    namespace: Namespace, approver: Approver, granted: tuple[str, str], tmp_path: Path
) -> None:
    pay, read = granted
    agent, key = _signing(namespace, tmp_path / "key.pem", pay, read)
    client = agent.client(credential=key)
    assert client.token().scope == {read}
    assert client.evaluate(Operation(read, "document:q3")).allowed
    guard = Guard(client, {"pay": Tool(pay, resource="invoice:{number}")}, mode="wait", max_wait=60)
    threading.Thread(target=lambda: approver.approve(approver.wait()["metadata"]["uid"])).start()
    assert guard.check("pay", {"number": "INV-7"}, call_id="1").completed
    # The token of its pod proves nothing: the Agent lists the key alone.
    with pytest.raises(Unauthenticated):
        agent.client().token()


def test_a_sidecar_serves_all_that_the_operator_does(approver: Approver, granted: tuple[str, str], sidecar: str) -> None:
    pay, read = granted
    with Client(credential=Sidecar(sidecar), timeout=20.0) as client:
        first = client.token()
        assert first.scope == {read}
        assert client.token() == first, "the sidecar keeps it"
        time.sleep(1.1)  # one of this very second is fresh enough for it
        assert client.token(fresh=True) != first
        assert client.evaluate(Operation(read, "document:q3")).allowed
        assert client.capabilities("document:q3") == [read]
        assert not client.ask("Can I launch the missiles?").allowed
        threading.Thread(target=lambda: approver.approve(approver.wait()["metadata"]["uid"])).start()
        token = client.require_approval(Operation(pay, "invoice:INV-7"), timeout=60)
        client.complete(token)
        with pytest.raises(AlreadyCompleted):
            client.complete(token)
        guard = Guard(client, {"read": read, "pay": pay}, mode="interrupt")
        assert guard.check("read", {}, call_id="1").token().scope == {read}
        assert guard.visible(["read", "pay"]) == ["read", "pay"]


def test_asyncio_does_the_same(namespace: Namespace, approver: Approver, granted: tuple[str, str]) -> None:
    pay, read = granted
    agent = namespace.agent(pay, read)
    url, ca_file = os.environ["COUNTERSIGN_URL"], os.environ["COUNTERSIGN_CA"]

    async def run() -> None:
        async with (
            AsyncClient(url=url, ca_file=ca_file, credential=lambda: agent.token_file.read_text()) as client,
            AsyncVerifier(url, agent.audience, ca_file=ca_file) as verifier,
        ):
            tokens = await asyncio.gather(*(client.token() for _ in range(100)))
            assert len(set(tokens)) == 1
            await _accepted(verifier, tokens[0].value)
            guard = Guard(client, {"pay": Tool(pay, resource="invoice:{number}", sends_token=True)}, mode="wait", max_wait=60)
            checking = asyncio.create_task(guard.acheck("pay", {"number": "INV-7"}, call_id="1"))
            await asyncio.to_thread(lambda: approver.approve(approver.wait()["metadata"]["uid"]))
            token = await (await checking).atoken()
            (await verifier.verify(token.value)).require(pay, "invoice:INV-7", {"number": "INV-7"})
            await client.complete(token)
            with pytest.raises(AlreadyCompleted):
                await client.complete(token)

    asyncio.run(run())


async def _accepted(verifier: AsyncVerifier, token: str) -> None:
    """Waits until the feed knows the agent, which was registered a moment ago."""
    for _ in range(100):
        try:
            await verifier.verify(token)
        except CountersignError:
            await asyncio.sleep(0.1)
        else:
            return
    raise AssertionError("the token was not accepted")
