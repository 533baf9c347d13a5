"""Rows that look like real ones, and a fast way of filling tables with them."""

from __future__ import annotations

import csv
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from hashlib import shake_128
from itertools import islice
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, inspect
from zohocrmsdk.src.com.zoho.api.authenticator.oauth_token import OAuthToken
from zohocrmsdk.src.com.zoho.crm.api.user_signature import UserSignature

from zoho_token_orm.mapping import COLUMNS

CHUNK = 10_000
"""How many rows are inserted in one transaction on MySQL and MariaDB."""
LIFETIME = 24 * 3_600_000
"""How long the access tokens are valid, in milliseconds: longer than the benchmark takes."""
_FIRST_LOGIN = datetime(2024, 1, 1)  # in UTC, as the databases take it
OUR_COLUMNS = (*COLUMNS, "created_at")
"""The columns that are filled in the store's own table; the others have a default."""

IdOf = Callable[[int], str]
Rows = Iterator[tuple[str, ...]]


def long_id(number: int) -> str:
    """The id of a row as the store makes them: 20 digits in no order."""
    return str(10**19 + int(_digits(number)[192:207], 16))


def short_id(number: int) -> str:
    """An id that fits in the SDK's ``varchar(10)``.

    All are equally long, as DBStore takes the greatest of them as text and adds 1.
    """
    return str(1_000_000_001 + number)


def user_name(number: int) -> str:
    """The user's name, as the SDK makes it from the e-mail address and the organization."""
    return f"user.{number}@example.com:{700_000_000 + number}"


def zoho_token(digits: str) -> str:
    """A token of 70 characters, from 64 hexadecimal digits."""
    return f"1000.{digits[:32]}.{digits[32:]}"


def _digits(number: int) -> str:
    """Hexadecimal digits that look random, the same ones for the same number."""
    return shake_128(b"%d" % number).hexdigest(104)


def expiry() -> str:
    """When an access token of now expires, in epoch milliseconds."""
    return str(int(time.time() * 1000) + LIFETIME)


def values(number: int, id: str) -> dict[str, str]:
    """A row by column, as it is after the first login."""
    digits = _digits(number)
    return {
        "id": id,
        "user_name": user_name(number),
        "client_id": "1000.CLIENTOFTHEBENCHMARK0000000000",
        "client_secret": "5ec2e7" * 7,
        "refresh_token": zoho_token(digits[:64]),
        "access_token": zoho_token(digits[64:128]),
        "grant_token": zoho_token(digits[128:192]),
        "expiry_time": expiry(),
        "redirect_url": "https://www.example.com/oauth/callback",
        "api_domain": "https://www.zohoapis.com",
        "created_at": f"{_FIRST_LOGIN + timedelta(seconds=number)}.000000",
    }


def new_token(number: int) -> OAuthToken:
    """The token of a user whom no store knows, as it is after the exchange of the grant token."""
    row = values(number, "")
    names = ("client_id", "client_secret", "refresh_token", "access_token", "grant_token")
    token = OAuthToken(
        **{name: row[name] for name in names},
        redirect_url=row["redirect_url"],
        api_domain=row["api_domain"],
        user_signature=UserSignature(row["user_name"]),
    )
    token.set_expires_in(row["expiry_time"])
    return token


def rows(numbers: Iterable[int], columns: Sequence[str], id_of: IdOf) -> Rows:
    """The values of these columns, for each number."""
    for number in numbers:
        row = values(number, id_of(number))
        yield tuple(row[column] for column in columns)


def fill(engine: Engine, table: str, numbers: range, columns: Sequence[str], id_of: IdOf) -> None:
    """Inserts the rows of these numbers, many at once, and lets the database come to rest.

    Args:
        engine: An engine in autocommit.
        table: The table's name.
        numbers: Which rows.
        columns: The columns that get a value.
        id_of: The id of a row.
    """
    new = rows(sorted(numbers, key=id_of), columns, id_of)
    kind = engine.dialect.name
    insert = {"sqlite": _insert_at_once, "postgresql": _copy}.get(kind, _insert_in_chunks)
    with _cursor(engine) as cursor, _without_indexes(engine, table, cursor):
        insert(cursor, table, columns, new)
    with _cursor(engine) as cursor:
        for statement in _AFTERWARDS[kind]:
            cursor.execute(statement.format(table=table))


_AFTERWARDS = {
    "sqlite": ["PRAGMA wal_checkpoint(TRUNCATE)"],
    "postgresql": ["VACUUM ANALYZE {table}", "CHECKPOINT"],
    "mysql": ["ANALYZE TABLE {table}"],
    "mariadb": ["ANALYZE TABLE {table}"],
}


@contextmanager
def _cursor(engine: Engine) -> Iterator[Any]:
    connection = engine.raw_connection()
    try:
        cursor = connection.cursor()
        yield cursor
        cursor.close()
    finally:
        connection.close()


@contextmanager
def _without_indexes(engine: Engine, table: str, cursor: Any) -> Iterator[None]:
    """MySQL and MariaDB build an index much faster than they add a million keys to it."""
    if engine.dialect.name not in ("mysql", "mariadb"):
        yield
        return
    indexes = inspect(engine).get_indexes(table)
    _alter(cursor, table, [f"DROP INDEX {index['name']}" for index in indexes])
    yield
    _alter(cursor, table, [_added(index) for index in indexes])


def _added(index: Any) -> str:
    kind = "UNIQUE INDEX" if index["unique"] else "INDEX"
    return f"ADD {kind} {index['name']} ({', '.join(index['column_names'])})"


def _alter(cursor: Any, table: str, changes: list[str]) -> None:
    if changes:
        cursor.execute(f"ALTER TABLE {table} {', '.join(changes)}")


def _copy(cursor: Any, table: str, columns: Sequence[str], new: Rows) -> None:
    with cursor.copy(f"COPY {table} ({', '.join(columns)}) FROM STDIN") as copy:
        for row in new:
            copy.write_row(row)


def _insert_at_once(cursor: Any, table: str, columns: Sequence[str], new: Rows) -> None:
    """Inserts in one transaction, all of it in memory, as SQLite's pages are changed many times."""
    cursor.execute("PRAGMA cache_size = -2000000")
    cursor.execute("BEGIN")
    cursor.executemany(_inserted(table, columns, "?"), new)
    cursor.execute("COMMIT")
    cursor.execute("PRAGMA cache_size = -2000")


def _insert_in_chunks(cursor: Any, table: str, columns: Sequence[str], new: Rows) -> None:
    while chunk := list(islice(new, CHUNK)):
        cursor.execute("BEGIN")
        cursor.executemany(_inserted(table, columns, "%s"), chunk)
        cursor.execute("COMMIT")


def _inserted(table: str, columns: Sequence[str], place: str) -> str:
    places = ", ".join([place] * len(columns))
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({places})"


def append(path: Path, numbers: range) -> None:
    """Appends the rows of these numbers to a file of the SDK's FileStore."""
    with path.open("a", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows(numbers, COLUMNS, short_id))
