"""Runs the work of this package on an engine, again where that can help."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from sqlalchemy import URL, Connection, Engine
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from zohocrmsdk.src.com.zoho.crm.api.exception.sdk_exception import SDKException

from zoho_token_orm.database import forks
from zoho_token_orm.database.engines import check_engine, new_engine
from zoho_token_orm.database.names import checked_table_name, upgrade_command
from zoho_token_orm.database.retries import Tries, Trouble, is_read_only, trouble
from zoho_token_orm.database.urls import is_memory, resolve_url, shown
from zoho_token_orm.errors import hide_values, token_store_error
from zoho_token_orm.models import DEFAULT_TABLE_NAME

Result = TypeVar("Result")


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
            check_engine(database)
            self.engine = database
        else:
            self.engine = new_engine(resolve_url(database), is_bounded)
        self._turn = forks.turn(self.engine)
        self._is_checked = False
        forks.in_use.add(self)

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
        tries = Tries(patience)
        while True:
            try:
                return self._attempt(work)
            except UnicodeError:  # it holds the value: so it must not be the context of another one
                break
            except SQLAlchemyError as error:
                kind = trouble(error)
                if not tries.another(kind):
                    hide_values(error)
                    message = f"could not {what} ({shown(self.engine.url)}){tries.spent()}"
                    if kind is Trouble.SCHEMA:
                        message += f"; run: {upgrade_command(self.table_name)}"
                    cause = error.orig if isinstance(error, DBAPIError) else error
                    raise token_store_error(message, cause) from error
        raise token_store_error(
            f"could not {what} ({shown(self.engine.url)}): the connection's character set cannot "
            "carry the text; make it UTF-8 (utf8mb4 on MySQL)"
        )

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
            # its message may quote the value, so that it must not be the context of ours.
            kind = type(error).__name__
        raise token_store_error(
            f"the driver cannot connect to {shown(self.engine.url)}: check the options in the "
            f"database URL ({kind})"
        )

    def _make_ready(self, connection: Connection) -> None:
        if not self.is_owner:
            _put_in_autocommit(connection)
        if not self._is_checked:
            _require_usable(connection)
            self._is_checked = True

    def before_fork(self) -> None:
        """Lets no operation be under way, and no SQLite file be open, while the process forks."""
        if isinstance(self._turn, forks.Gate):
            self._turn.shut()
            if self.is_owner and self.is_embedded:
                self.engine.dispose()

    def after_fork_in_parent(self) -> None:
        """Lets operations go on."""
        if isinstance(self._turn, forks.Gate):
            self._turn.open()

    def after_fork_in_child(self) -> None:
        """Forgets the parent's connections without closing them; so does the caller's engine.

        Those of a SQLite file are closed: SQLite notes per process what is locked, and would take
        the parent's locks for the child's own.
        """
        self._turn = forks.turn(self.engine)
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
