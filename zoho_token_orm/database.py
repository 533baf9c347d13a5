"""From a URL to an engine, all that differs between databases, and which errors merit a retry."""

from __future__ import annotations

import enum
import functools
import hashlib
import os
import random
import re
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import (
    URL,
    Connection,
    Dialect,
    Engine,
    QueuePool,
    StaticPool,
    create_engine,
    event,
    make_url,
)
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm.exc import StaleDataError
from zohocrmsdk.src.com.zoho.crm.api.exception.sdk_exception import SDKException

from zoho_token_orm.errors import error_code, hide_values, token_store_error
from zoho_token_orm.models import DEFAULT_TABLE_NAME

Result = TypeVar("Result")

URL_VARIABLE = "ZOHO_TOKEN_DB_URL"
DEFAULT_URL = "sqlite:///zohooauth.db"
DRIVERS = {
    "postgres": "postgresql+psycopg",
    "postgresql": "postgresql+psycopg",
    "mysql": "mysql+pymysql",
    "mariadb": "mariadb+pymysql",
}
"""The drivers that this package ships, for URLs that name none."""
DATABASES = ("sqlite", "postgresql", "mysql", "mariadb")

COLLISION_PATIENCE = 15.0
"""Seconds for which an operation that collides with others is tried again."""
SAVE_PATIENCE = 15.0
"""Seconds for which a save waits for a database that is away: a grant token can be spent once."""
BUSY_TIMEOUT = 15.0
"""Seconds that SQLite waits for another writer."""
CONNECT_TIMEOUT = 10
"""Seconds within which a server has to accept a connection."""
LOCK_TIMEOUT = 15
"""Seconds that a statement waits for a row that somebody else has locked, on a server."""
ANSWER_TIMEOUT = 30
"""Seconds of silence after which a server that still holds the connection counts as gone."""
MIGRATION_LOCK_TIMEOUT = 600
"""Seconds that an upgrade waits for another one, on MySQL and MariaDB."""

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

_TABLE_NAME = re.compile(r"[A-Za-z0-9_]+")
_LONGEST_TABLE_NAME = 43  # PostgreSQL allows 63; the longest name made from it adds 20


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


_UNREADABLE = (
    "the database URL cannot be read; write it like postgresql://user:password@host/database, with "
    "the special characters of user and password percent-encoded"
)


def checked_table_name(name: str) -> str:
    """The name itself, where it can be a table's.

    Raises:
        ValueError: It is empty, too long, or holds anything but ASCII letters, digits and
            underscores.
    """
    if not isinstance(name, str) or not _TABLE_NAME.fullmatch(name):
        raise ValueError("table_name must consist of ASCII letters, digits and underscores")
    if len(name) > _LONGEST_TABLE_NAME:
        raise ValueError(f"table_name must have at most {_LONGEST_TABLE_NAME} characters")
    return name


def version_table(table_name: str = DEFAULT_TABLE_NAME) -> str:
    """The table of Alembic's revision for that token table; never ``alembic_version``."""
    return f"{table_name}_alembic_version"


def upgrade_command(table_name: str) -> str:
    """What to type for a table that is missing or outdated."""
    option = "" if table_name == DEFAULT_TABLE_NAME else f" --table-name {table_name}"
    return f"zoho-token-orm upgrade{option}"


def resolve_url(database: str | URL | None) -> URL:
    """The URL that is meant: with a driver that this package ships, and an absolute SQLite path.

    Args:
        database: A URL; None means the environment variable ``ZOHO_TOKEN_DB_URL``, and without it
            ``sqlite:///zohooauth.db``.

    Raises:
        ValueError: It is no URL, or names a database that is not supported.
    """
    if database is None:
        database = os.environ.get(URL_VARIABLE) or DEFAULT_URL
    if not isinstance(database, (str, URL)):
        raise ValueError("database must be a URL (a string or sqlalchemy.URL) or an Engine")
    try:
        url = make_url(database)
    except (ArgumentError, ValueError):
        # Neither the URL nor the parser's message is shown: both may hold the password.
        raise ValueError(_UNREADABLE) from None
    _refuse_misread(url, database if isinstance(database, str) else "")
    url = url.set(drivername=DRIVERS.get(url.drivername, url.drivername))
    if url.get_backend_name() not in DATABASES:
        raise ValueError(f"{url.get_backend_name()} is not supported: use one of {DATABASES}")
    return _with_absolute_path(url)


