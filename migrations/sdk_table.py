"""Between a token table as the SDK documents it for its ``DBStore``, and this package's own.

The SDK's has ten columns, all text, and no constraint but its primary key; before there were data
centres it had nine. In SQLite it is as the samples for custom stores make it, in PostgreSQL as
somebody has ported it, with columns of any type.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from alembic import context, op
from alembic.util import CommandError
from sqlalchemy.dialects import mysql
from sqlalchemy.exc import DBAPIError
from zoho_token_orm.migrations import sdk_rows
from zoho_token_orm.migrations.reshaping import ENGINE, Target, is_mysql, loosen, quoted, reshape
from zoho_token_orm.migrations.sdk_rows import COLUMNS, LONGEST, SECRETS, Plan

from zoho_token_orm.database import any_text, bounds
from zoho_token_orm.models import Masked

ADDED = ("created_at", "updated_at", "lease_owner", "lease_until")
_SAID = (
    "{count} rows that have lost to a newer one of the same authorization are kept in {aside}, "
    "secrets included; look at them, then drop that table"
)


# What is there


def found_columns(table: str) -> list[str]:
    """The columns of a table that is there already; none without a connection."""
    if context.is_offline_mode() or not sa.inspect(op.get_bind()).has_table(table):
        return []
    return [column["name"] for column in sa.inspect(op.get_bind()).get_columns(table)]


def is_sdks(columns: Sequence[str]) -> bool:
    """Whether a table of these columns is the SDK's; it is read by their places."""
    return tuple(columns) in (COLUMNS, COLUMNS[:-1])


def refuse_others(table: str, found: Sequence[str]) -> None:
    """Refuses a table that is neither the SDK's nor ours; with ours, an upgrade was interrupted.

    Raises:
        CommandError: It is somebody else's, or what hangs on it stands in the way.
    """
    if is_sdks(found):
        _refuse_entangled(op.get_bind(), table)
    elif found and tuple(found) != COLUMNS + ADDED:
        raise CommandError(
            f"there is a table {table} already, which is neither this package's nor the SDK's "
            f"({_difference(found)}); it is left as it is: choose another table_name, or rename "
            "that table"
        )


def _difference(found: Sequence[str]) -> str:
    lacks = [name for name in COLUMNS if name not in found]
    more = [name for name in found if name not in COLUMNS]
    parts = [("lacks", lacks), ("has also", more)]
    said = [f"it {verb} {', '.join(names)}" for verb, names in parts if names]
    return "; ".join(said) or "its columns are in another order"


def _refuse_entangled(connection: sa.Connection, table: str) -> None:
    """Refuses what a change of the table would break, or what would refuse the change."""
    inspector = sa.inspect(connection)
    problem = None
    if inspector.get_pk_constraint(table)["constrained_columns"] != ["id"]:
        problem = "its id is no primary key, so that it may be no table of the SDK's: make it one"
    for (_, owner), keys in inspector.get_multi_foreign_keys().items():
        if any(table in (owner, key["referred_table"]) for key in keys):
            problem = f"there is a foreign key between {owner} and it: drop that key first"
    if inspector.get_check_constraints(table):
        problem = "it has CHECK constraints, which may not fit what is stored: drop them first"
    if connection.dialect.name == "sqlite" and _has_triggers(connection, table):
        problem = "it has triggers: drop them first, and make them again afterwards"
    aside = duplicates_table(table)
    if inspector.has_table(aside.name) and _names(connection, aside.name) != aside.c.keys():
        problem = f"there is a table {aside.name}, which is somebody else's: rename that one"
    if problem:
        raise CommandError(
            f"{table} cannot be taken over, and is left as it is: {problem}; or choose another "
            "table_name, and import from this table"
        )


def _has_triggers(connection: sa.Connection, table: str) -> bool:
    master = sa.table("sqlite_master", sa.column("type"), sa.column("tbl_name"))
    is_one = sa.and_(master.c.type == "trigger", master.c.tbl_name == table)
    return connection.execute(sa.select(sa.exists().where(is_one))).scalar_one()


def _names(connection: sa.Connection, table: str) -> list[str]:
    return [column["name"] for column in sa.inspect(connection).get_columns(table)]


def require_constraints(target: Target) -> None:
    """Makes sure that a table with our columns has our constraints, too.

    Raises:
        CommandError: It has not.
    """
    inspector = sa.inspect(op.get_bind())
    unique = {each["name"] for each in inspector.get_unique_constraints(target.name)}
    primary = inspector.get_pk_constraint(target.name)["constrained_columns"]
    if primary != ["id"] or not unique >= set(target.unique.values()):
        raise CommandError(
            f"{target.name} has the columns of this package's table, but not its constraints: it "
            "may be a copy; choose another table_name, or rename that table"
        )


# Taking over


def duplicates_table(table: str) -> sa.Table:
    """Where the rows go that have lost to a newer one of the same authorization."""
    return sa.Table(
        f"{table}_duplicates",
        sa.MetaData(),
        sa.Column("number", sa.Integer, primary_key=True),
        *(sa.Column(name, Masked if name in SECRETS else sa.Text) for name in COLUMNS),
        sa.Column("stays", sa.Text),  # the id of the row that has won
        sa.Column("since", sa.DateTime, server_default=sa.func.now()),
        **ENGINE,
        mysql_charset="utf8mb4",
        mariadb_charset="utf8mb4",
    )


