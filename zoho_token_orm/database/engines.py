"""From a URL to an engine, with what each database and driver is told when it connects."""

from __future__ import annotations

import functools
import os
import sqlite3
import time
from contextlib import suppress
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from sqlalchemy import URL, Engine, QueuePool, create_engine, event
from sqlalchemy.exc import SQLAlchemyError

from zoho_token_orm.database import bounds
from zoho_token_orm.database.urls import DATABASES, is_memory, refuse_misread, shown


def new_engine(url: URL, is_bounded: bool) -> Engine:
    """An engine in autocommit whose pool asks nothing of the server on its own.

    Args:
        url: The URL (``resolve_url``).
        is_bounded: Whether a server that locks a row or stays silent is given up at some time.

    Raises:
        ValueError: The URL cannot be used.
    """
    if is_memory(url):
        # One connection, which one thread at a time holds.
        options: dict[str, Any] = {"poolclass": QueuePool, "pool_size": 1, "max_overflow": 0}
    else:
        options = {}
    try:
        engine = create_engine(
            url,
            isolation_level="AUTOCOMMIT",
            skip_autocommit_rollback=True,
            pool_reset_on_return=None,
            hide_parameters=True,
            connect_args=_connect_args(url, is_bounded),
            **options,
        )
    except (SQLAlchemyError, ImportError, TypeError, ValueError) as error:
        raise ValueError(
            f"no engine can be made for {shown(url)}: {type(error).__name__}"
        ) from None
    _refuse_async(engine)
    if engine.dialect.name == "sqlite":
        event.listen(engine, "do_connect", _make_private)
        event.listen(engine, "connect", _use_wal)
    elif engine.dialect.driver == "psycopg" and is_bounded:
        event.listen(engine, "do_connect", _connect_psycopg)
    return engine


def _connect_args(url: URL, is_bounded: bool) -> dict[str, Any]:
    """What the driver is told, unless the URL tells it."""
    if url.get_backend_name() == "sqlite":
        return {"timeout": bounds.BUSY_TIMEOUT, "check_same_thread": False}
    driver = url.get_driver_name()
    options: dict[str, Any] = {}
    if driver in _KNOW_CONNECT_TIMEOUT:
        options["connect_timeout"] = bounds.CONNECT_TIMEOUT
    if is_bounded:
        options.update(_bounds(driver))
    options = {name: value for name, value in options.items() if name not in url.query}
    if url.password and driver == "pymysql":
        options["password"] = url.password.encode()  # a str it would encode as Latin-1
    return options


_KNOW_CONNECT_TIMEOUT = ("psycopg", "psycopg2", "pymysql", "mysqldb", "mysqlconnector")


def _bounds(driver: str) -> dict[str, Any]:
    """Bounds on locks and silence, for the drivers that take them when they connect.

    Psycopg takes none on silence, so that ``_connect_psycopg`` adds it.
    """
    if driver == "psycopg":
        return {"options": _pg_lock_timeout()}
    if driver not in ("pymysql", "mysqldb"):
        return {}
    locks = ("innodb_lock_wait_timeout", "lock_wait_timeout")
    return {
        "init_command": "SET " + ", ".join(f"{name} = {bounds.LOCK_TIMEOUT}" for name in locks),
        "read_timeout": bounds.ANSWER_TIMEOUT,
        "write_timeout": bounds.ANSWER_TIMEOUT,
    }


def _pg_lock_timeout() -> str:
    return f"-c lock_timeout={bounds.LOCK_TIMEOUT}s"


def check_engine(engine: Engine) -> None:
    """Refuses a caller's engine that cannot be used.

    Raises:
        ValueError: It is of another database, or asynchronous, or its URL has been misread.
    """
    if engine.dialect.name not in DATABASES:
        raise ValueError(f"{engine.dialect.name} is not supported: use one of {DATABASES}")
    _refuse_async(engine)
    refuse_misread(engine.url)


def _refuse_async(engine: Engine) -> None:
    if engine.dialect.is_async:
        raise ValueError("the SDK is synchronous: give a URL or engine with a synchronous driver")


def _make_private(
    dialect: object, record: object, args: tuple[Any, ...], options: dict[str, Any]
) -> None:
    """Creates a SQLite file readable by its owner alone; SQLite gives its WAL the same mode."""
    path = str(args[0])
    if path.startswith("file:"):
        uri = urlsplit(path)
        if parse_qs(uri.query).get("mode", ["rwc"]) != ["rwc"]:
            return
        path = unquote(uri.path)
    if path == ":memory:":
        return
    with suppress(OSError):  # it is there already, or SQLite says what is wrong
        target = os.path.realpath(path)  # of a link that leads nowhere yet
        os.close(os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))


def _use_wal(connection: sqlite3.Connection, record: object) -> None:
    for pragma in ("journal_mode = WAL", "secure_delete = ON"):
        with suppress(sqlite3.OperationalError):  # read-only, or in use: it works without
            connection.execute(f"PRAGMA {pragma}").close()


def _connect_psycopg(
    dialect: object, record: object, args: tuple[Any, ...], options: dict[str, Any]
) -> Any:
    """Opens a connection that does not wait for an answer without end."""
    import psycopg

    is_ours = options.get("options") == _pg_lock_timeout()
    try:
        return _bounded_psycopg().connect(*args, **options)
    except psycopg.OperationalError as error:
        if not is_ours or not any(text in str(error) for text in _REFUSED_BY_POOLERS):
            raise
        options.pop("options", None)  # for good: the lock timeout is worth less than a connection
        return _bounded_psycopg().connect(*args, **options)


_REFUSED_BY_POOLERS = ("startup parameter", "command-line options")
"""What PgBouncer and a cloud's proxy say to an option that they do not pass on."""


@functools.cache
def _bounded_psycopg() -> Any:
    """A class of psycopg's connections to which a server that stays silent is gone."""
    import psycopg

    class BoundedConnection(psycopg.Connection[Any]):
        def wait(self, gen: Any, *args: Any, **options: Any) -> Any:
            return super().wait(self._bounded(gen), *args, **options)

        def _bounded(self, gen: Any) -> Any:
            """Passes on what psycopg's waiting sends: nothing, at intervals, where all is quiet."""
            silent_since = None
            try:
                wanted = next(gen)
                while True:
                    ready = yield wanted
                    silent_since = None if ready else silent_since or time.monotonic()
                    if silent_since and time.monotonic() - silent_since > bounds.ANSWER_TIMEOUT:
                        self.close()
                        raise psycopg.OperationalError(
                            f"no answer for {bounds.ANSWER_TIMEOUT} seconds"
                        )
                    wanted = gen.send(ready)
            except StopIteration as end:
                return end.value

    return BoundedConnection
