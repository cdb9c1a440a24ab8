"""No token, key or assertion in any text: a canary is planted wherever a secret can be, and everything is searched for it."""

from __future__ import annotations

import io
import logging
import pickle
import traceback
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any

import pytest

from countersign import Client, CountersignError, Guard, InvalidRequest, Operation, PrivateKey, Registry, TokenFile
from countersign.testing import FakeAuthority
from countersign.verifier import Verifier

CANARY = "canary7SECRETcanary"
CREDENTIAL = f"head.{CANARY}.tail"


@pytest.fixture
def heard() -> Iterator[io.StringIO]:
    """Everything that is logged, by whomever."""
    text = io.StringIO()
    handler = logging.StreamHandler(text)
    root, level = logging.getLogger(), logging.getLogger().level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield text
    root.removeHandler(handler)
    root.setLevel(level)


def texts(error: BaseException, depth: int = 0) -> Iterator[str]:
    """All that can be read of an error: its words, arguments, members, causes and context, and the variables beside it."""
    if depth > 5:
        return
    yield from (str(error), repr(error), repr(error.args), repr(vars(error)))
    yield "".join(traceback.format_exception(type(error), error, error.__traceback__))
    yield from _variables(error.__traceback__)
    if isinstance(error, CountersignError):
        yield repr(pickle.dumps(error))
    for other in (error.__cause__, error.__context__):
        if other is not None:
            yield from texts(other, depth + 1)
    for member in vars(error).values():
        if hasattr(member, "request") and hasattr(member, "headers"):
            yield repr(member.headers)


def _variables(trace: TracebackType | None) -> Iterator[str]:
    while trace is not None:
        frame = trace.tb_frame
        # The tests' own variables hold what they planted.
        if "countersign" in frame.f_code.co_filename and "/tests/" not in frame.f_code.co_filename:
            yield from (f"{frame.f_code.co_name} {name}={value!r}" for name, value in frame.f_locals.items())
        trace = trace.tb_next


def search(error: BaseException, *secrets: str) -> None:
    for text in texts(error):
        for secret in (CANARY, *secrets):
            assert secret not in text, text[: text.index(secret)][-300:]


def failures(authority: FakeAuthority) -> list[tuple[str, Callable[[], None]]]:
    return [
        ("away", authority.down),
        ("slow", lambda: authority.slow(1.0)),
        ("broken", lambda: authority.fail(502, 50)),
        ("refused", lambda: authority.fail(400, 50)),
        ("unauthenticated", lambda: authority.fail(401, 50)),
        ("redirected", lambda: authority.fail(302, 50)),
        ("nonsense", lambda: authority.fail(200, 50)),
        ("limited", lambda: authority.fail(429, 50, retry_after=60)),
    ]


@pytest.mark.parametrize("said", [object(), float("nan"), {1, 2}])
def test_what_has_no_json_is_refused_before_a_credential_is_asked_for(authority: FakeAuthority, said: Any) -> None:
    authority.allow("a.b")
    context, spec = {"said": said}, {"owner": said}
    with (
        Client(url=authority.url, credential=lambda: CREDENTIAL) as client,
        Registry(url=authority.url, token=lambda: CREDENTIAL) as registry,
        Verifier(authority.url, authority.audience, revocation="none", credential=lambda: CREDENTIAL) as verifier,
    ):
        token = verifier.verify(authority.token_for("a.b"))
        for call in (
            lambda: client.evaluate(Operation("a.b"), context=context),
            lambda: verifier.evaluate(token, Operation("a.b"), context=context),
            lambda: registry.register("test", "bot", spec),
        ):
            with pytest.raises(InvalidRequest) as failure:
                call()
            search(failure.value, token.token.reveal())


@pytest.mark.parametrize("before", ["Bag Attributes\n    localKeyID: 01\n", "\ufeff", "# mine\n"])
def test_a_key_with_words_before_it_is_named_in_no_error(before: str) -> None:
    with pytest.raises(CountersignError) as failure:
        PrivateKey(f"{before}-----BEGIN PRIVATE KEY-----\n{CANARY}\n-----END PRIVATE KEY-----\n", "agent:test/bot")
    search(failure.value)


