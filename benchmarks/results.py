"""What has been measured, as the report needs it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from benchmarks.throughput import Rate
from benchmarks.timing import Timing

STORE = "SQLAlchemyTokenStore"
DRIVER = "bare driver"
FILE_STORE = "FileStore"
DB_STORE = "DBStore"


class Trips(NamedTuple):
    """Round trips of a call, and how long it takes where each is delayed."""

    per_call: float
    timing: Timing


@dataclass
class Line:
    """A method on a database of some size: what was measured, by who was."""

    database: str
    rows: int
    method: str
    timings: dict[str, Timing] = field(default_factory=dict)
    trips: dict[str, Trips] = field(default_factory=dict)
    rates: dict[str, dict[int, Rate]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The line, in one text."""
        return f"{self.database}, {self.rows} rows, {self.method.replace('`', '')}:"

    def seconds(self, who: str) -> float | None:
        """How long a call takes; None where it was not measured or fails."""
        timing = self.timings.get(who)
        return timing.seconds if timing and timing.benchmark else None

    @property
    def over_driver(self) -> float | None:
        """How many seconds the store takes more than the bare driver."""
        store, driver = self.seconds(STORE), self.seconds(DRIVER)
        return None if store is None or driver is None else store - driver

    def times(self, who: str) -> float | None:
        """How many times as long another one takes as the store."""
        store, other = self.seconds(STORE), self.seconds(who)
        return None if store is None or other is None else other / store


@dataclass
class Results:
    """All lines, what the floor is, what they were measured on, and what is not there."""

    lines: list[Line] = field(default_factory=list)
    floor: dict[str, Timing] = field(default_factory=dict)
    setting: dict[str, str] = field(default_factory=dict)
    absent: list[str] = field(default_factory=list)

    def benchmarks(self) -> list[Any]:
        """All that was timed, as pyperf has it; each once."""
        timings = [*self.floor.values()]
        for line in self.lines:
            timings += line.timings.values()
            timings += (trips.timing for trips in line.trips.values())
        found = {
            timing.benchmark.get_name(): timing.benchmark for timing in timings if timing.benchmark
        }
        return list(found.values())
