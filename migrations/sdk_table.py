"""Between a token table as the SDK documents it for its ``DBStore``, and this package's own.

The SDK's has ten columns, all text, and no constraint but its primary key; before there were data
centres it had nine. In SQLite it is as the samples for custom stores make it, in PostgreSQL as
somebody has ported it, with columns of any type.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from alembic import context, op
from alembic.util import CommandError
from sqlalchemy.schema import CreateColumn

from zoho_token_orm.duplicates import resolved
from zoho_token_orm.models import SEALED, TokenString

COLUMNS = (
    "id",
    "user_name",
    "client_id",
    "client_secret",
    "refresh_token",
    "access_token",
    "grant_token",
    "expiry_time",
    "redirect_url",
    "api_domain",
)
ADDED = ("created_at", "updated_at", "lease_owner", "lease_until")
SECRETS = ("client_secret", "refresh_token", "access_token", "grant_token")
EXPIRED = "0"
"""What an expiry that is no number becomes: so the access token is refreshed."""
PAGE = 2000
_LONGEST_EXPIRY = 18  # digits that a BIGINT holds


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
        columns: Sequence[sa.Column],
        unique: dict[str, str],
        indexes: dict[str, str],
    ) -> None:
        self.name = name
        self.unique = unique
        self.indexes = indexes
        self.table = sa.Table(
            name,
            sa.MetaData(),
            *columns,
            *(sa.UniqueConstraint(column, name=name) for column, name in unique.items()),
        )


def is_sdks(columns: Sequence[str]) -> bool:
    """Whether a table of these columns is the SDK's; it is read by their places."""
    return tuple(columns) in (COLUMNS, COLUMNS[:-1])


def found_columns(table: str) -> list[str]:
    """The columns of a table that is there already; none without a connection."""
    if context.is_offline_mode() or not sa.inspect(op.get_bind()).has_table(table):
        return []
    return [column["name"] for column in sa.inspect(op.get_bind()).get_columns(table)]


def refuse_others(table: str, found: Sequence[str]) -> None:
    """Refuses a table that is neither the SDK's nor ours; with ours, an upgrade was interrupted.

    Raises:
        CommandError: It is somebody else's, or its id is no primary key.
    """
    if is_sdks(found):
        _require_primary_key(op.get_bind(), table)
    if not found or is_sdks(found) or tuple(found) == COLUMNS + ADDED:
        return
    lacks = [name for name in COLUMNS if name not in found]
    more = [name for name in found if name not in COLUMNS]
    differs = "; ".join(
        f"it {verb} {', '.join(names)}"
        for verb, names in (("lacks", lacks), ("has also", more))
        if names
    )
    raise CommandError(
        f"there is a table {table} already, which is neither this package's nor the SDK's "
        f"({differs or 'its columns are in another order'}); it is left as it is: choose another "
        "table_name, or rename that table"
    )


def duplicates_table(table: str) -> sa.Table:
    """Where the rows go that have lost to a newer one of the same authorization."""
    return sa.Table(
        f"{table}_duplicates",
        sa.MetaData(),
        sa.Column("number", sa.Integer, primary_key=True),
        *(sa.Column(name, sa.Text) for name in COLUMNS),
        sa.Column("stays", sa.Text, comment="the id of the row that has won"),
        sa.Column("since", sa.DateTime, server_default=sa.func.now()),
        mysql_engine="InnoDB",
        mysql_charset="utf8mb4",
    )


