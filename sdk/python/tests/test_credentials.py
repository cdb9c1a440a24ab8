"""Who the agent is: the chain, and each of its links."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from countersign import (
    Client,
    ConfigurationError,
    CredentialInvalid,
    CredentialNotFound,
    Operation,
    PrivateKey,
    TokenFile,
    Unauthenticated,
)
from countersign import _chain as chain_module
from countersign.cloud import AWS, GCP, Azure
from countersign.testing import FakeAuthority


def written(path: Path, key: Ed25519PrivateKey | None = None, mode: int = 0o600) -> Path:
    key = key or Ed25519PrivateKey.generate()
    kind = serialization.PrivateFormat.PKCS8
    path.write_bytes(key.private_bytes(serialization.Encoding.PEM, kind, serialization.NoEncryption()))
    path.chmod(mode)
    return path


def described(client: Any) -> str:
    return client.credential.describe()


def test_what_was_given_comes_first_and_then_the_environment_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, authority: FakeAuthority
) -> None:
    monkeypatch.setenv("COUNTERSIGN_URL", authority.url)
    token, key = tmp_path / "token", written(tmp_path / "key.pem")
    token.write_text("a.b.c\n")
    monkeypatch.setattr(chain_module, "DEFAULT_TOKEN_FILE", str(token))
    assert described(Client()) == f"token file {token}"
    monkeypatch.setenv("COUNTERSIGN_TOKEN_FILE", str(tmp_path / "another"))
    assert described(Client()) == f"token file {tmp_path / 'another'}"
    monkeypatch.setenv("COUNTERSIGN_PRIVATE_KEY_FILE", str(key))
    monkeypatch.setenv("COUNTERSIGN_CLIENT_ID", "agent:a/b")
    assert described(Client()) == f"private key {key} of agent:a/b"
    monkeypatch.setenv("COUNTERSIGN_SIDECAR_URL", "http://127.0.0.1:7710")
    assert described(Client()) == "sidecar at http://127.0.0.1:7710"
    assert described(Client(credential=TokenFile("given"))) == "token file given"


def test_nothing_found_lists_what_was_tried_and_what_it_lacked() -> None:
    with pytest.raises(CredentialNotFound) as nothing:
        Client(url="https://x.example").token()
    for name in (
        "credential=",
        "COUNTERSIGN_SIDECAR_URL",
        "COUNTERSIGN_PRIVATE_KEY_FILE",
        "COUNTERSIGN_TOKEN_FILE",
        "COUNTERSIGN_CLOUD",
    ):
        assert name in nothing.value.message


def test_a_link_that_is_there_and_broken_is_an_error_and_no_other_is_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, authority: FakeAuthority
) -> None:
    good = tmp_path / "token"
    good.write_text("a.b.c")
    monkeypatch.setenv("COUNTERSIGN_URL", authority.url)
    monkeypatch.setattr(chain_module, "DEFAULT_TOKEN_FILE", str(good))
    monkeypatch.setenv("COUNTERSIGN_TOKEN_FILE", str(tmp_path / "gone"))
    with pytest.raises(CredentialInvalid, match="gone"):
        Client().token()
    monkeypatch.setenv("COUNTERSIGN_PRIVATE_KEY_FILE", str(good))
    with pytest.raises(ConfigurationError, match="COUNTERSIGN_CLIENT_ID"):
        Client().token()
    monkeypatch.setenv("COUNTERSIGN_CLIENT_ID", "agent:a/b")
    good.chmod(0o600)
    with pytest.raises(CredentialInvalid, match="no Ed25519 key"):
        Client().token()
    monkeypatch.setenv("COUNTERSIGN_SIDECAR_URL", "http://example.com")
    with pytest.raises(ConfigurationError, match="sidecar"):
        Client().token()
    assert authority.requests == []


def test_which_link_won_is_said_to_who_debugs(caplog: pytest.LogCaptureFixture, authority: FakeAuthority) -> None:
    authority.allow("a.b")
    with caplog.at_level(logging.DEBUG, "countersign"), Client(url=authority.url, credential=lambda: "a.b.c") as client:
        client.token()
    assert "the credential is the function" in caplog.text


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604])
def test_a_key_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    with pytest.raises(CredentialInvalid, match="chmod 600"):
        PrivateKey(written(tmp_path / "key.pem", mode=mode), "agent:a/b")


def test_each_request_and_each_attempt_has_an_assertion_of_its_own(tmp_path: Path, client_of: Any, authority: FakeAuthority) -> None:
    authority.allow("a.b")
    key = Ed25519PrivateKey.generate()
    credential = PrivateKey(written(tmp_path / "key.pem", key), "agent:ci/release-bot", kid="mine")
    client = client_of(url=authority.url, credential=credential)
    authority.fail(503)
    client.token()
    client.evaluate(Operation("a.b"))
    forms = [a.body.get("client_assertion") or a.headers["authorization"].removeprefix("Bearer ") for a in authority.requests]
    said = [jwt.decode(text, key.public_key(), algorithms=["EdDSA"], audience=authority.url) for text in forms]
    assert len({claims["jti"] for claims in said}) == len(said) == 3
    for claims, text in zip(said, forms, strict=True):
        assert claims["iss"] == claims["sub"] == "agent:ci/release-bot"
        assert claims["aud"] == authority.url
        assert claims["exp"] - claims["iat"] == 60
        assert jwt.get_unverified_header(text)["kid"] == "mine"


def test_an_assertion_that_was_used_is_refused_by_the_authority(client_of: Any, authority: FakeAuthority, tmp_path: Path) -> None:
    key = PrivateKey(written(tmp_path / "key.pem"), "agent:a/b")
    from countersign._flow import Clock

    flow = key.assertion(authority.url, Clock())
    with pytest.raises(StopIteration) as stop:
        next(flow)
    text = stop.value.value.reveal()
    authority.allow("a.b")
    client_of(url=authority.url, credential=lambda: text).token()
    with pytest.raises(Unauthenticated):
        client_of(url=authority.url, credential=lambda: text).token()


def test_a_token_file_is_read_for_each_use(tmp_path: Path, client_of: Any, authority: FakeAuthority) -> None:
    authority.allow("a.b")
    path = tmp_path / "token"
    client = client_of(url=authority.url, credential=TokenFile(path))
    for text in ("first.a.b", "second.a.b"):
        path.write_text(text + "\n")
        client.token(fresh=True)
        assert authority.requests[-1].body["client_assertion"] == text


@pytest.mark.parametrize("content", ["", "\n", "two words", "a\nb", "\u00e9", "x" * 70_000])
def test_a_file_without_one_token_is_refused_and_not_quoted(tmp_path: Path, client_of: Any, authority: FakeAuthority, content: str) -> None:
    path = tmp_path / "token"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(CredentialInvalid) as refused:
        client_of(url=authority.url, credential=TokenFile(path)).token()
    assert not content.strip() or content[:20] not in str(refused.value)
    assert authority.requests == []


def test_a_function_that_fails_is_named_and_its_words_are_not_repeated(client_of: Any, authority: FakeAuthority) -> None:
    def vault() -> str:
        raise RuntimeError("the token hvs.SECRET was refused")

    with pytest.raises(CredentialInvalid, match="vault") as refused:
        client_of(url=authority.url, credential=vault).token()
    assert "SECRET" not in str(refused.value)


def test_an_agent_learns_its_name_from_its_token(client: Any, authority: FakeAuthority) -> None:
    authority.allow("a.b")
    authority.require_approval("pay")
    client.request_approval(Operation("pay"))
    assert authority.requests[-1].body["login_hint"] == authority.agent


def test_an_agent_that_gets_no_token_is_called_like_its_service_account(client_of: Any, authority: FakeAuthority) -> None:
    authority.require_approval("pay")
    payload = jwt.encode({"sub": "system:serviceaccount:test:bot"}, "k" * 32, algorithm="HS256")
    client_of(url=authority.url, credential=lambda: payload).request_approval(Operation("pay"))
    assert authority.requests[-1].body["login_hint"] == "agent:test/bot"


def test_an_agent_whose_name_nobody_knows_is_told_how_to_say_it(client: Any, authority: FakeAuthority, monkeypatch: Any) -> None:
    authority.require_approval("pay")
    with pytest.raises(ConfigurationError, match="COUNTERSIGN_CLIENT_ID"):
        client.request_approval(Operation("pay"))


def test_the_platform_is_found_by_what_it_leaves_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for environment, kind in (
        ({"IDENTITY_ENDPOINT": "http://localhost/x", "IDENTITY_HEADER": "y"}, Azure),
        ({"AWS_LAMBDA_FUNCTION_NAME": "x"}, AWS),
        ({"K_SERVICE": "x"}, GCP),
    ):
        with monkeypatch.context() as patched:
            patched.delenv("COUNTERSIGN_CLOUD")
            for name, value in environment.items():
                patched.setenv(name, value)
            assert isinstance(Client(url="https://x.example").credential, kind)
    monkeypatch.setenv("COUNTERSIGN_CLOUD", "oracle")
    with pytest.raises(ConfigurationError, match="oracle"):
        Client(url="https://x.example").credential.describe()


def test_the_metadata_server_of_google_gives_a_token_for_the_issuer(
    authority: FakeAuthority, client_of: Any, monkeypatch: pytest.MonkeyPatch, platform: Any
) -> None:
    authority.allow("a.b")
    monkeypatch.setenv("COUNTERSIGN_CLOUD", "gcp")
    monkeypatch.setenv("GCE_METADATA_HOST", platform.url.removeprefix("http://"))
    client = client_of(url=authority.url)
    client.token()
    client.token(fresh=True)
    (asked,) = platform.asked
    assert asked.query == {"audience": authority.url, "format": "full"}
    assert asked.headers["metadata-flavor"] == "Google"
    assert authority.requests[0].body["client_assertion"] == platform.token


def test_an_identity_of_azure_gives_a_token_for_the_registration(
    authority: FakeAuthority, client_of: Any, monkeypatch: pytest.MonkeyPatch, platform: Any
) -> None:
    authority.allow("a.b")
    monkeypatch.setenv("COUNTERSIGN_CLOUD", "azure")
    monkeypatch.setenv("IDENTITY_ENDPOINT", platform.url + "/msi/token")
    monkeypatch.setenv("IDENTITY_HEADER", "header-secret")
    client_of(url=authority.url).token()
    (asked,) = platform.asked
    assert asked.query == {"api-version": "2019-08-01", "resource": "api://127.0.0.1"}
    assert asked.headers["x-identity-header"] == "header-secret"


def test_aws_needs_boto3_and_says_so(authority: FakeAuthority, client_of: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setenv("COUNTERSIGN_CLOUD", "aws")
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(ConfigurationError, match="boto3"):
        client_of(url=authority.url).token()


class _Sts:
    asked: dict[str, Any] = {}

    def get_web_identity_token(self, **more: Any) -> dict[str, str]:
        self.asked.update(more)
        return {"WebIdentityToken": "aws.web.token"}


def test_aws_gives_a_token_of_its_role(authority: FakeAuthority, client_of: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys
    from types import SimpleNamespace

    authority.allow("a.b")
    monkeypatch.setenv("COUNTERSIGN_CLOUD", "aws")
    monkeypatch.setitem(sys.modules, "boto3", SimpleNamespace(client=lambda name: _Sts()))
    client_of(url=authority.url).token()
    assert _Sts.asked == {"Audience": [authority.url], "SigningAlgorithm": "ES384", "DurationSeconds": 300}
    assert authority.requests[0].body["client_assertion"] == "aws.web.token"


def test_settings_come_from_the_environment(authority: FakeAuthority, monkeypatch: pytest.MonkeyPatch) -> None:
    authority.allow("a.b")
    monkeypatch.setenv("COUNTERSIGN_URL", authority.url)
    monkeypatch.setenv("COUNTERSIGN_AUDIENCE", "https://usual.example")
    with Client(credential=lambda: "a.b.c") as client:
        assert client.token().claims()["aud"] == "https://usual.example"
        assert client.token(audience="https://else.example").claims()["aud"] == "https://else.example"


def test_nobody_is_asked_without_an_address() -> None:
    with pytest.raises(ConfigurationError, match="COUNTERSIGN_URL"):
        Client(credential=lambda: "a.b.c").token()


class _Platform:
    """A metadata server."""

    def __init__(self) -> None:
        from countersign.testing.server import Answer, Server

        self.token = jwt.encode({"sub": "1", "exp": 4_000_000_000}, "k" * 32, algorithm="HS256")
        self._server = Server(lambda asked: Answer(200, self.token if "Google" in str(asked.headers) else {"access_token": self.token}))
        self._server.up()
        self.asked, self.url, self.down = self._server.asked, self._server.url, self._server.down


@pytest.fixture
def platform() -> Any:
    found = _Platform()
    yield found
    found.down()


def test_the_working_directory_is_nobodys_credential(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "token").write_text("a.b.c")
    with pytest.raises(CredentialNotFound):
        Client(url="https://x.example").token()
    assert os.getcwd() == str(tmp_path)
