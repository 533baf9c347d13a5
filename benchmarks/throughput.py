"""How many calls a store answers in a second, for several threads of one process."""

from __future__ import annotations

import itertools
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import NamedTuple

import pyperf  # type: ignore[import-untyped]

from benchmarks.calls import Call, Prepare


class Rate(NamedTuple):
    """Calls that were answered, calls that failed, and in how many seconds."""

    answered: int
    failed: int
    seconds: float

    @property
    def per_second(self) -> float:
        """Calls answered in a second."""
        return self.answered / self.seconds


def rate(prepare: Prepare, threads: int, each: int, seconds: float) -> Rate:
    """Lets threads call a store.

    Args:
        prepare: Prepares calls that can be made again and again.
        threads: How many threads.
        each: How many different calls each of them has.
        seconds: For how long.
    """
    start = threading.Barrier(threads)
    calls = [prepare(each).calls for _ in range(threads)]
    with ThreadPoolExecutor(threads) as pool:
        rates = list(pool.map(lambda own: _rate_of_one(own, start, seconds), calls))
    answered, failed, _ = (sum(values) for values in zip(*rates, strict=True))
    return Rate(answered, failed, max(one.seconds for one in rates))


def _rate_of_one(calls: list[Call], start: threading.Barrier, seconds: float) -> Rate:
    answered = failed = 0
    with suppress(Exception):
        calls[0]()  # opens the thread's connection
    start.wait()
    began = now = pyperf.perf_counter()
    for call in itertools.cycle(calls):
        try:
            call()
            answered += 1
        except Exception:
            failed += 1
        now = pyperf.perf_counter()
        if now - began >= seconds:
            break
    return Rate(answered, failed, now - began)