def take_over(target: Target) -> str:
    """Makes the target of the SDK's table, with all its rows, while nobody else can use it.

    Interrupted, it can be begun again: until the table is reshaped, in one statement or
    transaction, it stays the SDK's, and no row is taken from it that does not lie in
    ``duplicates_table`` then.

    Returns:
        What there is to say about rows that have lost to others; mostly nothing.

    Raises:
        CommandError: A row holds what the target cannot hold.
    """
    connection = op.get_bind()
    aside = duplicates_table(target.name)
    aside.create(connection, checkfirst=True)  # now: MySQL makes no table while others are locked
    try:
        with _alone(connection, target.name, aside.name):
            _alter(connection, target.name, _loosening(connection, target.name))
            rows = _Rows(connection, target, aside)
            rows.normalize()
            rows.set_duplicates_aside()
            _reshape(connection, target)
    except CommandError:
        _count_or_drop(connection, aside)
        raise
    count = _count_or_drop(connection, aside)
    return _SAID.format(table=target.name, count=count, aside=aside.name) if count else ""


_SAID = (
    "{table} had several rows of one authorization: the newest stays, and {count} that lost are "
    "kept in {aside}, secrets included; look at them, then drop that table"
)


def _count_or_drop(connection: sa.Connection, aside: sa.Table) -> int:
    count = connection.execute(sa.select(sa.func.count()).select_from(aside)).scalar_one()
    if not count:
        aside.drop(connection)
    return count


@contextmanager
def _alone(connection: sa.Connection, *tables: str) -> Iterator[None]:
    """Keeps everybody else from the tables meanwhile; they wait."""
    quoted = [_quoted(connection, table) for table in tables]
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"LOCK TABLE {', '.join(quoted)} IN ACCESS EXCLUSIVE MODE")
    if not _is_mysql(connection):
        yield  # in the transaction of the migrations
        return
    # A table that a statement names twice is locked twice; BEGIN would unlock them.
    locks = ", ".join([f"{quoted[0]} AS twin WRITE", *(f"{table} WRITE" for table in quoted)])
    connection.exec_driver_sql("SET autocommit = 0")
    connection.exec_driver_sql(f"LOCK TABLES {locks}")
    try:
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


def _quoted(connection: sa.Connection, name: str) -> str:
    return connection.dialect.identifier_preparer.quote(name)


def _is_mysql(connection: sa.Connection) -> bool:
    return connection.dialect.name in ("mysql", "mariadb")


def _alter(connection: sa.Connection, table: str, changes: Sequence[str]) -> None:
    if changes:
        connection.exec_driver_sql(f"ALTER TABLE {_quoted(connection, table)} {', '.join(changes)}")


def _require_primary_key(connection: sa.Connection, table: str) -> None:
    if sa.inspect(connection).get_pk_constraint(table)["constrained_columns"] != ["id"]:
        raise CommandError(
            f"the id of {table} is no primary key, so that this may be no table of the SDK's; "
            "make it one, or choose another table_name and import from this table"
        )


def _loosening(connection: sa.Connection, table: str) -> list[str]:
    """What takes away that which would refuse the rows on their way: types, indexes, NOT NULL."""
    if connection.dialect.name == "sqlite":
        return []
    is_mysql = _is_mysql(connection)
    return (_loosening_mysql if is_mysql else _loosening_postgresql)(connection, table)


def _loosening_mysql(connection: sa.Connection, table: str) -> list[str]:
    found = sa.inspect(connection)
    indexes = [_quoted(connection, str(index["name"])) for index in found.get_indexes(table)]
    columns = [each for each in found.get_columns(table) if each["name"] in COLUMNS[1:]]
    return [f"DROP INDEX {index}" for index in indexes] + [
        f"MODIFY {column['name']} {column['type'].compile(connection.dialect)} NULL"
        for column in columns
        if not column["nullable"]
    ]


