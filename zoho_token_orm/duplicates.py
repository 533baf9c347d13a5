"""Rows of one authorization, as other stores leave them: which of them stays, and with what."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from zoho_token_orm.identity import UNIQUE
from zoho_token_orm.mapping import Fields

_OWN = ("user_name", "client_id")
"""Of rows that differ in one of these, none gets anything of another."""


class Resolved(NamedTuple):
    """Rows without duplicates."""

    rows: list[Fields]
    """The same rows in the same order; those that stay have what they lacked of those that go."""
    stays: list[int]
    """For each row the place of the one that stays: its own, or that of the one which it is in."""


def resolved(rows: Sequence[Fields], unique: Sequence[str] = UNIQUE) -> Resolved:
    """Decides between rows that have a unique value in common: the newest expiry wins.

    What the row that stays lacks, it gets from those of the same user and client that go, newest
    first: so no refresh token is lost that is the only one.

    Args:
        rows: The rows; an expiry is a number, or None, which is older than any.
        unique: The columns of which no two rows may have the same value.
    """
    rows = [dict(row) for row in rows]
    stays = list(range(len(rows)))
    taken: dict[tuple[str, str], int] = {}
    for place in sorted(stays, key=lambda place: _age(rows[place])):
        row = rows[place]
        values = [(column, row[column]) for column in unique if row[column]]
        stays[place] = next((taken[value] for value in values if value in taken), place)
        if stays[place] != place:
            values = _fill(rows[stays[place]], row, taken, unique)
        taken.update(dict.fromkeys(values, stays[place]))
    return Resolved(rows, stays)


def _age(row: Fields) -> tuple[int, int]:
    """The smaller, the newer; of two with the same expiry that one which tells more."""
    return -(row["expiry_time"] or 0), -sum(value is not None for value in row.values())


def _fill(
    row: Fields, other: Fields, taken: dict[tuple[str, str], int], unique: Sequence[str]
) -> list[tuple[str, str]]:
    """Gives a row what it lacks of another one that goes; returns the unique values among that."""
    if any(row[name] and other[name] and row[name] != other[name] for name in _OWN):
        return []
    lacking = [name for name, value in row.items() if not value and other[name]]
    free = [name for name in lacking if name not in unique or (name, other[name]) not in taken]
    row.update({name: other[name] for name in free if name != "expiry_time"})
    if "access_token" in free:
        row["expiry_time"] = other["expiry_time"]
    if free and row["access_token"] and row["refresh_token"] and row["expiry_time"] is None:
        row["expiry_time"] = 0  # to the SDK it would be valid for ever
    return [(name, other[name]) for name in free if name in unique]
