"""What becomes of the target's rows: decided here in Python, for a dry run as for a real one."""

from __future__ import annotations

import enum
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from zoho_token_orm.duplicates import Resolved, resolved
from zoho_token_orm.identity import ORDER, UNIQUE
from zoho_token_orm.mapping import COLUMNS, Fields
from zoho_token_orm.saving import new_id

NAMES = tuple(name for name in ORDER if name != "id")
"""The columns by which rows of two databases are told to be one authorization, most telling first.

Not the id: stores number their rows, so that those of two databases have the same ids by chance.
"""
MOST_STEPS = 10
"""How often a row is settled, so that contradictions in the target end somewhere."""
_ACCESS = "access"
"""The access token as far as it tells one authorization."""
_TELLING = ("client_id", *UNIQUE)
"""The columns in which two rows differ only if they are of different authorizations."""
MOST_HOLDERS = 10
"""Of how many rows with one access token each is compared; as many stay apart only where it tells
nothing, so that of more those suffice that differ in nothing else that tells."""
_ALL = "all"
"""What all rows have in common that are told to be one."""


class Outcome(enum.Enum):
    """What became of one row of a source."""

    NEW = "new"
    UPDATED = "updated"
    MERGED = "merged"
    UNCHANGED = "unchanged"
    REFUSED = "refused"


def one_each(rows: Sequence[Fields]) -> Resolved:
    """Decides between rows of one authorization (``duplicates.resolved``).

    They have the user, the grant token, the refresh token or the access token in common. An access
    token tells nothing where rows that have it differ in any of the others, as stores leave them
    that have given one user's access token to others.
    """
    groups = defaultdict(list)
    for row in rows:
        groups[row["access_token"]].append(row)
    doubtful = {token for token, group in groups.items() if not _may_be_one(group)}
    keyed = [{**row, _ACCESS: _access(row, row["access_token"] in doubtful)} for row in rows]
    return _resolved(keyed, (*UNIQUE, _ACCESS))


def all_one(rows: Sequence[Fields]) -> Resolved:
    """The same for rows that are known to be of one authorization, whatever they have in common."""
    return _resolved([{**row, _ALL: _ALL} for row in rows], (*UNIQUE, _ALL))


def _resolved(rows: Sequence[Fields], unique: Sequence[str]) -> Resolved:
    result = resolved(rows, unique)
    return Resolved([{name: row[name] for name in COLUMNS} for row in result.rows], result.stays)


def _access(row: Fields, is_doubtful: bool) -> str | None:
    token: str | None = row["access_token"]
    return _telling(row) if token and is_doubtful else token


def _telling(row: Fields) -> str:
    """The access token, with all in which rows of other authorizations differ."""
    return "\0".join(row[name] or "" for name in ("access_token", *_TELLING))


def _names(row: Fields) -> Iterator[tuple[str, str]]:
    """What a row is looked up by."""
    for name in NAMES:
        if row[name]:
            yield name, row[name]
    if row["access_token"]:
        yield _ACCESS, _telling(row)


def _has_unique_in_common(row: Fields, other: Fields) -> bool:
    """Whether they are one authorization whatever their access tokens are."""
    return any(row[name] and row[name] == other[name] for name in UNIQUE)


def turn(row: Fields) -> tuple[bool, int, int]:
    """When a row of the source is settled, so that doing it twice is as doing it once.

    The newest first: what an older row finds taken, a newer one would give up afterwards in any
    other order. Those that have nothing but an access token last: it goes when rows become one.
    """
    return (
        is_bare(row),
        -(row["expiry_time"] or 0),
        -sum(row[name] is not None for name in COLUMNS[1:]),
    )


def is_bare(row: Fields) -> bool:
    """Whether it has an access token at most, and nothing that tells whose."""
    return not any(row[name] for name in UNIQUE)


def _may_be_one(rows: Sequence[Fields]) -> bool:
    """Whether nothing tells that they are of different authorizations."""
    return len(rows) < 2 or all(
        len({row[name] for row in rows if row[name]}) < 2 for name in _TELLING
    )


def contradiction(row: Fields, other: Fields) -> str | None:
    """Why a row must not go into another one, though they have something in common; else None."""
    if _differ(row, other, "user_name"):
        return "its token is also that of another user, whose row is newer"
    if _differ(row, other, "client_id"):
        is_known = row["user_name"] and row["user_name"] == other["user_name"]
        who = "the same user has" if is_known else "its token is also in"
        return f"{who} a newer row of another client"
    return None


def _objection(row: Fields, concerned: Iterable[Fields], result: Fields) -> str | None:
    """Why a row of the source must not bring rows of the target into that one; else None."""
    for other in concerned:
        if _differ(other, result, "user_name"):
            return "its tokens are those of rows of two users"
        if other["user_name"] and not result["user_name"]:
            return "its token is also that of a user's row, at another client"
    return contradiction(row, result)


def _differ(row: Fields, other: Fields, name: str) -> bool:
    return bool(row[name] and other[name] and row[name] != other[name])


