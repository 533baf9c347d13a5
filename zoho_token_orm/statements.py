"""The SQL of the store; each statement is built once and compiled once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta, timezone
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Delete,
    Insert,
    Select,
    Table,
    Update,
    and_,
    bindparam,
    case,
    delete,
    exists,
    func,
    insert,
    literal_column,
    not_,
    or_,
    select,
    update,
)

from zoho_token_orm.direct import Change, Found, LookUp
from zoho_token_orm.encryption import SECRETS, Cipher
from zoho_token_orm.identity import UNIQUE, Name
from zoho_token_orm.mapping import COLUMNS, Fields
from zoho_token_orm.models import SEALED, SECRET_LENGTH, epoch_milliseconds

Statement = TypeVar("Statement")

ACCESS_TOKEN_LIFETIME = timedelta(hours=1)
"""How long Zoho's access tokens live."""
REFRESHED = ("access_token", "expiry_time")
"""The columns that a refresh changes."""
_SECRET_PLACES = [(place, name) for place, name in enumerate(Found._fields) if name in SECRETS]
_LONG = SECRET_LENGTH // 8
"""What is no longer fits its column in every form: four bytes a character, and a third on top."""
_UNIQUE_SECRETS = [name for name in UNIQUE if name in SECRETS]


class After(NamedTuple):
    """A place in the order of age."""

    created_at: datetime
    id: str


class Seen(NamedTuple):
    """A row as it stood in the table at one moment."""

    stored: tuple[Any, ...]
    """The columns of a token, as they are stored."""
    found: Found

    @property
    def fields(self) -> Fields:
        """What it has; an expiry only along with the access token that it belongs to."""
        fields = {column: getattr(self.found, column) or None for column in COLUMNS}
        return {**fields, "expiry_time": fields["access_token"] and self.found.expiry_time}

    def __repr__(self) -> str:
        """Which row it is; never a token or a secret."""
        return f"Seen({self.found!r})"


FIRST = After(datetime(1970, 1, 2, tzinfo=timezone.utc), "")
"""Before all rows."""


def starts_with(column: ColumnElement[str], prefix: str) -> ColumnElement[bool]:
    """Whether a secret begins with that prefix of a ``Cipher``; case counts, on every database."""
    start = func.substr(column, literal_column("1"), literal_column(f"{len(prefix)}"))
    return start == literal_column(f"'{prefix}'")


