"""What a store does while its server, or the way there, fails: a proxy really cuts and refuses."""

from __future__ import annotations

import logging
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import URL, Connection, create_engine, event, text
from sqlalchemy.exc import TimeoutError
from zohocrmsdk.src.com.zoho.api.authenticator.oauth_token import OAuthToken
from zohocrmsdk.src.com.zoho.crm.api.exception.sdk_exception import SDKException

from tests.databases import SERVERS, Database, fresh_database, server
from tests.proxy import Proxy
from tests.support import granted, values
from zoho_token_orm import SQLAlchemyTokenStore, schema
from zoho_token_orm.database import bounds, resolve_url


@pytest.fixture(params=SERVERS)
def database(request, tmp_path) -> Iterator[Database]:
    """An empty database on a server."""
    with fresh_database(request.param, tmp_path) as fresh:
        yield fresh


@pytest.fixture
def proxy(database) -> Iterator[Proxy]:
    """The way to the server."""
    with Proxy(resolve_url(database.url)) as running:
        yield running


@pytest.fixture(params=["url", "engine"])
def store(request, proxy) -> Iterator[SQLAlchemyTokenStore]:
    """A store on a URL of that way, or on an application's engine."""
    engine = create_engine(proxy.url)
    with SQLAlchemyTokenStore(
        engine if request.param == "engine" else proxy.url, create_schema=True
    ) as made:
        yield made
    engine.dispose()


def fill_the_pool(store: SQLAlchemyTokenStore) -> None:
    """Leaves several connections in the pool."""
    opened = [store.engine.connect() for _ in range(4)]
    for connection in opened:
        connection.close()


def test_nobody_notices_that_every_connection_was_cut(store, proxy):
    token = granted("alice")
    store.save_token(token)
    calls = {
        "find_token_by_id": lambda: store.find_token_by_id(token.get_id()),
        "find_token": lambda: store.find_token(OAuthToken(id=token.get_id())),
        "save_token": lambda: store.save_token(token),
        "get_tokens": store.get_tokens,
        "delete_token": lambda: store.delete_token("another"),
    }
    for call in calls.values():
        fill_the_pool(store)
        proxy.cut()
        call()
    (row,) = store.get_tokens()
    assert values(row) == values(token)


def test_nobody_notices_that_the_server_has_ended_every_session(store, database):
    """As an administrator does, or a server that is told to shut down."""
    token = granted("alice")
    store.save_token(token)
    for call in (lambda: store.find_token_by_id(token.get_id()), lambda: store.save_token(token)):
        fill_the_pool(store)
        with administrator(database) as connection:
            end_sessions(connection, resolve_url(database.url))
        call()
    assert [values(row) for row in store.get_tokens()] == [values(token)]


@contextmanager
def administrator(database: Database) -> Iterator[Connection]:
    """A connection that may do anything, straight to the server."""
    engine = create_engine(server(database.name), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        yield connection
    engine.dispose()


def end_sessions(connection: Connection, url: URL) -> None:
    if connection.dialect.name == "postgresql":
        connection.execute(
            text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :name"),
            {"name": url.database},
        )
        return
    sessions = text("SELECT id FROM information_schema.processlist WHERE db = :name")
    for id in connection.execute(sessions, {"name": url.database}).scalars():
        connection.exec_driver_sql(f"KILL {id}")


class TimeLimitExceeded(Exception):
    """What a worker's time limit raises in the middle of whatever its thread does."""


def raise_it(*given: object) -> None:
    raise TimeLimitExceeded


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="there is no such timer here")
def test_an_interrupted_look_up_leaves_its_answer_to_nobody(store, proxy):
    """As Celery's soft time limit interrupts: the next caller must not get the late answer."""
    alice, bob = granted("alice"), granted("bob")
    for token in (alice, bob):
        store.save_token(token)
    before = signal.signal(signal.SIGALRM, raise_it)
    try:
        for _ in range(3):
            with proxy.stalled():
                signal.setitimer(signal.ITIMER_REAL, 0.2)
                with pytest.raises(TimeLimitExceeded):
                    store.find_token_by_id(alice.get_id())
            for token in (bob, alice):
                assert values(store.find_token_by_id(token.get_id())) == values(token)
                store.save_token(token)
    finally:
        signal.signal(signal.SIGALRM, before)


