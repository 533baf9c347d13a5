"""The SQL of the store; each statement is built once and compiled once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any, TypeVar

from sqlalchemy import (
    BigInteger,
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
    func,
    insert,
    not_,
    or_,
    select,
    update,
)

from zoho_token_orm.direct import AnyRow, Change, LookUp
from zoho_token_orm.identity import Name
from zoho_token_orm.mapping import COLUMNS
from zoho_token_orm.models import epoch_milliseconds

Statement = TypeVar("Statement")

ACCESS_TOKEN_LIFETIME = timedelta(hours=1)
"""How long Zoho's access tokens live."""
REFRESHED = ("access_token", "expiry_time")
"""The columns that a refresh changes."""


class Statements:
    """The statements on one token table.

    Args:
        table: The token table (``token_table``).
    """

    def __init__(self, table: Table) -> None:
        self._table = table
        self._columns = [table.c[name] for name in COLUMNS]
        self._made: dict[Any, Any] = {}
        self.by_id = LookUp(select(*self._answer).where(table.c.id == bindparam("id")))
        self.all = select(*self._columns).order_by(*self.age)
        self.insert = Change(self._insert())
        self.delete_all: Delete = delete(table)
        self.delete: Delete = delete(table).where(table.c.id.in_(bindparam("ids", expanding=True)))
        self.lease: Update = self._lease()
        own = select(table.c.id).where(table.c.id == bindparam("row_id"))
        self.lock_at_once = own.with_for_update(nowait=True)

    @property
    def _answer(self) -> list[Any]:
        """The columns of a look-up: a token's, who refreshes it, and for how many more ms."""
        table = self._table
        lease_left = (table.c.lease_until - epoch_milliseconds()).label("lease_left")
        return [*self._columns, table.c.lease_owner, lease_left]

    def _once(self, key: Any, make: Callable[[], Statement]) -> Statement:
        statement: Statement | None = self._made.get(key)
        if statement is None:
            statement = self._made[key] = make()
        return statement

    def rows_named(
        self, connection: Connection, names: Sequence[Name], *, lock: bool = False
    ) -> Sequence[AnyRow]:
        """The rows with one of these names, oldest first; one SELECT.

        Args:
            connection: Where to ask.
            names: What they are looked up by; an index answers each.
            lock: Whether nobody else may change the rows until the transaction ends.
        """
        columns = tuple(name.column for name in names)
        values = {f"name_{place}": name.value for place, name in enumerate(names)}
        look_up = self._once((lock, columns), lambda: LookUp(self._named(columns, lock)))
        return look_up.run(connection, values)

    def _named(self, columns: Sequence[str], lock: bool) -> Select[Any]:
        conditions = [
            self._table.c[column] == bindparam(f"name_{place}")
            for place, column in enumerate(columns)
        ]
        statement = select(*self._answer).where(or_(*conditions)).order_by(*self.age)
        return statement.with_for_update() if lock else statement

    @property
    def age(self) -> tuple[Any, Any]:
        """What the rows are sorted by: the oldest first."""
        return self._table.c.created_at, self._table.c.id

    def _insert(self) -> Insert:
        """A row with all that a token may have; the parameters have the names of the columns."""
        columns = (*COLUMNS, "created_at", "updated_at")
        return insert(self._table).values({column: bindparam(column) for column in columns})

    def update(self, columns: Sequence[str]) -> Change:
        """Sets these columns of the row whose id is the parameter ``row_id``.

        The value of a column is the parameter ``new_`` and its name. An access token that comes
        without an expiry takes the expiry of another access token away. A lease of the parameter
        ``owner`` ends, and no other one.
        """
        return self._once(("update", *columns), lambda: Change(self._update(columns)))

    def _update(self, columns: Sequence[str]) -> Update:
        table = self._table
        values: list[tuple[Any, Any]] = [
            (table.c[column], bindparam(f"new_{column}")) for column in columns
        ]
        if "access_token" in columns and "expiry_time" not in columns:
            same = table.c.access_token == bindparam("new_access_token")
            # First, because MySQL assigns from left to right and would compare with the new one.
            values.insert(0, (table.c.expiry_time, case((same, table.c.expiry_time))))
        values.append((table.c.lease_owner, func.nullif(table.c.lease_owner, bindparam("owner"))))
        return update(table).where(table.c.id == bindparam("row_id")).ordered_values(*values)

    def _lease(self) -> Update:
        """Gives the parameter ``owner`` the row of ``row_id`` to refresh, for ``milliseconds``.

        Only where its tokens are still ``seen_access_token`` and so on, and nobody else has it.
        """
        table, now = self._table, epoch_milliseconds()
        owner = bindparam("owner", type_=table.c.lease_owner.type)
        conditions = [
            table.c[name].is_not_distinct_from(bindparam(f"seen_{name}", type_=table.c[name].type))
            for name in REFRESHED
        ]
        is_free = or_(
            table.c.lease_owner.is_(None),
            table.c.lease_owner == owner,
            table.c.lease_until.is_(None),
            table.c.lease_until <= now,
        )
        statement = update(table).where(table.c.id == bindparam("row_id"), *conditions, is_free)
        until = now + bindparam("milliseconds", type_=BigInteger())
        return statement.values(lease_owner=owner, lease_until=until)

    def page(self, size: int) -> Select[Any]:
        """The rows after that of the parameters ``created_at`` and ``id``, oldest first."""
        created_at, id = self.age
        later = or_(created_at > bindparam("created_at"), id > bindparam("id"))
        statement = select(*self._columns, created_at).order_by(*self.age).limit(size)
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