class Statements:
    """The statements on one token table, which take and give secrets in the clear.

    Args:
        table: The token table (``stored_table``).
        cipher: How the secrets stand in it.
    """

    def __init__(self, table: Table, cipher: Cipher) -> None:
        self._table = table
        self._cipher = cipher
        self._columns = [table.c[name] for name in COLUMNS]
        self._made: dict[Any, Any] = {}
        self._insert = Change(self._insertion())
        self.by_id = self._look_up(select(*self._answer).where(table.c.id == bindparam("id")))
        self.all = self._look_up(select(*self._answer).order_by(*self.age))
        self.delete_all: Delete = delete(table)
        self.delete: Delete = delete(table).where(table.c.id.in_(bindparam("ids", expanding=True)))
        self._lease = self._leasing()
        own = select(table.c.id).where(table.c.id == bindparam("row_id"))
        self.lock_at_once = own.with_for_update(nowait=True)

    @property
    def has_keys(self) -> bool:
        """Whether secrets may stand in the table encrypted."""
        return self._cipher.has_keys

    @property
    def has_several_forms(self) -> bool:
        """Whether a secret may stand in two rows, which no constraint then tells to be the same."""
        return self._cipher.count > 1

    @property
    def _answer(self) -> list[Any]:
        """The columns of a look-up: a token's, who refreshes it, and for how many more ms."""
        table = self._table
        lease_left = (table.c.lease_until - epoch_milliseconds()).label("lease_left")
        return [*self._columns, table.c.lease_owner, lease_left]

    def _look_up(self, statement: Select[Any]) -> LookUp:
        return LookUp(statement, self._opened)

    def _opened(self, row: Sequence[Any]) -> Found:
        values = list(row[: len(Found._fields)])
        for place, column in _SECRET_PLACES:
            text = values[place] or None  # another store may write an empty one
            values[place] = text and self._cipher.opened(values[0], column, text)
        return Found(*values)

    def stored(self, fields: Fields) -> Fields:
        """The same fields as they are stored from now on.

        Raises:
            SDKException: A secret does not fit its column encrypted.
        """
        return {column: self._stored(column, value) for column, value in fields.items()}

    def is_any_encrypted(self, connection: Connection) -> bool:
        """Whether the table holds a secret that is encrypted, under whatever key."""
        is_sealed = or_(*(starts_with(self._table.c[name], SEALED) for name in SECRETS))
        return bool(connection.execute(select(exists().where(is_sealed))).scalar_one())

    def check(self, fields: Fields) -> None:
        """Makes sure that every secret fits its column, also where it is encrypted.

        Raises:
            SDKException: One does not.
        """
        for column in SECRETS:
            if len(fields[column] or "") > _LONG:
                self._stored(column, fields[column])

    def _stored(self, column: str, value: Any) -> Any:
        is_secret = value is not None and column in SECRETS
        return self._cipher.stored(column, value) if is_secret else value

    def _forms(self, column: str, value: Any) -> list[Any]:
        """What a row may hold in a column that has the value; for each secret as many."""
        if column not in SECRETS:
            return [value]
        count = self._cipher.count
        return [None] * count if value is None else self._cipher.forms(column, value)

    def _is_any(self, column: str, name: str) -> ColumnElement[bool]:
        """Whether the column has a value; its forms are the parameters ``name_0`` and so on."""
        count = self._cipher.count if column in SECRETS else 1
        return or_(*(self._table.c[column] == bindparam(f"{name}_{n}") for n in range(count)))

    def _any(self, column: str, value: Any, name: str) -> dict[str, Any]:
        """The parameters of ``_is_any``."""
        return {f"{name}_{n}": form for n, form in enumerate(self._forms(column, value))}

    def _once(self, key: Any, make: Callable[[], Statement]) -> Statement:
        statement: Statement | None = self._made.get(key)
        if statement is None:
            statement = self._made[key] = make()
        return statement

    def rows_named(
        self, connection: Connection, names: Sequence[Name], *, lock: bool = False
    ) -> list[Found]:
        """The rows with one of these names, oldest first; one SELECT.

        Args:
            connection: Where to ask.
            names: What they are looked up by; an index answers each.
            lock: Whether nobody else may change the rows until the transaction ends.
        """
        columns = tuple(name.column for name in names)
        values = {
            parameter: form
            for place, name in enumerate(names)
            for parameter, form in self._any(name.column, name.value, f"name_{place}").items()
        }
        look_up = self._once((lock, columns), lambda: self._look_up(self._named(columns, lock)))
        return look_up.run(connection, values)

    def rows_among(self, connection: Connection, column: str, values: Sequence[str]) -> list[Seen]:
        """The rows that have one of the values in a column, oldest first; one SELECT, or none."""
        if not values:
            return []
        forms = [form for value in values for form in self._forms(column, value)]
        statement = self._once(("among", column), lambda: self._among(column))
        rows = connection.execute(statement, {"forms": forms}).all()
        return [Seen(tuple(row[: len(COLUMNS)]), self._opened(row)) for row in rows]

    def _among(self, column: str) -> Select[Any]:
        is_among = self._table.c[column].in_(bindparam("forms", expanding=True))
        return select(*self._answer).where(is_among).order_by(*self.age)

    def _named(self, columns: Sequence[str], lock: bool) -> Select[Any]:
        conditions = [self._is_any(column, f"name_{place}") for place, column in enumerate(columns)]
        statement = select(*self._answer).where(or_(*conditions)).order_by(*self.age)
        return statement.with_for_update() if lock else statement

    @property
    def age(self) -> tuple[Any, Any]:
        """What the rows are sorted by: the oldest first."""
        return self._table.c.created_at, self._table.c.id

    def insert(self, connection: Connection, fields: Fields) -> None:
        """Inserts a row: the columns of a token, ``created_at`` and ``updated_at``."""
        self._insert.run(connection, self.stored(fields))

    def _insertion(self) -> Insert:
        columns = (*COLUMNS, "created_at", "updated_at")
        return insert(self._table).values({column: bindparam(column) for column in columns})

    def update(
        self,
        connection: Connection,
        row_id: str,
        fields: Fields,
        owner: str,
        *,
        is_guarded: bool = False,
    ) -> bool:
        """Updates a row; returns whether there was one.

        An access token that comes without an expiry takes the expiry of another access token away.
        The refresh lease of the owner ends, and no other one.

        Args:
            connection: Where to.
            row_id: The id of the row.
            fields: The columns to set, and what to.
            owner: Whose lease ends.
            is_guarded: Whether the row is only updated if what it has can be read, and the unique
                secrets are its own already, where no constraint tells that another row has them.
        """
        columns = tuple(fields)
        statement = self._once(
            ("update", is_guarded, *columns), lambda: Change(self._update(columns, is_guarded))
        )
        values = {f"new_{name}": self._stored(name, value) for name, value in fields.items()}
        for name in self._compared(columns, is_guarded):
            values.update(self._any(name, fields[name], f"same_{name}"))
        return statement.run(connection, {**values, "row_id": row_id, "owner": owner}) > 0

    def _update(self, columns: Sequence[str], is_guarded: bool) -> Update:
        table = self._table
        compared = self._compared(columns, is_guarded)
        same = {name: self._is_any(name, f"same_{name}") for name in compared}
        values: list[tuple[Any, Any]] = [
            (table.c[column], bindparam(f"new_{column}")) for column in columns
        ]
        if "access_token" in same:
            # First, because MySQL assigns from left to right and would compare with the new one.
            kept = case((same.pop("access_token"), table.c.expiry_time))
            values.insert(0, (table.c.expiry_time, kept))
        values.append((table.c.lease_owner, func.nullif(table.c.lease_owner, bindparam("owner"))))
        conditions = [table.c.id == bindparam("row_id"), *same.values()]
        if is_guarded and not self.has_keys:
            columns_of_secrets = [table.c[name] for name in SECRETS]
            conditions += [or_(c.is_(None), ~starts_with(c, SEALED)) for c in columns_of_secrets]
        return update(table).where(*conditions).ordered_values(*values)

    def _compared(self, columns: Sequence[str], is_guarded: bool) -> list[str]:
        """The secrets that an update of these columns compares with those of the row."""
        compares = is_guarded and self.has_keys
        compared = [name for name in _UNIQUE_SECRETS if name in columns and compares]
        if "access_token" in columns and "expiry_time" not in columns:
            compared.append("access_token")
        return compared

    def lease(self, connection: Connection, row: Found, owner: str, milliseconds: int) -> bool:
        """Gives the owner the row to refresh for a time; returns whether it has got it.

        Only where its access token and expiry are still those, and nobody else has it.
        """
        values = {"row_id": row.id, "owner": owner, "milliseconds": milliseconds}
        for column in REFRESHED:
            values.update(self._any(column, getattr(row, column), f"seen_{column}"))
        return connection.execute(self._lease, values).rowcount > 0

    def _leasing(self) -> Update:
        table, now = self._table, epoch_milliseconds()
        owner = bindparam("owner", type_=table.c.lease_owner.type)
        is_free = or_(
            table.c.lease_owner.is_(None),
            table.c.lease_owner == owner,
            table.c.lease_until.is_(None),
            table.c.lease_until <= now,
        )
        is_row = table.c.id == bindparam("row_id")
        statement = update(table).where(is_row, *map(self._is_as_seen, REFRESHED), is_free)
        until = now + bindparam("milliseconds", type_=BigInteger())
        return statement.values(lease_owner=owner, lease_until=until)

    def _is_as_seen(self, column: str) -> ColumnElement[bool]:
        """Whether the column has the value that was seen in it, or as then none."""
        own = self._table.c[column]
        count = len(self._forms(column, None))
        names = [f"seen_{column}_{n}" for n in range(count)]
        return or_(*(own.is_not_distinct_from(bindparam(name, type_=own.type)) for name in names))

    def page(self, connection: Connection, after: After, size: int) -> tuple[list[Found], After]:
        """The next rows, oldest first, and after which the ones then follow.

        Args:
            connection: Where to ask.
            after: After which row; ``FIRST`` for those at the beginning.
            size: How many rows, at most.
        """
        statement = self._once(("page", size), lambda: self._page(size))
        rows = connection.execute(statement, after._asdict()).all()
        last = After(rows[-1].created_at, rows[-1].id) if rows else after
        return [self._opened(row) for row in rows], last

    def _page(self, size: int) -> Select[Any]:
        created_at, id = self.age
        later = or_(created_at > bindparam("created_at"), id > bindparam("id"))
        statement = select(*self._answer, created_at).order_by(*self.age).limit(size)
        return statement.where(and_(created_at >= bindparam("created_at"), later))

    def delete_unused(self, since: datetime, now: datetime) -> Delete:
        """The rows that nobody has saved since.

        An access token tells when it was obtained, also where another store has saved it: an
        expiry that Zoho can have given since then spares the row.
        """
        earliest, latest = (
            int((moment + ACCESS_TOKEN_LIFETIME).timestamp() * 1000) for moment in (since, now)
        )
        expiry_time = self._table.c.expiry_time
        is_older = or_(expiry_time.is_(None), not_(expiry_time.between(earliest, latest)))
        return delete(self._table).where(self._table.c.updated_at < since, is_older)