def test_a_row_of_which_only_the_answer_was_lost_is_not_inserted_twice(store, proxy):
    """Also of a token that nothing names, which no constraint keeps single."""
    token = OAuthToken("1000.CLIENT", "the-secret", access_token="1000.access")
    cuts = []

    def cut(connection, cursor, statement, *rest):
        if statement.startswith("INSERT") and not cuts:
            cuts.append(statement)
            proxy.cut()
            cursor.execute("SELECT 1")

    event.listen(store.engine, "after_cursor_execute", cut)
    store.save_token(token)
    event.remove(store.engine, "after_cursor_execute", cut)
    assert len(cuts) == 1
    assert [values(row) for row in store.get_tokens()] == [values(token)]


def test_a_look_up_raises_while_the_server_is_away_and_never_answers_none(store, proxy):
    token = granted("alice")
    store.save_token(token)
    with proxy.refusing():
        for call in (
            lambda: store.find_token_by_id(token.get_id()),
            lambda: store.find_token(granted("alice")),
        ):
            with pytest.raises(SDKException, match="could not find the token"):
                call()
    assert values(store.find_token_by_id(token.get_id())) == values(token)


def test_a_save_goes_on_until_the_server_is_back(store, proxy):
    """A grant token is spent once: what it was exchanged for must not be lost to a restart."""
    token = granted("alice")
    with proxy.refusing():
        saving = threading.Thread(target=store.save_token, args=(token,))
        saving.start()
        proxy.wait_for_refusals(3)
    saving.join(60)
    assert [values(row) for row in store.get_tokens()] == [values(token)]


def test_a_save_that_has_waited_long_enough_raises_and_stores_nothing(store, proxy, monkeypatch):
    monkeypatch.setattr(bounds, "SAVE_PATIENCE", 0.3)
    token = granted("alice")
    with proxy.refusing(), pytest.raises(SDKException, match=r"tried \d+ times in \d+\.\d seconds"):
        store.save_token(token)
    assert token.get_id() is None
    assert store.get_tokens() == []


def test_a_save_that_fails_in_an_outage_is_logged(store, proxy, monkeypatch, caplog):
    """The SDK swallows the error: the log is all that tells of it."""
    monkeypatch.setattr(bounds, "SAVE_PATIENCE", 0.1)
    with (
        caplog.at_level(logging.ERROR, "zoho_token_orm"),
        proxy.refusing(),
        pytest.raises(SDKException),
    ):
        store.save_token(granted("alice"))
    (record,) = caplog.records
    assert "could not save the token" in record.getMessage()
    assert "1000." not in caplog.text


def test_it_works_at_once_when_the_server_is_back(store, proxy):
    token = granted("alice")
    store.save_token(token)
    for _ in range(3):
        with proxy.refusing(), pytest.raises(SDKException):
            store.find_token_by_id(token.get_id())
        assert values(store.find_token_by_id(token.get_id())) == values(token)


# A server that holds the connection, and says nothing


@pytest.fixture
def short_bounds(monkeypatch) -> None:
    for name in ("CONNECT_TIMEOUT", "ANSWER_TIMEOUT"):
        monkeypatch.setattr(bounds, name, 1)


def test_a_server_that_stays_silent_is_an_error_in_the_end(short_bounds, proxy, monkeypatch):
    monkeypatch.setattr(bounds, "SAVE_PATIENCE", 0.1)
    token = granted("alice")
    with SQLAlchemyTokenStore(proxy.url, create_schema=True) as store:
        store.save_token(token)
        with proxy.stalled(), ThreadPoolExecutor(4) as pool:
            calls = [
                pool.submit(store.find_token_by_id, token.get_id()),
                pool.submit(store.find_token, granted("alice")),
                pool.submit(store.save_token, granted("bob")),
                pool.submit(store.delete_token, token.get_id()),
            ]
            for call in calls:
                with pytest.raises(SDKException, match="could not"):
                    call.result(60)
        assert [values(row) for row in store.get_tokens()] == [values(token)]


