"""Rows of a source into a store: which are new, which are newer, which are there already."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path
from typing import NamedTuple

from sqlalchemy import URL, Connection, Engine
from sqlalchemy.exc import SQLAlchemyError
from zohocrmsdk.src.com.zoho.crm.api.exception.sdk_exception import SDKException

from zoho_token_orm.database import Trouble, fresh_plans, transaction, trouble
from zoho_token_orm.encryption import KEYS_VARIABLE
from zoho_token_orm.errors import token_store_error
from zoho_token_orm.mapping import Fields
from zoho_token_orm.models import DEFAULT_TABLE_NAME, stored_table
from zoho_token_orm.store import SQLAlchemyTokenStore
from zoho_token_orm.transfer.files import read_file
from zoho_token_orm.transfer.merging import (
    Outcome,
    Settled,
    View,
    contradiction,
    is_bare,
    one_each,
    turn,
)
from zoho_token_orm.transfer.records import Contents, Record, Refusal
from zoho_token_orm.transfer.tables import is_same_table, read_table
from zoho_token_orm.transfer.writing import Decision, Target

CHUNK = 500
"""How many rows are read, decided and written at a time: whoever saves one waits for that long."""
MOST_TRIES = 3
"""How often a chunk is tried in whole where others write meanwhile, before it is halved."""

MOST_PASSES = 10
"""How often rows are settled again that others may have changed meanwhile."""

_AMBIGUOUS = "it has only an access token, which rows of several authorizations have"

Progress = Callable[[int, int], None]


@dataclass
class ImportSummary:
    """What became of the rows of a source; each is counted once."""

    new: int = 0
    """Rows of which the target had none of the same authorization."""
    updated: int = 0
    """Rows that were newer than the target's row, or had what that one lacked."""
    merged: int = 0
    """Rows that went into another one of the source, or made one of several in the target."""
    unchanged: int = 0
    """Rows of which the target has everything already, or something newer."""
    refused: list[Refusal] = field(default_factory=list)
    """Rows that were not stored, and why."""
    renumbered: list[tuple[str, str]] = field(default_factory=list, compare=False)
    """Of new rows whose id another row has: that id, and the new one."""

    def __str__(self) -> str:
        """One line for people."""
        counts = f"{self.new} new, {self.updated} updated, {self.merged} merged"
        total = self.new + self.updated + self.merged + self.unchanged + len(self.refused)
        return f"{total} rows: {counts}, {self.unchanged} unchanged, {len(self.refused)} refused"

    def count(self, outcome: Outcome, number: int = 1) -> None:
        """Counts rows of the source."""
        setattr(self, outcome.value, getattr(self, outcome.value) + number)


def import_tokens(
    store: SQLAlchemyTokenStore,
    source: str | os.PathLike[str] | URL | Engine,
    *,
    table_name: str = DEFAULT_TABLE_NAME,
    source_keys: str | Sequence[str] | None = None,
    dry_run: bool = False,
    on_progress: Progress | None = None,
) -> ImportSummary:
    """Brings the tokens of another store into this one; doing it twice is as doing it once.

    Rows are of one authorization where they have the user, the grant, the refresh or the access
    token in common. Of those the newest expiry wins, and gets what it lacks of the others of the
    same user and client. Of two clients of one user the older is refused, and so are a row whose
    refresh or grant token is another user's, one that names nobody but has a token of a user's at
    another client, and one with nothing but an access token that several have. A row of the store
    keeps its id, and a new one gets that of the source unless another row has it. The source is
    only read, and is held in memory. The workers of both may go on, but what those of the source
    save later is not seen. Interrupted, what is done stays done.

    Args:
        store: Where to.
        source: FileStore's file (a path), or a database (a URL or an engine).
        table_name: The source's table, where it is a database.
        source_keys: The encryption keys of the source, where it is a table of this store's own, as
            ``encryption_keys`` of the store; None means the environment variable
            ``ZOHO_TOKEN_SOURCE_ENCRYPTION_KEYS``.
        dry_run: Whether to decide everything and write nothing.
        on_progress: Is told how many rows are done, of how many, after some hundreds.

    Returns:
        What became of the rows, or would become of them.

    Raises:
        ValueError: An argument cannot be used.
        SDKException: The source is not what it seems, a database did not answer, or the store has
            encrypted rows and no key.
    """
    contents = _contents(store, source, table_name, source_keys)
    return _Import(store, dry_run)(contents, on_progress or (lambda done, total: None))


