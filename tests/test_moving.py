"""Every step of docs/moving.md as it stands there, and workers who go on meanwhile."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from sqlalchemy import create_engine
from zohocrmsdk.src.com.zoho.api.authenticator.oauth_token import OAuthToken
from zohocrmsdk.src.com.zoho.api.authenticator.store import DBStore, FileStore
from zohocrmsdk.src.com.zoho.api.authenticator.store.token_store import TokenStore
from zohocrmsdk.src.com.zoho.crm.api.user_signature import UserSignature

from tests.databases import fresh_database
from tests.sdk_tables import dbstore_arguments, fill, rows_in, sdk_row
from tests.support import CHECKOUT, NEW, OLD, granted, in_an_hour, values
from zoho_token_orm import SQLAlchemyTokenStore, schema
from zoho_token_orm.database import resolve_url

GUIDE = (CHECKOUT / "docs" / "moving.md").read_text()
HEADING = re.compile(r"^##+ (.+)$", re.MULTILINE)
BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
WRITTEN = {kind: f"{kind}://app:password@db.example.com/crm" for kind in ("postgresql", "mysql")}


class Guide:
    """The commands below one heading, to be run one block after another in a folder.

    Args:
        heading: The heading.
        folder: Where.
        urls: The databases that stand for those of the guide.
        environment: What else is in the environment.
    """

    def __init__(self, heading: str, folder: Path, urls: dict[str, str], **environment: str):
        parts = HEADING.split(GUIDE)
        text = dict(zip(parts[1::2], parts[2::2], strict=True))[heading]
        self._blocks: Iterator[str] = iter(BLOCK.findall(text))
        self._folder, self._urls, self._exports = folder, urls, ""
        self._environment = {k: v for k, v in os.environ.items() if not k.startswith("ZOHO_")}
        self._environment["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        self._environment.update(environment)

    def step(self) -> str:
        """Runs the next block; what it has written."""
        block = next(self._blocks)
        for kind, url in WRITTEN.items():
            block = block.replace(url, self._urls.get(kind, url))
        assert "example.com" not in block
        done = subprocess.run(
            ["bash", "-euc", self._exports + block],
            cwd=self._folder,
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        self._exports += "".join(re.findall(r"^export .*\n", block, re.MULTILINE))
        return done.stdout

    def is_done(self) -> bool:
        return next(self._blocks, None) is None


@pytest.fixture
def urls(tmp_path) -> Iterator[dict[str, str]]:
    """An empty database on each server of the guide."""
    with ExitStack() as stack:
        made = {name: stack.enter_context(fresh_database(name, tmp_path)) for name in WRITTEN}
        yield {name: database.url for name, database in made.items()}


def found(store: TokenStore, name: str) -> dict[str, str | None] | None:
    user = granted(name).get_user_signature()
    token = store.find_token(OAuthToken(user_signature=user))
    return values(token) if token else None


def refreshed(store: TokenStore, name: str) -> dict[str, str | None]:
    """What a worker saves after a refresh."""
    user = granted(name).get_user_signature()
    token = store.find_token(OAuthToken(user_signature=user))
    token.set_access_token(f"1000.fresh-{name}")
    token.set_expires_in(str(int(in_an_hour()) + 60_000))
    store.save_token(token)
    return values(token)


def saved(store: TokenStore, name: str) -> dict[str, str | None]:
    """What a worker saves after a log-in."""
    token = granted(name)
    store.save_token(token)
    return values(token)


def test_the_guide_has_no_command_that_no_test_runs():
    sections = {
        "From FileStore": 3,
        "In the same table": 2,
        "Into another database": 1,
        "From the sample for SQLite": 2,
        "From this store to another database": 1,
    }
    assert len(BLOCK.findall(GUIDE)) == sum(sections.values())
    for heading, blocks in sections.items():
        guide = Guide(heading, Path(), {})
        assert len(list(guide._blocks)) == blocks


def test_from_filestore_worker_by_worker_and_back(tmp_path, urls):
    file = tmp_path / "sdk_tokens.txt"
    old = FileStore(str(file))
    tokens = {name: saved(old, name) for name in ("alice", "bob", "carol")}
    guide = Guide("From FileStore", tmp_path, urls)
    guide.step()
    new = SQLAlchemyTokenStore(urls["postgresql"])
    assert {name: found(new, name) for name in tokens} == tokens
    # One worker has been restarted, another one not.
    tokens["alice"] = refreshed(new, "alice")
    tokens["bob"] = refreshed(old, "bob")
    newcomer = saved(old, "dave")
    assert "alice@example.com:7001" in guide.step()
    assert {name: found(new, name) for name in tokens} == tokens
    assert found(new, "dave")["refresh_token"] == newcomer["refresh_token"]
    guide.step()
    back = tmp_path / "sdk_tokens_back.txt"
    assert stat.S_IMODE(back.stat().st_mode) == 0o600
    returned = FileStore(str(back))
    assert {name: found(returned, name) for name in tokens} == tokens
    assert len(returned.get_tokens()) == 4
    assert guide.is_done()
    new.close()


def test_from_dbstore_in_the_same_table_worker_by_worker_and_back(tmp_path, urls):
    url = urls["mysql"]
    engine = create_engine(resolve_url(url))
    fill(engine, *(sdk_row(str(n), "eve@example.com:7001", expiry_time=str(n)) for n in (1, 2)))
    old = DBStore(*dbstore_arguments(url))
    tokens = {name: saved(old, name) for name in ("alice", "bob")}
    guide = Guide("In the same table", tmp_path, urls)
    said = guide.step()
    assert "1 rows that have lost" in said
    quoted = GUIDE.replace("\n> ", " ").replace("12 rows", "1 rows")
    assert said.splitlines()[0] in quoted
    with SQLAlchemyTokenStore(url) as new:
        tokens["alice"] = refreshed(new, "alice")
        tokens["bob"] = refreshed(old, "bob")
        tokens["carol"] = saved(new, "carol")
        tokens["dave"] = saved(old, "dave")
        for store in (old, new):
            assert {name: found(store, name) for name in tokens} == tokens
    assert refreshed(old, "carol")  # all workers are back with DBStore
    guide.step()
    tokens["carol"] = refreshed(old, "carol")
    assert {name: found(old, name) for name in tokens} == tokens
    saved(old, "frank")
    assert set(rows_in(engine, "oauthtoken_duplicates")) == {"1"}
    assert guide.is_done()
    engine.dispose()


def test_from_dbstore_into_another_database(tmp_path, urls):
    fill(create_engine(resolve_url(urls["mysql"])), sdk_row("1", "eve@example.com:7001"))
    old = DBStore(*dbstore_arguments(urls["mysql"]))
    tokens = {name: saved(old, name) for name in ("alice", "bob")}
    guide = Guide("Into another database", tmp_path, urls)
    guide.step()
    with SQLAlchemyTokenStore(urls["postgresql"]) as new:
        assert {name: found(new, name) for name in tokens} == tokens
        assert len(new.get_tokens()) == 3
    assert {name: found(old, name) for name in tokens} == tokens
    assert guide.is_done()


def test_from_the_sample_for_sqlite_and_back(tmp_path):
    url = f"sqlite:///{tmp_path / 'zohooauth.db'}"
    engine = create_engine(url)
    row = sdk_row("1", "alice@example.com:7001")
    fill(engine, row)
    guide = Guide("From the sample for SQLite", tmp_path, {})
    guide.step()
    with SQLAlchemyTokenStore(url) as store:
        token = store.find_token_by_id("1")
        assert token.get_refresh_token() == row["refresh_token"]
    guide.step()
    assert rows_in(engine) == {"1": row}
    assert guide.is_done()
    engine.dispose()


@pytest.mark.parametrize("keys", [{}, {"old": OLD, "new": NEW}], ids=["plain", "encrypted"])
def test_from_this_store_to_another_database(tmp_path, urls, keys):
    url = f"sqlite:///{tmp_path / 'zohooauth.db'}"
    with SQLAlchemyTokenStore(url, encryption_keys=keys.get("old")) as old:
        tokens = {name: saved(old, name) for name in ("alice", "bob")}
    names = ("ZOHO_TOKEN_SOURCE_ENCRYPTION_KEYS", "ZOHO_TOKEN_ENCRYPTION_KEYS")
    environment = dict(zip(names, keys.values(), strict=True)) if keys else {}
    guide = Guide("From this store to another database", tmp_path, urls, **environment)
    guide.step()
    schema.check(urls["postgresql"])
    with SQLAlchemyTokenStore(urls["postgresql"], encryption_keys=keys.get("new")) as new:
        assert {name: found(new, name) for name in tokens} == tokens
        assert new.find_token(OAuthToken(user_signature=UserSignature("nobody"))) is None
    assert guide.is_done()
