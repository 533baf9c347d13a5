"""Text of a table that is not this package's, however it is kept."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import CHAR, Connection, inspect


@contextmanager
def any_text(connection: Connection) -> Iterator[None]:
    """Has SQLite give text that is no UTF-8 as bytes, where its driver would fail in a query."""
    if connection.dialect.name != "sqlite":
        yield
        return
    driver: Any = connection.connection.driver_connection
    before, driver.text_factory = driver.text_factory, _decoded
    try:
        yield
    finally:
        driver.text_factory = before


def _decoded(data: bytes) -> str | bytes:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data


def padded_columns(connection: Connection, table: str) -> set[str]:
    """The columns whose text PostgreSQL gives filled up with blanks: those of type CHAR."""
    if connection.dialect.name != "postgresql":
        return set()
    columns = inspect(connection).get_columns(table)
    return {column["name"] for column in columns if isinstance(column["type"], CHAR)}
