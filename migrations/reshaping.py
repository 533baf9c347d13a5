"""A token table of other columns or types, on each database, with its rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.schema import CreateColumn
from zoho_token_orm.migrations.sdk_rows import COLUMNS

ENGINE = {"mysql_engine": "InnoDB", "mariadb_engine": "InnoDB"}
"""What tables are made with; where the URL says mariadb, SQLAlchemy reads options of that name."""


class Target:
    """The table that is wanted.

    Args:
        name: Its name.
        columns: Its columns.
        unique: The names of its unique constraints, by column.
        indexes: The names of its indexes, by column.
    """

    def __init__(
        self,
        name: str,
        columns: Sequence[sa.Column[Any]],
        unique: dict[str, str],
        indexes: dict[str, str],
    ) -> None:
        self.name = name
        self.unique = unique
        self.indexes = indexes
        constraints = [sa.UniqueConstraint(column, name=name) for column, name in unique.items()]
        self.table = sa.Table(name, sa.MetaData(), *columns, *constraints)


def quoted(connection: sa.Connection, name: str | None) -> str:
    """The name as it stands in a statement."""
    return connection.dialect.identifier_preparer.quote(str(name))


def is_mysql(connection: sa.Connection) -> bool:
    """Whether it is MySQL or MariaDB, which commit at every change of a table."""
    return connection.dialect.name in ("mysql", "mariadb")


def alter(connection: sa.Connection, table: str, changes: Sequence[str]) -> None:
    """Changes a table, in one statement."""
    if changes:
        connection.exec_driver_sql(f"ALTER TABLE {quoted(connection, table)} {', '.join(changes)}")


def loosen(connection: sa.Connection, table: str) -> None:
    """Takes away what would refuse rows on their way: types, indexes, constraints, NOT NULL.

    The columns of the SDK become text, which is compared exactly; others stay. On MySQL this is one
    statement.
    """
    names = [c["name"] for c in sa.inspect(connection).get_columns(table) if c["name"] in COLUMNS]
    if connection.dialect.name == "sqlite":
        _copy(connection, Target(table, list(map(_text, names)), {}, {}))
    elif is_mysql(connection):
        _loosen_mysql(connection, table, names)
    else:
        _loosen_postgresql(connection, table, names)


def _text(name: str) -> sa.Column[Any]:
    return sa.Column(name, sa.Text, primary_key=name == "id")


def _loosen_mysql(connection: sa.Connection, table: str, names: Sequence[str]) -> None:
    indexes = sa.inspect(connection).get_indexes(table)
    changes = ["ENGINE = InnoDB", "ROW_FORMAT = DYNAMIC"]
    changes += [f"DROP INDEX {quoted(connection, index['name'])}" for index in indexes]
    text = "CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"
    for name in names:
        kind = f"VARCHAR(255) {text} NOT NULL" if name == "id" else f"TEXT {text} NULL"
        changes.append(f"MODIFY {name} {kind}")
    alter(connection, table, changes)


def _loosen_postgresql(connection: sa.Connection, table: str, names: Sequence[str]) -> None:
    inspector = sa.inspect(connection)
    for index in inspector.get_indexes(table):
        if "duplicates_constraint" not in index:
            connection.exec_driver_sql(f"DROP INDEX {quoted(connection, index['name'])}")
    constraints = inspector.get_unique_constraints(table)
    changes = [f"DROP CONSTRAINT {quoted(connection, each['name'])}" for each in constraints]
    for column in inspector.get_columns(table):
        name = column["name"]
        if name in names:
            own = "IDENTITY" if column.get("identity") else "DEFAULT"
            changes.append(f"ALTER {name} DROP {own}")
            changes += [f"ALTER {name} DROP NOT NULL"] if name != "id" else []
    alter(connection, table, changes)
    text = 'TYPE TEXT COLLATE "C"'
    alter(connection, table, [f"ALTER {n} {text} USING CAST({n} AS TEXT)" for n in names])


def reshape(connection: sa.Connection, target: Target) -> None:
    """Gives a table the target's columns, in one statement but for SQLite; its rows must fit.

    Indexes that are no constraints are the caller's to make, but on MySQL.
    """
    if connection.dialect.name == "sqlite":
        _copy(connection, target)
        return
    found = [column["name"] for column in sa.inspect(connection).get_columns(target.name)]
    wanted = target.table.columns
    changes = [f"DROP COLUMN {name}" for name in found if name not in wanted]
    for column in wanted:
        is_there = column.name in found
        changes.append(_change(connection, column) if is_there else _addition(connection, column))
    for name, constraint in target.unique.items():
        changes.append(f"ADD CONSTRAINT {quoted(connection, constraint)} UNIQUE ({name})")
    for name, index in target.indexes.items() if is_mysql(connection) else ():
        changes.append(f"ADD INDEX {quoted(connection, index)} ({name})")
    alter(connection, target.name, changes)


def _addition(connection: sa.Connection, column: sa.Column[Any]) -> str:
    return f"ADD COLUMN {CreateColumn(column).compile(dialect=connection.dialect)}"


def _change(connection: sa.Connection, column: sa.Column[Any]) -> str:
    if is_mysql(connection):
        return f"MODIFY {CreateColumn(column).compile(dialect=connection.dialect)}"
    kind = column.type.compile(connection.dialect)
    middle = "BIGINT" if isinstance(column.type, sa.BigInteger) else "TEXT"
    return f"ALTER {column.name} TYPE {kind} USING CAST({column.name} AS {middle})"


def _copy(connection: sa.Connection, target: Target) -> None:
    """SQLite changes no column: so into a new table, which gets the name."""
    found = [column["name"] for column in sa.inspect(connection).get_columns(target.name)]
    new = target.table.to_metadata(sa.MetaData(), name=f"{target.name}_zto_new")
    new.create(connection)
    copied = [column.name for column in new.columns if column.name in found]
    old = sa.table(target.name, *(sa.column(name) for name in copied))
    values = [sa.cast(old.c[name], new.c[name].type) for name in copied]
    connection.execute(sa.insert(new).from_select(copied, sa.select(*values)))
    name = quoted(connection, target.name)
    connection.exec_driver_sql(f"DROP TABLE {name}")
    # Else a view on the table refuses the name to the new one, while there is none.
    connection.exec_driver_sql("PRAGMA legacy_alter_table = ON")
    alter(connection, new.name, [f"RENAME TO {name}"])
    connection.exec_driver_sql("PRAGMA legacy_alter_table = OFF")