def _refuse_misread(url: URL, text: str = "") -> None:
    """Refuses a URL whose password holds an ``@`` as it is: the rest of it is read as the host."""
    is_misread = "@" in (url.host or "") or text.count("@") > 1
    if is_misread and url.get_backend_name() != "sqlite":
        raise ValueError(_UNREADABLE)


def _with_absolute_path(url: URL) -> URL:
    """A relative path is resolved once, so that a later chdir does not lead to another file."""
    if (
        url.get_backend_name() != "sqlite"
        or is_memory(url)
        or str(url.database).startswith("file:")
    ):
        return url
    return url.set(database=str(Path(str(url.database)).absolute()))


def is_memory(url: URL) -> bool:
    """Whether the URL names a SQLite database that lives in memory."""
    if url.get_backend_name() != "sqlite":
        return False
    return url.database in (None, "", ":memory:") or url.query.get("mode") == "memory"


def shown(url: URL) -> str:
    """The URL as it can be shown: without the password, and without options, which may hold one."""
    return url.set(query={}).render_as_string(hide_password=True)


class Database:
    """An engine in autocommit, and how this package runs its work on it.

    In autocommit a statement is one round trip. Several that must hold together stand in a
    ``transaction``, whose BEGIN and COMMIT are statements of their own.

    Args:
        database: A URL, an engine of the caller's, or None for the default URL (``resolve_url``).
        table_name: The token table, for the errors that say how to provision it.
        is_bounded: Whether a server that locks a row or stays silent is given up at some time
            (``LOCK_TIMEOUT``, ``ANSWER_TIMEOUT``); a caller's engine decides that by itself.

    Raises:
        ValueError: The URL or the engine cannot be used.
    """

    def __init__(
        self,
        database: str | URL | Engine | None = None,
        table_name: str = DEFAULT_TABLE_NAME,
        *,
        is_bounded: bool = True,
    ) -> None:
        self.table_name = checked_table_name(table_name)
        self.is_owner = not isinstance(database, Engine)
        if isinstance(database, Engine):
            _check_engine(database)
            self.engine = database
        else:
            self.engine = _new_engine(resolve_url(database), is_bounded)
        self._turn = _turn(self.engine)
        self._is_checked = False
        _used.add(self)

    def __repr__(self) -> str:
        return f"Database({shown(self.engine.url)!r})"

    @property
    def is_embedded(self) -> bool:
        """Whether there is no server that somebody provisions, but a file or memory."""
        return self.engine.dialect.name == "sqlite"

    def close(self) -> None:
        """Closes the connections, unless the engine is the caller's."""
        if self.is_owner:
            self.engine.dispose()

    def run(
        self, what: str, work: Callable[[Connection], Result], *, patience: float = 0.0
    ) -> Result:
        """Runs an operation in whole, again where that can help.

        Args:
            what: What is being done, for the error message: "save the token".
            work: The operation; it may run more than once, each time on a connection in autocommit.
            patience: Seconds to go on trying while the database is away.

        Raises:
            SDKException: It could not be done.
        """
        tries = _Tries(patience)
        while True:
            try:
                return self._attempt(work)
            except UnicodeError:  # its text may quote the value
                raise token_store_error(
                    f"could not {what} ({shown(self.engine.url)}): the connection's character set "
                    "cannot carry the text; make it UTF-8 (utf8mb4 on MySQL)"
                ) from None
            except SQLAlchemyError as error:
                kind = trouble(error)
                if not tries.another(kind):
                    hide_values(error)
                    message = f"could not {what} ({shown(self.engine.url)}){tries.spent()}"
                    if kind is Trouble.SCHEMA:
                        message += f"; run: {upgrade_command(self.table_name)}"
                    cause = error.orig if isinstance(error, DBAPIError) else error
                    raise token_store_error(message, cause) from error

    def _attempt(self, work: Callable[[Connection], Result]) -> Result:
        with self._turn, self._connect() as connection:
            try:
                self._make_ready(connection)
                return work(connection)
            except (SQLAlchemyError, SDKException) as error:
                if isinstance(error, DBAPIError) and is_read_only(error):
                    connection.invalidate(error)  # the next one may lead to the new primary
                raise
            except BaseException:
                self._drop_interrupted(connection)
                raise

    def _drop_interrupted(self, connection: Connection) -> None:
        """Drops a connection on which an answer may still come, to a question that is not the next.

        As after a time limit that raises in the middle of a statement. SQLite has no such wire.
        """
        if not self.is_embedded:
            connection.invalidate()

    def _connect(self) -> Connection:
        try:
            return self.engine.connect()
        except (SQLAlchemyError, TimeoutError):
            raise
        except (TypeError, ValueError, LookupError, AttributeError, OSError) as error:
            # The driver does not know an option of the URL, or cannot read the file that it names;
            # its message may quote the value.
            raise token_store_error(
                f"the driver cannot connect to {shown(self.engine.url)}: check the options in the "
                f"database URL ({type(error).__name__})"
            ) from None

    def _make_ready(self, connection: Connection) -> None:
        if not self.is_owner:
            _put_in_autocommit(connection)
        if not self._is_checked:
            _require_usable(connection)
            self._is_checked = True

    def before_fork(self) -> None:
        """Lets no operation be under way, and no SQLite file be open, while the process forks."""
        if isinstance(self._turn, _Gate):
            self._turn.shut()
            if self.is_owner and self.is_embedded:
                self.engine.dispose()

    def after_fork_in_parent(self) -> None:
        """Lets operations go on."""
        if isinstance(self._turn, _Gate):
            self._turn.open()

    def after_fork_in_child(self) -> None:
        """Forgets the parent's connections without closing them; so does the caller's engine.

        Those of a SQLite file are closed: SQLite notes per process what is locked, and would take
        the parent's locks for the child's own.
        """
        self._turn = _turn(self.engine)
        if not is_memory(self.engine.url):
            self.engine.dispose(close=self.is_embedded)


