"""What a fork must find: nobody in the middle of a call, and nothing that the child would share."""

from __future__ import annotations

import os
import threading
import weakref
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from sqlalchemy import Dialect, Engine, StaticPool

from zoho_token_orm.database import bounds
from zoho_token_orm.database.urls import is_memory

if TYPE_CHECKING:
    from zoho_token_orm.database.running import Database

in_use: weakref.WeakSet[Database] = weakref.WeakSet()


def _before_fork() -> None:
    for database in list(in_use):
        database.before_fork()


def _after_fork_in_parent() -> None:
    for database in list(in_use):
        database.after_fork_in_parent()


def _after_fork_in_child() -> None:
    _turns.clear()  # another thread of the parent may have held them
    for database in list(in_use):
        database.after_fork_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork,
        after_in_parent=_after_fork_in_parent,
        after_in_child=_after_fork_in_child,
    )


class Gate:
    """Any number of operations at a time pass it; while it is shut, none is inside.

    A handle of SQLite's that is in use at a fork can be neither used nor closed in the child, and
    what a driver has locked then, as OpenSSL does, is locked there for ever.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition(threading.Lock())
        self._inside = 0
        self._shut = 0

    def __enter__(self) -> None:
        with self._changed:
            while self._shut:
                self._changed.wait()
            self._inside += 1

    def __exit__(self, *error: object) -> None:
        with self._changed:
            self._inside -= 1
            if self._shut:
                self._changed.notify_all()

    def shut(self) -> None:
        """Waits until nobody is inside, at most for a time that no operation should take."""
        with self._changed:
            self._shut += 1
            self._changed.wait_for(lambda: not self._inside, bounds.BUSY_TIMEOUT + 1)

    def open(self) -> None:
        """Lets operations pass again."""
        with self._changed:
            self._shut = max(0, self._shut - 1)
            self._changed.notify_all()


def turn(engine: Engine) -> AbstractContextManager[Any]:
    """What operations pass: a lock where all threads are given the same connection."""
    if isinstance(engine.pool, StaticPool):
        return _turns.setdefault(engine.dialect, threading.Lock())  # outlives a pool
    return nullcontext() if is_memory(engine.url) else Gate()


_turns: weakref.WeakKeyDictionary[Dialect, threading.Lock] = weakref.WeakKeyDictionary()
