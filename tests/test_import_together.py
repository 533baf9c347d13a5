"""An import beside workers, beside another import, killed in the middle; and over random rows."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import groupby
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import event

from tests.support import CHECKOUT, NEW, OLD, granted, raw_rows, values
from tests.test_import import counts, csv_file, fill, imported, row, stored
from zoho_token_orm import SQLAlchemyTokenStore
from zoho_token_orm.transfer import ImportSummary, files, import_tokens
from zoho_token_orm.transfer.importing import CHUNK, MOST_TRIES

SHARED = ["sqlite-file", "postgresql", "mysql", "mariadb"]
"""The databases that two stores can share."""
LATER = "4102444800000"


@pytest.fixture
def rival(database, store) -> Iterator[SQLAlchemyTokenStore]:
    """Another worker's store on the same table."""
    if database.name == "sqlite-memory":
        pytest.skip("a database in memory has one store")
    with SQLAlchemyTokenStore(database.url) as made:
        yield made


@contextmanager
def before_each(store: SQLAlchemyTokenStore, word: str, act: Callable[[int], object], most: int):
    """Acts right before the store's next statements that begin with that word."""
    count = 0

    def watch(connection, cursor, statement, *rest):
        nonlocal count
        if statement.startswith(word) and count < most:
            count += 1
            act(count)

    event.listen(store.engine, "before_cursor_execute", watch)
    yield
    event.remove(store.engine, "before_cursor_execute", watch)
    assert count == most


def newer(name: str) -> dict[str, Any]:
    return row(name, access_token=f"1000.newer-{name}", expiry_time="1700000000009")


def refreshed(store: SQLAlchemyTokenStore, id: str, access_token: str, expiry: str = LATER) -> None:
    """What a worker does with a token."""
    token = store.find_token_by_id(id)
    token.set_access_token(access_token)
    token.set_expires_in(expiry)
    store.save_token(token)


def test_what_a_worker_refreshes_meanwhile_is_not_taken_back(store, rival, tmp_path):
    """Between the look-up and the update."""
    names = [f"{number}" for number in range(9)]
    fill(store, *map(row, names))
    path = csv_file(tmp_path / "rows.csv", *map(newer, names))
    with before_each(store, "BEGIN", lambda _: refreshed(rival, "4", "1000.fresh"), 1):
        summary = import_tokens(store, path)
    assert counts(summary) == (0, 8, 0, 1, 0)
    found = {each["id"]: each["access_token"] for each in stored(store)}
    assert found.pop("4") == "1000.fresh"
    assert found == {name: f"1000.newer-{name}" for name in names if name != "4"}


def test_a_row_that_is_changed_at_every_try_holds_up_no_other(store, rival, tmp_path):
    """The chunk is halved until that row stands alone."""
    names = [f"{number}" for number in range(9)]
    fill(store, *map(row, names))
    path = csv_file(tmp_path / "rows.csv", *map(newer, names))

    def act(number: int) -> None:
        refreshed(rival, "4", f"1000.fresh-{number}", f"170000000000{number % 5}")

    with before_each(store, "BEGIN", act, 4 * MOST_TRIES):
        summary = import_tokens(store, path)
    assert counts(summary) == (0, 9, 0, 0, 0)
    found = {each["id"]: each["access_token"] for each in stored(store)}
    assert found == {name: f"1000.newer-{name}" for name in names}


def test_a_user_who_logs_in_meanwhile_keeps_the_newer_login(store, rival, tmp_path):
    login = granted("b")
    path = csv_file(tmp_path / "rows.csv", row("a"), row("b"), row("c"))
    with before_each(store, "BEGIN", lambda _: rival.save_token(login), 1):
        summary = import_tokens(store, path)
    assert counts(summary)[:4] == (2, 0, 0, 1)
    assert {t.get_access_token() for t in store.get_tokens()} == {
        "1000.access-a",
        login.get_access_token(),
        "1000.access-c",
    }


def test_an_id_that_somebody_takes_meanwhile_is_left_to_him(store, rival, tmp_path):
    path = csv_file(tmp_path / "rows.csv", row("a"), row("b"))
    with before_each(store, "BEGIN", lambda _: rival.save_token(granted("x", id="a")), 1):
        assert counts(import_tokens(store, path)) == (2, 0, 0, 0, 0)
    assert values(store.find_token_by_id("a"))["access_token"] == "1000.access-x"
    assert len(store.get_tokens()) == 3


