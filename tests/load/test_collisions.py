"""Many processes on one table: what they do at the same moment harms nobody and nothing."""

from __future__ import annotations

import os
import secrets
from collections import Counter
from collections.abc import Callable
from typing import Any

from sqlalchemy import text

from tests.load.conftest import Start
from tests.load.process import Worker
from tests.load.worker import (
    check_rows,
    do_everything,
    meet_access_token,
    number_of,
    sign_in,
)
from zoho_token_orm import SQLAlchemyTokenStore

SECONDS = float(os.environ.get("ZOHO_TOKEN_ORM_STRESS_SECONDS", "3"))
TEN = 10
USERS = range(8)

Order = Callable[[int], Any]


def ask(workers: list[Worker], order: Order) -> list[Any]:
    """Gives each its order, by its number, and waits for all the answers."""
    for number, worker in enumerate(workers):
        worker.tell(order(number))
    return [worker.answer() for worker in workers]


def one_login(user: int, process: int) -> tuple[str, int, dict[str, str]]:
    """The same grant token's exchange, as where many read it from one place."""
    return f"user{user}", user, {}


def logins_of_their_own(user: int, process: int) -> tuple[str, int, dict[str, str]]:
    """Each process has exchanged another grant token of the user's."""
    return f"user{user}", 1000 * user + process, {}


def logins_of_nobody_yet(user: int, process: int) -> tuple[str, int, dict[str, str]]:
    """The user is not known yet: it is one grant token that makes them one row."""
    return "", 1000 * user + process, {"grant_token": f"1000.grant-of-user{user}"}


def logins_by_id(user: int, process: int) -> tuple[str, int, dict[str, str]]:
    """Each has the same id in its code."""
    return f"user{user}", 1000 * user + process, {"id": f"id-of-user{user}"}


def test_ten_processes_that_save_the_same_new_users_at_once_leave_one_row_each(
    start: Start, store: SQLAlchemyTokenStore
):
    workers = start(TEN, sign_in)
    for login in (one_login, logins_of_their_own, logins_of_nobody_yet, logins_by_id):
        answers = ask(workers, lambda process, login=login: [login(u, process) for u in USERS])
        rows = store.get_tokens()
        assert len(rows) == len(USERS)
        assert answers == [[row.get_id() for row in rows]] * TEN
        for user, row in enumerate(rows):
            assert number_of(row) in {login(user, process)[1] for process in range(TEN)}
        store.delete_tokens()


def test_ten_processes_that_meet_the_same_access_token_at_once_leave_one_row(
    start: Start, store: SQLAlchemyTokenStore
):
    """No constraint keeps it single, as it does the others: the transaction has to."""
    workers = start(TEN, meet_access_token)
    answers = ask(workers, lambda process: list(USERS))
    rows = store.get_tokens()
    assert [row.get_access_token() for row in rows] == [f"1000.access-{user}" for user in USERS]
    assert answers == [[row.get_id() for row in rows]] * TEN


def test_eight_processes_that_do_everything_at_random_meet_no_error(
    start: Start, store: SQLAlchemyTokenStore
):
    seed = secrets.token_hex(4)
    reports = ask(start(8, do_everything), lambda process: (SECONDS, process, seed))
    calls = sum((report["calls"] for report in reports), Counter[str]())
    print(f"seed {seed}: {dict(calls)}, the slowest {max(r['slowest'] for r in reports):.1f} s")
    assert [error for report in reports for error in report["errors"]] == []
    check_rows(store.get_tokens())
    check_constraints(store)


def check_constraints(store: SQLAlchemyTokenStore) -> None:
    """Asks the database itself."""
    with store.engine.connect() as connection:
        for column in ("id", "user_name", "grant_token", "refresh_token"):
            twice = f"SELECT {column} FROM oauthtoken GROUP BY {column} HAVING count({column}) > 1"
            assert connection.execute(text(twice)).all() == []
