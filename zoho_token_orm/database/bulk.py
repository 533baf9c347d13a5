"""Changes of many rows in few round trips, each only if the row still is as it was seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Table, TextClause, UpdateBase, bindparam, delete, text, update

from zoho_token_orm.direct import Change

TOGETHER = 50
"""How many rows one UPDATE changes on MySQL: of the longest values, well below 4 MiB, which is the
smallest ``max_allowed_packet`` that a server has by default."""

Values = Mapping[str, Any]


class SeenRows:
    """Updates and deletes rows that have been read before, unless they have been changed since.

    Args:
        table: The rows' table.
        columns: The columns that were read, the primary key first.
        others: The columns that an update sets besides.
    """

    def __init__(self, table: Table, columns: Sequence[str], others: Sequence[str]) -> None:
        self._table = table
        self._columns = columns
        self._set = (*columns[1:], *others)
        self._together: dict[int, Change] = {}
        is_seen = [
            table.c[name].is_not_distinct_from(bindparam(f"seen_{name}", type_=table.c[name].type))
            for name in columns[1:]
        ]
        is_row = table.c[columns[0]] == bindparam(f"seen_{columns[0]}")
        new: dict[str, Any] = {name: bindparam(f"new_{name}") for name in self._set}
        self._update = update(table).where(is_row, *is_seen).values(new)
        self._delete = delete(table).where(is_row, *is_seen)

    def update(self, connection: Connection, seen: Sequence[Values], new: Sequence[Values]) -> int:
        """Changes rows; returns how many of them were as they had been seen.

        Args:
            connection: A connection in autocommit, in a ``transaction``.
            seen: What was read, by column, of each row.
            new: What is to be stored in it.
        """
        rows = [
            {**self._seen(before), **{f"new_{name}": after[name] for name in self._set}}
            for before, after in zip(seen, new, strict=True)
        ]
        if not _can_join(connection):
            return run_each(connection, self._update, rows)
        count = 0
        for start in range(0, len(rows), TOGETHER):
            some = rows[start : start + TOGETHER]
            numbered = {f"{k}_{n}": v for n, row in enumerate(some) for k, v in row.items()}
            count += self._updating_together(connection, len(some)).run(connection, numbered)
        return count

    def delete(self, connection: Connection, seen: Sequence[Values]) -> int:
        """Deletes rows; returns how many of them were as they had been seen.

        Args:
            connection: A connection in autocommit, in a ``transaction``.
            seen: What was read, by column, of each row.
        """
        return run_each(connection, self._delete, [self._seen(row) for row in seen])

    def _seen(self, row: Values) -> dict[str, Any]:
        return {f"seen_{name}": row[name] for name in self._columns}

    def _updating_together(self, connection: Connection, count: int) -> Change:
        if count not in self._together:
            table = connection.dialect.identifier_preparer.format_table(self._table)
            self._together[count] = Change(self._joined(table, count))
        return self._together[count]

    def _joined(self, table: str, count: int) -> TextClause:
        """MySQL's UPDATE of a join with values; its driver sends an UPDATE for each row otherwise.

        The values are a union that begins with no row of the table, from which they get its types
        and collations. They are read first, whatever the optimizer thinks of the table. All that is
        written out is the names of this package's own columns and of a checked table.
        """
        places = [
            *((f"seen_{name}", name) for name in self._columns),
            *((f"new_{name}", name) for name in self._set),
        ]
        types = ", ".join(f"{column} AS {name}" for name, column in places)
        rows = [", ".join(f":{name}_{row}" for name, _ in places) for row in range(count)]
        key, *others = self._columns
        clauses = [
            *("UPDATE (", "SELECT", types, "FROM", table, "WHERE FALSE"),
            *(f"UNION ALL SELECT {row}" for row in rows),
            f") AS v STRAIGHT_JOIN {table} AS t ON t.{key} = v.seen_{key}",
            *(f"AND t.{name} <=> v.seen_{name}" for name in others),
            *("SET", ", ".join(f"t.{name} = v.new_{name}" for name in self._set)),
        ]
        return text(" ".join(clauses)).bindparams(
            *(
                bindparam(f"{name}_{row}", type_=self._table.c[column].type)
                for row in range(count)
                for name, column in places
            )
        )


def _can_join(connection: Connection) -> bool:
    """Whether MySQL's UPDATE of a join can be sent: to the table itself, not a translated name."""
    is_other = "schema_translate_map" in connection.get_execution_options()
    return connection.dialect.name in ("mysql", "mariadb") and not is_other


def run_each(connection: Connection, statement: UpdateBase, rows: Sequence[Values]) -> int:
    """Runs a statement for each row; returns how many rows it has met.

    Args:
        connection: Where.
        statement: An UPDATE or a DELETE.
        rows: The parameters.
    """
    if not rows:
        return 0
    if connection.dialect.supports_sane_multi_rowcount:
        return connection.execute(statement, rows).rowcount
    return sum(connection.execute(statement, row).rowcount for row in rows)