def _contents(
    store: SQLAlchemyTokenStore,
    source: str | os.PathLike[str] | URL | Engine,
    table_name: str,
    source_keys: str | Sequence[str] | None,
) -> Contents:
    if isinstance(source, os.PathLike) or (isinstance(source, str) and "://" not in source):
        return read_file(Path(source))
    if is_same_table(source, table_name, store.engine, store._database.table_name):
        raise token_store_error("the source and the target are the same table")
    return read_table(source, table_name, source_keys)


class _Row(NamedTuple):
    """A row of the source, of which there is only one for its authorization."""

    where: str
    fields: Fields
    place: int
    """Where it stands among the others in the source."""

    def __repr__(self) -> str:
        """Nothing of what it holds."""
        return "_Row()"


class _Import:
    """One run of an import.

    Args:
        store: Where to.
        is_dry: Whether nothing is written.
    """

    def __init__(self, store: SQLAlchemyTokenStore, is_dry: bool) -> None:
        self._run = store._run
        self._statements = store._statements
        self._target = Target(stored_table(store._database.table_name), store._statements)
        self._is_dry = is_dry
        self._pretended = View()
        self._gone: set[str] = set()
        self._summary = ImportSummary()
        self._settled_by_place: dict[int, Settled] = {}
        self._merged: dict[int, list[str]] = defaultdict(list)
        """By place, which rows of the source went into that one."""
        self._is_changed = False
        self._now = datetime.now(timezone.utc)
        """When new rows are created, in the order of the source."""

    def __call__(self, contents: Contents, on_progress: Progress) -> ImportSummary:
        """Imports the rows.

        Args:
            contents: What the source holds.
            on_progress: Is told how many rows are done, of how many.
        """
        self._run("look for encrypted rows", self._require_keys)
        self._summary.refused.extend(contents.refusals)
        rows = self._rows(self._storable(contents.records))
        self._settle_all(rows, on_progress)
        for _ in range(MOST_PASSES):
            doubtful = self._doubtful(rows)
            if not doubtful or not self._settle_all(doubtful, lambda done, total: None):
                break
        for row in rows:
            self._note(row, self._settled_by_place[row.place])
        return self._summary

    def _require_keys(self, connection: Connection) -> None:
        if not self._statements.has_keys and self._statements.is_any_encrypted(connection):
            raise token_store_error(
                "the target holds encrypted rows, and no key is given: set "
                f"{KEYS_VARIABLE}, or encryption_keys"
            )

    def _doubtful(self, rows: Sequence[_Row]) -> list[_Row]:
        """Those that may be settled otherwise once the others are."""
        holders = Counter(row.fields["access_token"] for row in rows)
        return [
            row
            for row in rows
            if self._settled_by_place[row.place].is_doubtful
            or (row.fields["access_token"] and holders[row.fields["access_token"]] > 1)
        ]

    def _settle_all(self, rows: Sequence[_Row], on_progress: Progress) -> bool:
        """Settles rows, some hundreds at a time; returns whether anything was changed."""
        self._is_changed = False
        for start in range(0, len(rows), CHUNK):
            chunk = rows[start : start + CHUNK]
            self._settle(chunk)
            on_progress(start + len(chunk), len(rows))
        return self._is_changed

    def _storable(self, records: Sequence[Record]) -> list[Record]:
        """Those that fit the target encrypted, too."""
        storable = []
        for record in records:
            try:
                self._statements.check(record.fields)
                storable.append(record)
            except SDKException as error:
                self._summary.refused.append(Refusal(record.where, str(error.error_message)))
        return storable

    def _rows(self, records: Sequence[Record]) -> list[_Row]:
        """One row for each authorization, in the order in which they are settled."""
        result = one_each([record.fields for record in records])
        known = {each.fields["access_token"] for each in records if not is_bare(each.fields)}
        rows = []
        for place, (record, stay) in enumerate(zip(records, result.stays, strict=True)):
            row = result.rows[stay]
            if is_bare(row) and row["access_token"] in known:
                self._summary.refused.append(Refusal(record.where, _AMBIGUOUS))
            elif place == stay:
                rows.append(_Row(record.where, row, place))
            elif reason := contradiction(record.fields, row):
                self._summary.refused.append(Refusal(record.where, reason))
            else:
                self._merged[stay].append(record.where)
        return sorted(rows, key=lambda row: turn(row.fields))

    def _settle(self, rows: Sequence[_Row]) -> None:
        """Decides upon some rows and writes them: in whole, or in halves where that fails."""
        settled = None
        if len(rows) == 1:
            settled = self._run("import a token", partial(self._settled_or_refused, rows=rows))
        for _ in range(MOST_TRIES):
            if settled is None:
                settled = self._run("import tokens", partial(self._tried, rows=rows))
        if settled is None:
            middle = len(rows) // 2
            self._settle(rows[:middle])
            self._settle(rows[middle:])
            return
        for row, each in zip(rows, settled, strict=True):
            self._is_changed |= each.outcome not in (Outcome.UNCHANGED, Outcome.REFUSED)
            earlier = self._settled_by_place.get(row.place)
            self._settled_by_place[row.place] = each if earlier is None else earlier.then(each)

    def _note(self, row: _Row, settled: Settled) -> None:
        id, merged = row.fields["id"], self._merged[row.place]
        if settled.outcome is Outcome.REFUSED:
            refused = (Refusal(where, settled.reason) for where in (row.where, *merged))
            self._summary.refused.extend(refused)
            return
        self._summary.count(settled.outcome)
        self._summary.count(Outcome.MERGED, len(merged))
        if settled.outcome is Outcome.NEW and id and id != settled.id:
            self._summary.renumbered.append((id, settled.id))

    def _tried(self, connection: Connection, rows: Sequence[_Row]) -> list[Settled] | None:
        """The same; None, with nothing written, where that may succeed later, or in parts.

        Somebody has written meanwhile, or no key opens a row of the target that is concerned.
        """
        try:
            return self._settled(connection, rows)
        except SDKException:
            return None
        except SQLAlchemyError as error:
            if trouble(error) is not Trouble.COLLISION:
                raise
            return None

    def _settled_or_refused(self, connection: Connection, rows: Sequence[_Row]) -> list[Settled]:
        """The same for a single row, which is refused where a row of the target is unreadable."""
        try:
            return self._settled(connection, rows)
        except SDKException as error:
            reason = f"in the target, {error.error_message}"
            return [Settled(Outcome.REFUSED, "", reason) for _ in rows]

    def _settled(self, connection: Connection, rows: Sequence[_Row]) -> list[Settled]:
        if self._is_dry:
            return self._decided(connection, rows, self._pretended).settled
        if self._statements.has_several_forms:  # no constraint tells of what is inserted meanwhile
            with transaction(connection, serializable=True):
                decision = self._decided(connection, rows, View(self._gone))
                self._target.write(connection, decision)
        else:
            decision = self._decided(connection, rows, View(self._gone))
            if decision.changes:
                with transaction(connection):
                    self._target.write(connection, decision)
        self._gone.update(id for id, row in decision.changes.items() if row is None)
        return decision.settled

    def _decided(self, connection: Connection, rows: Sequence[_Row], view: View) -> Decision:
        """What is to become of the rows, and of those of the target that are concerned."""
        fields = [row.fields for row in rows]
        ids = [each["id"] for each in fields if each["id"]]
        with fresh_plans(connection):  # the table grows from one chunk to the next
            seen = self._target.rows(connection, fields)
            taken = self._target.ids(connection, ids)
        view.load([row.fields for row in seen.values()], taken)
        settled = [view.settle(each) for each in fields]
        created_at = {
            each.id: self._now + timedelta(microseconds=row.place)
            for each, row in zip(settled, rows, strict=True)
            if each.outcome is not Outcome.REFUSED
        }
        return Decision(settled, view.changes, seen, created_at)
