"""The benchmark: it measures all that it is to measure, and says so in one table."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

pytest.importorskip("pyperf", reason="the benchmark's packages are not here: make bench")
pytest.importorskip("mysql.connector", reason="DBStore's driver is not here: make bench")

from benchmarks.__main__ import main
from benchmarks.calls import FIND_BY_ID, FIRST_SAVE, METHODS, REFRESH, Workload
from benchmarks.driver import BareDriver
from benchmarks.report import NONE
from benchmarks.rows import OUR_COLUMNS, fill, long_id, zoho_token
from benchmarks.suite import TITLES
from tests.databases import SERVERS, server
from tests.support import statements, values

ROWS = 10


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


@pytest.fixture(scope="module")
def available() -> list[str]:
    """A database in memory, and one server if there is one."""
    return ["sqlite-memory", *[name for name in SERVERS if server(name)][-1:]]


@pytest.fixture(scope="module")
def folder(available: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of a very small run."""
    output = tmp_path_factory.mktemp("results")
    options = ["--rows", str(ROWS), "20", "--seconds", "0.02", "--output", str(output)]
    main([*options, "--databases", *available])
    return output


@pytest.fixture
def table(folder: Path) -> list[dict[str, str]]:
    """The table, a line a dict by column."""
    text = (folder / "results.md").read_text(encoding="utf-8")
    head, _, *lines = (line for line in text.splitlines() if line.startswith("|"))
    return [dict(zip(cells(head), cells(line), strict=True)) for line in lines]


def test_the_table_has_a_line_for_each_database_size_and_method(table, available):
    found = [(line["Database"], line["Rows"], line["Method"]) for line in table]
    assert found == [
        (TITLES[name], size, method)
        for name in available
        for size in (str(ROWS), "20")
        for method in METHODS
    ]


def test_each_line_has_the_store_beside_the_bare_driver_and_the_file_store(table):
    for line in table:
        for column in ("`SQLAlchemyTokenStore`", "Bare driver", "Over the driver", "`FileStore`"):
            assert re.search(r"\d (µs|ms|s)", line[column]), (column, line)


def test_a_server_has_round_trips_and_the_time_with_a_delay(table):
    on_servers = [line for line in table if not line["Database"].startswith("SQLite")]
    for line in on_servers:
        assert float(line["Round trips"]) >= 1
        assert re.search(r"\d ms", line["Server 2 ms away"])
        if line["Database"] in ("MySQL", "MariaDB"):
            assert re.search(r"\d (µs|ms|s)", line["`DBStore`"])


def test_look_ups_and_refreshes_are_measured_with_threads(table):
    for line in table:
        is_rated = line["Method"] in (FIND_BY_ID, REFRESH)
        rates = line["Calls/s with 1 / 4 / 16 threads"].split(" / ")
        assert len(rates) == (3 if is_rated else 1)
        assert (NONE in rates) != is_rated


def test_readme_says_on_what_the_floor_and_the_targets(folder, available):
    text = (folder / "README.md").read_text(encoding="utf-8")
    assert all(f"- {TITLES[name]}: " in text for name in available)
    assert "A byte through a socket and back: " in text
    assert "| one round trip for " in text or available == ["sqlite-memory"]
    assert "at most 100 µs over the bare driver" in text


def test_pyperf_can_read_all_values(folder):
    suite = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    assert len(suite["benchmarks"]) > 2 * len(METHODS)


def test_the_bare_driver_sends_what_the_store_sends(store, database):
    fill(store.engine, "oauthtoken", range(ROWS), OUR_COLUMNS, long_id)
    workload = Workload(store, ROWS, long_id)
    driver = BareDriver(store, workload)
    for method in METHODS:
        before = [values(token) for token in store.get_tokens()]
        prepared = driver.prepare(method, 1)
        prepared.calls[0]()
        after = [values(token) for token in store.get_tokens()]
        assert (before != after) == (method in (REFRESH, FIRST_SAVE))
        assert len(after) == ROWS + (method == FIRST_SAVE)
        prepared.undo()
        assert len(store.get_tokens()) == ROWS
    driver.close()


def test_the_calls_find_their_rows_and_cost_one_statement(store, database):
    fill(store.engine, "oauthtoken", range(ROWS), OUR_COLUMNS, long_id)
    workload = Workload(store, ROWS, long_id)
    for method in METHODS[:3]:
        calls = workload.prepare(method, 3).calls
        with statements(store.engine) as sent:
            answers = [call() for call in calls]
        assert len(sent) == len(calls) == 3
        assert method == REFRESH or None not in answers


def test_rows_look_like_zohos(store, database):
    fill(store.engine, "oauthtoken", range(ROWS), OUR_COLUMNS, long_id)
    tokens = store.get_tokens()
    assert len({token.get_refresh_token() for token in tokens}) == ROWS
    assert {len(token.get_access_token()) for token in tokens} == {70}
    assert len(zoho_token("0" * 64)) == 70


def test_taking_statements_from_a_store_leaves_no_sign(store, database):
    fill(store.engine, "oauthtoken", range(ROWS), OUR_COLUMNS, long_id)
    before = store.engine._has_events, store.engine.dialect._has_events
    driver = BareDriver(store, Workload(store, ROWS, long_id))
    for method in METHODS:
        driver.prepare(method, 1).undo()
    driver.close()
    assert (store.engine._has_events, store.engine.dialect._has_events) == before