def _loosening_postgresql(connection: sa.Connection, table: str) -> list[str]:
    """Drops what stands in the way of a change of types, in statements of their own."""
    found = sa.inspect(connection)
    for index in found.get_indexes(table):
        if "duplicates_constraint" not in index:
            connection.exec_driver_sql(f"DROP INDEX {_quoted(connection, str(index['name']))}")
    constraints = [str(each["name"]) for each in found.get_unique_constraints(table)]
    changes = [f"DROP CONSTRAINT {_quoted(connection, name)}" for name in constraints]
    columns = [column for column in found.get_columns(table) if column["name"] in COLUMNS]
    for column in columns:
        name = column["name"]
        changes.append(f"ALTER {name} DROP {'IDENTITY' if column.get('identity') else 'DEFAULT'}")
        changes += [f"ALTER {name} DROP NOT NULL"] if name != "id" else []
    _alter(connection, table, changes)
    names = [column["name"] for column in columns]
    return [f'ALTER {name} TYPE TEXT COLLATE "C" USING CAST({name} AS TEXT)' for name in names]


class _Rows:
    """The rows of the SDK's table, on their way to the target."""

    def __init__(self, connection: sa.Connection, target: Target, aside: sa.Table) -> None:
        self._connection = connection
        self._target = target
        self._aside = aside
        self._has_room = False
        found = [column["name"] for column in sa.inspect(connection).get_columns(target.name)]
        self._names = [name for name in COLUMNS if name in found]
        self._table = sa.table(target.name, *(sa.column(name) for name in self._names))

    def normalize(self) -> None:
        """Stores every value as the target stores it, and nothing as NULL.

        Doing it twice is fine.
        """
        if self._connection.dialect.name != "sqlite":  # where the rows are copied later
            self._forget_empty()
        statement, after = self._page(), None
        while True:
            rows = self._connection.execute(statement(after)).mappings().all()
            if not rows:
                return
            self._update([change for row in rows if (change := self._change(row))])
            after = rows[-1]["id"]

    def _forget_empty(self) -> None:
        texts = {name: self._table.c[name] for name in self._names if name != "id"}
        texts["expiry_time"] = sa.cast(self._table.c.expiry_time, sa.String)  # 0 is not empty
        values = {name: sa.func.nullif(text, "") for name, text in texts.items()}
        is_empty = sa.or_(*(text == "" for text in texts.values()))
        self._connection.execute(sa.update(self._table).where(is_empty).values(values))

    def _page(self) -> Any:
        statement = sa.select(self._table).order_by(self._table.c.id).limit(PAGE)
        return lambda after: (
            statement if after is None else statement.where(self._table.c.id > after)
        )

    def _change(self, row: Any) -> dict[str, Any] | None:
        """The parameters that bring a row into the form of the target; None where it is so."""
        new = {name: _normal(name, row[name]) for name in self._names}
        self._refuse_long(new)
        if all(new[name] == row[name] or not (new[name] or row[name]) for name in new):
            return None
        return {"row_id": row["id"], **{f"new_{name}": value for name, value in new.items()}}

    def _refuse_long(self, row: dict[str, Any]) -> None:
        for name, value in row.items():
            longest = getattr(self._target.table.c[name].type, "length", None) or LONGEST[name]
            if value and len(value) > longest:
                raise CommandError(
                    f"{name} of the row with the id {row['id'][:40]!r} is too long: {len(value)} "
                    f"characters, at most {longest} fit; nothing has been changed"
                )

    def _update(self, changes: list[dict[str, Any]]) -> None:
        if not changes:
            return
        self._make_room(changes)
        names = [key[4:] for key in changes[0] if key.startswith("new_") and key != "new_id"]
        values = {name: sa.bindparam(f"new_{name}") for name in names}
        statement = sa.update(self._table).where(self._table.c.id == sa.bindparam("row_id"))
        self._connection.execute(statement.values(values), changes)

    def _make_room(self, changes: list[dict[str, Any]]) -> None:
        """MySQL may cut what does not fit the SDK's columns, as an encoded secret may not."""
        longest = max(len(row[f"new_{name}"] or "") for row in changes for name in SECRETS)
        if longest > LONGEST["id"] and _is_mysql(self._connection) and not self._has_room:
            changes_of_types = [f"MODIFY {name} TEXT CHARACTER SET utf8mb4" for name in SECRETS]
            _alter(self._connection, self._target.name, changes_of_types)
            self._has_room = True

    def set_duplicates_aside(self) -> None:
        """Moves the rows that have lost, and gives those that stay what these lacked."""
        found = self._with_twins()
        if not found:
            return
        rows, stays = resolved([_fields(row) for row in found])
        lost = [place for place, stay in enumerate(stays) if stay != place]
        winners = {stays[place] for place in lost}
        kept = [{**found[place], "stays": rows[stays[place]]["id"]} for place in lost]
        for part in _parts(kept):
            self._connection.execute(sa.insert(self._aside), part)
        delete = sa.delete(self._table).where(self._table.c.id == sa.bindparam("row_id"))
        for part in _parts(kept):
            self._connection.execute(delete, [{"row_id": row["id"]} for row in part])
        for part in _parts(winners):
            self._update([self._filled(rows[place]) for place in part])

    def _filled(self, row: dict[str, Any]) -> dict[str, Any]:
        expiry = row["expiry_time"]
        row = {**row, "expiry_time": None if expiry is None else str(expiry)}
        return {"row_id": row["id"], **{f"new_{name}": row[name] for name in self._names}}

    def refuse_encrypted(self) -> None:
        """Makes sure that the SDK's stores can read what there is.

        Raises:
            CommandError: They cannot.
        """
        is_sealed = (self._table.c[name].like(f"{SEALED}%") for name in SECRETS)
        count = sa.select(sa.func.count()).select_from(self._table).where(sa.or_(*is_sealed))
        if self._connection.execute(count).scalar_one():
            raise CommandError(
                f"{self._table.name} has encrypted tokens, which the SDK's own stores cannot read: "
                "first run zoho-token-orm rotate-keys with plain before the keys"
            )

    def denormalize(self) -> None:
        """Stores the secrets as the SDK stores them."""
        is_encoded = (self._table.c[name].like("UTF-8''%") for name in SECRETS)
        statement = sa.select(self._table).where(sa.or_(*is_encoded))
        rows = self._connection.execute(statement).mappings().all()
        for part in _parts(rows):
            self._update([_denormal(row) for row in part])

    def _with_twins(self) -> list[dict[str, Any]]:
        """Every row that has a value in common with another one, and some that almost have."""
        found: dict[str, dict[str, Any]] = {}
        twin = self._table.alias("twin")
        for name in self._target.unique:
            values = sa.select(twin.c[name]).where(twin.c[name].is_not(None))
            several = values.group_by(twin.c[name]).having(sa.func.count() > 1)
            rows = self._connection.execute(
                sa.select(self._table).where(self._table.c[name].in_(several))
            ).mappings()
            found.update({str(row["id"]): {**dict.fromkeys(COLUMNS), **row} for row in rows})
        return [found[id] for id in sorted(found)]


