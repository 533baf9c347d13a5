"""One authorization, one row: how a token is saved."""

from __future__ import annotations

import functools
import secrets
from collections.abc import Sequence
from datetime import datetime, timezone

from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm.exc import StaleDataError

from zoho_token_orm import identity, mapping
from zoho_token_orm.database import transaction
from zoho_token_orm.direct import Found
from zoho_token_orm.errors import token_store_error
from zoho_token_orm.mapping import Fields
from zoho_token_orm.statements import Statements

_ID_DIGITS = 20


class Save:
    """The saving of one token, as an operation that may run again in whole.

    Args:
        statements: The statements on the table.
        fields: What the token has.
        known_id: The id of its row when the store last met the token; None for a token that the
            store has neither loaded nor saved.
        owner: Whose refresh lease on the row ends with the save (``RefreshLease.owner``).
    """

    def __init__(
        self, statements: Statements, fields: Fields, known_id: str | None, owner: str
    ) -> None:
        self._statements = statements
        self._owner = owner
        self._fields = fields
        self._known_id = known_id
        self._has_inserted = False

    def __call__(self, connection: Connection) -> str:
        """Stores the fields, on a connection in autocommit.

        Returns:
            The id that token and row have from now on.

        Raises:
            SDKException: There is nothing to store, or the token has been deleted.
            SQLAlchemyError: It could not be stored; after a collision it is worth another try.
        """
        if self._is_updated_by_id(connection):
            return str(self._fields["id"])
        rows = self._rows(connection)
        if not self._needs_transaction(rows):
            return self.store(connection, rows)
        may_double = not rows or self._statements.has_several_forms
        with transaction(connection, serializable=may_double):
            return self.store(connection, self._rows(connection, lock=True))

    def _needs_transaction(self, rows: Sequence[Found]) -> bool:
        """Whether more than one row is concerned, or one that no constraint keeps single."""
        if self._statements.has_several_forms:
            return True
        if rows:
            return bool(identity.superseded(rows, self._names, self._fields))
        return [name.column for name in self._names] == ["access_token"]

    def _is_updated_by_id(self, connection: Connection) -> bool:
        """The save that follows a refresh: one UPDATE, unless other rows are concerned."""
        has_client = self._fields["client_id"] or self._fields["client_secret"]
        if not self._fields["id"] or (self._fields["access_token"] and not has_client):
            return False
        try:
            return self._update(connection, self._fields["id"], self._fields, is_guarded=True)
        except IntegrityError:  # another row holds one of its unique values
            return False

    @functools.cached_property
    def _names(self) -> tuple[identity.Name, ...]:
        return identity.names_of(self._fields, self._known_id)

    @functools.cached_property
    def _new_id(self) -> str:
        """The id of a new row, the same in every try."""
        return self._fields["id"] or new_id()

    def _rows(self, connection: Connection, *, lock: bool = False) -> list[Found]:
        names = self._names
        if self._has_inserted:  # by an earlier try, of which only the answer may have been lost
            names = (*names, identity.Name("id", self._new_id))
        if not names:
            return []
        rows = self._statements.rows_named(connection, names, lock=lock)
        return identity.ranked(rows, names)

    def store(self, connection: Connection, rows: Sequence[Found]) -> str:
        """Stores the fields in the first of the rows, or a new one; the others go into it."""
        if self._known_id and identity.is_deleted(rows, self._names):
            raise token_store_error(
                "the token has been deleted since it was loaded, and is not put back; "
                "to log the user in again, save a new OAuthToken"
            )
        if not rows:
            return self._insert(connection)
        others = identity.superseded(rows, self._names, self._fields)
        if others:
            connection.execute(self._statements.delete, {"ids": [row.id for row in others]})
        fields = mapping.merged(self._fields, rows[0], others)
        id = self._id_for(rows[0].id)
        if not self._update(connection, rows[0].id, {**fields, "id": id}):
            raise StaleDataError("the row was deleted while it was being updated")
        return id

    def _id_for(self, row_id: str) -> str:
        """The caller's own id; the row's, where the token has none or one from the store."""
        own = self._fields["id"]
        return row_id if own in (None, self._known_id) else str(own)

    def _insert(self, connection: Connection) -> str:
        if not any(self._fields[column] for column in mapping.TOKENS):
            raise token_store_error(
                "there is nothing to store: no row has this id or user, and the token has neither "
                "access, refresh nor grant token"
            )
        self._has_inserted = True
        now = datetime.now(timezone.utc)
        values = {**self._fields, "id": self._new_id, "created_at": now, "updated_at": now}
        self._statements.insert(connection, values)
        return self._new_id

    def _update(
        self, connection: Connection, row_id: str, fields: Fields, *, is_guarded: bool = False
    ) -> bool:
        """Sets what the fields have; returns whether there was such a row."""
        has = {column: value for column, value in fields.items() if value is not None}
        if fields["id"] == row_id:
            del has["id"]
        has["updated_at"] = datetime.now(timezone.utc)
        return self._statements.update(connection, row_id, has, self._owner, is_guarded=is_guarded)


class Merge:
    """Makes one row of all that are the same authorization as that of an id.

    The access token with the latest expiry stays. Where the row has gone, nothing is done.

    Args:
        statements: The statements on the table.
        row_id: The id.
    """

    def __init__(self, statements: Statements, row_id: str) -> None:
        self._statements = statements
        self._row_id = row_id

    def __call__(self, connection: Connection) -> None:
        """Merges, on a connection in autocommit."""
        with transaction(connection, serializable=True):
            name = identity.Name("id", self._row_id)
            for row in self._statements.rows_named(connection, [name], lock=True):
                self._merge(connection, row)

    def _merge(self, connection: Connection, row: Found) -> None:
        fields = {column: getattr(row, column) for column in mapping.COLUMNS}
        names = identity.names_of(fields)
        rows = identity.ranked(self._statements.rows_named(connection, names, lock=True), names)
        others = identity.superseded(rows, names, fields)
        fresh = max(
            (each for each in (row, *others) if each.access_token), key=_expiry, default=row
        )
        fields.update(access_token=fresh.access_token, expiry_time=fresh.expiry_time)
        Save(self._statements, fields, None, owner="").store(connection, rows)


def _expiry(row: Found) -> int:
    return row.expiry_time or 0


def new_id() -> str:
    """An id of 20 decimal digits that nobody can guess and no table has led to.

    It begins with a nine: to the SDK's own DBStore on the same table the next id is the greatest
    one, as text, plus one, and the greatest is one of these then, not the ``9`` before the ``10``.
    """
    lowest = 9 * 10 ** (_ID_DIGITS - 1)
    return str(lowest + secrets.randbelow(10 ** (_ID_DIGITS - 1)))