def _put_in_autocommit(connection: Connection) -> None:
    """An option for a connection of the caller's engine, which the pool takes back on return."""
    dialect = connection.dialect
    try:
        if not dialect.detect_autocommit_setting(_driver_connection(connection)):
            _end_transaction(connection)
            connection.execution_options(isolation_level="AUTOCOMMIT")
    except dialect.loaded_dbapi.Error as error:
        # It comes from the driver itself. If the connection is lost, SQLAlchemy has to meet that
        # too: it then drops all that are as old, and the operation is tried again.
        connection.exec_driver_sql("SELECT 1")
        raise token_store_error(
            f"the engine's connection cannot be put in autocommit ({type(error).__name__})"
        ) from None


def _end_transaction(connection: Connection) -> None:
    """Ends what an event listener has begun: of the engine's events, or of the pool's."""
    if connection.in_transaction():
        connection.commit()
    connection.connection.commit()


def _driver_connection(connection: Connection) -> Any:
    return connection.connection.dbapi_connection


def _require_usable(connection: Connection) -> None:
    """Refuses what only a connection tells, and what would fail later or lose what is written."""
    dialect = connection.dialect
    where = shown(connection.engine.url)
    if dialect.name in ("mysql", "mariadb") and not dialect.default_schema_name:
        raise token_store_error(f"{where} names no database: end it in /database")
    if connection.dispatch.begin:
        raise token_store_error(
            "an event listener for 'begin' may open a transaction that nobody commits, and what is "
            "saved would be lost: give the URL, or an engine without that listener"
        )
    autocommit = getattr(_driver_connection(connection), "autocommit", None)
    if dialect.name == "sqlite" and autocommit is False:
        # Python 3.12 and newer: a transaction is always open, which only the driver can commit.
        raise token_store_error(
            "the engine's autocommit=False cannot be used: leave it out of its connect_args"
        )


_used: weakref.WeakSet[Database] = weakref.WeakSet()


def _before_fork() -> None:
    for database in list(_used):
        database.before_fork()


def _after_fork_in_parent() -> None:
    for database in list(_used):
        database.after_fork_in_parent()


def _after_fork_in_child() -> None:
    _turns.clear()  # another thread of the parent may have held them
    for database in list(_used):
        database.after_fork_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork,
        after_in_parent=_after_fork_in_parent,
        after_in_child=_after_fork_in_child,
    )