LONGEST = {
    **dict.fromkeys(COLUMNS, 255),
    **dict.fromkeys(SECRETS, 2048),
    "user_name": 512,
    "redirect_url": 2048,
    "expiry_time": 20,
}
"""The lengths of the columns of the first revision, for a database that knows none."""


def _normal(name: str, value: Any) -> str | None:
    """The value as the target stores it; doing it twice is doing it once."""
    text = "" if value is None else str(value)
    if name == "expiry_time" and text:
        is_number = text.isascii() and text.isdigit() and len(text) <= _LONGEST_EXPIRY
        return text if is_number else EXPIRED
    if name in SECRETS and not text.startswith("UTF-8''"):
        text = TokenString.encoded(text)
    return text or None


def _denormal(row: Any) -> dict[str, Any]:
    """The parameters that store a row as the SDK does."""
    values = {
        f"new_{name}": TokenString.loaded(value) if name in SECRETS and value else value
        for name, value in row.items()
    }
    return {"row_id": row["id"], **values}


def _fields(row: dict[str, Any]) -> dict[str, Any]:
    """A normalized row, its expiry as a number."""
    fields = {name: None if value in (None, "") else str(value) for name, value in row.items()}
    expiry = fields["expiry_time"]
    return {**fields, "expiry_time": None if expiry is None else int(expiry)}


