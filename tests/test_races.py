"""What happens between the statements of a save: each race is staged, none is left to luck."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from sqlalchemy import event
from zohocrmsdk.src.com.zoho.api.authenticator.oauth_token import OAuthToken
from zohocrmsdk.src.com.zoho.crm.api.exception.sdk_exception import SDKException
from zohocrmsdk.src.com.zoho.crm.api.user_signature import UserSignature

from tests.databases import Database, fresh_database
from tests.support import granted, values
from zoho_token_orm import SQLAlchemyTokenStore
from zoho_token_orm.database import bounds


@pytest.fixture(params=["sqlite-file", "postgresql", "mysql", "mariadb"])
def database(request, tmp_path) -> Iterator[Database]:
    """An empty database that two stores can share."""
    with fresh_database(request.param, tmp_path) as fresh:
        yield fresh


@pytest.fixture
def rival(database, store) -> Iterator[SQLAlchemyTokenStore]:
    """Another worker's store on the same table."""
    with SQLAlchemyTokenStore(database.url) as made:
        yield made


@contextmanager
def just_before(store: SQLAlchemyTokenStore, word: str, act: Callable[[], object]):
    """Acts once, right before the store's next statement that begins with that word."""
    acted = []

    def watch(connection, cursor, statement, *rest):
        if statement.startswith(word) and not acted:
            acted.append(word)
            act()

    event.listen(store.engine, "before_cursor_execute", watch)
    yield
    event.remove(store.engine, "before_cursor_execute", watch)
    assert acted == [word]


def test_another_worker_that_inserts_the_same_user_first_leaves_one_row(store, rival):
    first, second = granted("alice"), granted("alice")
    second.set_access_token("1000.later")
    with just_before(store, "INSERT", lambda: rival.save_token(first)):
        store.save_token(second)
    (row,) = store.get_tokens()
    assert values(row) == values(second)
    assert first.get_id() == second.get_id()


def test_one_access_token_saved_by_many_at_once_is_one_row(store, rival):
    """No constraint keeps it single, as it does the other names of a row."""
    barrier = threading.Barrier(8)

    def save(number: int) -> str:
        token = OAuthToken(access_token="1000.access")
        barrier.wait()
        (store, rival)[number % 2].save_token(token)
        return token.get_id()

    for _ in range(5):
        with ThreadPoolExecutor(8) as pool:
            ids = set(pool.map(save, range(8)))
        (row,) = store.get_tokens()
        assert ids == {row.get_id()}
        store.delete_tokens()


def test_a_row_deleted_before_it_is_updated_is_inserted_for_a_new_login(store, rival):
    rival.save_token(granted("alice"))
    token = granted("alice")
    with just_before(store, "UPDATE", rival.delete_tokens):
        store.save_token(token)
    assert [values(row) for row in store.get_tokens()] == [values(token)]


def test_a_row_deleted_before_it_is_updated_stays_deleted_for_a_token_of_before(store, rival):
    store.save_token(granted("alice"))
    (token,) = store.get_tokens()
    with (
        just_before(store, "UPDATE", rival.delete_tokens),
        pytest.raises(SDKException, match="has been deleted"),
    ):
        store.save_token(token)
    assert store.get_tokens() == []


def test_a_row_that_takes_a_unique_value_before_the_update_is_merged(store, rival):
    store.save_token(granted("alice"))
    (token,) = store.get_tokens()
    token.set_refresh_token("1000.of-both")
    other = granted("other")
    other.set_refresh_token("1000.of-both")
    with just_before(store, "UPDATE", lambda: rival.save_token(other)):
        store.save_token(token)
    assert [values(row) for row in store.get_tokens()] == [values(token)]


def test_a_merge_that_cannot_finish_changes_nothing(store, rival):
    """The update after the delete fails for good: the deleted row is there again."""
    store.save_token(granted("alice"))
    before_user_was_known = granted("other")
    before_user_was_known.set_user_signature(None)
    store.save_token(before_user_was_known)
    rows = [values(row) for row in rival.get_tokens()]
    before_user_was_known.set_user_signature(UserSignature("alice@example.com:7001"))

    def fail(connection, cursor, statement, *rest):
        if statement.startswith("UPDATE") and connection.info.get("deleted"):
            raise RuntimeError("the process is killed here")
        connection.info["deleted"] = statement.startswith("DELETE")

    event.listen(store.engine, "before_cursor_execute", fail)
    with pytest.raises(RuntimeError):
        store.save_token(before_user_was_known)
    event.remove(store.engine, "before_cursor_execute", fail)
    assert [values(row) for row in rival.get_tokens()] == rows
    store.save_token(before_user_was_known)
    assert len(store.get_tokens()) == 1


def test_a_collision_without_end_is_an_error_that_says_how_long_was_tried(
    store, rival, monkeypatch
):
    monkeypatch.setattr(bounds, "COLLISION_PATIENCE", 0.2)
    with store.engine.connect() as connection:
        connection.exec_driver_sql("CREATE UNIQUE INDEX own ON oauthtoken (access_token)")
    first, second = granted("alice"), granted("bob")
    second.set_access_token(first.get_access_token())
    store.save_token(first)
    with pytest.raises(SDKException, match=r"tried \d+ times in \d+\.\d seconds"):
        store.save_token(second)
    assert second.get_id() is None
    assert [values(row) for row in store.get_tokens()] == [values(first)]
