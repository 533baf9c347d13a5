"""What a store does where its SQLite file is locked, cannot be written, or its disk is full."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from sqlalchemy import event
from zohocrmsdk.src.com.zoho.api.authenticator.oauth_token import OAuthToken
from zohocrmsdk.src.com.zoho.crm.api.exception.sdk_exception import SDKException

from tests.support import CHECKOUT, granted, values
from zoho_token_orm import SQLAlchemyTokenStore
from zoho_token_orm.database import bounds


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "zohooauth.db"


@pytest.fixture
def store(path: Path) -> Iterator[SQLAlchemyTokenStore]:
    with SQLAlchemyTokenStore(f"sqlite:///{path}") as made:
        yield made


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Another program is in the middle of a write."""
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        other.execute("UPDATE oauthtoken SET api_domain = 'https://elsewhere'")
        try:
            yield
        finally:
            other.execute("ROLLBACK")


def readers(token: OAuthToken) -> dict:
    return {
        "find_token_by_id": lambda store: [store.find_token_by_id(token.get_id())],
        "find_token": lambda store: [store.find_token(OAuthToken(id=token.get_id()))],
        "get_tokens": lambda store: store.get_tokens(),
        "iter_tokens": lambda store: list(store.iter_tokens()),
    }


def test_readers_do_not_wait_for_another_program_and_a_writer_does(store, path):
    token = granted("alice")
    store.save_token(token)
    before = values(token)
    token.set_access_token("1000.later")
    writing = threading.Event()
    event.listen(store.engine, "before_cursor_execute", lambda *given: writing.set())
    with ThreadPoolExecutor(1) as pool:
        with locked(path):
            saving = pool.submit(store.save_token, token)
            assert writing.wait(30)
            for read in readers(token).values():
                assert [values(found) for found in read(store)] == [before]
            assert not saving.done()
        saving.result(30)
    assert [values(row) for row in store.get_tokens()] == [values(token)]


def test_a_new_store_may_be_made_meanwhile(store, path):
    store.save_token(granted("alice"))
    with locked(path), SQLAlchemyTokenStore(f"sqlite:///{path}") as another:
        assert len(another.get_tokens()) == 1


def test_an_expired_token_is_refreshed_meanwhile_too(path):
    """Nobody can take the lease, and nobody waits longer for it than for another's refresh."""
    token = granted("alice")
    token.set_expires_in("1000")
    with SQLAlchemyTokenStore(f"sqlite:///{path}", refresh_wait=0.2) as store:
        store.save_token(token)
        with locked(path):
            assert values(store.find_token_by_id(token.get_id())) == values(token)
        with store.engine.connect() as connection:  # it still waits for other writers
            timeout = connection.exec_driver_sql("PRAGMA busy_timeout").scalar()
        assert timeout == bounds.BUSY_TIMEOUT * 1000


def test_a_file_that_stays_locked_is_an_error_that_says_how_long_was_tried(path, monkeypatch):
    monkeypatch.setattr(bounds, "BUSY_TIMEOUT", 1.0)
    monkeypatch.setattr(bounds, "COLLISION_PATIENCE", 0.5)
    token = granted("alice")
    with SQLAlchemyTokenStore(f"sqlite:///{path}") as store:
        store.save_token(token)
        with locked(path), pytest.raises(SDKException, match=r"within \d\.\d seconds.*locked"):
            store.save_token(token)
        assert [values(row) for row in store.get_tokens()] == [values(token)]


WRITERS = {
    "save_token": lambda store, token: store.save_token(token),
    "a first save": lambda store, token: store.save_token(granted("bob")),
    "delete_token": lambda store, token: store.delete_token(token.get_id()),
    "delete_tokens": lambda store, token: store.delete_tokens(),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_a_file_that_may_only_be_read_is_read_and_refuses_to_be_written(store, path, writer):
    token = granted("alice")
    token.set_expires_in("1000")
    store.save_token(token)
    read_only = f"sqlite:///file:{path}?mode=ro&uri=true"
    with SQLAlchemyTokenStore(read_only, create_schema=False) as reader:
        for read in readers(token).values():
            assert [values(found) for found in read(reader)] == [values(token)]
        with pytest.raises(SDKException, match=r"could not .* readonly database"):
            WRITERS[writer](reader, token)
    assert [values(row) for row in store.get_tokens()] == [values(token)]


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="needs to change the user")
def test_a_file_of_somebody_elses_is_an_error_that_names_it(store, path, tmp_path):
    """As where the command line ran as root and the workers do not."""
    store.save_token(granted("alice"))
    code = (
        "import os, sys\n"
        "from zoho_token_orm import SQLAlchemyTokenStore\n"
        "os.setgid(65534); os.setuid(65534)\n"
        "SQLAlchemyTokenStore(sys.argv[1])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, f"sqlite:///{path}"],
        capture_output=True,
        text=True,
        check=False,
        cwd=CHECKOUT,
    )
    assert done.returncode != 0
    last = done.stderr.splitlines()[-1]
    assert str(path) in last
    assert "unable to open database file" in last


FILL_THE_DISK = """
import json, os, sys
from pathlib import Path
from zohocrmsdk.src.com.zoho.crm.api.exception.sdk_exception import SDKException
from tests.support import granted, values
from zoho_token_orm import SQLAlchemyTokenStore

folder = Path(sys.argv[1])
saved, error = [], None
with SQLAlchemyTokenStore(f"sqlite:///{folder / 'zohooauth.db'}") as store:
    try:
        for number in range(10_000):
            token = granted(str(number))
            store.save_token(token)
            saved.append(values(token))
    except SDKException as caught:
        error = str(caught)
    full = [values(row) for row in store.get_tokens()]
    (folder / "ballast").unlink()
    store.save_token(token)
    after = [values(row) for row in store.get_tokens()]
print(json.dumps({
    "error": error,
    "nothing lost": full == saved,
    "works again": after == [*saved, values(token)],
    "saved": len(saved),
}))
"""
"""Runs on a disk of its own, which some ballast fills up to a few saves."""


def _may_mount() -> bool:
    if shutil.which("unshare") is None:
        return False
    command = ["unshare", "--user", "--map-root-user", "--mount", "mount", "-t", "tmpfs", "x"]
    return subprocess.run([*command, "/mnt"], capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not _may_mount(), reason="no disk of its own can be mounted here")
def test_a_full_disk_is_an_error_and_loses_nothing(tmp_path):
    script = (
        'mount -t tmpfs -o size=2m tmpfs "$1" && head -c 1m /dev/zero >"$1/ballast" '
        '&& exec "$2" -c "$3" "$1"'
    )
    done = subprocess.run(
        [
            *("unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, "sh"),
            *(str(tmp_path), sys.executable, FILL_THE_DISK),
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=CHECKOUT,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert "could not save the token" in told["error"]
    assert "full" in told["error"]
    assert told["saved"] > 10
    assert told["nothing lost"]
    assert told["works again"]
