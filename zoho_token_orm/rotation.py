"""Every secret under the newest key, while others go on reading and writing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Select,
    Table,
    Update,
    and_,
    bindparam,
    case,
    func,
    or_,
    select,
    update,
)
from sqlalchemy.exc import IntegrityError
from zohocrmsdk.src.com.zoho.crm.api.exception.sdk_exception import SDKException

from zoho_token_orm.database import transaction
from zoho_token_orm.encryption import SECRETS, Cipher
from zoho_token_orm.errors import token_store_error
from zoho_token_orm.models import SEALED
from zoho_token_orm.saving import Merge
from zoho_token_orm.statements import Statements, starts_with

PAGE = 500
"""How many rows are read at a time."""
CHUNK = 50
"""How many rows are changed in one transaction: whoever saves one of them waits for that long."""
MOST_SHOWN = 5
"""How many of the rows that cannot be read the error names."""
MOST_PASSES = 3
"""How often the table is gone through, where others write under another key meanwhile."""

Progress = Callable[[int, int], None]
Change = dict[str, "str | None"]


class Rotation:
    """Stores every secret of a table in the form in which new ones are stored.

    A secret that somebody changes meanwhile stays as that one has stored it. Where it is
    interrupted, what is done stays done.

    Args:
        run: Runs an operation on the database (``Database.run``).
        table: The token table (``stored_table``).
        cipher: The keys, and plain text.
    """

    def __init__(self, run: Callable[..., Any], table: Table, cipher: Cipher) -> None:
        self._run = run
        self._table = table
        self._cipher = cipher
        self._statements = Statements(table, cipher)
        self._failures: dict[str, str] = {}
        self._done = 0

    def __call__(self, on_progress: Progress) -> int:
        """Goes through the table.

        Args:
            on_progress: Is told how many rows are done, of how many.

        Returns:
            How many rows have been changed.

        Raises:
            SDKException: Some secrets cannot be read, or others go on storing another form.
        """
        for _ in range(MOST_PASSES):
            before = self._done
            self._pass(on_progress, before + self._count())
            if self._done == before:
                break
        self._report()
        return self._done

    def _report(self) -> None:
        left = self._count() - len(self._failures)
        if self._failures:
            raise token_store_error(
                f"{self._done} rows are done, and {len(self._failures)} cannot be; the first: "
                + "; ".join(list(self._failures.values())[:MOST_SHOWN])
            )
        if left > 0:
            raise token_store_error(
                f"{self._done} rows are done, and somebody has stored {left} under another key "
                "meanwhile: give all workers the same newest key, and run this again"
            )

    def _count(self) -> int:
        count = select(func.count()).select_from(self._table).where(self._is_stale())
        return int(self._run("count the rows", lambda c: c.execute(count).scalar_one()))

    def _pass(self, on_progress: Progress, total: int) -> None:
        page, after = self._page(), ""
        self._failures = {}
        while True:
            rows = self._run("read the rows", lambda c: c.execute(page, {"after": after}).all())  # noqa: B023
            if not rows:
                return
            changes = [change for row in rows if (change := self._change(row))]
            for start in range(0, len(changes), CHUNK):
                self._store(changes[start : start + CHUNK])
            self._done += len(changes)
            after = rows[-1].id
            on_progress(self._done, max(total, self._done))

    def _is_stale(self) -> ColumnElement[bool]:
        """Whether a row has a secret in another form than the one that is stored from now on."""
        return or_(*(self._is_stale_in(self._table.c[name]) for name in SECRETS))

    def _is_stale_in(self, column: ColumnElement[str]) -> ColumnElement[bool]:
        prefix = self._cipher.prefix
        if prefix is None:
            return starts_with(column, SEALED)
        # DBStore writes empty ones.
        return and_(column.is_not(None), column != "", ~starts_with(column, prefix))

    def _page(self) -> Select[Any]:
        id = self._table.c.id
        columns = [id, *(self._table.c[name] for name in SECRETS)]
        is_next = and_(id > bindparam("after"), self._is_stale())
        return select(*columns).where(is_next).order_by(id).limit(PAGE)

    def _change(self, row: Row[Any]) -> Change | None:
        """The parameters of ``_update``; None for a row that cannot be changed."""
        change: Change = {"row_id": row.id}
        try:
            for name in SECRETS:
                old = getattr(row, name)
                new = old and self._cipher.stored(name, self._cipher.opened(row.id, name, old))
                is_other = old != new
                change[f"old_{name}"] = old if is_other else None
                change[f"new_{name}"] = new if is_other else None
        except SDKException as error:
            self._failures[row.id] = f"{error.error_message} (id {row.id!r})"
            return None
        return change

    def _update(self) -> Update:
        """Changes the secrets that are still as they were read; ``updated_at`` stays."""
        values = {}
        for name in SECRETS:
            column = self._table.c[name]
            old, new = (bindparam(f"{which}_{name}", type_=column.type) for which in ("old", "new"))
            values[name] = case((column == old, new), else_=column)
        return update(self._table).where(self._table.c.id == bindparam("row_id")).values(values)

    def _store(self, changes: list[Change]) -> None:
        if not changes or self._run("encrypt the rows", lambda c: self._is_stored(c, changes)):
            return
        for change in changes:
            if not self._run("encrypt a row", lambda c: self._is_stored(c, [change])):  # noqa: B023
                self._run("merge rows", Merge(self._statements, str(change["row_id"])))

    def _is_stored(self, connection: Connection, changes: list[Change]) -> bool:
        """Changes the rows; False, and none of them, where another row has the same secret already.

        As it may where two workers have saved one authorization at a time, each under its own key.
        """
        try:
            with transaction(connection):
                connection.execute(self._update(), changes)
        except IntegrityError:
            return False
        return True
