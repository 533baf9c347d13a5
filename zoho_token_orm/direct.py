"""The statements of every API call, on the driver's own cursor."""

from __future__ import annotations

import abc
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

from sqlalchemy import Connection, CursorResult, Dialect, Select, TextClause, UpdateBase
from sqlalchemy.engine.interfaces import DBAPICursor
from sqlalchemy.exc import DBAPIError
from sqlalchemy.types import TypeEngine

from zoho_token_orm.models import ExactString, Secret

Result = TypeVar("Result")

_LISTENED_TO = ("before_execute", "after_execute", "before_cursor_execute", "after_cursor_execute")


class Found(NamedTuple):
    """A row of the token table, its tokens and secrets in the clear."""

    id: str
    user_name: str | None
    client_id: str | None
    client_secret: str | None
    refresh_token: str | None
    access_token: str | None
    grant_token: str | None
    expiry_time: int | None
    redirect_url: str | None
    api_domain: str | None
    lease_owner: str | None
    lease_left: int | None

    def __repr__(self) -> str:
        """Which row this is; never a token or a secret."""
        return f"Found(id={self.id!r}, user_name={self.user_name!r})"


class DirectStatement(abc.ABC, Generic[Result]):
    """A statement that is compiled once and costs little more than the driver takes for it.

    SQLAlchemy's way of running a statement takes longer than the statement does. It is taken where
    somebody listens to the engine or has it log, and where the connection turns out to be lost:
    SQLAlchemy meets the same, and knows which other connections are lost with it.

    Args:
        statement: What is run; each parameter has the type of a column, or is a string.
    """

    def __init__(self, statement: Select[Any] | TextClause | UpdateBase) -> None:
        self._statement = statement
        self._compiled: dict[Dialect, _Compiled] = {}

    def run(self, connection: Connection, values: Mapping[str, Any]) -> Result:
        """Runs the statement.

        Args:
            connection: A connection in autocommit; a ``transaction`` may be open.
            values: The parameters by name.

        Raises:
            DBAPIError: What SQLAlchemy would raise.
        """
        if not _needs_sqlalchemy(connection):
            try:
                return self._run_directly(connection, values)
            except connection.dialect.loaded_dbapi.Error as error:
                if not connection.dialect.is_disconnect(error, connection.connection, None):
                    raise self._translated(error, connection, values) from error
        return self._result(connection.execute(self._statement, values))

    def _run_directly(self, connection: Connection, values: Mapping[str, Any]) -> Result:
        compiled = self._compiled.get(connection.dialect) or self._compile(connection.dialect)
        parameters = compiled.parameters(values)
        cursor: DBAPICursor = connection.connection.cursor()
        try:
            cursor.execute(compiled.sql, parameters)
            return self._direct_result(cursor)
        finally:
            cursor.close()

    def _compile(self, dialect: Dialect) -> _Compiled:
        compiled = self._compiled[dialect] = _Compiled(self._statement, dialect)
        return compiled

    def _translated(
        self, error: Exception, connection: Connection, values: Mapping[str, Any]
    ) -> BaseException:
        """The error as SQLAlchemy's, which does not show the parameters."""
        dialect = connection.dialect
        return DBAPIError.instance(
            self._compiled[dialect].sql,
            {name: Secret(v) if isinstance(v, str) else v for name, v in values.items()},
            error,
            dialect.loaded_dbapi.Error,
            hide_parameters=True,
            dialect=dialect,
        )

    @abc.abstractmethod
    def _direct_result(self, cursor: DBAPICursor) -> Result:
        """What the driver's cursor has."""

    @abc.abstractmethod
    def _result(self, result: CursorResult[Any]) -> Result:
        """The same from SQLAlchemy."""


class LookUp(DirectStatement[list[Found]]):
    """A SELECT of the columns of ``Found``; returns the rows, in the order of the statement.

    Args:
        statement: What is run.
        opened: Makes of the columns as they are stored what they say.
    """

    def __init__(self, statement: Select[Any], opened: Callable[[Sequence[Any]], Found]) -> None:
        super().__init__(statement)
        self._opened = opened

    def _direct_result(self, cursor: DBAPICursor) -> list[Found]:
        return [self._opened(row) for row in cursor.fetchall()]

    def _result(self, result: CursorResult[Any]) -> list[Found]:
        return [self._opened(row) for row in result]


class Change(DirectStatement[int]):
    """An INSERT or UPDATE; returns how many rows it has met."""

    def _direct_result(self, cursor: DBAPICursor) -> int:
        return cursor.rowcount

    def _result(self, result: CursorResult[Any]) -> int:
        return result.rowcount


def _needs_sqlalchemy(connection: Connection) -> bool:
    """Whether somebody would miss what SQLAlchemy does with a statement, or tells of it."""
    dispatch, of_dialect = connection.dispatch, connection.dialect.dispatch
    return (
        "schema_translate_map" in connection.get_execution_options()
        or any(getattr(dispatch, name) for name in _LISTENED_TO)
        or bool(of_dialect.do_execute or of_dialect.handle_error)
        or connection.engine.logger.isEnabledFor(logging.INFO)
    )


class _Compiled:
    """A statement as a driver takes it, and its parameters likewise."""

    def __init__(self, statement: Select[Any] | TextClause | UpdateBase, dialect: Dialect) -> None:
        compiled = statement.compile(dialect=dialect)
        self.sql = str(compiled)
        self._is_positional = compiled.positional
        names = compiled.positiontup if compiled.positional else compiled.binds
        self._stored = [(name, _stored(compiled.binds[name].type, dialect)) for name in names or ()]

    def parameters(self, values: Mapping[str, Any]) -> Sequence[Any] | Mapping[str, Any]:
        """The values in the form that the database holds, by place or by name."""
        if self._is_positional:
            return [_for_driver(values[name], stored) for name, stored in self._stored]
        return {name: _for_driver(values[name], stored) for name, stored in self._stored}


def _for_driver(value: Any, stored: Callable[[Any], Any] | None) -> Any:
    return value if value is None or stored is None else stored(value)


def _stored(type: TypeEngine[Any], dialect: Dialect) -> Callable[[Any], Any] | None:
    """What turns a value of that type into what the driver is given; None where nothing does."""
    if isinstance(type, ExactString):
        return None  # no mask: nothing here logs it, and drivers take longer for it
    return type.dialect_impl(dialect).bind_processor(dialect)