def _parts(items: Iterable[Any]) -> Iterator[list[Any]]:
    every = list(items)
    for start in range(0, len(every), PAGE):
        yield every[start : start + PAGE]


def give_back(target: Target) -> None:
    """Makes the SDK's table of this package's, with all its rows, so that ``DBStore`` works on it.

    Its columns are as long as they have been. Interrupted, it can be begun again.

    Args:
        target: This package's table.

    Raises:
        CommandError: There are encrypted secrets, which the SDK's stores cannot read.
    """
    connection = op.get_bind()
    sdks = Target(target.name, [_sdks(target.table.c[name]) for name in COLUMNS], {}, {})
    with _alone(connection, target.name):
        rows = _Rows(connection, sdks, duplicates_table(target.name))
        rows.refuse_encrypted()
        first = _loosening(connection, target.name)
        if not _is_mysql(connection):  # which alone takes a column twice in one statement
            _alter(connection, target.name, first)
            first = []
        _reshape(connection, sdks, first)
        rows.denormalize()


def _sdks(column: sa.Column) -> sa.Column:
    """The column as text, as the SDK has it."""
    if column.primary_key:
        return sa.Column(column.name, column.type, primary_key=True)
    return sa.Column(column.name, sa.String(LONGEST[column.name]))


def _reshape(connection: sa.Connection, target: Target, changes: Sequence[str] = ()) -> None:
    """Gives the table the target's columns, in one statement but for SQLite, with rows that fit.

    Args:
        connection: Where to.
        target: What is wanted.
        changes: What is to be changed besides.
    """
    found = [column["name"] for column in sa.inspect(connection).get_columns(target.name)]
    if connection.dialect.name == "sqlite":
        _copy(connection, target, found)
        return
    wanted, is_mysql = target.table.columns, _is_mysql(connection)
    changes = [*changes, *(["ENGINE = InnoDB"] if is_mysql else [])]
    changes += [f"DROP COLUMN {name}" for name in found if name not in wanted]
    for column in wanted:
        specification = str(CreateColumn(column).compile(dialect=connection.dialect))
        if column.name not in found:
            changes.append(f"ADD COLUMN {specification}")
        else:
            changes.append(f"MODIFY {specification}" if is_mysql else _retyped(column, connection))
    for column, name in target.unique.items():
        changes.append(f"ADD CONSTRAINT {_quoted(connection, name)} UNIQUE ({column})")
    for column, name in target.indexes.items() if is_mysql else ():
        changes.append(f"ADD INDEX {_quoted(connection, name)} ({column})")
    _alter(connection, target.name, changes)


def _retyped(column: sa.Column, connection: sa.Connection) -> str:
    kind = column.type.compile(connection.dialect)
    middle = "BIGINT" if isinstance(column.type, sa.BigInteger) else "TEXT"
    return f"ALTER {column.name} TYPE {kind} USING CAST({column.name} AS {middle})"


def _copy(connection: sa.Connection, target: Target, found: Sequence[str]) -> None:
    """SQLite changes no column: so into a new table, which gets the name."""
    new = target.table.to_metadata(sa.MetaData(), name=f"{target.name}_new")
    new.create(connection)
    copied = [column.name for column in new.columns if column.name in found]
    old = sa.table(target.name, *(sa.column(name) for name in copied))
    values = [sa.cast(sa.func.nullif(old.c[name], ""), new.c[name].type) for name in copied]
    connection.execute(sa.insert(new).from_select(copied, sa.select(*values)))
    name = _quoted(connection, target.name)
    connection.exec_driver_sql(f"DROP TABLE {name}")
    _alter(connection, new.name, [f"RENAME TO {name}"])
