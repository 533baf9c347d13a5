"""Which errors merit another try, and how many tries an operation has."""

from __future__ import annotations

import enum
import random
import sqlite3
import time

from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm.exc import StaleDataError

from zoho_token_orm.database import bounds
from zoho_token_orm.errors import error_code

# PostgreSQL: unique_violation, serialization_failure, deadlock_detected, lock_not_available.
# MySQL: ER_DUP_ENTRY (twice), ER_LOCK_DEADLOCK, ER_LOCK_WAIT_TIMEOUT, ER_LOCK_NOWAIT, ER_CHECKREAD.
_COLLISION_CODES: set[str | int] = {
    *("23505", "40001", "40P01", "55P03"),
    *(1062, 1586, 1213, 1205, 3572, 1020),
}
_SQLITE_COLLISIONS = ("UNIQUE constraint failed", "database is locked", "database table is locked")
# read_only_sql_transaction; ER_OPTION_PREVENTS_STATEMENT, ER_CANT_EXECUTE_IN_READ_ONLY_TRANSACTION,
# ER_READ_ONLY_MODE, and what a node says that has left its Galera cluster.
_READ_ONLY_CODES: set[str | int] = {"25006", 1290, 1792, 1836, 1047}
# undefined_table, undefined_column; ER_NO_SUCH_TABLE, ER_BAD_FIELD_ERROR.
_SCHEMA_CODES: set[str | int] = {"42P01", "42703", 1146, 1054}
_SQLITE_SCHEMA = ("no such table", "no such column", "has no column named")


class Trouble(enum.Enum):
    """What went wrong with an operation, for the question whether to try again."""

    COLLISION = "somebody else wrote at the same time"
    LOST = "the connection was lost"
    AWAY = "the database cannot be reached"
    SCHEMA = "the table is not there or not up to date"
    OTHER = "anything else"


def trouble(error: SQLAlchemyError) -> Trouble:
    """Sorts a database error by what can be done about it."""
    if isinstance(error, StaleDataError):
        return Trouble.COLLISION
    if isinstance(error, PoolTimeoutError):
        return Trouble.AWAY
    if not isinstance(error, DBAPIError):
        return Trouble.OTHER
    if error.connection_invalidated:
        return Trouble.LOST
    if error.statement is None or is_read_only(error):
        return Trouble.AWAY
    if _is(error, _COLLISION_CODES, _SQLITE_COLLISIONS):
        return Trouble.COLLISION
    return Trouble.SCHEMA if _is(error, _SCHEMA_CODES, _SQLITE_SCHEMA) else Trouble.OTHER


def is_read_only(error: DBAPIError) -> bool:
    """Whether the server takes no writes on this connection, as one that has become a replica."""
    return error_code(error) in _READ_ONLY_CODES


def _is(error: DBAPIError, codes: set[str | int], sqlite_texts: tuple[str, ...]) -> bool:
    if isinstance(error.orig, sqlite3.Error):  # before Python 3.11 it has no code
        return any(text in str(error.orig) for text in sqlite_texts)
    return error_code(error) in codes


class Tries:
    """How often, and for how long, one operation is tried."""

    def __init__(self, patience: float) -> None:
        self._started = time.monotonic()
        self._patience = {Trouble.COLLISION: bounds.COLLISION_PATIENCE, Trouble.AWAY: patience}
        self._count = 0
        self._lost = False

    def another(self, kind: Trouble) -> bool:
        """Whether to try again after this trouble; waits a little first, where that helps."""
        self._count += 1
        seconds = time.monotonic() - self._started
        if kind is Trouble.LOST and not self._lost and seconds < bounds.ANSWER_TIMEOUT:
            self._lost = True
            return True
        kind = Trouble.AWAY if kind is Trouble.LOST else kind
        if seconds >= self._patience.get(kind, 0.0):
            return False
        longest = min(0.5, 0.002 * 2 ** min(self._count, 10))
        time.sleep(random.uniform(0, longest))  # noqa: S311 - jitter
        return True

    def spent(self) -> str:
        """How long was tried, for the message, unless it failed at once."""
        seconds = time.monotonic() - self._started
        if self._count == 1:
            return f" within {seconds:.1f} seconds" if seconds >= 1 else ""
        return f", tried {self._count} times in {seconds:.1f} seconds"
