"""One refresh for all: a lease on the row whose access token the SDK is about to refresh.

The SDK of every worker refreshes an access token that expires within five seconds, and Zoho limits
how often. So a look-up hands such a token to one caller, who holds a lease on the row meanwhile;
the others wait for what that one saves.
"""

from __future__ import annotations

import logging
import math
import os
import random
import secrets
import threading
import time
from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError
from zohocrmsdk.src.com.zoho.crm.api.exception.sdk_exception import SDKException

from zoho_token_orm.database import Trouble, transaction, trouble
from zoho_token_orm.direct import Found
from zoho_token_orm.statements import REFRESHED, Statements

SDK_MARGIN = 5_000
"""The SDK refreshes an access token with less than these milliseconds to live."""
NEARLY = 100
"""Milliseconds before that moment in which a look-up waits for it, as the SDK looks a bit later."""
LEASE_SHARE = 0.8
"""A lease runs out after this share of its holder's patience: where the holder has died, one of the
waiting refreshes while the others still wait."""
VAIN_SHARE = 0.1
"""The share of the patience that is left with a row after a wait in vain."""
PAUSES = (0.01, 0.25)
"""The first and the longest pause between two looks at the row, in seconds."""
MOST_ROWS = 10_000
"""How many rows' patience is kept."""

LookUp = Callable[[], "Found | None"]

logger = logging.getLogger("zoho_token_orm")


class RefreshLease:
    """Lets one caller of many refresh a row's access token.

    A lease belongs to one thread of one store in one process, which may have it again at once where
    its refresh has failed. It ends with the save of its owner, or runs out. What goes wrong with a
    lease is no error: the caller refreshes by itself then, as it would without.

    Args:
        run: Runs an operation on the database (``Database.run``).
        statements: The statements on the table.
        wait: Seconds that a caller waits for another one's refresh, at most; 0 means that there are
            no leases.
    """

    def __init__(self, run: Callable[..., Any], statements: Statements, wait: float) -> None:
        self._run = run
        self._statements = statements
        self._patience = _Patience(wait)
        self._wait = wait
        self._store = secrets.token_hex(8)

    @property
    def owner(self) -> str:
        """The calling thread, as no other thread, process or store is called."""
        return f"{self._store}.{os.getpid()}.{threading.get_ident()}"

    def settled(self, look_up: LookUp) -> Found | None:
        """The row, with an access token that is valid or that the caller is to refresh.

        Args:
            look_up: Looks the row up; again while another caller refreshes it.
        """
        row = look_up()
        if row is None or not self._wait or not is_due(row):
            return row
        wait = _Wait(self._patience.with_row(row))
        wait.pause(min(NEARLY, _milliseconds_left(row) + 1) / 1000)
        return self._one_of_many(row, look_up, wait)

    def _one_of_many(self, row: Found, look_up: LookUp, wait: _Wait) -> Found | None:
        """The row for the one who is to refresh it; or what another one has saved."""
        found: Found | None = row
        while found is not None and _state(found) == _state(row):
            if self._obtains(found, wait.seconds) or not wait.goes_on():
                if wait.is_in_vain:
                    self._patience.lose(row)
                break
            found = look_up()
        return found

    def _obtains(self, row: Found, patience: float) -> bool:
        """Takes the lease, where nobody else has it; true also where it cannot be had at all."""
        if row.lease_owner not in (None, self.owner) and (row.lease_left or 0) > 0:
            return False
        seconds = patience * LEASE_SHARE
        try:
            taken = self._run("take the refresh lease", lambda c: self._take(c, row, seconds))
        except SDKException as error:
            logger.warning("an access token is refreshed without a lease: %s", error)
            return True
        return bool(taken)

    def _take(self, connection: Connection, row: Found, seconds: float) -> bool:
        try:
            with transaction(connection, waits=False):
                connection.execute(self._statements.lock_at_once, {"row_id": row.id})
                return self._statements.lease(connection, row, self.owner, int(seconds * 1000))
        except DBAPIError as error:
            if trouble(error) is Trouble.COLLISION:  # who writes now may be saving that very token
                return False
            raise


def is_due(row: Found) -> bool:
    """Whether the SDK is about to refresh the row's access token, as ``get_token`` decides."""
    return bool(row.refresh_token) and _milliseconds_left(row) < NEARLY


def _milliseconds_left(row: Found) -> float:
    """How long the SDK will still use the access token; less than 0 where it refreshes it."""
    if not row.access_token:
        return -1
    if row.expiry_time is None:
        return math.inf
    return float(row.expiry_time - SDK_MARGIN - int(time.time() * 1000))


class _Wait:
    """A wait with an end, in pauses that grow."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.is_in_vain = False
        self._end = time.monotonic() + seconds
        self._next, self._longest = PAUSES

    def goes_on(self) -> bool:
        """Pauses, and returns True; False where the time is over."""
        self.is_in_vain = True
        is_left = self.pause(self._next * random.uniform(0.5, 1))  # noqa: S311 - jitter
        self._next = min(self._longest, self._next * 1.5)
        return is_left

    def pause(self, seconds: float) -> bool:
        """Sleeps, not beyond the end; False where the end was there before."""
        left = self._end - time.monotonic()
        time.sleep(max(0.0, min(left, seconds)))
        return left > 0


class _Patience:
    """How long a store waits for the refresh of a row: a tenth as long after a wait in vain.

    A refresh token that its user has revoked, or a Zoho that is away, would have every caller wait
    as long as for a holder that was killed. A tenth is enough for a refresh that works. It is as
    before once somebody has saved the row.
    """

    def __init__(self, seconds: float) -> None:
        self._full = seconds
        self._in_vain: dict[str, int] = {}

    def with_row(self, row: Found) -> float:
        """Seconds to wait for somebody else's refresh of the row as it is now."""
        was_in_vain = self._in_vain.get(row.id) == _state(row)
        return self._full * VAIN_SHARE if was_in_vain else self._full

    def lose(self, row: Found) -> None:
        """Takes note that somebody has waited in vain for the row as it is now."""
        if len(self._in_vain) >= MOST_ROWS:
            self._in_vain.clear()
        self._in_vain[row.id] = _state(row)


def _state(row: Found) -> int:
    return hash((row.refresh_token, *(getattr(row, column) for column in REFRESHED)))
