"""The bare driver: it runs what a store sends, with nothing in between."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Engine, event
from zohocrmsdk.src.com.zoho.crm.api.exception.sdk_exception import SDKException

from benchmarks.calls import REFRESH, Call, Prepared, Workload
from zoho_token_orm import SQLAlchemyTokenStore
from zoho_token_orm.database import is_memory

Statement = tuple[str, Any]
"""The SQL and the parameters that a driver is given."""


class BareDriver:
    """Calls that run the statements of a store's calls on a connection of the driver's.

    What is run is what the store is about to send, taken from it at that moment. Where a call is
    one statement, the store never sends it, so that the driver is the first to touch the rows as
    the store is in its own calls. Where it is more, the store makes the call before.

    Args:
        store: The store.
        workload: Its calls.
    """

    def __init__(self, store: SQLAlchemyTokenStore, workload: Workload) -> None:
        self._engine = store.engine
        self._workload = workload
        self._is_single: dict[str, bool] = {}
        self._connection = _connection(store.engine)

    def close(self) -> None:
        """Closes the connection, unless it is the store's."""
        if not is_memory(self._engine.url):
            self._connection.close()

    def prepare(self, method: str, count: int) -> Prepared:
        """Prepares calls that send what the store's calls of that method send."""
        if method not in self._is_single:
            self._is_single[method] = self._sends_one(method)
        prepared = self._workload.prepare(method, count)
        if self._is_single[method]:
            statements = self._held_back(prepared.calls)
        else:
            statements = self._sent(prepared.calls)
            prepared.undo()
            if method == REFRESH:  # the rows must be different from what the driver makes of them
                for call in prepared.calls:
                    call()
        return Prepared([functools.partial(self.run, each) for each in statements], prepared.undo)

    def _sends_one(self, method: str) -> bool:
        prepared = self._workload.prepare(method, 1)
        is_single = len(self._sent(prepared.calls)[0]) == 1
        prepared.undo()
        return is_single

    def _sent(self, calls: list[Call]) -> list[list[Statement]]:
        """What the store sends for each call, all of which it makes."""
        heard: list[Statement] = []
        sent = []
        with _listening(self._engine, heard.append):
            for call in calls:
                call()
                sent.append(heard.copy())
                heard.clear()
        return sent

    def _held_back(self, calls: list[Call]) -> list[list[Statement]]:
        """What the store would send for each call."""
        held_back = []
        with _listening(self._engine, _hold_back):
            for call in calls:
                try:
                    call()
                except _HeldBack as one:
                    held_back.append([one.statement])
        assert len(held_back) == len(calls), "a call sends nothing"
        return held_back

    def run(self, statements: list[Statement]) -> None:
        """Runs statements and fetches what they return."""
        for statement, parameters in statements:
            cursor = self._connection.cursor()
            cursor.execute(statement, parameters)
            if cursor.description:
                cursor.fetchall()
            cursor.close()


class _HeldBack(SDKException):  # type: ignore[misc]
    """A statement that has not been sent; an error of the store's, which costs no connection."""

    def __init__(self, statement: Statement) -> None:
        super().__init__()
        self.statement = statement


def _hold_back(statement: Statement) -> None:
    raise _HeldBack(statement)


@contextmanager
def _listening(engine: Engine, heard: Callable[[Statement], None]) -> Iterator[None]:
    """Says meanwhile what the engine is about to hand to its driver."""

    def note(connection: object, cursor: object, sql: str, parameters: Any, *more: object) -> None:
        heard((sql, _plain_values(parameters)))

    with _traceless(engine):
        event.listen(engine, "before_cursor_execute", note)
        try:
            yield
        finally:
            event.remove(engine, "before_cursor_execute", note)


@contextmanager
def _traceless(engine: Engine) -> Iterator[None]:
    """Leaves no listeners behind, and no sign that there were any.

    SQLAlchemy looks for them at every step from then on, which would slow down what is measured.
    """
    had = engine._has_events, engine.dialect._has_events
    try:
        yield
    finally:
        engine._has_events, engine.dialect._has_events = had


def _plain_values(parameters: Any) -> Any:
    """The parameters as one writes them for a driver alone: no class of ours among them."""
    if isinstance(parameters, Mapping):
        return {name: _plain(value) for name, value in parameters.items()}
    return tuple(_plain(value) for value in parameters)


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, str) else value


def _connection(engine: Engine) -> Any:
    """A connection of the driver's own class, with the options and settings of the engine's.

    A SQLite database in memory has one connection only, which the driver uses between the store's
    calls.
    """
    if is_memory(engine.url):
        return _borrowed(engine)
    engine.dispose()
    with _traceless(engine):
        event.listen(engine, "do_connect", _connect, insert=True)
        try:
            connection = engine.raw_connection()
            connection.detach()
            return connection.dbapi_connection
        finally:
            event.remove(engine, "do_connect", _connect)


def _connect(dialect: Any, record: object, args: Any, options: Any) -> Any:
    return dialect.loaded_dbapi.connect(*args, **options)


def _borrowed(engine: Engine) -> Any:
    connection = engine.raw_connection()
    try:
        return connection.dbapi_connection
    finally:
        connection.close()
