"""Writers that are killed, by SIGKILL and at any moment: what is in the table is whole."""

from __future__ import annotations

import random
import time
from typing import Any

from sqlalchemy import text
from zohocrmsdk.src.com.zoho.api.authenticator.oauth_token import OAuthToken

from tests.load.conftest import Start
from tests.load.process import Worker
from tests.load.worker import check_rows, number_of, write_until_killed
from tests.support import statements
from zoho_token_orm import SQLAlchemyTokenStore

ROUNDS = 15
WRITERS = 3
MOST_SAVES = 1_000_000
"""How many numbers a writer has for itself."""

Said = tuple[str, int]
"""What a writer has said that it has saved: how, and which number."""


def test_writers_killed_at_any_moment_leave_whole_rows_and_all_that_was_acknowledged(
    start: Start, store: SQLAlchemyTokenStore
):
    said: list[list[Said]] = [[] for _ in range(WRITERS)]
    for round_ in range(ROUNDS):
        writers = start(WRITERS, write_until_killed)
        tell_to_write(writers, round_)
        for number, writer in enumerate(writers):
            said[number] += killed(writer)
        check(store, said)
        check_that_the_next_save_meets_no_obstacle(store)
    check_file(store)


def tell_to_write(writers: list[Worker], round_: int) -> None:
    for number, writer in enumerate(writers):
        writer.tell((number, (round_ * WRITERS + number + 1) * MOST_SAVES))


def killed(writer: Worker) -> list[Said]:
    """What the writer says until it is killed, somewhere in a save."""
    said: list[Any] = [writer.answer() for _ in range(random.randint(1, 12))]
    time.sleep(random.uniform(0, 0.01))
    return [*said, *writer.kill()]


def check(store: SQLAlchemyTokenStore, said: list[list[Said]]) -> None:
    rows = store.get_tokens()
    check_rows(rows)
    numbers = {user_of(row) or number_of(row): number_of(row) for row in rows}
    for writer, saves in enumerate(said):
        for what, number in saves:
            assert is_stored(numbers, writer, what, number), f"{what} {number} is lost: {numbers}"


def is_stored(numbers: dict[Any, int], writer: int, what: str, number: int) -> bool:
    """Whether a save is there, or what came after it in the same row."""
    merged = numbers.get(f"merged{writer}", 0)
    if what == "update":
        return numbers[f"updated{writer}"] >= number
    if what == "sign in":
        return numbers.get(f"user{number}") == number
    if what == "meet":
        return number in numbers or merged > number
    return merged >= number and number - 1 not in numbers


def check_that_the_next_save_meets_no_obstacle(store: SQLAlchemyTokenStore) -> None:
    """No lock of the dead is waited for until it times out: nothing is tried twice."""
    for row in store.get_tokens():
        if (user_of(row) or "").startswith(("updated", "merged")):
            with statements(store.engine) as seen:
                store.save_token(row)
            assert seen == ["UPDATE"]


def check_file(store: SQLAlchemyTokenStore) -> None:
    """SQLite's writers have all of the file in their hands; a server is not killed with them."""
    if store.engine.dialect.name == "sqlite":
        with store.engine.connect() as connection:
            assert connection.execute(text("PRAGMA integrity_check")).scalars().all() == ["ok"]


def user_of(row: OAuthToken) -> str | None:
    signature = row.get_user_signature()
    return signature.get_name() if signature else None
