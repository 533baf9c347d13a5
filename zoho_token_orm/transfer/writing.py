"""The SQL of an import: some hundred rows of the target at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import Any, NamedTuple

from sqlalchemy import (
    Connection,
    Table,
    UpdateBase,
    bindparam,
    delete,
    insert,
    select,
    update,
)
from sqlalchemy.orm.exc import StaleDataError

from zoho_token_orm.identity import UNIQUE
from zoho_token_orm.mapping import COLUMNS, Fields
from zoho_token_orm.statements import Seen, Statements
from zoho_token_orm.transfer.merging import NAMES, Settled


class Decision(NamedTuple):
    """What is to become of some rows of a source."""

    settled: list[Settled]
    """One for each row of the source."""
    changes: Mapping[str, Fields | None]
    """What the target is to have, by id; None for a row that goes."""
    seen: Mapping[str, Seen]
    """By id, the rows of the target as they were when this was decided."""
    created_at: Mapping[str, datetime]
    """By id, when a new row is to have been created."""

    def __repr__(self) -> str:
        """How much it is; never a token or a secret."""
        return f"Decision({len(self.settled)} rows, {len(self.changes)} changes)"


class Target:
    """The table that rows are imported into.

    Args:
        table: The token table (``stored_table``).
        statements: The statements on it.
    """

    def __init__(self, table: Table, statements: Statements) -> None:
        self._statements = statements
        self._insert = insert(table)
        seen = {name: bindparam(f"seen_{name}", type_=table.c[name].type) for name in COLUMNS}
        as_seen = [table.c[name].is_not_distinct_from(seen[name]) for name in COLUMNS[1:]]
        is_row = table.c.id == seen["id"]
        new: dict[str, Any] = {
            name: bindparam(f"new_{name}") for name in (*COLUMNS[1:], "updated_at")
        }
        self._update = update(table).where(is_row, *as_seen).values(new)
        self._delete = delete(table).where(is_row, *as_seen)
        self._ids = select(table.c.id).where(table.c.id.in_(bindparam("ids", expanding=True)))

    def rows(self, connection: Connection, fields: Sequence[Fields]) -> dict[str, Seen]:
        """The rows that may be of the same authorization as one of these, by id, oldest first.

        At most one SELECT for each column, which its index answers: what a row that has been found
        holds is not looked up again where no other row can hold it.
        """
        single = () if self._statements.has_several_forms else UNIQUE
        found: dict[str, Seen] = {}
        held: set[tuple[str, str]] = set()
        for name in NAMES:
            values = [each[name] for each in fields if each[name]]
            wanted = [value for value in values if (name, value) not in held]
            for row in self._statements.rows_among(connection, name, wanted):
                found[row.found.id] = row
                held.update((unique, getattr(row.found, unique)) for unique in single)
        return found

    def ids(self, connection: Connection, ids: Sequence[str]) -> list[str]:
        """Those of the ids that rows have."""
        return list(connection.execute(self._ids, {"ids": ids}).scalars()) if ids else []

    def write(self, connection: Connection, decision: Decision) -> None:
        """Writes what has been decided, in a transaction.

        Raises:
            StaleDataError: Somebody has changed or deleted one of the rows since.
            IntegrityError: Somebody has stored one of the unique values since.
        """
        changes, seen, now = decision.changes, decision.seen, datetime.now(timezone.utc)
        going = [_as_seen(seen[id]) for id, row in changes.items() if row is None and id in seen]
        staying = {id: self._statements.stored(row) for id, row in changes.items() if row}
        _change(connection, self._delete, going)
        updates = [{**_as_seen(seen[id]), **_new(staying[id], now)} for id in staying if id in seen]
        _change(connection, self._update, updates)
        inserts = [
            {**row, "created_at": decision.created_at[id], "updated_at": now}
            for id, row in staying.items()
            if id not in seen
        ]
        if inserts:
            connection.execute(self._insert, inserts)


def _as_seen(row: Seen) -> dict[str, Any]:
    return {f"seen_{name}": value for name, value in zip(COLUMNS, row.stored, strict=True)}


def _new(row: Mapping[str, Any], now: datetime) -> dict[str, Any]:
    return {**{f"new_{name}": row[name] for name in COLUMNS[1:]}, "new_updated_at": now}


def _change(connection: Connection, statement: UpdateBase, rows: Sequence[dict[str, Any]]) -> None:
    """Changes rows that are there, each only if it still is as it was seen."""
    if not rows:
        return
    if connection.dialect.supports_sane_multi_rowcount:
        count = connection.execute(statement, rows).rowcount
    else:
        count = sum(connection.execute(statement, row).rowcount for row in rows)
    if count != len(rows):
        raise StaleDataError("a row was changed while it was being decided upon")
