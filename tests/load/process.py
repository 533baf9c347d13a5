"""Processes with a store each, that take orders and answer; they share nothing but the database."""

from __future__ import annotations

import multiprocessing
import os
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from typing import Any

from zoho_token_orm import SQLAlchemyTokenStore

LONGEST = 120.0
"""Seconds after which a process that has not answered hangs."""


@dataclass(frozen=True)
class Desk:
    """What a process works with."""

    store: SQLAlchemyTokenStore
    pipe: Connection
    together: Barrier
    """Where the processes that were started together wait for each other."""


Work = Callable[[Desk, Any], Any]
"""Does what an order asks for, and returns the answer; it may send others before."""

# Each is forked from a process that has imported all this and done nothing else, which is much
# faster than ten interpreters that import the SDK, and as separate.
context: Any = multiprocessing.get_context("forkserver" if hasattr(os, "fork") else "spawn")
if hasattr(os, "fork"):
    context.set_forkserver_preload(["tests.load.warm"])


class Worker:
    """A process that is told what to do over a pipe."""

    def __init__(self, url: str, work: Work, together: Barrier) -> None:
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_take_orders, args=(theirs, url, work, together))
        self.process.start()
        theirs.close()

    def tell(self, order: Any) -> None:
        self.pipe.send(order)

    def answer(self) -> Any:
        assert self.pipe.poll(LONGEST), "the process does not answer"
        answer = self.pipe.recv()
        assert not isinstance(answer, Failure), answer.text
        return answer

    def kill(self) -> list[Any]:
        """Ends the process at once, by SIGKILL; returns what it had answered and nobody read."""
        self.process.kill()
        self.process.join()
        answers: list[Any] = []
        if self.pipe.closed:
            return answers
        try:
            while True:
                answers.append(self.pipe.recv())
        except (EOFError, ConnectionResetError):
            self.pipe.close()
        return answers


class Failure:
    """An exception of the process."""

    def __init__(self) -> None:
        self.text = traceback.format_exc()


def _take_orders(pipe: Connection, url: str, work: Work, together: Barrier) -> None:
    try:
        with SQLAlchemyTokenStore(url, refresh_wait=0) as store:
            desk = Desk(store, pipe, together)
            pipe.send("ready")
            while True:
                answer = work(desk, pipe.recv())
                assert store.engine.pool.checkedout() == 0, "a connection is still checked out"
                pipe.send(answer)
    except BaseException:
        together.abort()  # so that nobody waits there for this one
        pipe.send(Failure())
        raise
