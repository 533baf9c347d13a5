"""One refresh for all: a lease on the row whose access token the SDK is about to refresh.

The SDK of every worker refreshes an access token that expires within five seconds, and Zoho limits
how often. So a look-up hands such a token to one caller, who holds a lease on the row meanwhile;
the others wait for what that one saves.
"""

from __future__ import annotations

import logging
import os
import random
import secrets
import threading
import time
from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection, Row
from sqlalchemy.exc import DBAPIError
from zohocrmsdk.src.com.zoho.crm.api.exception.sdk_exception import SDKException

from zoho_token_orm.database import Database, Trouble, at_once, trouble
from zoho_token_orm.statements import REFRESHED, Statements

SDK_MARGIN = 5_000
"""The SDK refreshes an access token with less than these milliseconds to live."""
NEARLY = 100
"""Milliseconds before that moment in which a look-up waits for it, as the SDK looks a bit later."""
LEASE_SHARE = 0.8
"""A lease runs out after this share of ``refresh_wait``: where its holder has died, one of the
waiting refreshes while the others still wait."""
PAUSES = (0.01, 0.25)
"""The first and the longest pause between two looks at the row, in seconds."""
MOST_ROWS = 10_000
"""How many rows' patience is kept."""

LookUp = Callable[[], "Row[Any] | None"]

logger = logging.getLogger("zoho_token_orm")


class RefreshLease:
    """Lets one caller of many refresh a row's access token.

    A lease belongs to one thread of one store in one process, which may have it again at once where
    its refresh has failed. It ends with the save of its owner, or runs out. What goes wrong with a
    lease is no error: the caller refreshes by itself then, as it would without.

    Args:
        database: Where the rows are.
        statements: The statements on the table.
        wait: Seconds that a caller waits for another one's refresh; 0 means that there are no
            leases.
    """

    def __init__(self, database: Database, statements: Statements, wait: float) -> None:
        self._database = database
        self._statements = statements
        self._wait = wait
        self._patience = _Patience(wait)
        self._store = secrets.token_hex(8)

    @property
    def owner(self) -> str:
        """The calling thread, as no other thread, process or store is called."""
        return f"{self._store}.{os.getpid()}.{threading.get_ident()}"

    def settled(self, look_up: LookUp) -> Row[Any] | None:
        """The row, with an access token that is valid or that the caller is to refresh.

        Args:
            look_up: Looks the row up; again while another caller refreshes it.
        """
        row = look_up()
        if row is None or not self._wait or not is_due(row):
            return row
        time.sleep(max(0, _milliseconds_left(row) + 1) / 1000)
        return self._one_of_many(row, look_up)

    def _one_of_many(self, row: Row[Any], look_up: LookUp) -> Row[Any] | None:
        wait = _Wait(self._patience.with_row(row))
        found: Row[Any] | None = row
        while found is not None and is_due(found):
            if self._obtains(found) or not wait.goes_on():
                if wait.has_waited:
                    self._patience.lose(found, wait.seconds)
                return found
            found = look_up()
        return found

    def _obtains(self, row: Row[Any]) -> bool:
        """Takes the lease, where nobody else has it; true also where it cannot be had at all."""
        if row.lease_owner not in (None, self.owner) and (row.lease_left or 0) > 0:
            return False
        try:
            return self._database.run("take the refresh lease", lambda c: self._take(c, row))
        except SDKException as error:
            logger.warning("an access token is refreshed without a lease: %s", error)
            return True

    def _take(self, connection: Connection, row: Row[Any]) -> bool:
        values = {f"seen_{column}": getattr(row, column) for column in REFRESHED}
        milliseconds = int(self._wait * LEASE_SHARE * 1000)
        values.update(row_id=row.id, owner=self.owner, milliseconds=milliseconds)
        try:
            with at_once(connection):
                return connection.execute(self._statements.lease, values).rowcount > 0
        except DBAPIError as error:
            if trouble(error) is Trouble.COLLISION:  # who writes now may be saving that very token
                return False
            raise


def is_due(row: Row[Any]) -> bool:
    """Whether the SDK is about to refresh the row's access token, as ``get_token`` decides."""
    if not row.refresh_token:
        return False
    if not row.access_token:
        return True
    return row.expiry_time is not None and _milliseconds_left(row) < NEARLY


def _milliseconds_left(row: Row[Any]) -> int:
    """How long the SDK will still use the access token; less than 0 where it refreshes it."""
    if not row.access_token or row.expiry_time is None:
        return -1
    left: int = row.expiry_time - SDK_MARGIN - int(time.time() * 1000)
    return left


class _Wait:
    """A wait with an end, in pauses that grow."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.has_waited = False
        self._end = time.monotonic() + seconds
        self._pause, self._longest = PAUSES

    def goes_on(self) -> bool:
        """Pauses, and returns True; False where the time is over."""
        left = self._end - time.monotonic()
        if left <= 0:
            return False
        time.sleep(min(left, self._pause * random.uniform(0.5, 1)))  # noqa: S311 - jitter
        self._pause = min(self._longest, self._pause * 1.5)
        self.has_waited = True
        return True


class _Patience:
    """How long a store waits for the refresh of a row: half as long after each wait in vain.

    A refresh token that its user has revoked, or a Zoho that is away, would have every caller wait
    as long as for a holder that was killed. It is as before once somebody has saved the row.
    """

    def __init__(self, seconds: float) -> None:
        self._full = seconds
        self._rows: dict[str, tuple[int, float]] = {}

    def with_row(self, row: Row[Any]) -> float:
        """Seconds to wait for somebody else's refresh of the row as it is now."""
        state, seconds = self._rows.get(row.id, (0, 0.0))
        return seconds if state == _state(row) else self._full

    def lose(self, row: Row[Any], had: float) -> None:
        """Takes note that somebody has waited in vain, with a patience of so many seconds."""
        if len(self._rows) >= MOST_ROWS:
            self._rows.clear()
        self._rows[row.id] = (_state(row), had / 2)


def _state(row: Row[Any]) -> int:
    return hash((row.refresh_token, *(getattr(row, column) for column in REFRESHED)))