@pytest.mark.parametrize("n", range(8))
def test_no_failure_of_any_call_shows_a_secret(client_of: Any, authority: FakeAuthority, heard: io.StringIO, n: int) -> None:
    authority.allow("a.b")
    authority.require_approval("pay")
    client = client_of(url=authority.url, credential=lambda: CREDENTIAL, timeout=0.6, max_retries=1)
    token = client.token()
    operation = Operation("pay", "invoice:1", {"n": 1})
    request = client.request_approval(operation)
    authority.approve(request.id)
    good = client.approval(request)
    name, fault = failures(authority)[n]
    fault()
    calls: list[Callable[[], Any]] = [
        lambda: client.token(fresh=True),
        lambda: client.token(operation=operation),
        lambda: client.exchange(token),
        lambda: client.evaluate(operation, context={"access_token": token.secret}),
        lambda: client.evaluate_many([operation]),
        lambda: client.capabilities(),
        lambda: client.ask("?"),
        lambda: client.request_approval(operation, subject_token=token),
        lambda: client.approval(request),
        lambda: client.require_approval(operation),
        lambda: client.complete(good),
        lambda: client.revoke(token),
    ]
    failed = 0
    for call in calls:
        try:
            call()
        except CountersignError as error:
            failed += 1
            search(error, token.value, good.value, token.value.split(".")[2])
    assert failed >= 8, f"{name} made nothing fail, so nothing was searched"
    for secret in (CANARY, token.value, good.value):
        assert secret not in heard.getvalue()
    assert heard.getvalue(), "something was logged"


def test_a_credential_that_cannot_be_sent_is_not_quoted(client_of: Any, authority: FakeAuthority, tmp_path: Any) -> None:
    path = tmp_path / "token"
    for content in (f"{CANARY}\nsecond", f"two {CANARY}", CANARY + "\u00e9", CANARY * 10_000):
        path.write_text(content)
        for credential in (TokenFile(path), lambda content=content: content):
            with pytest.raises(CountersignError) as refused:
                client_of(url=authority.url, credential=credential).token()
            search(refused.value)


def test_a_key_that_cannot_be_used_is_not_quoted(tmp_path: Any) -> None:
    from countersign import PrivateKey

    pem = f"-----BEGIN PRIVATE KEY-----\n{CANARY}\n-----END PRIVATE KEY-----\n"
    path = tmp_path / "key.pem"
    path.write_text(pem)
    path.chmod(0o600)
    for given in (pem, path):
        with pytest.raises(CountersignError) as refused:
            PrivateKey(given, "agent:a/b")
        search(refused.value)


def test_what_the_library_has_in_its_exceptions_is_nobodys_context(authority: FakeAuthority) -> None:
    with Client(url=authority.url, credential=lambda: CREDENTIAL, timeout=0.3, max_retries=0) as client:
        authority.slow(1.0)
        with pytest.raises(CountersignError) as refused:
            client.token()
    error: BaseException | None = refused.value
    while error is not None:
        assert type(error).__module__.split(".")[0] == "countersign"
        assert not hasattr(error, "request") or error.request is None
        error = error.__cause__ or error.__context__


def test_a_guard_that_denies_shows_no_secret(authority: FakeAuthority, heard: io.StringIO) -> None:
    authority.allow("a.b")
    with Client(url=authority.url, credential=lambda: CREDENTIAL, timeout=0.5, max_retries=0) as client:
        guard = Guard(client, {"t": "a.b", "bad": "no.such"})
        token = client.token()
        for tool in ("t", "bad"):
            authority.fail(502, 1) if tool == "t" else None
            with pytest.raises(CountersignError) as denied:
                guard.check(tool, {"password": CANARY}, call_id="c", subject_token=token)
            shown = "".join([str(denied.value), repr(denied.value), denied.value.for_model()])  # type: ignore[attr-defined]
            assert CANARY not in shown
            assert token.value not in shown
    assert CANARY not in heard.getvalue()


def test_a_verifier_that_rejects_shows_no_token(authority: FakeAuthority, heard: io.StringIO) -> None:
    with Verifier(authority.url, "https://other.example", revocation="none") as verifier:
        token = authority.token_for("x", jti=CANARY)
        for text in (token, token[:-5] + "AAAAA", f"{CANARY}.{CANARY}", token + "."):
            with pytest.raises(CountersignError) as rejected:
                verifier.verify(text)
            shown = [str(rejected.value), repr(rejected.value), repr(vars(rejected.value)), repr(rejected.value.__context__)]
            assert all(text not in said and CANARY not in said for said in shown)
    assert token not in heard.getvalue()


def test_a_client_is_printed_without_its_secrets(authority: FakeAuthority) -> None:
    authority.allow("a.b")
    with Client(url=authority.url, credential=lambda: CREDENTIAL) as client:
        token = client.token()
        shown = repr(client) + repr(client.credential) + client.credential.describe() + repr(vars(client.core)) + repr(authority.requests)
        assert CANARY not in shown
        assert token.value not in shown
