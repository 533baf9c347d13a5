"""The benchmark itself: on each database, at each size, each method of each store."""

from __future__ import annotations

import functools
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Engine, make_url
from zohocrmsdk.src.com.zoho.api.authenticator.store.db_store import DBStore
from zohocrmsdk.src.com.zoho.api.authenticator.store.file_store import FileStore

from benchmarks import machine, network, rows
from benchmarks.calls import FIND_BY_ID, METHODS, REFRESH, Prepare, Prepared, Workload
from benchmarks.driver import BareDriver
from benchmarks.results import DB_STORE, DRIVER, FILE_STORE, STORE, Line, Results
from benchmarks.throughput import rate
from benchmarks.timing import measure
from docs.comparison import DB_STORE_TABLE
from tests.databases import SERVERS, Database, fresh_database, server, variable
from tests.proxy import Proxy
from zoho_token_orm import SQLAlchemyTokenStore
from zoho_token_orm.mapping import COLUMNS
from zoho_token_orm.models import DEFAULT_TABLE_NAME

TITLES = {
    "sqlite-memory": "SQLite memory",
    "sqlite-file": "SQLite file",
    "postgresql": "PostgreSQL",
    "mysql": "MySQL",
    "mariadb": "MariaDB",
}
"""The databases, as the table calls them."""
SDK_TABLE = "sdk_oauthtoken"
"""The table of DBStore, beside that of our store."""
RATED = (FIND_BY_ID, REFRESH)
"""The methods whose throughput is measured."""

SLOW = 0.4
"""Seconds after which a call is too slow for more than its time to be measured."""


@dataclass(frozen=True)
class Plan:
    """How much is measured.

    Attributes:
        databases: Names of databases, as in ``TITLES``.
        sizes: Numbers of rows, smallest first.
        seconds: For how long each comparison is measured.
        delay: How many seconds the proxy adds to each request.
        threads: Numbers of threads.
    """

    databases: tuple[str, ...] = tuple(TITLES)
    sizes: tuple[int, ...] = (1_000, 1_000_000)
    seconds: float = 3.0
    delay: float = 0.002
    threads: tuple[int, ...] = (1, 4, 16)


def run(plan: Plan) -> Results:
    """Measures everything that the plan names and that is there."""
    results = Results(setting=machine.machine())
    with tempfile.TemporaryDirectory(prefix="zoho_token_orm-bench-") as folder:
        with network.echo() as prepare:
            results.floor["A byte through a socket and back"] = measure(
                "socket:", {"echo": prepare}, plan.seconds / 3
            )["echo"]
        files = dict(_file_lines(plan, Path(folder) / "tokens.csv"))
        for name in plan.databases:
            if name in SERVERS and server(name) is None:
                results.absent.append(f"{TITLES[name]} is not there: set {variable(name)}")
                continue
            with fresh_database(name, Path(folder)) as fresh:
                Bench(plan, fresh, results).run(files)
    return results


def say(text: str) -> None:
    """Tells whoever waits what is going on."""
    print(text, file=sys.stderr, flush=True)


def _file_lines(plan: Plan, path: Path) -> Iterator[tuple[tuple[int, str], Line]]:
    """What FileStore does, by size and method."""
    store = FileStore(str(path))
    for numbers in _growth(plan.sizes):
        say(f"FileStore, {numbers.stop:,} rows")
        rows.append(path, numbers)
        workload = Workload(store, numbers.stop, rows.short_id)
        for method in METHODS:
            line = Line("CSV file", numbers.stop, method)
            prepare = functools.partial(workload.prepare, method)
            line.timings |= measure(line.name, {FILE_STORE: prepare}, plan.seconds)
            # Threads that save at once lose rows of the file, so that there is nothing to measure.
            threads = plan.threads if method == FIND_BY_ID else (1,)
            _add_rates(line, FILE_STORE, prepare, plan.seconds / 3, threads)
            yield (numbers.stop, method), line


def _growth(sizes: tuple[int, ...]) -> Iterator[range]:
    """The rows that are added for each size."""
    for before, size in zip((0, *sizes), sizes, strict=False):
        yield range(before, size)


def _add_rates(
    line: Line, who: str, prepare: Prepare, seconds: float, threads: tuple[int, ...]
) -> None:
    """Measures the throughput of some methods, unless a call takes very long."""
    call = line.timings[who].seconds
    if line.method not in RATED or call > SLOW:
        return
    each = max(1, min(20, int(0.02 / call)))
    line.rates[who] = {count: rate(prepare, count, each, seconds) for count in threads}


