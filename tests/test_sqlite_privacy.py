"""A SQLite file, its WAL and its shared memory are their owner's alone, whoever creates them."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from zohocrmsdk.src.com.zoho.crm.api.exception.sdk_exception import SDKException

from tests.support import CHECKOUT, granted, run
from zoho_token_orm import SQLAlchemyTokenStore, schema

pytestmark = pytest.mark.skipif(os.name != "posix", reason="there are no such modes here")

PRIVATE = {"tokens.db": 0o600, "tokens.db-wal": 0o600, "tokens.db-shm": 0o600}
WAITS_AND_SAVES = """
import sys
from tests.support import granted
from zoho_token_orm import SQLAlchemyTokenStore

print("ready", flush=True)
sys.stdin.readline()
with SQLAlchemyTokenStore(sys.argv[1]) as store:
    store.save_token(granted(sys.argv[2]))
    print("saved", flush=True)
    sys.stdin.readline()
"""
"""Waits for a line, creates the file and saves; keeps it open until the next line."""


@pytest.fixture(params=[0, 0o022, 0o077], ids=oct, autouse=True)
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    """What this process, and each that it starts, takes away from a mode."""
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'tokens.db'}"


def modes(folder: Path) -> dict[str, int]:
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}


def use(url: str, folder: Path) -> dict[str, int]:
    """The modes of the files while a store has them open."""
    with SQLAlchemyTokenStore(url) as store:
        store.save_token(granted("alice"))
        return modes(folder)


def child(url: str, name: str) -> subprocess.Popen[str]:
    """A process that is ready to create the file."""
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", WAITS_AND_SAVES, url, name]
    process = subprocess.Popen(command, cwd=CHECKOUT, stdin=pipe, stdout=pipe, text=True)
    assert process.stdout.readline() == "ready\n"
    return process


def tell(process: subprocess.Popen[str]) -> None:
    process.stdin.write("\n")
    process.stdin.flush()


def test_the_files_are_private_whatever_the_umask(url, tmp_path):
    assert use(url, tmp_path) == PRIVATE
    assert modes(tmp_path) == {"tokens.db": 0o600}


def test_a_wal_that_is_made_anew_is_private_too(url, tmp_path):
    use(url, tmp_path)
    os.umask(0)
    assert use(url, tmp_path) == PRIVATE


def test_processes_that_create_the_file_at_once_all_succeed_and_it_is_private(url, tmp_path):
    names = ["alice", "bob", "carol", "dave"]
    processes = [child(url, name) for name in names]
    for process in processes:
        tell(process)
    assert [process.stdout.readline() for process in processes] == ["saved\n"] * len(names)
    assert modes(tmp_path) == PRIVATE
    for process in processes:
        process.communicate("\n", timeout=60)
        assert process.returncode == 0
    with SQLAlchemyTokenStore(url) as store:
        users = {token.get_user_signature().get_name() for token in store.get_tokens()}
    assert users == {f"{name}@example.com:7001" for name in names}


@pytest.mark.parametrize(
    "command",
    [
        ("zoho-token-orm", "upgrade"),
        ("alembic", "-c", CHECKOUT / "alembic.ini", "upgrade", "head"),
        ("zoho-token-orm", "current"),
    ],
    ids=lambda command: command[0],
)
def test_a_file_that_a_command_creates_is_private(command, url, tmp_path):
    done = run(*command, cwd=tmp_path, url=url)
    assert done.returncode == 0, done.stderr
    assert modes(tmp_path) == {"tokens.db": 0o600}


def test_the_default_file_of_a_command_is_private(tmp_path):
    assert run("zoho-token-orm", "upgrade", cwd=tmp_path).returncode == 0
    assert modes(tmp_path) == {"zohooauth.db": 0o600}


@pytest.mark.parametrize("mode", [0o640, 0o660, 0o644, 0o600], ids=oct)
def test_the_mode_of_a_file_that_exists_stays_and_its_wal_has_it_too(url, tmp_path, mode):
    """Somebody may have shared it with a group on purpose."""
    (tmp_path / "tokens.db").touch()
    (tmp_path / "tokens.db").chmod(mode)
    assert use(url, tmp_path) == dict.fromkeys(PRIVATE, mode)
    assert use(url, tmp_path) == dict.fromkeys(PRIVATE, mode)


@pytest.mark.parametrize(
    "form",
    [
        "sqlite:///file:{}?uri=true",
        "sqlite:///file:{}?mode=rwc&uri=true",
        "sqlite:///file://{}?uri=true",
        "sqlite:///file://localhost{}?uri=true",
        "sqlite:///file:{}?uri=true&cache=private",
    ],
)
def test_a_file_that_is_named_by_a_uri_is_private(form, tmp_path):
    assert use(form.format(tmp_path / "tokens.db"), tmp_path) == PRIVATE


def test_a_uri_with_percent_signs_names_the_same_private_file(tmp_path):
    schema.upgrade(f"sqlite:///file:{tmp_path}/to%256Bens.db?uri=true")  # to%6Bens, for SQLite
    assert modes(tmp_path) == {"tokens.db": 0o600}


@pytest.mark.parametrize(
    "form", ["sqlite:///file:{}?mode=rw&uri=true", "sqlite:///file:{}?mode=ro&uri=true"]
)
def test_a_uri_that_must_not_create_creates_nothing(form, tmp_path):
    with pytest.raises(SDKException):
        SQLAlchemyTokenStore(form.format(tmp_path / "tokens.db"))
    assert modes(tmp_path) == {}


def test_a_file_behind_a_symbolic_link_that_leads_nowhere_yet_is_private(tmp_path, url):
    """As where the link is deployed, and the volume behind it is new."""
    (tmp_path / "volume").mkdir()
    (tmp_path / "tokens.db").symlink_to(tmp_path / "volume" / "tokens.db")
    assert use(url, tmp_path / "volume") == PRIVATE


def test_a_child_after_a_fork_leaves_the_files_private(url, tmp_path):
    with SQLAlchemyTokenStore(url) as store:
        store.save_token(granted("alice"))
        process = os.fork()
        if process == 0:
            code = 1
            try:
                os.umask(0)
                store.save_token(granted("bob"))
                code = 0 if modes(tmp_path) == PRIVATE else 2
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0
        assert len(store.get_tokens()) == 2
        assert modes(tmp_path) == PRIVATE