class Settled(NamedTuple):
    """What became of one row of a source."""

    outcome: Outcome
    id: str
    """The id of the row that it is in; its own where it was refused."""
    reason: str = ""
    """Why it was refused."""
    is_doubtful: bool = False
    """Whether it may be settled otherwise once others are."""

    def then(self, later: Settled) -> Settled:
        """What became of it, where it has been settled again."""
        is_new = self.outcome is Outcome.NEW and later.outcome is Outcome.UPDATED
        is_same = is_new or later.outcome in (Outcome.UNCHANGED, Outcome.REFUSED)
        return self if is_same and self.outcome is not Outcome.REFUSED else later


class View:
    """The rows of a target that are concerned: as the database has them, and as they are to be.

    Args:
        taken: Ids that no new row is to get.

    Attributes:
        changes: What is to be written, by id: a row, or None for one that goes.
    """

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self._rows: dict[str, Fields] = {}
        self.changes: dict[str, Fields | None] = {}
        self._ids_by_name: dict[tuple[str, str], dict[str, None]] = defaultdict(dict)
        self._taken = set(taken)

    def load(self, rows: Iterable[Fields], ids: Iterable[str]) -> None:
        """Takes in what the database has; what is already known stays as it is to be.

        Args:
            rows: Rows, oldest first.
            ids: The ids that are taken by these or other rows.
        """
        self._taken.update(ids)
        for row in rows:
            if row["id"] not in self._rows and row["id"] not in self.changes:
                self._set(row)

    def settle(self, fields: Fields) -> Settled:
        """Decides what becomes of one row of the source, and of the rows of the target.

        Until nothing changes any more: what has changed may have to go into one with another row.
        """
        concerned = self._concerned(fields)
        if not concerned:
            return self._add(fields)
        is_doubtful = len(concerned) > 1 or not _has_unique_in_common(fields, concerned[0])
        settled = self._settle(fields)
        outcome = settled.outcome
        for _ in range(MOST_STEPS):
            if settled.outcome in (Outcome.UNCHANGED, Outcome.REFUSED):
                break
            settled = self._settle(fields)
            outcome = Outcome.MERGED if settled.outcome is Outcome.MERGED else outcome
        is_doubtful |= settled.outcome is Outcome.REFUSED
        return settled._replace(outcome=outcome, is_doubtful=is_doubtful)

    def _settle(self, fields: Fields) -> Settled:
        concerned = self._concerned(fields)
        if any(_differ(row, fields, "user_name") for row in self._holding(fields)):
            reason = "its refresh or grant token is that of another user's row"
            return Settled(Outcome.REFUSED, fields["id"] or "", reason)
        rows = [{**row, "id": None} for row in (*concerned, fields)]
        result = all_one(rows) if len(rows) > 2 and _may_be_one(rows) else one_each(rows)
        home = result.stays[-1]
        places = [place for place in range(len(concerned)) if result.stays[place] == home]
        if not places:
            return self._add(fields)
        going_in = [concerned[place] for place in places]
        if objection := _objection(fields, going_in, result.rows[home]):
            return Settled(Outcome.REFUSED, fields["id"] or "", objection)
        first = home if home < len(concerned) else places[0]
        kept = concerned[first]["id"]
        going = [concerned[place]["id"] for place in places if place != first]
        return Settled(self._unite({**result.rows[home], "id": kept}, going), kept)

    def _add(self, fields: Fields) -> Settled:
        row = {**fields, "id": self._free_id(fields["id"])}
        self._put(row)
        return Settled(Outcome.NEW, row["id"])

    def _unite(self, row: Fields, going: Sequence[str]) -> Outcome:
        """Makes a row what it is to be; others have gone into it."""
        for id in going:
            self._forget(id)
            self.changes[id] = None
        is_changed = row != self._rows[row["id"]]
        if is_changed:
            self._forget(row["id"])
            self._put(row)
        if going:
            return Outcome.MERGED
        return Outcome.UPDATED if is_changed else Outcome.UNCHANGED

    def _holding(self, fields: Fields) -> list[Fields]:
        """The rows that have its refresh or grant token."""
        values = [(name, fields[name]) for name in ("refresh_token", "grant_token") if fields[name]]
        return [self._rows[id] for value in values for id in self._ids_by_name.get(value, ())]

    def _concerned(self, fields: Fields) -> list[Fields]:
        """The rows that may be of the same authorization, those first that are named first."""
        values = [(name, fields[name]) for name in NAMES if fields[name]]
        ids = [id for value in values for id in self._holders(fields, value)]
        return [self._rows[id] for id in dict.fromkeys(ids)]

    def _holders(self, fields: Fields, value: tuple[str, str]) -> Iterable[str]:
        """The ids of the rows that have a value, by the column's name."""
        ids = self._ids_by_name.get(value, {})
        if value[0] == "access_token" and len(ids) > MOST_HOLDERS:
            return self._ids_by_name.get((_ACCESS, _telling(fields)), {})
        return ids

    def _free_id(self, id: str | None) -> str:
        while id is None or id in self._taken:
            id = new_id()
        return id

    def _put(self, row: Fields) -> None:
        self.changes[row["id"]] = row
        self._set(row)

    def _set(self, row: Fields) -> None:
        self._rows[row["id"]] = row
        self._taken.add(row["id"])
        for value in _names(row):
            self._ids_by_name[value][row["id"]] = None

    def _forget(self, id: str) -> None:
        row = self._rows.pop(id)
        for value in _names(row):
            del self._ids_by_name[value][id]
