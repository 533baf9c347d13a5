"""How long calls take, by the clock and the statistics of pyperf."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyperf  # type: ignore[import-untyped]
from zohocrmsdk.src.com.zoho.crm.api.exception.sdk_exception import SDKException

from benchmarks.calls import Prepare

VALUE_SECONDS = 0.02
"""How long the calls of one value take together, at least."""
MOST_CALLS = 200
"""How many calls make one value, at most."""
MOST_VALUES = 25
"""How many values are taken, at most."""


@dataclass(frozen=True)
class Timing:
    """How long a call takes; or why it could not be measured.

    Attributes:
        benchmark: The values, as a ``pyperf.Benchmark``.
        failure: What the call raised.
    """

    benchmark: Any = None
    failure: str = ""

    @property
    def seconds(self) -> float:
        """The median; infinite where the call fails."""
        return float(self.benchmark.median()) if self.benchmark else math.inf

    @property
    def spread(self) -> float:
        """The median absolute deviation, in seconds."""
        return float(self.benchmark.median_abs_dev()) if self.benchmark else 0.0

    @property
    def is_single(self) -> bool:
        """Whether it is the time of one call."""
        return bool(self.benchmark) and int(self.benchmark.get_nvalue()) == 1 == self._loops

    @property
    def _loops(self) -> int:
        return int(self.benchmark.get_metadata()["loops"])


class _Series:
    """The values of one contender."""

    def __init__(self, name: str, prepare: Prepare) -> None:
        self._name = name
        self._prepare = prepare
        self._loops = 1
        self._warm_up = 0.0
        self._values: list[float] = []
        self._failure = ""
        self.is_done = False

    def warm_up(self, longest: float) -> None:
        """Makes some calls, and finds out how many of them make a value.

        A call that takes longer than that many seconds is made once.
        """
        self._warm_up = self._time(1)
        if self._warm_up > longest:
            self._values.append(self._warm_up)
            self.is_done = True
        else:
            once = self._time(3)
            self._loops = max(1, min(MOST_CALLS, math.ceil(VALUE_SECONDS / max(once, 1e-6))))

    def add(self) -> None:
        """Takes one value, unless there are enough."""
        if not self.is_done:
            value = self._time(self._loops)
            if not self.is_done:
                self._values.append(value)
        self.is_done = self.is_done or len(self._values) >= MOST_VALUES

    def _time(self, count: int) -> float:
        """Seconds for each of that many calls."""
        try:
            prepared = self._prepare(count)
            calls = prepared.calls
            start = pyperf.perf_counter()
            for call in calls:
                call()
            seconds = float(pyperf.perf_counter() - start) / len(calls)
            prepared.undo()
        except SDKException as error:
            self._failure, self.is_done = reason(error), True
            return math.inf
        return seconds

    def timing(self) -> Timing:
        """What has been measured."""
        if self._failure or not self._values:
            return Timing(failure=self._failure or "not measured")
        run = pyperf.Run(
            self._values,
            warmups=[(1, self._warm_up)],
            metadata={"name": self._name, "loops": self._loops},
            collect_metadata=False,
        )
        return Timing(pyperf.Benchmark([run]))


def reason(error: SDKException) -> str:
    """What a store's exception is about, in one line."""
    cause = getattr(error, "cause", None) or error
    return " ".join(str(cause).split())


def measure(name: str, contenders: Mapping[str, Prepare], seconds: float) -> dict[str, Timing]:
    """Measures contenders in turns, so that what slows the machine down slows all of them.

    Args:
        name: What is measured, for the file of all values.
        contenders: Those to compare, by name.
        seconds: How long to go on. A call that takes half as long is made only once.
    """
    series = {who: _Series(f"{name} {who}", prepare) for who, prepare in contenders.items()}
    for each in series.values():
        each.warm_up(seconds / 2)
    end = pyperf.perf_counter() + seconds
    while not all(each.is_done for each in series.values()):
        for each in series.values():
            each.add()
        if pyperf.perf_counter() >= end:
            break
    return {who: each.timing() for who, each in series.items()}