class _Gate:
    """Any number of operations at a time pass it; while it is shut, none is inside.

    A handle of SQLite's that is in use at a fork can be neither used nor closed in the child, and
    what a driver has locked then, as OpenSSL does, is locked there for ever.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition(threading.Lock())
        self._inside = 0
        self._shut = 0

    def __enter__(self) -> None:
        with self._changed:
            while self._shut:
                self._changed.wait()
            self._inside += 1

    def __exit__(self, *error: object) -> None:
        with self._changed:
            self._inside -= 1
            if self._shut:
                self._changed.notify_all()

    def shut(self) -> None:
        """Waits until nobody is inside, at most for a time that no operation should take."""
        with self._changed:
            self._shut += 1
            self._changed.wait_for(lambda: not self._inside, BUSY_TIMEOUT + 1)

    def open(self) -> None:
        """Lets operations pass again."""
        with self._changed:
            self._shut = max(0, self._shut - 1)
            self._changed.notify_all()


class _Tries:
    """How often, and for how long, one operation is tried."""

    def __init__(self, patience: float) -> None:
        self._started = time.monotonic()
        self._patience = {Trouble.COLLISION: COLLISION_PATIENCE, Trouble.AWAY: patience}
        self._count = 0
        self._lost = False

    def another(self, kind: Trouble) -> bool:
        """Whether to try again after this trouble; waits a little first, where that helps."""
        self._count += 1
        seconds = time.monotonic() - self._started
        if kind is Trouble.LOST and not self._lost and seconds < ANSWER_TIMEOUT:
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


def _turn(engine: Engine) -> AbstractContextManager[Any]:
    """What operations pass: a lock where all threads are given the same connection."""
    if isinstance(engine.pool, StaticPool):
        return _turns.setdefault(engine.dialect, threading.Lock())  # outlives a pool
    return nullcontext() if is_memory(engine.url) else _Gate()


_turns: weakref.WeakKeyDictionary[Dialect, threading.Lock] = weakref.WeakKeyDictionary()


def _new_engine(url: URL, is_bounded: bool) -> Engine:
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
        return {"timeout": BUSY_TIMEOUT, "check_same_thread": False}
    driver = url.get_driver_name()
    options: dict[str, Any] = {}
    if driver in _KNOW_CONNECT_TIMEOUT:
        options["connect_timeout"] = CONNECT_TIMEOUT
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
        "init_command": "SET " + ", ".join(f"{name} = {LOCK_TIMEOUT}" for name in locks),
        "read_timeout": ANSWER_TIMEOUT,
        "write_timeout": ANSWER_TIMEOUT,
    }


def _pg_lock_timeout() -> str:
    return f"-c lock_timeout={LOCK_TIMEOUT}s"


def _check_engine(engine: Engine) -> None:
    if engine.dialect.name not in DATABASES:
        raise ValueError(f"{engine.dialect.name} is not supported: use one of {DATABASES}")
    _refuse_async(engine)
    _refuse_misread(engine.url)


def _refuse_async(engine: Engine) -> None:
    if engine.dialect.is_async:
        raise ValueError("the SDK is synchronous: give a URL or engine with a synchronous driver")


def _make_private(
    dialect: object, record: object, args: tuple[Any, ...], options: dict[str, Any]
) -> None:
    """Creates a SQLite file readable by its owner alone; SQLite gives its WAL the same mode."""
    path = str(args[0])
    if path == ":memory:" or path.startswith("file:"):
        return
    with suppress(OSError):  # it is there already, or SQLite says what is wrong
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))


def _use_wal(connection: sqlite3.Connection, record: object) -> None:
    with suppress(sqlite3.OperationalError):  # read-only, or in use: it works without
        connection.execute("PRAGMA journal_mode = WAL").close()


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
                    if silent_since and time.monotonic() - silent_since > ANSWER_TIMEOUT:
                        self.close()
                        raise psycopg.OperationalError(f"no answer for {ANSWER_TIMEOUT} seconds")
                    wanted = gen.send(ready)
            except StopIteration as end:
                return end.value

    return BoundedConnection


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
        f"SELECT GET_LOCK('{lock}', {MIGRATION_LOCK_TIMEOUT})"
    ).scalar()
    if got != 1:
        raise token_store_error(
            f"another migration has been running for {MIGRATION_LOCK_TIMEOUT} seconds; try later"
        )
    try:
        yield
    finally:
        if not connection.invalidated:
            connection.exec_driver_sql(f"SELECT RELEASE_LOCK('{lock}')")
