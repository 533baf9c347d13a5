"""How the Makefile comes by its environment: it mends a half-made one, and keeps one that works."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import CHECKOUT

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="there is no make here")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with the Makefile alone."""
    shutil.copy(CHECKOUT / "Makefile", tmp_path)
    return tmp_path


def make_environment(checkout: Path, python: str = sys.executable):
    return subprocess.run(
        ["make", f"PYTHON={python}", ".venv/.made"],
        cwd=checkout,
        capture_output=True,
        text=True,
        check=False,
    )


def has_pip(checkout: Path) -> bool:
    command = [checkout / ".venv" / "bin" / "python", "-m", "pip", "--version"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def test_an_environment_that_was_left_half_made_is_made_anew(checkout):
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", checkout / ".venv"], check=True)
    assert not has_pip(checkout)
    result = make_environment(checkout)
    assert result.returncode == 0, result.stdout + result.stderr
    assert has_pip(checkout)


def test_an_environment_that_works_is_kept(checkout):
    subprocess.run([sys.executable, "-m", "venv", checkout / ".venv"], check=True)
    (checkout / ".venv" / "of-mine").touch()
    assert make_environment(checkout).returncode == 0
    assert (checkout / ".venv" / "of-mine").exists()


def test_a_python_that_is_too_old_is_named_with_what_to_type(checkout):
    old = checkout / "old-python"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    result = make_environment(checkout, str(old))
    assert result.returncode != 0
    assert "Python 3.10 or newer is needed: make PYTHON=" in result.stdout
