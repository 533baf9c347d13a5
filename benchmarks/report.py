"""Measures the store beside the bare driver and the SDK's stores, and writes the results.

results.md is the table, results.json has all values (pyperf reads it), and README.md says on what
was measured, what the floor is and which targets are met.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pyperf  # type: ignore[import-untyped]

from benchmarks import targets
from benchmarks.results import DB_STORE, DRIVER, FILE_STORE, STORE, Line, Results
from benchmarks.throughput import Rate
from benchmarks.timing import Timing

if TYPE_CHECKING:
    from benchmarks.suite import Plan

HERE = Path(__file__).resolve().parent
START, END = "<!-- measured -->", "<!-- /measured -->"
NONE = "—"


def table(results: Results, plan: Plan) -> str:
    """The one table: a line for each database, size and method."""
    columns = _columns(plan)
    lines = [
        _row(columns),
        _row(["---", "--:", "---", *["--:"] * (len(columns) - 3)]),
        *(_row(_cells(line, plan)) for line in results.lines),
    ]
    return "\n".join(lines)


def _columns(plan: Plan) -> list[str]:
    delay = f"{plan.delay * 1000:g} ms away"
    threads = " / ".join(map(str, plan.threads))
    return [
        *("Database", "Rows", "Method"),
        *(f"`{STORE}`", "Bare driver", "Over the driver", f"`{FILE_STORE}`", f"`{DB_STORE}`"),
        *("Round trips", f"`{DB_STORE}`'s", f"Server {delay}", f"`{DB_STORE}`'s"),
        *(f"Calls/s with {threads} threads", f"`{DB_STORE}`'s", f"`{FILE_STORE}`'s"),
    ]


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cells(line: Line, plan: Plan) -> list[str]:
    over = line.over_driver
    return [
        *(line.database, f"{line.rows:,}", line.method),
        *(_timing(line, STORE), _timing(line, DRIVER)),
        NONE if over is None else f"{over * 1e6:+.0f} µs",
        *(_timing(line, FILE_STORE), _timing(line, DB_STORE)),
        *(_count(line, STORE), _count(line, DB_STORE)),
        *(_delayed(line, STORE), _delayed(line, DB_STORE)),
        *(_rates(line.rates.get(who), plan) for who in (STORE, DB_STORE, FILE_STORE)),
    ]


def _timing(line: Line, who: str) -> str:
    """The median and its spread; of the SDK's stores, also how many times as long it takes."""
    timing = line.timings.get(who)
    if timing is None:
        return NONE
    text = _spread(timing)
    times = line.times(who) if who in (FILE_STORE, DB_STORE) else None
    return text if times is None else f"{text} ({_rounded(times)}×)"


def _spread(timing: Timing) -> str:
    if timing.benchmark is None:
        return f"fails: {timing.failure}".replace("|", "/")
    if timing.is_single:
        return f"{_time(timing.seconds)}, once"
    return f"{_time(timing.seconds)} ± {_time(timing.spread)}"


def _time(seconds: float) -> str:
    if seconds >= 1:
        return f"{seconds:.1f} s"
    if seconds >= 1e-3:
        return f"{_rounded(seconds * 1e3)} ms"
    return f"{_rounded(seconds * 1e6)} µs"


def _rounded(number: float) -> str:
    return f"{number:,.0f}" if number >= 10 else f"{number:.1f}"


def _count(line: Line, who: str) -> str:
    trips = line.trips.get(who)
    return NONE if trips is None or trips.timing.failure else f"{trips.per_call:g}"


def _delayed(line: Line, who: str) -> str:
    trips = line.trips.get(who)
    return NONE if trips is None or trips.timing.failure else _time(trips.timing.seconds)


def _rates(rates: dict[int, Rate] | None, plan: Plan) -> str:
    if not rates:
        return NONE
    return " / ".join(_rate(rates.get(threads)) for threads in plan.threads)


def _rate(rate: Rate | None) -> str:
    if rate is None:
        return NONE
    failed = f" ({rate.failed / (rate.answered + rate.failed):.0%} failed)" if rate.failed else ""
    return f"{_rounded(rate.per_second)}{failed}"


def summary(results: Results, plan: Plan) -> str:
    """On what was measured, what the floor is, which targets are met."""
    parts = [
        "### On what",
        "\n".join(f"- {name}: {value}" for name, value in results.setting.items()),
        "\n".join(f"- {line}" for line in results.absent),
        f"Each comparison ran for {plan.seconds:g} seconds, at "
        f"{' and '.join(f'{size:,}' for size in plan.sizes)} rows.",
        "### The floor",
        "\n".join(f"- {name}: {_spread(timing)}" for name, timing in results.floor.items()),
        "### The targets",
        "Numbers at the sizes, smallest first; a bold one misses the target.",
        "\n".join(targets.table(results)),
    ]
    return "\n\n".join(part for part in parts if part)


def save(results: Results, plan: Plan, folder: Path) -> None:
    """Writes the table, all values, and the folder's README.md with what was measured."""
    folder.mkdir(parents=True, exist_ok=True)
    text = "# Results\n\nMade by `make bench`; [README.md](README.md) says how to read it.\n\n"
    absent = "".join(f"{line}.\n\n" for line in results.absent)
    (folder / "results.md").write_text(f"{text}{absent}{table(results, plan)}\n", encoding="utf-8")
    (folder / "README.md").write_text(_readme_with(summary(results, plan)), encoding="utf-8")
    pyperf.BenchmarkSuite(results.benchmarks()).dump(str(folder / "results.json"), replace=True)


def _readme_with(text: str) -> str:
    """README.md with what was measured between its two marks."""
    page = (HERE / "README.md").read_text(encoding="utf-8")
    marks = re.compile(f"{re.escape(START)}.*{re.escape(END)}", re.DOTALL)
    return marks.sub(lambda _: f"{START}\n{text}\n{END}", page)
