"""Several statements that hold together, on a connection in autocommit."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from zoho_token_orm.database import bounds
from zoho_token_orm.errors import token_store_error


@contextmanager
def transaction(
    connection: Connection, *, serializable: bool = False, waits: bool = True
) -> Iterator[None]:
    """Makes the statements inside one transaction, on a connection in autocommit.

    On SQLite it is a writer's from its first statement, so that it never has to become one.

    Args:
        connection: A connection in autocommit.
        serializable: Whether it must not miss a row that somebody else inserts meanwhile.
        waits: Whether it waits for its turn where another program writes, on SQLite.
    """
    if connection.dialect.name == "sqlite" and not waits:
        _begin_at_once(connection)
    else:
        _begin(connection, serializable)
    try:
        yield
        connection.exec_driver_sql("COMMIT")
    except BaseException:
        _roll_back(connection)
        raise


def _begin(connection: Connection, serializable: bool) -> None:
    level = "ISOLATION LEVEL SERIALIZABLE"
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    elif connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"BEGIN {level}" if serializable else "BEGIN")
    else:
        if serializable:
            connection.exec_driver_sql(f"SET TRANSACTION {level}")
        connection.exec_driver_sql("BEGIN")


def _begin_at_once(connection: Connection) -> None:
    timeout = connection.exec_driver_sql("PRAGMA busy_timeout").scalar()
    connection.exec_driver_sql("PRAGMA busy_timeout = 0")
    try:
        _begin(connection, serializable=False)
    finally:
        connection.exec_driver_sql(f"PRAGMA busy_timeout = {timeout}")


def _roll_back(connection: Connection) -> None:
    if connection.invalidated or connection.closed:
        return
    try:
        connection.exec_driver_sql("ROLLBACK")
    except SQLAlchemyError:
        connection.invalidate()


@contextmanager
def migration_lock(connection: Connection, name: str) -> Iterator[None]:
    """Holds off other migrations of the same tables, and makes these one transaction if it can be.

    MySQL and MariaDB commit at every change of the schema, so there the lock stands alone.

    Args:
        connection: A connection in autocommit.
        name: What is locked, within the database.

    Raises:
        SDKException: Another migration holds the lock for longer than ``MIGRATION_LOCK_TIMEOUT``.
    """
    if connection.dialect.name in ("mysql", "mariadb"):
        with _mysql_lock(connection, name):
            yield
        return
    with transaction(connection):
        if connection.dialect.name == "postgresql":
            key = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big", signed=True)
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({key})")
        yield


@contextmanager
def _mysql_lock(connection: Connection, name: str) -> Iterator[None]:
    database = connection.exec_driver_sql("SELECT DATABASE()").scalar()
    lock = hashlib.sha256(f"{database}.{name}".encode()).hexdigest()[:40]  # server-wide, 64 at most
    got = connection.exec_driver_sql(
        f"SELECT GET_LOCK('{lock}', {bounds.MIGRATION_LOCK_TIMEOUT})"
    ).scalar()
    if got != 1:
        raise token_store_error(
            f"another migration has been running for {bounds.MIGRATION_LOCK_TIMEOUT} seconds; "
            "try later"
        )
    try:
        yield
    finally:
        if not connection.invalidated:
            connection.exec_driver_sql(f"SELECT RELEASE_LOCK('{lock}')")