def take_over(target: Target) -> str:
    """Makes the target of the SDK's table, with all its rows, while nobody else can use it.

    First everything is decided, then the columns become text without conditions, then the rows
    change in one transaction, and then the table gets its shape. Interrupted, it can be begun
    again: between these steps it is a table of the SDK's, and works.

    Returns:
        What there is to say about rows that have lost to others; mostly nothing.

    Raises:
        CommandError: A row cannot be stored, or somebody uses the table without end.
    """
    connection = op.get_bind()
    aside = duplicates_table(target.name)
    aside.create(connection, checkfirst=True)  # now: MySQL makes no table while others are locked
    try:
        with _alone(connection, target.name, aside.name), any_text(connection):
            plan = Plan(connection, target.name, _names(connection, target.name))
            loosen(connection, target.name)
            plan.carry_out(aside)
            reshape(connection, target)
    except CommandError:
        if is_mysql(connection):  # the others take everything back
            report(target.name)
        raise
    return report(target.name)


def report(table: str) -> str:
    """What there is to say about rows that have lost to others, now or earlier."""
    connection, aside = op.get_bind(), duplicates_table(table)
    if not sa.inspect(connection).has_table(aside.name):
        return ""
    count = connection.execute(sa.select(sa.func.count()).select_from(aside)).scalar_one()
    if not count:
        aside.drop(connection)
        return ""
    return _SAID.format(count=count, aside=aside.name)


@contextmanager
def _alone(connection: sa.Connection, *tables: str) -> Iterator[None]:
    """Keeps everybody else from the tables meanwhile; they wait.

    Raises:
        CommandError: Somebody has used one of them for as long as ``LOCK_TIMEOUT``.
    """
    if not is_mysql(connection):
        _lock_postgresql(connection, tables)
        yield  # in the transaction of the migrations
        return
    connection.exec_driver_sql("SET autocommit = 0")  # not BEGIN, which would unlock the tables
    try:
        _lock_mysql(connection, tables)
        yield
        connection.exec_driver_sql("COMMIT")
    except BaseException:
        if not connection.invalidated:
            connection.exec_driver_sql("ROLLBACK")
        raise
    finally:
        if not connection.invalidated:
            connection.exec_driver_sql("UNLOCK TABLES")
            connection.exec_driver_sql("SET autocommit = 1")


def _lock_postgresql(connection: sa.Connection, tables: Sequence[str]) -> None:
    if connection.dialect.name != "postgresql":
        return
    before = connection.exec_driver_sql("SHOW lock_timeout").scalar_one()
    connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{bounds.LOCK_TIMEOUT}s'")
    names = ", ".join(quoted(connection, table) for table in tables)
    _lock(connection, f"LOCK TABLE {names} IN ACCESS EXCLUSIVE MODE")
    connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{before}'")


def _lock_mysql(connection: sa.Connection, tables: Sequence[str]) -> None:
    before = connection.exec_driver_sql("SELECT @@lock_wait_timeout").scalar_one()
    connection.exec_driver_sql(f"SET lock_wait_timeout = {bounds.LOCK_TIMEOUT}")
    names = ", ".join(f"{quoted(connection, table)} WRITE" for table in tables)
    try:
        _lock(connection, f"LOCK TABLES {names}")
    finally:
        connection.exec_driver_sql(f"SET lock_wait_timeout = {before}")


def _lock(connection: sa.Connection, statement: str) -> None:
    try:
        connection.exec_driver_sql(statement)
    except DBAPIError as error:
        if connection.invalidated:
            raise
        raise CommandError(
            f"the table could not be locked within {bounds.LOCK_TIMEOUT} seconds: end the "
            "transactions that have used it, or give this user the rights to lock and change it "
            f"(docs/least-privilege.md), and run this again; no row has been changed ({error.orig})"
        ) from error


# Giving back


def give_back(target: Target) -> None:
    """Makes the SDK's table of this package's, with all its rows, so that ``DBStore`` works on it.

    Its columns are as long as they have been. Interrupted, it can be begun again.

    Args:
        target: This package's table.

    Raises:
        CommandError: There are encrypted secrets, which the SDK's stores cannot read.
    """
    connection = op.get_bind()
    columns = [_sdks(connection, target.table.c[name]) for name in COLUMNS]
    with _alone(connection, target.name):
        sdk_rows.refuse_encrypted(connection, target.name)
        encoded = sdk_rows.encoded(connection, target.name)
        loosen(connection, target.name)
        table = sa.table(target.name, *sdk_rows.columns())
        for part in sdk_rows.parts(encoded):
            update = sdk_rows.update(table, COLUMNS)
            connection.execute(update, [sdk_rows.changed(row) for row in part])
        reshape(connection, Target(target.name, columns, {}, {}))


def _sdks(connection: sa.Connection, column: sa.Column[Any]) -> sa.Column[Any]:
    """The column as text, as the SDK has it."""
    if column.primary_key:
        return sa.Column(column.name, column.type, primary_key=True)
    length = LONGEST[column.name]
    if is_mysql(connection):
        return sa.Column(column.name, mysql.VARCHAR(length, charset="utf8mb4"))
    return sa.Column(column.name, sa.String(length))
