"""Runs the contract over each token store, and writes the tables that compare them.

python docs/comparison.py            prints the summary
python docs/comparison.py --update   writes it into README.md, and every promise to comparison.md
python docs/comparison.py --check    exits with 1 where one of the two is out of date

The databases are found as the tests find them (tests/databases.py).
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import re
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TextIO

import pytest
from sqlalchemy import create_engine
from zohocrmsdk.src.com.zoho.api.authenticator.store.db_store import DBStore
from zohocrmsdk.src.com.zoho.api.authenticator.store.file_store import FileStore

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.databases import SERVERS, fresh_database, server, variable  # noqa: E402
from zoho_token_orm import SQLAlchemyTokenStore  # noqa: E402
from zoho_token_orm.testing.contract import (  # noqa: E402
    AREAS,
    ConcurrencyContract,
    TokenStoreContract,
)

README, DETAILS = ROOT / "README.md", ROOT / "docs" / "comparison.md"
START, END = "<!-- comparison -->", "<!-- /comparison -->"
ROUNDS = 10
"""How often each promise about threads is tried."""
SILENCE = 120.0
"""Seconds without news after which a store counts as hanging in the test that runs."""

DB_STORE_TABLE = """
CREATE TABLE oauthtoken (
  id varchar(10) NOT NULL,
  user_name varchar(255),
  client_id varchar(255),
  client_secret varchar(255),
  refresh_token varchar(255),
  access_token varchar(255),
  grant_token varchar(255),
  expiry_time varchar(20),
  redirect_url varchar(255),
  api_domain varchar(255),
  primary key (id)
)
"""
"""As the SDK's README gives it."""

Kept = dict[str, bool]


class TestFileStore(TokenStoreContract):
    """The SDK's FileStore, on a file of its own for each test."""

    @pytest.fixture
    def store(self, tmp_path: Path) -> FileStore:
        """A store on a new file."""
        return FileStore(str(tmp_path / "tokens.csv"))

    @pytest.fixture
    def second_store(self, store: FileStore) -> FileStore:
        """Another store on that file."""
        return FileStore(store.file_path)


