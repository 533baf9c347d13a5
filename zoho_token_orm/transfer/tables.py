"""A table of tokens in a database: DBStore's, the SQLite sample's, or one of this store's own."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from sqlalchemy import URL, Connection, Engine, column, inspect, select, table
from zohocrmsdk.src.com.zoho.crm.api.exception.sdk_exception import SDKException

from zoho_token_orm.database import (
    Database,
    any_text,
    is_same_database,
    padded_columns,
    read_only,
    resolve_url,
    shown,
)
from zoho_token_orm.encryption import SECRETS, Cipher, keys_of
from zoho_token_orm.errors import token_store_error
from zoho_token_orm.foreign import unpadded
from zoho_token_orm.mapping import COLUMNS
from zoho_token_orm.models import SEALED, Masked
from zoho_token_orm.transfer.records import Contents, Raw, contents_of

SOURCE_KEYS_VARIABLE = "ZOHO_TOKEN_SOURCE_ENCRYPTION_KEYS"
OPTIONAL = "api_domain"
"""The column that a table from an older SDK lacks."""
OF_OURS = "lease_owner"
"""A column that only this store's own tables have."""


def read_table(
    database: str | URL | Engine, table_name: str, keys: str | Sequence[str] | None
) -> Contents:
    """Reads a table of tokens; nothing in it is changed, and its workers may go on.

    Args:
        database: A URL, or an engine of the caller's.
        table_name: The table.
        keys: The keys of a table of this store's own; None means the environment variable
            ``ZOHO_TOKEN_SOURCE_ENCRYPTION_KEYS``. Plain text is read too.

    Raises:
        ValueError: The URL or a key cannot be used.
        SDKException: The database cannot be reached, or holds no such table.
    """
    cipher = Cipher(keys_of(keys, SOURCE_KEYS_VARIABLE)).with_plain()
    source = Database(
        database if isinstance(database, Engine) else read_only(resolve_url(database))
    )
    try:
        names, rows = source.run("read the source", partial(_rows, table_name=table_name))
    finally:
        source.close()
    is_ours = OF_OURS in names
    return contents_of(
        _raw(number, dict(zip(COLUMNS, row, strict=False)), cipher, is_ours)
        for number, row in enumerate(rows, 1)
    )


def _rows(connection: Connection, table_name: str) -> tuple[dict[str, str], Sequence[Any]]:
    """The names of the table's columns, and its rows: the columns of a token, in our order.

    One SELECT that is fetched at once: for a worker of the source no lock is shorter.
    """
    names = _names(connection, table_name)
    wanted = [names[name] for name in COLUMNS if name in names]
    order = [names[name] for name in ("created_at", "id") if name in names]
    masked = {names[name] for name in SECRETS if name in names}
    columns = {*wanted, *order}
    source = table(table_name, *(column(n, Masked() if n in masked else None) for n in columns))
    statement = select(*(source.c[name] for name in wanted))
    with any_text(connection):
        rows = connection.execute(statement.order_by(*(source.c[n] for n in order))).mappings()
        padded = padded_columns(connection, table_name) & set(wanted)
        return names, [tuple(unpadded(dict(row), padded).values()) for row in rows]


def _names(connection: Connection, table_name: str) -> dict[str, str]:
    """What the table calls each column, by its name in lower case."""
    if "://" in table_name:
        raise token_store_error("the source's table is named by its name, not by a URL")
    where, inspector = shown(connection.engine.url), inspect(connection)
    if not inspector.has_table(table_name):
        raise token_store_error(f"there is no table {table_name} in {where}")
    names = {each["name"].lower(): each["name"] for each in inspector.get_columns(table_name)}
    missing = [name for name in COLUMNS if name not in names and name != OPTIONAL]
    if missing:
        raise token_store_error(
            f"the table {table_name} in {where} is no table of tokens: it lacks "
            + ", ".join(missing)
        )
    return names


def _raw(number: int, values: dict[str, Any], cipher: Cipher, is_ours: bool) -> Raw:
    where = f"row {number}" if values["id"] is None else f"the row with the id {values['id']!r}"
    unreadable = [name for name in SECRETS if not _is_opened(values, name, cipher, is_ours)]
    if unreadable:
        reason = f"no key in {SOURCE_KEYS_VARIABLE} opens its {' and '.join(unreadable)}"
        return Raw(where, {}, reason)
    return Raw(where, values)


def _is_opened(values: dict[str, Any], name: str, cipher: Cipher, is_ours: bool) -> bool:
    """Whether a secret can be read; it then stands in the clear.

    In a table that is not ours, as in a view or a copy of one, what is encrypted is read too.
    """
    value = values[name]
    if not value or not (is_ours or (isinstance(value, str) and value.startswith(SEALED))):
        return True
    try:
        values[name] = cipher.opened(str(values["id"]), name, values[name])
    except SDKException:
        return False
    return True


def is_same_table(
    source: str | URL | Engine, source_table: str, target: Engine, target_table: str
) -> bool:
    """Whether both are known to be one table of one database."""
    if isinstance(source, Engine):
        is_same = source is target or is_same_database(source.url, target.url)
    else:
        is_same = is_same_database(resolve_url(source), target.url)
    return is_same and source_table == target_table
