"""What the store is meant to reach, and whether it has in this run."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator

from benchmarks.calls import FIND, FIND_BY_ID, REFRESH
from benchmarks.results import DB_STORE, DRIVER, STORE, Line, Results

USUAL = (FIND_BY_ID, FIND, REFRESH)
"""The methods that the SDK calls all the time; a first save happens once."""
OVER_DRIVER = 100e-6
"""Seconds on top of the bare driver, at most."""
TIMES_DB_STORE = {"MySQL": 100.0, "MariaDB": 3.0}
"""How many times as fast as DBStore, at least."""
NOISE = 1.25
"""Times that differ by less count as the same."""

Value = Callable[[Line], "float | None"]


def table(results: Results) -> list[str]:
    """The lines of a table: each target, what was measured, whether it is met."""
    rows = [
        *_one_round_trip(results),
        *_over_driver(results),
        *_times_db_store(results),
        *_same_at_any_size(results),
    ]
    return ["| Target | Measured | Met |", "| --- | --- | :-: |", *rows]


def _one_round_trip(results: Results) -> Iterator[str]:
    for method in USUAL:
        counts = [
            (line, line.trips[STORE].per_call)
            for line in _lines(results, method)
            if STORE in line.trips
        ]
        yield from _row(f"one round trip for {method}", counts, "{:g}", lambda _, count: count <= 1)


def _over_driver(results: Results) -> Iterator[str]:
    for method in USUAL:
        target = f"{method}: at most {OVER_DRIVER * 1e6:.0f} µs over the bare driver"
        values = _values(_lines(results, method), lambda line: line.over_driver)
        micros = [(line, value * 1e6) for line, value in values]
        yield from _row(target, micros, "{:.0f} µs", lambda _, value: value <= OVER_DRIVER * 1e6)


def _times_db_store(results: Results) -> Iterator[str]:
    for method in USUAL:
        lines = [line for line in _lines(results, method) if line.database in TIMES_DB_STORE]
        wanted = ", ".join(f"{times:g} times on {name}" for name, times in TIMES_DB_STORE.items())
        values = _values(lines, lambda line: line.times(DB_STORE))
        target = f"{method}: as fast as `DBStore` {wanted}"
        yield from _row(
            target, values, "{:.1f}×", lambda line, value: value >= TIMES_DB_STORE[line.database]
        )


def _same_at_any_size(results: Results) -> Iterator[str]:
    sizes = sorted({line.rows for line in results.lines})
    if len(sizes) < 2:
        return
    for method in USUAL:
        grown = [line for line in _lines(results, method) if line.rows == sizes[-1]]
        target = f"{method}: the same at {sizes[-1]:,} rows as at {sizes[0]:,}"
        of_store = _values(grown, functools.partial(_growth, results, sizes[0], STORE))
        of_driver = _values(grown, functools.partial(_growth, results, sizes[0], DRIVER))
        yield from _row(target, of_store, "{:.2f}×", lambda _, value: value <= NOISE)
        yield from _row(f"(the {DRIVER}, for comparison)", of_driver, "{:.2f}×")


def _growth(results: Results, size: int, who: str, line: Line) -> float | None:
    """How many times as long it takes as at that size."""
    for other in _lines(results, line.method):
        if (other.database, other.rows) == (line.database, size):
            now, then = line.seconds(who), other.seconds(who)
            return now / then if now and then else None
    return None


def _lines(results: Results, method: str) -> list[Line]:
    return [line for line in results.lines if line.method == method]


def _values(lines: Iterable[Line], value: Value) -> list[tuple[Line, float]]:
    return [(line, measured) for line in lines if (measured := value(line)) is not None]


def _row(
    target: str,
    values: list[tuple[Line, float]],
    form: str,
    is_met: Callable[[Line, float], bool] | None = None,
) -> Iterator[str]:
    """A line of the table; none where nothing was measured."""
    if not values:
        return
    met = [is_met is None or is_met(*pair) for pair in values]
    verdict = "yes" if all(met) else f"{sum(met)}/{len(met)}"
    texts = []
    for database in dict.fromkeys(line.database for line, _ in values):
        numbers = [
            _marked(form.format(value), is_fine)
            for (line, value), is_fine in zip(values, met, strict=True)
            if line.database == database
        ]
        texts.append(f"{database} {' / '.join(numbers)}")
    yield f"| {target} | {', '.join(texts)} | {verdict if is_met else ''} |"


def _marked(text: str, is_met: bool) -> str:
    return text if is_met else f"**{text}**"
