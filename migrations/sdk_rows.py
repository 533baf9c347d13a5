"""The rows of a token table of the SDK's: what each is to become, decided before any is changed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from alembic.util import CommandError

from zoho_token_orm.database import padded_columns, run_each
from zoho_token_orm.duplicates import resolved
from zoho_token_orm.foreign import expiry_of, text_of, unpadded
from zoho_token_orm.models import SEALED, Masked, TokenString

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
SECRETS = ("client_secret", "refresh_token", "access_token", "grant_token")
UNIQUE = ("user_name", "grant_token", "refresh_token")
LONGEST = {
    **dict.fromkeys(COLUMNS, 255),
    **dict.fromkeys(SECRETS, 2048),
    "user_name": 512,
    "redirect_url": 2048,
    "expiry_time": 20,
}
"""How many characters the columns of the first revision hold."""
EXPIRED = "0"
"""What an expiry becomes that says no time: so the access token is refreshed."""
PAGE = 2000
_ENCODED = "UTF-8''"

Row = Mapping[str, Any]


def columns(names: Iterable[str] = COLUMNS) -> list[sa.ColumnClause[Any]]:
    """The columns for statements, secrets masked."""
    return [sa.column(name, Masked() if name in SECRETS else None) for name in names]


class Plan:
    """What is to become of the rows; nothing is changed yet.

    Args:
        connection: Where they are; nobody else may change them until the plan is carried out.
        table: The name of the table.
        names: Its columns: those of the SDK, or all but the last.

    Attributes:
        changes: The rows that are not stored as the target stores them, as they are to be.
        lost: The rows that lose to a newer one of the same authorization, as they are, and the id
            of that one as ``stays``.

    Raises:
        CommandError: A row has no id, or holds what the target cannot hold.
    """

    def __init__(self, connection: sa.Connection, table: str, names: Sequence[str]) -> None:
        self._connection = connection
        self._table = sa.table(table, *columns(names))
        self._names = names
        self._padded = padded_columns(connection, table)
        self.changes: dict[str, Row] = {}
        self.lost: list[dict[str, Any]] = []
        self._resolve(self._read())

    def _read(self) -> set[int]:
        """Notes what is to be changed; returns the hashes of unique values that come twice."""
        seen: set[int] = set()
        twice: set[int] = set()
        for row in self._rows():
            new = _checked(row)
            if not all(_is_stored_as(row[name], new[name]) for name in self._names):
                self.changes[new["id"]] = new
            for value in _hashes(new):
                (twice if value in seen else seen).add(value)
        return twice

    def _resolve(self, twice: set[int]) -> None:
        if not twice:
            return
        found = [row for row in self._rows() if not twice.isdisjoint(_hashes(_checked(row)))]
        rows, stays = resolved([_fields(_checked(row)) for row in found])
        for place, stay in enumerate(stays):
            if place != stay:
                raw = {name: text_of(found[place][name]) for name in self._names}
                self.lost.append({**raw, "stays": rows[stay]["id"]})
                self.changes.pop(rows[place]["id"], None)
                self.changes[rows[stay]["id"]] = _texts(rows[stay])

    def _rows(self) -> Iterator[Row]:
        statement = sa.select(self._table).order_by(self._table.c.id).limit(PAGE)
        page, after = statement, None
        while rows := self._connection.execute(page).mappings().all():
            yield from (unpadded(row, self._padded) for row in rows)
            after = rows[-1]["id"]
            page = statement.where(self._table.c.id > after)

    def carry_out(self, aside: sa.Table) -> None:
        """Changes the rows, in a table whose columns are all text; a transaction is the caller's.

        Args:
            aside: Where the rows go that have lost.
        """
        self._forget_empty()
        delete = sa.delete(self._table).where(self._table.c.id == sa.bindparam("row_id"))
        for part in parts(self.lost):
            self._connection.execute(sa.insert(aside), part)
            self._change(delete, [{"row_id": row["id"]} for row in part])
        for part in parts(self.changes.values()):
            self._change(update(self._table, self._names), list(map(changed, part)))

    def _change(self, statement: sa.Delete | sa.Update, rows: Sequence[Row]) -> None:
        if run_each(self._connection, statement, rows) != len(rows):
            raise CommandError(
                f"some rows of {self._table.name} cannot be met by the id that was read: make the "
                "column id text; no row has been changed"
            )

    def _forget_empty(self) -> None:
        texts = [self._table.c[name] for name in self._names[1:]]
        # Not NULLIF: to a collation that pads, blanks are empty.
        values = {text.name: sa.case((sa.func.length(text) > 0, text)) for text in texts}
        is_empty = sa.or_(*(sa.func.length(text) == 0 for text in texts))
        self._connection.execute(sa.update(self._table).where(is_empty).values(values))


def update(table: sa.TableClause, names: Sequence[str]) -> sa.Update:
    """Sets all columns of a row but its id; the parameters are those of ``changed``."""
    values = {name: sa.bindparam(f"new_{name}", type_=table.c[name].type) for name in names[1:]}
    return sa.update(table).where(table.c.id == sa.bindparam("row_id")).values(values)


def changed(row: Row) -> dict[str, Any]:
    """The parameters of ``update``."""
    return {"row_id": row["id"], **{f"new_{n}": v for n, v in row.items() if n != "id"}}


def parts(items: Iterable[Any]) -> Iterator[list[Any]]:
    """The items, some thousands at a time."""
    every = list(items)
    for start in range(0, len(every), PAGE):
        yield every[start : start + PAGE]


def _checked(row: Row) -> dict[str, str | None]:
    """The row as the target stores it; doing it twice is doing it once.

    Raises:
        CommandError: It has no id, or holds what the target cannot hold.
    """
    try:
        id = text_of(row["id"])
    except UnicodeError:
        id = None
    if not id:
        raise CommandError(
            "a row has no id, or one that is no UTF-8 text: give it one, or delete it, and try "
            "again; no row has been changed"
        )
    new: dict[str, str | None] = {**dict.fromkeys(COLUMNS), "id": id}
    for name in row:
        value = _expiry(row[name]) if name == "expiry_time" else _normal(name, row[name], id)
        if value and len(value) > LONGEST[name]:
            raise CommandError(
                f"{name} of the row with the id {id[:40]!r} is too long: {len(value)} characters, "
                f"at most {LONGEST[name]} fit; no row has been changed"
            )
        new[name] = value
    if new["access_token"] and new["refresh_token"] and not new["expiry_time"]:
        new["expiry_time"] = EXPIRED  # to the SDK it would be valid for ever
    return new


def _normal(name: str, value: Any, id: str) -> str | None:
    try:
        text = text_of(value)
    except UnicodeError:
        text = None
    if text is None and value is not None:
        raise CommandError(
            f"{name} of the row with the id {id[:40]!r} is no UTF-8 text; no row has been changed"
        )
    is_secret = name in SECRETS and text and not text.startswith(_ENCODED)
    return (TokenString.encoded(text) if is_secret and text else text) or None


def _expiry(value: Any) -> str | None:
    try:
        number = expiry_of(value)
    except ValueError:
        return EXPIRED
    return None if number is None else str(number)


def _is_stored_as(old: Any, new: str | None) -> bool:
    """Whether a value is the new one, once the column is text and nothing is NULL."""
    if isinstance(old, int) and not isinstance(old, bool):
        return str(old) == new
    return (old in (None, "")) if new is None else (isinstance(old, str) and old == new)


def _hashes(row: Row) -> set[int]:
    return {hash((name, str(row[name]))) for name in UNIQUE if row[name]}


def _fields(row: Row) -> dict[str, Any]:
    expiry = row["expiry_time"]
    return {**row, "expiry_time": None if expiry is None else int(expiry)}


def _texts(row: Row) -> Row:
    expiry = row["expiry_time"]
    return {**row, "expiry_time": None if expiry is None else str(expiry)}


def refuse_encrypted(connection: sa.Connection, table: str) -> None:
    """Makes sure that the SDK's stores can read what there is.

    Raises:
        CommandError: They cannot.
    """
    rows = sa.table(table, *columns())
    is_sealed = (rows.c[name].like(f"{SEALED}%") for name in SECRETS)
    count = sa.select(sa.func.count()).select_from(rows).where(sa.or_(*is_sealed))
    if connection.execute(count).scalar_one():
        raise CommandError(
            f"{table} has encrypted tokens, which the SDK's own stores cannot read: first run "
            "zoho-token-orm rotate-keys with plain before the keys"
        )


def encoded(connection: sa.Connection, table: str) -> list[Row]:
    """The rows with secrets that this package has encoded, as the SDK stores them."""
    rows = sa.table(table, *columns())
    is_encoded = (rows.c[name].like(f"{_ENCODED}%") for name in SECRETS)
    found = connection.execute(sa.select(rows).where(sa.or_(*is_encoded))).mappings()
    return [
        {n: TokenString.loaded(v) if n in SECRETS and v else v for n, v in row.items()}
        for row in found
    ]