def test_a_server_that_works_for_long_is_not_taken_for_silent_before_its_time(
    database, monkeypatch
):
    monkeypatch.setattr(bounds, "ANSWER_TIMEOUT", 2)
    sleep = "SELECT pg_sleep(0.8)" if database.name == "postgresql" else "SELECT SLEEP(0.8)"
    with SQLAlchemyTokenStore(database.url, create_schema=True) as store:
        for _ in range(3):  # each on the same connection: the bound is on one silence
            store._database.run("wait", lambda c: c.exec_driver_sql(sleep).all())


# A row that somebody else has locked


@contextmanager
def locked_row(database: Database) -> Iterator[None]:
    """Another program's transaction, which has changed the row and not ended."""
    engine = create_engine(resolve_url(database.url))
    with engine.connect() as connection:
        connection.execute(text("UPDATE oauthtoken SET api_domain = 'https://elsewhere'"))
        yield
        connection.rollback()
    engine.dispose()


def test_a_locked_row_is_waited_for(database):
    token = granted("alice")
    with (
        SQLAlchemyTokenStore(database.url, create_schema=True) as store,
        ThreadPoolExecutor(1) as pool,
    ):
        store.save_token(token)
        updating = threading.Event()
        event.listen(store.engine, "before_cursor_execute", lambda *given: updating.set())
        with locked_row(database):
            saving = pool.submit(store.save_token, token)
            assert updating.wait(30)
            assert not saving.done()
            assert values(store.find_token_by_id(token.get_id())) == values(token)
        saving.result(30)


def test_a_row_that_stays_locked_is_an_error_that_says_how_long_was_tried(database, monkeypatch):
    monkeypatch.setattr(bounds, "LOCK_TIMEOUT", 1)
    monkeypatch.setattr(bounds, "COLLISION_PATIENCE", 1.5)
    token = granted("alice")
    with SQLAlchemyTokenStore(database.url, create_schema=True) as store:
        store.save_token(token)
        with (
            locked_row(database),
            pytest.raises(
                SDKException, match=r"could not save .* tried 2 times in \d+\.\d seconds"
            ),
        ):
            store.save_token(token)
        assert [values(row) for row in store.get_tokens()] == [values(token)]


@pytest.mark.parametrize("given", ["url", "engine"])
def test_a_lease_that_cannot_be_had_for_a_lock_is_not_waited_for(database, given):
    """Nobody waits longer than ``refresh_wait``, and never for the lock itself."""
    token = granted("alice")
    token.set_expires_in("1000")
    engine = create_engine(resolve_url(database.url))  # it bounds no lock
    with (
        SQLAlchemyTokenStore(
            engine if given == "engine" else database.url, create_schema=True, refresh_wait=0.2
        ) as store,
        ThreadPoolExecutor(1) as pool,
    ):
        store.save_token(token)
        with locked_row(database):
            found = pool.submit(store.find_token_by_id, token.get_id())
            assert values(found.result(bounds.LOCK_TIMEOUT - 5)) == values(token)
    engine.dispose()


# A server that takes no writes, or no more connections


def test_a_server_that_has_become_a_replica_is_left_for_the_new_primary(store, database):
    """The pooled connections lead to the old one, and a new connection to the new one."""
    token = granted("alice")
    store.save_token(token)
    read_only = {"postgresql": "SET default_transaction_read_only = on"}.get(
        database.name, "SET SESSION TRANSACTION READ ONLY"
    )
    opened = [store.engine.connect() for _ in range(3)]
    for connection in opened:
        connection.exec_driver_sql(read_only)
        connection.commit()
        connection.close()
    token.set_access_token("1000.later")
    store.save_token(token)
    assert [values(row) for row in store.get_tokens()] == [values(token)]