class OnDatabase(TokenStoreContract):
    """A store on a database that its tests have to themselves."""

    database = "mysql"

    @pytest.fixture(scope="class")
    def url(self, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
        """The URL of the database."""
        with fresh_database(self.database, tmp_path_factory.mktemp("database")) as fresh:
            yield fresh.url


class TestDBStore(OnDatabase):
    """The SDK's DBStore, on the table that the SDK documents."""

    @pytest.fixture
    def store(self, url: str) -> Iterator[DBStore]:
        """A store on a new table."""
        engine = create_engine(url)
        with engine.begin() as connection:
            connection.exec_driver_sql("DROP TABLE IF EXISTS oauthtoken")
            connection.exec_driver_sql(DB_STORE_TABLE)
        at = engine.url
        yield DBStore(at.host, at.database, at.username, at.password or "", str(at.port or 3306))
        engine.dispose()


class OurStore(OnDatabase):
    """Our store, emptied before each test."""

    @pytest.fixture
    def store(self, url: str) -> Iterator[SQLAlchemyTokenStore]:
        """A store without rows."""
        with SQLAlchemyTokenStore(url, create_schema=True) as made:
            made.delete_tokens()
            yield made

    @pytest.fixture
    def second_store(self, url: str, store: SQLAlchemyTokenStore) -> Iterator[SQLAlchemyTokenStore]:
        """Another store on that database, where another process could have one."""
        if self.database == "sqlite-memory":
            yield store
            return
        with SQLAlchemyTokenStore(url, create_schema=False) as second:
            yield second


class TestSQLiteFile(OurStore):
    """Our store on an SQLite file."""

    database = "sqlite-file"


class TestSQLiteMemory(OurStore):
    """Our store on SQLite in memory."""

    database = "sqlite-memory"


class TestPostgreSQL(OurStore):
    """Our store on PostgreSQL."""

    database = "postgresql"


class TestMySQL(OurStore):
    """Our store on MySQL."""

    database = "mysql"


class TestMariaDB(OurStore):
    """Our store on MariaDB."""

    database = "mariadb"


FOREIGN: dict[str, type[TokenStoreContract]] = {
    "`FileStore`": TestFileStore,
    "`DBStore`": TestDBStore,
}
OURS: dict[str, type[OurStore]] = {
    "SQLite file": TestSQLiteFile,
    "SQLite memory": TestSQLiteMemory,
    "PostgreSQL": TestPostgreSQL,
    "MySQL": TestMySQL,
    "MariaDB": TestMariaDB,
}
COLUMNS: dict[str, type[TokenStoreContract]] = {**FOREIGN, **OURS}


def promises(area: type) -> dict[str, str]:
    """The promises of an area: the sentence of each test, by the test's name."""
    tests = {name: test for name, test in vars(area).items() if name.startswith("test_")}
    return {name: (test.__doc__ or name).removesuffix(".") for name, test in tests.items()}


def title(area: type) -> str:
    """What an area is about."""
    return (area.__doc__ or area.__name__).removesuffix(".")


ALL = [name for area in AREAS for name in promises(area)]
THREADED = list(promises(ConcurrencyContract))


class Progress:
    """Says, as a line of JSON each, which test starts, and which has passed or failed."""

    def __init__(self, out: TextIO) -> None:
        self.out = out
        self.failed: set[str] = set()

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Called by pytest before a test."""
        self.say(nodeid, "started")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Called by pytest after each phase of a test."""
        if not report.passed:
            self.failed.add(self.say(report.nodeid, "failed"))
        elif report.when == "teardown":
            self.say(report.nodeid, "ended")

    def say(self, nodeid: str, news: str) -> str:
        """Prints one line, whatever pytest has printed before it; returns the test's name."""
        name = nodeid.rpartition("::")[2]
        self.out.write(f"\n{json.dumps([name, news])}\n")
        self.out.flush()
        return name


def run_here(suite: str, rounds: int, names: list[str]) -> None:
    """Runs tests of a suite in this process, several times, and says so line by line."""
    options = ["-q", "-p", "no:cacheprovider", "-o", "addopts=", "-o", "filterwarnings="]
    with os.fdopen(os.dup(1), "w") as out:
        progress = Progress(out)
        for _ in range(rounds):
            left = [name for name in names if name not in progress.failed]
            tests = [f"{__file__}::{suite}::{name}" for name in left]
            if tests:
                pytest.main([*options, *tests], plugins=[progress])


class Trial:
    """Some promises, and how often a store has kept each of them."""

    def __init__(self, suite: type, names: list[str], rounds: int) -> None:
        self.suite, self.names, self.rounds = suite.__name__, names, rounds
        self.kept: Counter[str] = Counter()
        self.broken: set[str] = set()

    def result(self) -> Kept:
        """Which promises the store keeps each time; it breaks one in which it hangs or dies."""
        while left := [name for name in self.names if not self.is_decided(name)]:
            self.run_until_silent(left)
        return {name: name not in self.broken for name in self.names}

    def is_decided(self, name: str) -> bool:
        """Whether the promise has been broken, or kept often enough."""
        return name in self.broken or self.kept[name] >= self.rounds

    def run_until_silent(self, names: list[str]) -> None:
        """Runs tests in a process of their own, which is ended where one of them hangs."""
        command = [sys.executable, __file__, "--run", self.suite, str(self.rounds), *names]
        running = None
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603
            for line in lines_until_silent(process):
                if line.startswith('["'):
                    running = self.note(*json.loads(line))
        if running is not None:
            self.broken.add(running)
        elif not all(self.is_decided(name) for name in names):
            raise RuntimeError(f"this does not run: {' '.join(command[:5])}")

    def note(self, name: str, news: str) -> str | None:
        """Takes note of a line; returns the name of the test that runs now."""
        if news == "failed":
            self.broken.add(name)
        if news == "ended":
            self.kept[name] += 1
        return name if news == "started" else None


def lines_until_silent(process: subprocess.Popen[str]) -> Iterator[str]:
    """The lines that a process prints; it is ended when nothing has come for too long."""
    assert process.stdout is not None  # noqa: S101
    while True:
        watch = threading.Timer(SILENCE, process.kill)
        watch.start()
        line = process.stdout.readline()
        watch.cancel()
        if not line:
            return
        yield line


def compare(suites: dict[str, type[TokenStoreContract]]) -> dict[str, Kept]:
    """What each store keeps, by column; a promise about threads, where it held every time."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(zip(suites, pool.map(compare_one, suites.values()), strict=True))


def compare_one(suite: type[TokenStoreContract]) -> Kept:
    """What one store keeps."""
    single = [name for name in ALL if name not in THREADED]
    return Trial(suite, single, 1).result() | Trial(suite, THREADED, ROUNDS).result()


def on_every_database(results: dict[str, Kept]) -> Kept:
    """What our store keeps on each database."""
    ours = [results[column] for column in OURS if column in results]
    return {name: all(kept[name] for kept in ours) for name in ALL}


def summary(results: dict[str, Kept]) -> str:
    """A table of the promises kept, an area a row."""
    stores = {column: results[column] for column in FOREIGN if column in results}
    stores["`SQLAlchemyTokenStore`"] = on_every_database(results)
    rows = [counts(title(area), list(promises(area)), stores) for area in AREAS]
    rows.append(counts("**All**", ALL, stores))
    return "\n".join([*head("Promises kept", stores, "---:"), *rows, "", *notes(results)])


def counts(label: str, names: list[str], stores: dict[str, Kept]) -> str:
    """A row of the summary."""
    cells = [f"{sum(kept[name] for name in names)}/{len(names)}" for kept in stores.values()]
    return row(label, cells)


def notes(results: dict[str, Kept]) -> list[str]:
    """What stands beneath the summary."""
    version = importlib.metadata.version("zohocrmsdk8-0").partition(".")[0]
    databases = ", ".join(column for column in OURS if column in results)
    return [
        f"`FileStore` and `DBStore` are those of zohocrmsdk8-0 {version}; `DBStore` is on MySQL,",
        "with the table that the SDK documents. `SQLAlchemyTokenStore` is counted where it keeps a",
        f"promise on every database: {databases}.",
        f"What eight threads lead to may vary: such a promise is tried {ROUNDS} times, and is",
        "counted where it held every time.",
    ]


def details(results: dict[str, Kept]) -> str:
    """The page of all promises."""
    parts = [
        "# Which promises each token store keeps",
        "Made by `python docs/comparison.py --update`, which runs `zoho_token_orm.testing.contract`"
        "\nover each store. Do not edit.",
        summary(results),
    ]
    for area in AREAS:
        rows = [
            row(text, ["✓" if kept[name] else "✗" for kept in results.values()])
            for name, text in promises(area).items()
        ]
        parts.append("\n".join([f"## {title(area)}", "", *head("Promise", results, ":-:"), *rows]))
    return "\n\n".join(parts) + "\n"


def head(label: str, columns: Iterable[str], align: str) -> list[str]:
    """The first two lines of a table."""
    names = list(columns)
    return [row(label, names), row("---", [align] * len(names))]


def row(label: str, cells: list[str]) -> str:
    """A line of a table."""
    return f"| {' | '.join([label, *cells])} |"


def page_with(page: Path, text: str, start: str = START, end: str = END) -> str:
    """A page of the documents, with the text between its two marks."""
    marks = re.compile(f"{re.escape(start)}.*{re.escape(end)}", re.DOTALL)
    found = page.read_text(encoding="utf-8")
    if not marks.search(found):
        raise SystemExit(f"{page.name} has no place for it: {start} and {end}")
    return marks.sub(lambda _: f"{start}\n{text}\n{end}", found)


def available() -> dict[str, type[TokenStoreContract]]:
    """The columns whose database is there; says on the standard error which are not."""
    absent = [name for name in SERVERS if server(name) is None]
    for name in absent:
        print(
            f"no {name}: set {variable(name)}, or run docker compose up -d --wait", file=sys.stderr
        )
    return {
        column: suite
        for column, suite in COLUMNS.items()
        if getattr(suite, "database", None) not in absent
    }


def arguments() -> argparse.Namespace:
    """What stands on the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--check", action="store_true", help="exit with 1 where a table is out of date"
    )
    parser.add_argument(
        "--update", action="store_true", help="write README.md and docs/comparison.md"
    )
    parser.add_argument("--run", nargs="+", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> int:
    """Does what the command line says."""
    given = arguments()
    if given.run:
        suite, rounds, *names = given.run
        run_here(suite, int(rounds), names)
        return 0
    suites = available()
    if (given.check or given.update) and suites.keys() != COLUMNS.keys():
        raise SystemExit("the tables need every database")
    results = compare(suites)
    print(summary(results))
    return settle(results, given) if given.check or given.update else 0


def settle(results: dict[str, Kept], given: argparse.Namespace) -> int:
    """Writes the files, or finds out whether they are out of date."""
    pages = {README: page_with(README, summary(results)), DETAILS: details(results)}
    stale = [
        page
        for page, text in pages.items()
        if not page.exists() or page.read_text(encoding="utf-8") != text
    ]
    for page in stale if given.update else []:
        page.write_text(pages[page], encoding="utf-8")
    for page in stale:
        state = "written" if given.update else "out of date: run python docs/comparison.py --update"
        print(f"{page.relative_to(ROOT)}: {state}", file=sys.stderr)
    return 1 if stale and not given.update else 0


if __name__ == "__main__":
    sys.exit(main())
