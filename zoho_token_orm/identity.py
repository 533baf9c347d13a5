"""Which row a token names: the one place that knows the order."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from zoho_token_orm.direct import Found
    from zoho_token_orm.mapping import Fields

ORDER = ("id", "user_name", "access_token", "grant_token", "refresh_token")
"""The columns that a token is looked up by, most telling first."""
UNIQUE = ("user_name", "grant_token", "refresh_token")
"""The columns of which no two rows have the same value."""
AUTHORIZATION = ("id", "grant_token", "refresh_token")
"""The columns that tell one authorization; a user name may come back with another one."""


class Name(NamedTuple):
    """A column and the value by which it names a row."""

    column: str
    value: str

    def fits(self, row: Found) -> bool:
        """Whether this is that row's name."""
        return bool(getattr(row, self.column) == self.value)


def names_of(fields: Fields, known_id: str | None = None) -> tuple[Name, ...]:
    """The names that a token has for its row, in order; none where it has no identity.

    Args:
        fields: The token's fields.
        known_id: The id that its row had when the store last met the token, if it has.
    """
    names = [Name(column, fields[column]) for column in ORDER if fields[column]]
    if fields["client_id"] or fields["client_secret"]:
        names = [name for name in names if name.column != "access_token"]
    if known_id and known_id != fields["id"]:
        names.insert(1 if fields["id"] else 0, Name("id", known_id))
    return tuple(names)


def ranked(rows: Iterable[Found], names: Sequence[Name]) -> list[Found]:
    """The rows that are named exactly, those first that are named first."""

    def rank(row: Found) -> int:
        return next(place for place, name in enumerate(names) if name.fits(row))

    # MySQL ignores spaces at the end of ASCII, which another store may have put there.
    return sorted((row for row in rows if any(name.fits(row) for name in names)), key=rank)


def answer(rows: Iterable[Found], names: Sequence[Name], fields: Fields) -> Found | None:
    """The first of the named rows that is not another user's or another client's."""
    own = (row for row in ranked(rows, names) if not _is_somebody_elses(row, fields))
    return next(own, None)


def _is_somebody_elses(row: Found, fields: Fields) -> bool:
    return any(
        fields[column] and getattr(row, column) and fields[column] != getattr(row, column)
        for column in ("user_name", "client_id")
    )


def is_deleted(rows: Iterable[Found], names: Sequence[Name]) -> bool:
    """Whether none of the rows holds the authorization that these names once named."""
    lasting = [name for name in names if name.column in AUTHORIZATION]
    return not any(name.fits(row) for row in rows for name in lasting)


def superseded(rows: Sequence[Found], names: Sequence[Name], fields: Fields) -> list[Found]:
    """The rows after the first that are the same authorization as it, and have to go.

    They hold one of the token's unique values, or are named by its access token and are from before
    the user was known.
    """
    return [
        row
        for row in rows[1:]
        if any(Name(column, fields[column]).fits(row) for column in UNIQUE if fields[column])
        or (
            row.user_name is None and any(n.column == "access_token" and n.fits(row) for n in names)
        )
    ]
