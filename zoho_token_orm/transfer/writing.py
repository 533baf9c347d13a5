"""The SQL of an import: some hundred rows of the target at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import Any, NamedTuple

from sqlalchemy import Connection, Table, bindparam, insert, select
from sqlalchemy.orm.exc import StaleDataError

from zoho_token_orm.database import SeenRows
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
        self._seen_rows = SeenRows(table, COLUMNS, ["updated_at"])
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
        staying = {
            id: {**self._statements.stored(row), "updated_at": now}
            for id, row in changes.items()
            if row
        }
        changed = {id: row for id, row in staying.items() if id in seen}
        before = [_as_seen(seen[id]) for id in changed]
        if self._seen_rows.delete(connection, going) != len(going) or self._seen_rows.update(
            connection, before, list(changed.values())
        ) != len(changed):
            raise StaleDataError("a row was changed while it was being decided upon")
        inserts = [
            {**row, "created_at": decision.created_at[id]}
            for id, row in staying.items()
            if id not in seen
        ]
        if inserts:
            connection.execute(self._insert, inserts)


def _as_seen(row: Seen) -> dict[str, Any]:
    return dict(zip(COLUMNS, row.stored, strict=True))
