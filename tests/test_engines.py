"""A store on an engine of the caller's: it works on any, and leaves each as it is."""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
import traceback
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Engine, StaticPool, create_engine, event, text
from zohocrmsdk.src.com.zoho.crm.api.exception.sdk_exception import SDKException
from zohocrmsdk.src.com.zoho.crm.api.user_signature import UserSignature

from tests.databases import Database
from tests.support import granted, statements
from zoho_token_orm import SQLAlchemyTokenStore
from zoho_token_orm.database import bounds, resolve_url


def test_a_callers_engine_is_used_and_never_disposed_of(callers_engine):
    pool = callers_engine.pool
    with SQLAlchemyTokenStore(callers_engine, create_schema=True) as store:
        token = granted("alice")
        store.save_token(token)
        token.set_access_token("1000.fresh")
        store.save_token(token)
    assert callers_engine.pool is pool
    with callers_engine.connect() as connection:
        tokens = connection.execute(text("SELECT access_token FROM oauthtoken")).scalars().all()
    assert tokens == ["1000.fresh"]


def test_a_callers_engine_keeps_its_settings(callers_engine):
    before = (callers_engine.get_execution_options(), callers_engine.hide_parameters)
    with callers_engine.connect() as connection:
        level = connection.get_isolation_level()
    SQLAlchemyTokenStore(callers_engine, create_schema=True).save_token(granted("alice"))
    with callers_engine.connect() as connection:
        assert connection.get_isolation_level() == level
        connection.execute(text("DELETE FROM oauthtoken"))
        connection.rollback()
    with callers_engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM oauthtoken")).scalar() == 1
    assert (callers_engine.get_execution_options(), callers_engine.hide_parameters) == before


def test_a_callers_engine_may_echo_and_show_parameters_without_an_error_showing_a_token(
    callers_engine, monkeypatch
):
    """An index of the application's own refuses the save; the drivers quote the value."""
    monkeypatch.setattr(bounds, "COLLISION_PATIENCE", 0.0)
    store = SQLAlchemyTokenStore(callers_engine, create_schema=True)
    with callers_engine.begin() as connection:
        connection.execute(text("CREATE UNIQUE INDEX own ON oauthtoken (access_token)"))
    first, second = granted("first"), granted("second")
    second.set_access_token(first.get_access_token())
    store.save_token(first)
    with pytest.raises(SDKException) as caught:
        store.save_token(second)
    shown = "".join(traceback.format_exception(caught.value))
    for secret in ("1000.access-first", "1000.refresh-second", "the-secret"):
        assert secret not in shown
    assert len(store.get_tokens()) == 1


def test_an_engine_that_gives_all_threads_one_connection_serves_them_in_turn():
    engine = create_engine(
        "sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False}
    )
    stores = [SQLAlchemyTokenStore(engine, table_name=name) for name in ("one", "other")]
    barrier = threading.Barrier(8)

    def work(number: int) -> None:
        barrier.wait()
        for round_ in range(10):
            for store in stores:
                own = granted(f"{number}-{round_}")
                own.set_user_signature(None)
                store.save_token(own)
                own.set_user_signature(UserSignature(f"user{number}"))
                store.save_token(own)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert [len(store.get_tokens()) for store in stores] == [8, 8]
    engine.dispose()


@pytest.mark.skipif(sys.version_info < (3, 12), reason="sqlite3 has no autocommit attribute yet")
def test_an_engine_whose_driver_would_never_commit_is_refused(tmp_path):
    url = f"sqlite:///{tmp_path / 'tokens.db'}"
    engine = create_engine(url, connect_args={"autocommit": False})
    with pytest.raises(SDKException, match="autocommit=False"):
        SQLAlchemyTokenStore(engine)
    engine.dispose()
    engine = create_engine(url, connect_args={"autocommit": True})
    SQLAlchemyTokenStore(engine).save_token(granted("alice"))
    engine.dispose()
    with SQLAlchemyTokenStore(url) as store:
        assert len(store.get_tokens()) == 1


def test_an_engine_of_another_kind_is_refused():
    with pytest.raises(ValueError, match="URL"):
        SQLAlchemyTokenStore(object())


