"""An authority that is away, slow, broken or another."""

from __future__ import annotations

import re
import socket
import ssl
import threading
import time
from typing import Any

import pytest

from countersign import (
    ApprovalPending,
    Client,
    ConfigurationError,
    CountersignError,
    DeadlineExceeded,
    Operation,
    RateLimited,
    Refused,
    Sidecar,
    Unavailable,
)
from countersign import _waiting as waiting
from countersign._flow import Reply
from countersign._refusals import refusal
from countersign.testing import FakeAuthority

TOKEN = "/oauth2/token"


def test_an_authority_that_is_away_is_unavailable(client_of: Any, authority: FakeAuthority) -> None:
    client = client_of(url=authority.url, credential=lambda: "a.b.c", timeout=2.0)
    authority.down()
    begun = time.monotonic()
    with pytest.raises(Unavailable) as failure:
        client.token()
    assert failure.value.code == "no_answer_connection"
    assert time.monotonic() - begun < 2.5


def test_an_authority_that_comes_back_is_found_again(client_of: Any, authority: FakeAuthority) -> None:
    authority.allow("a.b")
    client = client_of(url=authority.url, credential=lambda: "a.b.c", timeout=5.0, max_retries=5)
    client.token()
    authority.down()
    threading.Timer(0.5, authority.up).start()
    assert client.token(fresh=True).value


def test_a_restart_between_two_calls_is_not_noticed(client: Any, authority: FakeAuthority) -> None:
    authority.allow("a.b")
    client.token()
    authority.down()
    authority.up()
    assert client.token(fresh=True).value


def test_an_authority_that_is_slow_is_waited_for_no_longer_than_said(client_of: Any, authority: FakeAuthority) -> None:
    authority.allow("a.b")
    authority.slow(3.0)
    client = client_of(url=authority.url, credential=lambda: "a.b.c", timeout=0.5)
    begun = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        client.token()
    assert time.monotonic() - begun < 1.5


