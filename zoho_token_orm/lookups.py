"""The look-ups of every API call, on the driver's own cursor."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, Select
from sqlalchemy.engine.interfaces import DBAPICursor

from zoho_token_orm.models import TokenString

_LISTENED_TO = ("before_execute", "after_execute", "before_cursor_execute", "after_cursor_execute")


class Found(NamedTuple):
    """A row as a look-up finds it, with the attributes of SQLAlchemy's own row."""

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


AnyRow = Found | Row[Any]


class LookUp:
    """A SELECT of the columns of ``Found`` that is compiled once and costs little more than itself.

    SQLAlchemy's way of running a statement takes longer than the statement does. It is taken where
    somebody listens to the engine or has it log, and where the driver reports an error: there it
    meets the same error, and all that goes with it.

    Args:
        statement: The SELECT; its parameters are strings.
        tokens: The names of those parameters that are tokens or secrets.
    """

    def __init__(self, statement: Select[Any], tokens: Sequence[str] = ()) -> None:
        self._statement = statement
        self._tokens = frozenset(tokens)
        self._compiled: dict[Any, tuple[str, Sequence[str] | None]] = {}

    def rows(self, connection: Connection, values: dict[str, str]) -> Sequence[AnyRow]:
        """The rows, in the order of the statement.

        Args:
            connection: A connection in autocommit.
            values: The parameters by name.
        """
        if not _needs_sqlalchemy(connection):
            try:
                return self._fetched(connection, values)
            except connection.dialect.loaded_dbapi.Error:
                pass  # it comes again, and SQLAlchemy knows what it means for the connection
        return connection.execute(self._statement, values).all()

    def _fetched(self, connection: Connection, values: dict[str, str]) -> list[Found]:
        sql, order = self._compiled.get(connection.dialect) or self._compile(connection)
        given = {name: self._stored(name, value) for name, value in values.items()}
        parameters = given if order is None else [given[name] for name in order]
        cursor: DBAPICursor = connection.connection.cursor()
        try:
            cursor.execute(sql, parameters)
            return [_found(row) for row in cursor.fetchall()]
        finally:
            cursor.close()

    def _compile(self, connection: Connection) -> tuple[str, Sequence[str] | None]:
        compiled = self._statement.compile(dialect=connection.dialect)
        made = str(compiled), compiled.positiontup if compiled.positional else None
        self._compiled[connection.dialect] = made
        return made

    def _stored(self, name: str, value: str) -> str:
        return _TOKEN.stored(value) if name in self._tokens else value


def _needs_sqlalchemy(connection: Connection) -> bool:
    """Whether somebody would miss what SQLAlchemy does with a statement, or tells of it."""
    dispatch = connection.dispatch
    return (
        "schema_translate_map" in connection.get_execution_options()
        or any(getattr(dispatch, name) for name in _LISTENED_TO)
        or bool(connection.dialect.dispatch.do_execute)
        or connection.engine.logger.isEnabledFor(logging.INFO)
    )


_TOKEN = TokenString(0)


def _found(row: Sequence[Any]) -> Found:
    values = list(row)
    for place in _TOKEN_PLACES:
        value = values[place]
        if value is not None:
            values[place] = TokenString.loaded(value)
    return Found(*values)


_TOKEN_PLACES = tuple(
    Found._fields.index(name)
    for name in ("client_secret", "refresh_token", "access_token", "grant_token")
)
