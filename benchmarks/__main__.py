"""The command line of the benchmark: ``python -m benchmarks``."""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks import report
from benchmarks.suite import TITLES, Plan, run

FAST_SECONDS = 0.5
"""For how long each comparison is measured with ``--fast``."""


def arguments(given: list[str] | None) -> argparse.Namespace:
    """What stands on the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=report.__doc__)
    add = parser.add_argument
    add("--databases", nargs="+", choices=TITLES, default=list(TITLES), help="those to measure")
    add("--rows", nargs="+", type=int, help="numbers of rows (1000 and 1000000)")
    add("--seconds", type=float, default=Plan.seconds, help="for each comparison (%(default)s)")
    add("--fast", action="store_true", help="1000 rows and half a second, unless given")
    add("--output", type=Path, default=report.HERE, help="the folder of the results (benchmarks)")
    return parser.parse_args(given)


def plan_of(given: argparse.Namespace) -> Plan:
    """How much is to be measured."""
    sizes = given.rows or ([1_000] if given.fast else list(Plan.sizes))
    seconds = min(given.seconds, FAST_SECONDS) if given.fast else given.seconds
    return Plan(tuple(given.databases), tuple(sorted(set(sizes))), seconds)


def main(given: list[str] | None = None) -> None:
    """Measures, prints the table, and saves it."""
    options = arguments(given)
    plan = plan_of(options)
    results = run(plan)
    print(report.table(results, plan))
    report.save(results, plan, options.output)


if __name__ == "__main__":
    main()