@pytest.mark.parametrize("head", [b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", b"HTTP/1.1 200 OK\r\nX-Name: "])
def test_an_answer_in_drips_is_waited_for_no_longer_than_said(client_of: Any, head: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def drip() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(head)
                for _ in range(50):
                    try:
                        connection.sendall(b" ")
                    except OSError:
                        return
                    time.sleep(0.1)

        threading.Thread(target=drip, daemon=True).start()
        client = client_of(url=f"http://127.0.0.1:{listener.getsockname()[1]}", credential=lambda: "a.b.c", timeout=0.7, max_retries=0)
        begun = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            client.token()
        assert time.monotonic() - begun < 2


def test_an_answer_without_end_is_cut(client_of: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def pour() -> None:
            connection, _ = listener.accept()
            with connection:
                try:
                    connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                    while True:
                        connection.sendall(b" " * 65536)
                except OSError:
                    return

        threading.Thread(target=pour, daemon=True).start()
        client = client_of(url=f"http://127.0.0.1:{listener.getsockname()[1]}", credential=lambda: "a.b.c", max_retries=0)
        with pytest.raises(Unavailable) as failure:
            client.token()
        assert failure.value.code == "no_answer_unreadable"


def test_passing_answers_are_asked_for_again(client: Any, authority: FakeAuthority) -> None:
    authority.allow("a.b")
    authority.fail(503)
    authority.fail(502)
    assert client.token().value
    assert authority.count(TOKEN) == 3


def test_what_is_refused_is_not_asked_for_again(client: Any, authority: FakeAuthority) -> None:
    for status in (400, 403, 404, 500):
        before = authority.count(TOKEN)
        authority.fail(status)
        with pytest.raises(CountersignError):
            client.token()
        assert authority.count(TOKEN) == before + 1


def test_retry_after_is_kept_to_and_never_past_the_deadline(client_of: Any, authority: FakeAuthority) -> None:
    authority.allow("a.b")
    client = client_of(url=authority.url, credential=lambda: "a.b.c", timeout=3.0)
    authority.fail(429, retry_after=1)
    begun = time.monotonic()
    assert client.token().value
    assert time.monotonic() - begun >= 1.0
    authority.fail(429, retry_after=60)
    begun = time.monotonic()
    with pytest.raises(RateLimited) as limited:
        client.token(fresh=True)
    assert limited.value.retry_after == 60
    assert time.monotonic() - begun < 1.0


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        ("0", 0.0),
        (" 7 ", 7.0),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
        ("9" * 400, 3600.0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 3600.0),
        ("\xb2", None),
        ("-1", None),
        ("nan", None),
        ("soon", None),
        ("", None),
    ],
)
def test_an_absurd_retry_after_is_bounded_or_nothing(said: str, seconds: float | None) -> None:
    answer = refusal(Reply(429, {"retry-after": said}, b"{}"), "token")
    assert isinstance(answer, RateLimited)
    assert answer.retry_after == seconds


def test_an_authority_that_is_away_for_an_hour_holds_nobody_up_for_an_hour(client_of: Any, authority: FakeAuthority) -> None:
    authority.allow("a.b")
    authority.require_approval("pay")
    client = client_of(url=authority.url, credential=lambda: "a.b.c", timeout=1.0)
    request = client.request_approval(Operation("pay"))
    authority.fail(503, path=TOKEN, retry_after=3600)
    flow = waiting.look(client.core, request, wait=0.5, insist=True, at_least_once=True)
    with pytest.raises(ApprovalPending):
        client.run(flow)
    begun = time.monotonic()
    with pytest.raises(ApprovalPending) as pending:
        client.run(waiting.look(client.core, request, wait=0.0, insist=True, at_least_once=True))
    assert time.monotonic() - begun < 3
    assert pending.value.retry_after is not None
    assert pending.value.retry_after > 3000


def test_redirects_are_not_followed(client_of: Any, authority: FakeAuthority) -> None:
    client = client_of(url=authority.url, credential=lambda: "a.b.c")
    authority.fail(302)
    with pytest.raises(Unavailable) as failure:
        client.token()
    assert failure.value.code == "unexpected_redirect"
    assert len(authority.requests) == 1


def test_a_sidecar_that_is_not_there_is_unavailable_and_nobody_else_is_asked(
    client_of: Any, authority: FakeAuthority, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    monkeypatch.setenv("COUNTERSIGN_SIDECAR_URL", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("COUNTERSIGN_URL", authority.url)
    monkeypatch.setenv("COUNTERSIGN_TOKEN_FILE", __file__)
    client = client_of(timeout=2.0)
    with pytest.raises(Unavailable):
        client.token()
    assert authority.requests == []


def test_a_sidecar_is_asked_past_every_proxy(client_of: Any, authority: FakeAuthority, monkeypatch: pytest.MonkeyPatch) -> None:
    authority.allow("a.b")
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert client_of(credential=Sidecar(authority.sidecar_url)).token().value


def test_an_authority_on_this_machine_is_asked_past_every_proxy(
    client_of: Any, authority: FakeAuthority, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority.allow("a.b")
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    client = client_of(url=authority.url, credential=lambda: "a.b.c", max_retries=0, timeout=2.0)
    assert client.token().value, "a proxy would have been shown the credential in the clear"


@pytest.mark.parametrize("url", ["http://10.0.0.1:7710", "http://sidecar:7710", "http://169.254.169.254", "http://127.0.0.1.evil.example"])
def test_a_sidecar_elsewhere_is_not_accepted(url: str) -> None:
    with pytest.raises(ConfigurationError):
        Sidecar(url)


@pytest.mark.parametrize(
    "url",
    [
        "http://countersign.example.com",
        "ftp://x",
        "countersign.example.com",
        "https://user:word@x",
        "https://x?y=1",
        "https://",
        "//x",
    ],
)
def test_an_authority_is_spoken_to_over_tls_or_on_this_machine(url: str) -> None:
    with pytest.raises(ConfigurationError):
        Client(url=url)


def _request(connection: socket.socket) -> bytes:
    """All of a request: whoever hangs up with a part unread resets the connection, and the answer may be lost."""
    text = b""
    while True:
        part = connection.recv(100_000)
        text += part
        head, _, body = text.partition(b"\r\n\r\n")
        length = re.search(rb"content-length: *(\d+)", head, re.IGNORECASE)
        if not part or (length is not None and len(body) >= int(length[1])):
            return text


def test_a_server_that_no_certificate_vouches_for_is_not_spoken_to(client_of: Any, tmp_path: Any) -> None:
    certificate, key = _certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with context.wrap_socket(socket.create_server(("127.0.0.1", 0)), server_side=True) as server:
        heard: list[bytes] = []

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                    with connection:
                        heard.append(_request(connection))
                        connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 2\r\n\r\n{}")
                except ssl.SSLError:
                    continue
                except OSError:
                    return

        threading.Thread(target=serve, daemon=True).start()
        url = f"https://127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(Unavailable) as failure:
            client_of(url=url, credential=lambda: "a.b.c", max_retries=0, timeout=3.0).token()
        assert failure.value.code == "no_answer_tls"
        assert "COUNTERSIGN_CA" in failure.value.advice
        assert heard == [], "nothing was said to it"
        with pytest.raises(Refused):
            client_of(url=url, ca_file=str(certificate), credential=lambda: "a.b.c", max_retries=0, timeout=3.0).token()
        assert len(heard) == 1


def test_certificates_that_cannot_be_read_are_an_error_that_names_the_file(client_of: Any, tmp_path: Any) -> None:
    path = tmp_path / "ca.pem"
    client = client_of(url="https://127.0.0.1:1", ca_file=str(path), credential=lambda: "a.b.c")
    with pytest.raises(ConfigurationError, match=r"ca\.pem"):
        client.token()
    path.write_text("no certificate")
    with pytest.raises(ConfigurationError, match=r"ca\.pem"):
        client.token()


def test_a_lost_answer_to_a_question_is_asked_for_again(client: Any, authority: FakeAuthority) -> None:
    authority.allow("a.b")
    authority.lose(TOKEN)
    assert client.token().value
    assert authority.count(TOKEN) == 2


def test_a_lost_answer_to_a_filing_makes_no_second_request(client: Any, authority: FakeAuthority) -> None:
    authority.allow("a.b")
    authority.require_approval("pay")
    authority.lose("/oauth2/bc-authorize")
    request = client.request_approval(Operation("pay"))
    assert list(authority.approvals) == [request.id]


def test_a_wait_goes_on_while_the_authority_is_away(client_of: Any, authority: FakeAuthority) -> None:
    authority.allow("a.b")
    authority.require_approval("pay")
    client = client_of(url=authority.url, credential=lambda: "a.b.c", timeout=2.0)
    request = client.request_approval(Operation("pay"))
    authority.down()

    def back() -> None:
        time.sleep(0.5)
        authority.up()
        authority.approve(request.id)

    threading.Thread(target=back).start()
    assert client.wait_for_approval(request, timeout=10).scope == {"pay"}
    # A look alone says so instead.
    authority.down()
    with pytest.raises(Unavailable):
        client.approval(request)
    authority.up()


def test_a_wait_that_nobody_answers_ends_as_pending(client_of: Any, authority: FakeAuthority) -> None:
    authority.allow("a.b")
    authority.require_approval("pay")
    client = client_of(url=authority.url, credential=lambda: "a.b.c", timeout=1.0)
    request = client.request_approval(Operation("pay"))
    authority.down()
    begun = time.monotonic()
    with pytest.raises(ApprovalPending) as pending:
        client.wait_for_approval(request, timeout=1.5)
    assert pending.value.request == request
    assert 1.0 < time.monotonic() - begun < 4


def _certificate(directory: Any) -> tuple[Any, Any]:
    import datetime
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.timezone.utc)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    certificate, private = directory / "certificate.pem", directory / "key.pem"
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    kind = serialization.PrivateFormat.PKCS8
    private.write_bytes(key.private_bytes(serialization.Encoding.PEM, kind, serialization.NoEncryption()))
    return certificate, private