class Bench:
    """All measurements on one database.

    Args:
        plan: How much is measured.
        database: An empty database.
        results: Where they go.
    """

    def __init__(self, plan: Plan, database: Database, results: Results) -> None:
        self._plan = plan
        self._database = database
        self._results = results
        self._title = TITLES[database.name]
        self._has_db_store = database.name in ("mysql", "mariadb")

    def run(self, files: dict[tuple[int, str], Line]) -> None:
        """Measures at each size, beside what FileStore does at that size."""
        with SQLAlchemyTokenStore(self._database.url, create_schema=True) as store:
            self._results.setting[self._title] = machine.database(store.engine)
            if self._has_db_store:
                _create_sdk_table(store.engine)
            for numbers in _growth(self._plan.sizes):
                say(f"{self._title}, {numbers.stop:,} rows: inserting")
                self._fill(store.engine, numbers)
                self._measure(store, numbers.stop, files)

    def _fill(self, engine: Engine, numbers: range) -> None:
        rows.fill(engine, DEFAULT_TABLE_NAME, numbers, rows.OUR_COLUMNS, rows.long_id)
        if self._has_db_store:
            rows.fill(engine, SDK_TABLE, numbers, COLUMNS, rows.short_id)

    def _measure(
        self, store: SQLAlchemyTokenStore, size: int, files: dict[tuple[int, str], Line]
    ) -> None:
        workload = Workload(store, size, rows.long_id)
        lines = [Line(self._title, size, method) for method in METHODS]
        say(f"{self._title}, {size:,} rows: time per call")
        with _closing(BareDriver(store, workload)) as driver:
            for line in lines:
                self._time(line, workload, driver)
            self._add_floor(driver)
        for line in lines:
            file = files[size, line.method]
            line.timings |= file.timings
            line.rates |= file.rates
        say(f"{self._title}, {size:,} rows: threads")
        self._rate(lines, workload)
        if self._database.is_server:
            say(f"{self._title}, {size:,} rows: round trips")
            self._count(lines, size)
        self._results.lines += lines

    def _time(self, line: Line, workload: Workload, driver: BareDriver) -> None:
        both = {
            STORE: functools.partial(workload.prepare, line.method),
            DRIVER: functools.partial(driver.prepare, line.method),
        }
        line.timings |= measure(line.name, both, self._plan.seconds)
        if self._has_db_store:
            other = functools.partial(self._sdk_workload(line.rows).prepare, line.method)
            line.timings |= measure(line.name, {DB_STORE: other}, self._plan.seconds)

    def _add_floor(self, driver: BareDriver) -> None:
        """What the driver takes for the least that a database can be asked."""
        name = f"`SELECT 1` through the bare driver, {self._title}"
        if name not in self._results.floor:
            one = {"SELECT 1": _asking(driver, "SELECT 1")}
            timings = measure(f"{self._title}:", one, self._plan.seconds / 3)
            self._results.floor[name] = timings["SELECT 1"]

    def _rate(self, lines: list[Line], workload: Workload) -> None:
        for line in lines:
            seconds, threads = self._plan.seconds / 3, self._plan.threads
            prepare = functools.partial(workload.prepare, line.method)
            _add_rates(line, STORE, prepare, seconds, threads)
            if self._has_db_store:
                prepare = functools.partial(self._sdk_workload(line.rows).prepare, line.method)
                _add_rates(line, DB_STORE, prepare, seconds, threads)

    def _count(self, lines: list[Line], size: int) -> None:
        with ExitStack() as stack:
            proxy = stack.enter_context(network.way_to(self._database.url, self._plan.delay))
            far = stack.enter_context(SQLAlchemyTokenStore(proxy.url, create_schema=False))
            workloads = {STORE: Workload(far, size, rows.long_id)}
            if self._has_db_store:
                workloads[DB_STORE] = self._sdk_workload(size, proxy)
            for line in lines:
                for who, workload in workloads.items():
                    self._add_trips(line, who, proxy, workload)

    def _add_trips(self, line: Line, who: str, proxy: Proxy, workload: Workload) -> None:
        if line.timings[who].seconds > SLOW:  # the delay makes no difference
            return
        prepare = functools.partial(workload.prepare, line.method)
        name = f"{line.name} {who}"
        line.trips[who] = network.trips(name, proxy, prepare, self._plan.seconds / 6)

    def _sdk_workload(self, size: int, proxy: Proxy | None = None) -> Workload:
        url = proxy.url if proxy else make_url(self._database.url)
        store = DBStore(
            str(url.host),
            url.database,
            url.username,
            url.password or "",
            str(url.port or 3306),
            SDK_TABLE,
        )
        return Workload(store, size, rows.short_id)


def _create_sdk_table(engine: Engine) -> None:
    with engine.connect() as connection:
        connection.exec_driver_sql(DB_STORE_TABLE.replace("oauthtoken", SDK_TABLE))


def _asking(driver: BareDriver, statement: str) -> Prepare:
    def prepare(count: int) -> Prepared:
        return Prepared([lambda: driver.run([(statement, ())])] * count, undo=lambda: None)

    return prepare


@contextmanager
def _closing(driver: BareDriver) -> Iterator[BareDriver]:
    try:
        yield driver
    finally:
        driver.close()