def test_a_row_that_goes_into_another_is_not_deleted_once_somebody_has_refreshed_it(
    store, rival, tmp_path
):
    fill(store, row("a", refresh_token=""), row("b", user_name="", grant_token=""))
    both = row("c", user_name="a@example.com:7001", refresh_token="1000.refresh-b")
    path = csv_file(tmp_path / "rows.csv", both)
    with before_each(store, "BEGIN", lambda _: refreshed(rival, "b", "1000.fresh"), 1):
        assert counts(import_tokens(store, path)) == (0, 0, 1, 0, 0)
    (token,) = store.get_tokens()
    assert token.get_access_token() == "1000.fresh"


@pytest.mark.parametrize("keys", [(), (NEW, OLD)], ids=["plain", "keys"])
def test_workers_save_and_refresh_meanwhile(store_with, database, tmp_path, keys):
    if database.name == "sqlite-memory":
        pytest.skip("a database in memory has one store")
    store, worker = store_with(*keys), store_with(*keys)
    names = [f"{number}" for number in range(3 * CHUNK)]
    path = csv_file(tmp_path / "rows.csv", *map(newer, names))
    import_tokens(store, csv_file(tmp_path / "old.csv", *map(row, names[::2])))
    saved: dict[str, str] = {}
    errors: list[BaseException] = []
    is_over = threading.Event()

    def work() -> None:
        number = 0
        try:
            while not is_over.is_set() or number < 30:
                number += 1
                id = names[number * 74 % len(names)]
                refreshed(worker, id, saved.setdefault(id, f"1000.fresh-{number}"))
                worker.save_token(granted(f"new-{number}"))
                saved.pop("", None)
        except BaseException as error:
            errors.append(error)

    working = threading.Thread(target=work)
    working.start()
    try:
        summary = import_tokens(store, path)
    finally:
        is_over.set()
        working.join(120)
    assert errors == []
    assert summary.new == len(names) // 2
    assert summary.updated + summary.unchanged == len(names) // 2
    found = {t.get_id(): t.get_access_token() for t in store.get_tokens()}
    assert {id: found[id] for id in saved} == saved
    assert all(found[n] == f"1000.newer-{n}" for n in names if n not in saved)


@pytest.mark.parametrize("keys", [(), (NEW, OLD)], ids=["plain", "keys"])
def test_two_imports_at_once_both_end_and_leave_each_token_once(
    store_with, database, tmp_path, keys
):
    if database.name == "sqlite-memory":
        pytest.skip("a database in memory has one store")
    stores = [store_with(*keys), store_with(*keys)]
    names = [f"{number}" for number in range(2 * CHUNK)]
    fill_path = csv_file(tmp_path / "old.csv", *map(row, names[::3]))
    import_tokens(stores[0], fill_path)
    path = csv_file(tmp_path / "rows.csv", *map(newer, names))
    summaries: list[ImportSummary] = []
    start = threading.Barrier(2)

    def work(store: SQLAlchemyTokenStore) -> None:
        start.wait()
        summaries.append(import_tokens(store, path))

    threads = [threading.Thread(target=work, args=(store,)) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert len(summaries) == 2
    changed = sum(each.new + each.updated for each in summaries)
    assert changed == len(names)
    assert sum(each.unchanged for each in summaries) == len(names)
    assert sorted(t.get_access_token() for t in stores[0].get_tokens()) == sorted(
        f"1000.newer-{name}" for name in names
    )


def test_interrupted_what_is_done_stays_and_a_second_run_ends_it(store, tmp_path):
    names = [f"{number}" for number in range(CHUNK + 10)]
    path = csv_file(tmp_path / "rows.csv", *map(row, names))

    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_tokens(store, path, on_progress=interrupt)
    assert len(store.get_tokens()) == CHUNK
    assert counts(import_tokens(store, path)) == (10, 0, 0, CHUNK, 0)
    assert sorted(each["id"] for each in stored(store)) == sorted(names)


KILLED = """
import os, signal, sys
from sqlalchemy import event
from zoho_token_orm import SQLAlchemyTokenStore
from zoho_token_orm.transfer import import_tokens

commits = []
store = SQLAlchemyTokenStore(sys.argv[1], create_schema=False)

def watch(connection, cursor, statement, *rest):
    if statement == "COMMIT":
        commits.append(statement)
        if len(commits) == 2:
            os.kill(os.getpid(), signal.SIGKILL)

event.listen(store.engine, "before_cursor_execute", watch)
import_tokens(store, sys.argv[2])
"""


def test_killed_before_a_commit_nothing_is_half_done(store, rival, database, tmp_path):
    names = [f"{number}" for number in range(3 * CHUNK)]
    import_tokens(store, csv_file(tmp_path / "old.csv", *map(row, names[::2])))
    path = csv_file(tmp_path / "rows.csv", *map(newer, names))
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, database.url, str(path)], cwd=CHECKOUT, check=False
    )
    assert killed.returncode == -signal.SIGKILL
    done = [each for each in stored(store) if "newer" in str(each["access_token"])]
    assert len(done) == CHUNK
    summary = import_tokens(store, path)
    assert summary.unchanged == CHUNK
    assert summary.new + summary.updated == 2 * CHUNK
    assert sorted(each["access_token"] for each in stored(store)) == sorted(
        f"1000.newer-{name}" for name in names
    )