@pytest.fixture
def limited(database) -> Iterator[URL]:
    """The URL of a user who may have one connection at a time."""
    url = resolve_url(database.url)
    name, password = f"zto_{secrets.token_hex(4)}", secrets.token_hex(8)
    limits = {
        "postgresql": (
            f"CREATE ROLE {name} LOGIN SUPERUSER PASSWORD '{password}' CONNECTION LIMIT 1",
            f"ALTER ROLE {name} NOSUPERUSER",
            f"GRANT ALL ON oauthtoken, oauthtoken_alembic_version TO {name}",
        )
    }.get(
        database.name,
        (
            f"CREATE USER {name}@'%%' IDENTIFIED BY '{password}' WITH MAX_USER_CONNECTIONS 1",
            f"GRANT ALL ON {url.database}.* TO {name}@'%%'",
        ),
    )
    schema.upgrade(url)
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        for statement in limits:
            connection.execute(text(statement.replace("%%", "%")))
        yield url.set(username=name, password=password)
        if database.name == "postgresql":
            connection.execute(text(f"DROP OWNED BY {name}"))
        who = name if database.name == "postgresql" else f"{name}@'%'"
        connection.execute(text(f"DROP {'ROLE' if who == name else 'USER'} {who}"))
    engine.dispose()


def test_a_connection_limit_is_an_error_and_a_save_waits_for_its_turn(limited, monkeypatch):
    token = granted("alice")
    with SQLAlchemyTokenStore(limited) as store:
        store.save_token(token)
        taken = store.engine.connect()
        with pytest.raises(SDKException, match="could not find the token"):
            store.find_token_by_id(token.get_id())
        token.set_access_token("1000.later")
        with ThreadPoolExecutor(1) as pool:
            refused = threading.Event()
            event.listen(store.engine, "handle_error", lambda context: refused.set(), retval=False)
            saving = pool.submit(store.save_token, token)
            assert refused.wait(30)
            taken.close()
            saving.result(30)
        assert [values(row) for row in store.get_tokens()] == [values(token)]


def test_a_save_waits_for_a_connection_of_a_pool_that_is_used_up(database):
    engine = create_engine(resolve_url(database.url), pool_size=1, max_overflow=0, pool_timeout=0.1)
    store = SQLAlchemyTokenStore(engine, create_schema=True)
    token = granted("alice")
    refused = threading.Event()
    run_out = store._database._connect

    def noting() -> Connection:
        try:
            return run_out()
        except TimeoutError:
            refused.set()
            raise

    store._database._connect = noting
    with ThreadPoolExecutor(1) as pool:
        with engine.connect():
            with pytest.raises(SDKException, match="could not find the token"):
                store.find_token_by_id("1")
            saving = pool.submit(store.save_token, token)
            refused.clear()
            assert refused.wait(30)
        saving.result(30)
    assert [values(row) for row in store.get_tokens()] == [values(token)]
    engine.dispose()


# A pooler that does not pass on what the driver is told


@pytest.mark.skipif(shutil.which("pgbouncer") is None, reason="pgbouncer is not installed")
def test_a_pooler_that_knows_no_lock_timeout_is_no_obstacle(tmp_path):
    """PgBouncer refuses a connection that asks for an option which it does not know."""
    with fresh_database("postgresql", tmp_path) as database, pgbouncer(database, tmp_path) as url:
        token = granted("alice")
        with SQLAlchemyTokenStore(url, create_schema=True) as store:
            store.save_token(token)
            fill_the_pool(store)
            assert [values(row) for row in store.get_tokens()] == [values(token)]


@contextmanager
def pgbouncer(database: Database, folder: Path) -> Iterator[URL]:
    at = resolve_url(database.url)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (folder / "pgbouncer.ini").write_text(
        f"[databases]\n{at.database} = host={at.host} port={at.port} user={at.username} "
        f"password={at.password or ''}\n[pgbouncer]\nlisten_addr = 127.0.0.1\n"
        f"listen_port = {port}\nauth_type = any\npool_mode = transaction\nunix_socket_dir =\n"
    )
    as_user = ["-u", "postgres"] if os.geteuid() == 0 else []  # it does not run as root
    if as_user:
        pwd.getpwnam("postgres")
    running = subprocess.Popen(
        ["pgbouncer", *as_user, folder / "pgbouncer.ini"],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert any("process up" in line for line in running.stderr)
        yield at.set(host="127.0.0.1", port=port)
    finally:
        running.terminate()
        running.wait(30)
        running.stderr.close()
