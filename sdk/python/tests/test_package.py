"""The package itself: its types, its style, and the wheel that is built of it."""

from __future__ import annotations

import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def run(*command: str, cwd: Path = ROOT) -> str:
    done = subprocess.run(command, cwd=cwd, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    assert done.returncode == 0, done.stdout[-4000:]
    return done.stdout


def test_mypy_has_nothing_to_say_in_its_strict_mode() -> None:
    run(sys.executable, "-m", "mypy", "--strict")


def test_ruff_has_nothing_to_say() -> None:
    run(sys.executable, "-m", "ruff", "check", ".")
    run(sys.executable, "-m", "ruff", "format", "--check", "src", "tests")


def test_the_vectors_are_those_that_are_generated() -> None:
    made = subprocess.run([sys.executable, str(ROOT / "tests" / "make_vectors.py")], check=True, stdout=subprocess.PIPE).stdout
    assert made == (ROOT.parent / "vectors.json").read_bytes()


def test_files_are_small() -> None:
    for path in (ROOT / "src").rglob("*.py"):
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 400, path


@pytest.mark.package_index
def test_the_wheel_works_in_a_clean_environment_and_has_what_it_needs(tmp_path: Path) -> None:
    run(sys.executable, "-m", "build", "--wheel", "--outdir", str(tmp_path / "dist"))
    (wheel,) = (tmp_path / "dist").glob("countersign_sdk-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert "countersign/py.typed" in names
    assert not any(name.startswith(("tests/", "src/")) for name in names)
    venv.create(tmp_path / "clean", with_pip=True)
    python = str(tmp_path / "clean" / "bin" / "python")
    run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", str(wheel), cwd=tmp_path)
    program = """
from countersign import Client, Operation
from countersign.testing import FakeAuthority
from countersign.verifier import Verifier
with FakeAuthority() as authority:
    authority.allow("a.b")
    with Client(url=authority.url, credential=lambda: "a.b.c") as client:
        token = client.token()
        assert client.evaluate(Operation("a.b")).allowed
    with Verifier(authority.url, authority.audience) as verifier:
        verifier.verify(token.value).require("a.b")
import countersign.asgi
try:
    import countersign.mcp
except ImportError as error:
    assert "countersign-sdk[mcp]" in str(error)
else:
    raise AssertionError("mcp is no dependency")
print("it works")
"""
    assert "it works" in run(python, "-I", "-c", program, cwd=tmp_path)