@pytest.mark.parametrize("level", ["SERIALIZABLE", "AUTOCOMMIT"])
def test_a_save_is_kept_whatever_isolation_level_the_engine_has_as_an_option(
    database, callers_engine, level
):
    """The engine's own option is set at every checkout, after whatever else is set there."""
    check_that_saves_are_kept(callers_engine.execution_options(isolation_level=level), database)


@pytest.mark.parametrize("level", ["SERIALIZABLE", "AUTOCOMMIT"])
def test_a_save_is_kept_whatever_isolation_level_the_engine_is_made_with(database, level):
    check_that_saves_are_kept(
        create_engine(resolve_url(database.url), isolation_level=level), database
    )


def check_that_saves_are_kept(engine: Engine, database: Database) -> None:
    with engine.connect() as connection:
        level = connection.get_isolation_level()
    store = SQLAlchemyTokenStore(engine, create_schema=True)
    kept, gone = granted("kept"), granted("gone")
    store.save_token(kept)
    store.save_token(gone)
    store.delete_token(gone.get_id())
    assert [token.get_id() for token in store.get_tokens()] == [kept.get_id()]
    with engine.connect() as connection:
        assert connection.get_isolation_level() == level
    engine.dispose()
    if database.name != "sqlite-memory":
        with SQLAlchemyTokenStore(database.url) as another:
            assert [token.get_id() for token in another.get_tokens()] == [kept.get_id()]


def test_the_applications_own_listeners_see_what_the_store_does(callers_engine):
    store = SQLAlchemyTokenStore(callers_engine, create_schema=True)
    assert store.engine is callers_engine
    with statements(callers_engine) as seen:
        store.save_token(granted("alice"))
    assert seen == ["SELECT", "INSERT"]


def test_listeners_that_leave_a_transaction_open_are_no_obstacle(callers_engine):
    """As recipes that try each connection, or set it up, have them."""

    @event.listens_for(callers_engine, "engine_connect")
    def ping(connection):
        connection.scalar(text("SELECT 1"))

    @event.listens_for(callers_engine, "connect")
    def set_up(connection, record):
        query(connection)

    @event.listens_for(callers_engine, "checkout")
    def try_it(connection, record, proxy):
        query(connection)

    def query(connection):
        cursor = connection.cursor()
        cursor.execute("SELECT 1")
        cursor.fetchall()
        cursor.close()

    store = SQLAlchemyTokenStore(callers_engine, create_schema=True)
    store.save_token(granted("alice"))
    assert len(store.get_tokens()) == 1


@pytest.mark.parametrize("level", [None, "AUTOCOMMIT"])
def test_an_engine_whose_listener_begins_transactions_is_refused_before_it_loses_a_save(
    database, level
):
    """Nobody would commit them: as in the recipe for SQLite that emits its own BEGIN."""
    options = {"isolation_level": level} if level else {}
    engine = create_engine(resolve_url(database.url), **options)

    @event.listens_for(engine, "begin")
    def begin(connection):
        connection.exec_driver_sql("BEGIN")

    for create_schema in (True, False):
        with pytest.raises(SDKException, match="listener for 'begin'"):
            SQLAlchemyTokenStore(engine, create_schema=create_schema)
    engine.dispose()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_children_of_a_fork_share_no_connection_with_their_parent(database, callers_engine):
    if database.name == "sqlite-memory":
        pytest.skip("a database in memory is its process's own")
    store = SQLAlchemyTokenStore(callers_engine, create_schema=True)
    tokens = [granted(str(number)) for number in range(4)]
    for token in tokens:
        store.save_token(token)

    def work(token) -> None:
        for _ in range(50):
            found = store.find_token_by_id(token.get_id())
            assert found.get_refresh_token() == token.get_refresh_token()

    fork = multiprocessing.get_context("fork")
    children = [fork.Process(target=work, args=(token,)) for token in tokens]
    for child in children:
        child.start()
    work(tokens[0])
    for child in children:
        child.join(60)
    assert [child.exitcode for child in children] == [0] * 4
    work(tokens[0])