# Random rows

EXAMPLES = int(os.environ.get("ZOHO_TOKEN_ORM_EXAMPLES", "0"))


def rows(clients: list[str]) -> st.SearchStrategy[list[dict[str, Any]]]:
    """Rows of three people, few values each; a row may not say whose it is."""

    def of(person: str) -> st.SearchStrategy[dict[str, Any]]:
        def values_of(column: str, count: int) -> st.SearchStrategy[str]:
            return st.sampled_from(["", *(f"{person}-{column}-{n}" for n in range(count))])

        return st.fixed_dictionaries(
            {
                "id": st.sampled_from(["", *"123456"]),
                "user_name": st.sampled_from([person, person, ""]),
                "client_id": st.sampled_from(clients),
                "client_secret": st.sampled_from(["", "s"]),
                "refresh_token": values_of("refresh", 3),
                "access_token": values_of("access", 3),
                "grant_token": values_of("grant", 2),
                "expiry_time": st.sampled_from(["", *"0123456789"]),
                "redirect_url": st.sampled_from(["", "https://r"]),
                "api_domain": st.sampled_from(["", "https://d"]),
            }
        )

    return st.lists(st.one_of(*map(of, ("alice", "bob", "carol"))), max_size=12)


OF_NOBODY = "its token is also that of a user's row, at another client"
"""Why a row that names no user is refused, where it would take the place of one that does."""


def tokens_of(each: dict[str, Any]) -> bool:
    return bool(each["refresh_token"] or each["access_token"] or each["grant_token"])


def allowed(candidates: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those that one table can hold."""
    taken: set[tuple[str, str]] = set()
    kept = []
    for each in filter(tokens_of, candidates):
        unique = ("id", "user_name", "refresh_token", "grant_token")
        held = {(name, each[name]) for name in unique if each[name]}
        if each["id"] and not held & taken:
            taken |= held
            kept.append({**each, "expiry_time": each["expiry_time"] or 0})
    return kept


def newest_refresh_tokens(all_rows: list[dict[str, Any]]) -> set[str]:
    """Of each person the refresh token in the one row that is newer than all others."""

    def person(each: dict[str, Any]) -> str:
        held = [each[name] for name in ("refresh_token", "access_token", "grant_token")]
        return next(value for value in held if value).partition("-")[0]

    def age(each: dict[str, Any]) -> int:
        return int(each["expiry_time"] or 0) if each["access_token"] else 0

    found = set()
    for _, group in groupby(sorted(filter(tokens_of, all_rows), key=person), key=person):
        members = list(group)
        latest = max(map(age, members))
        (first, *others) = [each for each in members if age(each) == latest]
        if not others and first["refresh_token"]:
            found.add(first["refresh_token"])
    return found


def people(all_rows: list[dict[str, Any]]) -> set[str]:
    return {each["user_name"] for each in filter(tokens_of, all_rows) if each["user_name"]}


@pytest.mark.parametrize("clients", [["1"], ["1", "1", "2", ""]], ids=["one-client", "clients"])
def test_random_rows_into_random_rows(store_with, database, tmp_path, clients, monkeypatch):
    """It loses no newest refresh token, tells before what it does, and does nothing twice."""
    monkeypatch.setattr(files, "BETWEEN_READINGS", 0)  # nobody else writes the file
    store = store_with()
    is_fast = database.name == "sqlite-memory"

    @settings(
        max_examples=EXAMPLES or (400 if is_fast else 20),
        derandomize=not EXAMPLES,
        deadline=None,
        database=None,
    )
    @given(target=rows(clients), source=rows(clients))
    def check(target: list[dict[str, Any]], source: list[dict[str, Any]]) -> None:
        target = allowed(target)
        store.delete_tokens()
        fill(store, *target)
        summary = imported(store, tmp_path, *source)
        assert sum(counts(summary)) == len(source)
        once = raw_rows(store)
        apart = {each.where for each in summary.refused if each.reason == OF_NOBODY}
        told = [each for line, each in enumerate(source, 2) if f"line {line}" not in apart]
        assert newest_refresh_tokens(target + told) <= {each["refresh_token"] for each in once}
        assert people(target) <= {each["user_name"] for each in once}
        assert not apart or len(clients) > 1
        if len(clients) == 1:
            assert people(target + source) == {each["user_name"] for each in once} - {None}

    check()
