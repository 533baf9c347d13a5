"""What SQLAlchemyTokenStore promises beyond the six methods, and in how many statements."""

from __future__ import annotations

import gc
import logging
import multiprocessing
import os
import stat
import threading
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone

import pytest
from sqlalchemy import create_engine, make_url, update
from zohocrmsdk.src.com.zoho.api.authenticator.oauth_token import OAuthToken
from zohocrmsdk.src.com.zoho.crm.api.exception.sdk_exception import SDKException
from zohocrmsdk.src.com.zoho.crm.api.user_signature import UserSignature

import zoho_token_orm
from tests.databases import Database
from tests.proxy import Proxy
from tests.support import granted, in_an_hour, statements, values
from zoho_token_orm import OAuthTokenRow, SQLAlchemyTokenStore, schema
from zoho_token_orm import store as module
from zoho_token_orm.database import resolve_url

# How many statements


def test_a_first_save_is_a_look_up_and_an_insert(store):
    with statements(store.engine) as seen:
        store.save_token(granted("alice"))
    assert seen == ["SELECT", "INSERT"]


def test_the_save_that_follows_a_refresh_is_one_update(store):
    store.save_token(granted("alice"))
    (token,) = store.get_tokens()
    token.set_access_token("1000.fresh")
    token.set_expires_in(in_an_hour())
    with statements(store.engine) as seen:
        store.save_token(token)
    assert seen == ["UPDATE"]
    assert store.find_token_by_id(token.get_id()).get_access_token() == "1000.fresh"


@pytest.mark.parametrize(
    "known",
    [
        {"grant_token": "1000.grant-alice"},
        {"refresh_token": "1000.refresh-alice", "grant_token": "1000.spent"},
        {"user_signature": UserSignature("alice@example.com:7001")},
        {"id": "no such id", "grant_token": "1000.grant-alice"},
    ],
)
def test_a_look_up_is_one_select_whatever_is_known(store, known):
    store.save_token(granted("alice"))
    token = OAuthToken(client_id="1000.CLIENT", client_secret="the-secret", **known)
    with statements(store.engine) as seen:
        assert store.find_token(token) is token
    assert seen == ["SELECT"]


def test_a_look_up_that_finds_nothing_is_one_select_too(store):
    with statements(store.engine) as seen:
        assert store.find_token(OAuthToken(access_token="1000.unknown")) is None
        assert store.find_token_by_id("unknown") is None
    assert seen == ["SELECT", "SELECT"]


def test_a_token_without_identity_asks_no_database(store):
    token = OAuthToken(access_token="")
    with statements(store.engine) as seen:
        assert store.find_token(token) is None
        assert store.find_token_by_id("") is None
    assert seen == []


def test_deleting_and_listing_are_one_statement_each(store):
    store.save_token(granted("alice"))
    with statements(store.engine) as seen:
        (token,) = store.get_tokens()
        store.delete_token(token.get_id())
        store.delete_tokens()
        store.purge(timedelta(days=1))
    assert seen == ["SELECT", "DELETE", "DELETE", "DELETE"]


def test_only_a_merge_needs_a_transaction(store):
    store.save_token(granted("alice"))
    second = granted("second")
    second.set_user_signature(None)
    store.save_token(second)
    second.set_user_signature(UserSignature("alice@example.com:7001"))
    with statements(store.engine) as seen:
        store.save_token(second)
    merge = ["SELECT", "BEGIN", "SELECT", "DELETE", "UPDATE", "COMMIT"]
    assert seen == ["UPDATE", *merge]
    assert [values(token) for token in store.get_tokens()] == [values(second)]


@pytest.fixture
def proxy(database: Database) -> Iterator[Proxy]:
    """Something that counts the round trips to the server."""
    if not database.is_server:
        pytest.skip("there is no server, and no round trip")
    with Proxy(resolve_url(database.url)) as running:
        yield running


@pytest.mark.parametrize("given", ["url", "engine"])
def test_each_of_them_is_one_round_trip(database, proxy, given):
    """No BEGIN, no ROLLBACK on return, no ping: nothing else goes over the wire."""
    url = proxy.url
    if database.name == "postgresql":
        url = url.update_query_dict({"sslmode": "disable"})
    engine = create_engine(
        url,
        isolation_level="AUTOCOMMIT",
        skip_autocommit_rollback=True,
        pool_reset_on_return=None,
    )
    token = granted("alice")
    with SQLAlchemyTokenStore(engine if given == "engine" else url, create_schema=True) as store:
        calls = {
            "find_token_by_id": lambda: store.find_token_by_id(token.get_id()),
            "find_token": lambda: store.find_token(granted("alice")),
            "save_token": lambda: store.save_token(token),
            "delete_tokens": store.delete_tokens,
        }
        store.save_token(token)
        for call in list(calls.values())[:3] * 10:  # until psycopg has prepared the statements
            call()
        assert {name: _counted(proxy, call) for name, call in calls.items()} == dict.fromkeys(
            calls, 1
        )
        assert _counted(proxy, lambda: store.save_token(granted("bob"))) == 2
    engine.dispose()


def _counted(proxy: Proxy, call) -> int:
    before = proxy.round_trips
    call()
    return proxy.round_trips - before


# Where the database is


@pytest.mark.parametrize(
    ("spelling", "driver"),
    [
        ("postgres://u@h/d", "postgresql+psycopg"),
        ("postgresql://u@h/d", "postgresql+psycopg"),
        ("postgresql+psycopg://u@h/d", "postgresql+psycopg"),
        ("mysql://u@h/d", "mysql+pymysql"),
        ("mariadb://u@h/d", "mariadb+pymysql"),
        ("sqlite://", "sqlite"),
    ],
)
def test_spellings_that_people_paste_get_the_driver_of_this_package(spelling, driver):
    assert resolve_url(spelling).drivername == driver


def test_every_spelling_of_a_servers_url_works(database):
    if not database.is_server:
        pytest.skip("SQLite has one spelling")
    schema.upgrade(database.url)
    names = ["postgres", "postgresql"] if database.name == "postgresql" else ["mysql"]
    for name in [*names, *(["mariadb"] if database.name == "mariadb" else [])]:
        url = f"{name}://{database.url.partition('://')[2]}"
        with SQLAlchemyTokenStore(url) as store:
            assert store.get_tokens() == []


def test_without_an_argument_the_environment_tells_the_url(database, monkeypatch):
    monkeypatch.setenv("ZOHO_TOKEN_DB_URL", database.url)
    with SQLAlchemyTokenStore(create_schema=True) as store:
        assert store.engine.url.database == resolve_url(database.url).database


def test_without_anything_it_is_a_file_in_the_working_folder(tmp_path, monkeypatch):
    monkeypatch.delenv("ZOHO_TOKEN_DB_URL", raising=False)
    monkeypatch.chdir(tmp_path)
    SQLAlchemyTokenStore().close()
    assert (tmp_path / "zohooauth.db").exists()


def test_a_relative_path_stays_the_same_file_when_the_process_moves(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with SQLAlchemyTokenStore("sqlite:///tokens.db") as store:
        store.save_token(granted("alice"))
        store.engine.dispose()
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")
        assert len(store.get_tokens()) == 1


def test_a_sqlite_file_is_readable_by_its_owner_alone(tmp_path):
    before = os.umask(0)
    try:
        with SQLAlchemyTokenStore(f"sqlite:///{tmp_path / 'tokens.db'}") as store:
            store.save_token(granted("alice"))
            modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    finally:
        os.umask(before)
    assert modes == {"tokens.db": 0o600, "tokens.db-wal": 0o600, "tokens.db-shm": 0o600}


@pytest.mark.parametrize(
    "url",
    [
        "",
        "nonsense",
        "://app:geheim@db/crm",
        "postgresql://app:geheim@db:port/crm",
        "oracle://app:geheim@db/crm",
        "postgresql+asyncpg://app:geheim@db/crm",
        "postgresql+nonsense://app:geheim@db/crm",
        "postgresql://app:geheim@127.0.0.1:1/crm",
        "mysql://app:geheim@127.0.0.1:1/crm",
        "postgresql://app@127.0.0.1:1/crm?password=geheim",
        "postgresql://app:geheim@127.0.0.1:1/crm?nonsense=geheim",
        "mysql://app:geheim@127.0.0.1:1/crm?nonsense=geheim",
        "mysql://app:geheim@127.0.0.1:1/crm?connect_timeout=geheim",
        "mysql://app:geheim@127.0.0.1:1/crm?ssl_ca=/nowhere/geheim",
        "postgresql://app:an@geheim@127.0.0.1:1/crm",
        "postgresql://app:an@geheim/x@127.0.0.1:1/crm",
        "mysql://app:an@geheim?x@127.0.0.1:1/crm",
        "mysql://app:an@[geheim]@127.0.0.1:1/crm",
        "mysql://app:an@geheim/x@127.0.0.1:1/crm",
        "mysql://app:geheim@127.0.0.1:1/crm?charset=geheim",
        17,
        b"sqlite://",
    ],
)
def test_an_unusable_url_is_an_error_that_does_not_show_the_password(url, monkeypatch):
    monkeypatch.delenv("ZOHO_TOKEN_DB_URL", raising=False)
    monkeypatch.setenv("ZOHO_TOKEN_DB_URL", "nonsense")
    with pytest.raises((ValueError, SDKException)) as caught:
        SQLAlchemyTokenStore(url)
    assert "geheim" not in "".join(traceback.format_exception(caught.value))


def test_an_engine_made_with_such_a_url_does_not_show_it_either():
    engine = create_engine("postgresql+psycopg://app:an@geheim@127.0.0.1:1/crm")
    with pytest.raises(ValueError, match="percent-encoded") as caught:
        SQLAlchemyTokenStore(engine)
    assert "geheim" not in "".join(traceback.format_exception(caught.value))


def test_a_servers_url_without_a_database_says_what_is_missing(database):
    if database.name not in ("mysql", "mariadb"):
        pytest.skip("the other servers have a default")
    url = make_url(database.url).set(database="")
    for create_schema in (True, False):
        with pytest.raises(SDKException, match="names no database"):
            SQLAlchemyTokenStore(url, create_schema=create_schema)


def test_text_that_the_connection_cannot_carry_is_an_error_that_does_not_show_it(database):
    if not database.is_server:
        pytest.skip("SQLite speaks UTF-8 alone")
    option = "client_encoding" if database.name == "postgresql" else "charset"
    url = make_url(database.url).update_query_dict({option: "latin1"})
    token = granted("alice")
    with SQLAlchemyTokenStore(url, create_schema=True) as store:
        store.save_token(token)
        token.set_user_signature(UserSignature("Łukasz"))
        with pytest.raises(SDKException, match="character set") as caught:
            store.save_token(token)
        assert len(store.get_tokens()) == 1
    assert "ukasz" not in "".join(traceback.format_exception(caught.value))


def test_a_wrong_password_is_an_error_that_does_not_show_it(database):
    if database.name not in ("mysql", "mariadb"):
        pytest.skip("the other servers here let everybody in")
    url = resolve_url(database.url).set(username="nobody", password="geheim")
    with pytest.raises(SDKException) as caught:
        SQLAlchemyTokenStore(url)
    assert "geheim" not in "".join(traceback.format_exception(caught.value))


def test_a_folder_that_does_not_exist_is_an_error_and_is_not_made(tmp_path):
    with pytest.raises(SDKException, match="unable to open database file"):
        SQLAlchemyTokenStore(f"sqlite:///{tmp_path / 'nowhere' / 'tokens.db'}")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_database_is_an_error_and_is_left_alone(tmp_path):
    path = tmp_path / "letter.txt"
    path.write_text("Dear Alice, " * 1000)
    for create_schema in (True, False):
        with pytest.raises(SDKException, match="not a database"):
            SQLAlchemyTokenStore(f"sqlite:///{path}", create_schema=create_schema)
    assert path.read_text() == "Dear Alice, " * 1000


def test_a_folder_is_no_database(tmp_path):
    with pytest.raises(SDKException):
        SQLAlchemyTokenStore(f"sqlite:///{tmp_path}")


# The schema


def test_on_sqlite_the_schema_is_made_by_default_and_on_a_server_it_is_not(database):
    if database.is_server:
        with pytest.raises(SDKException, match="zoho-token-orm upgrade"):
            SQLAlchemyTokenStore(database.url)
        assert schema.current(database.url) is None
    else:
        SQLAlchemyTokenStore(database.url).close()


def test_without_create_schema_a_missing_schema_names_the_command(database):
    with pytest.raises(SDKException, match="run: zoho-token-orm upgrade --table-name tokens"):
        SQLAlchemyTokenStore(database.url, create_schema=False, table_name="tokens")


def test_a_table_that_has_gone_since_names_the_command(store):
    with store.engine.connect() as connection:
        connection.exec_driver_sql("DROP TABLE oauthtoken")
    with pytest.raises(SDKException, match=r"run: zoho-token-orm upgrade\b"):
        store.find_token_by_id("1")
    with pytest.raises(SDKException, match="zoho-token-orm upgrade"):
        store.save_token(granted("alice"))


@pytest.mark.parametrize("name", ["oauthtoken", "tokens"])
def test_a_table_that_somebody_has_dropped_is_missing_and_is_made_anew(
    callers_engine, database, name
):
    """Its revision is still written down; as after a downgrade that was killed on MySQL."""
    schema.upgrade(callers_engine, table_name=name)
    with callers_engine.begin() as connection:
        connection.exec_driver_sql(f"DROP TABLE {name}")
    option = "" if name == "oauthtoken" else " --table-name tokens"
    with pytest.raises(SDKException, match=f"is missing; run: zoho-token-orm upgrade{option} "):
        SQLAlchemyTokenStore(callers_engine, create_schema=False, table_name=name)
    assert schema.current(callers_engine, table_name=name) is None
    schema.upgrade(callers_engine, table_name=name)
    schema.check(callers_engine, table_name=name)
    with callers_engine.begin() as connection:
        connection.exec_driver_sql(f"DROP TABLE {name}")
    SQLAlchemyTokenStore(callers_engine, create_schema=True, table_name=name).save_token(
        granted("alice")
    )
    schema.downgrade(callers_engine, table_name=name)
    assert schema.current(callers_engine, table_name=name) is None


def test_two_stores_share_a_database_under_two_names(callers_engine):
    one = SQLAlchemyTokenStore(callers_engine, create_schema=True, table_name="one")
    two = SQLAlchemyTokenStore(callers_engine, create_schema=True, table_name="order")
    one.save_token(granted("alice"))
    assert (len(one.get_tokens()), two.get_tokens()) == (1, [])


def test_stores_made_at_once_in_many_threads_all_work(database):
    if database.name == "sqlite-memory":
        pytest.skip("each would be a database of its own")

    def use(name: str) -> None:
        with SQLAlchemyTokenStore(database.url, create_schema=True) as store:
            store.save_token(granted(name))

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(use, "abcdef"))
    with SQLAlchemyTokenStore(database.url) as store:
        assert len(store.get_tokens()) == 6


# Arguments


@pytest.mark.parametrize("name", ["", "a b", "a;b", "x" * 44, None, 3])
def test_a_table_name_that_cannot_be_one_is_refused(name):
    with pytest.raises(ValueError, match="table_name"):
        SQLAlchemyTokenStore("sqlite://", table_name=name)


@pytest.mark.parametrize(
    "seconds", [-1, float("inf"), float("nan"), "10", None, True, 86_401, 10**400]
)
def test_a_refresh_wait_that_is_no_number_of_seconds_is_refused(seconds):
    with pytest.raises(ValueError, match="refresh_wait"):
        SQLAlchemyTokenStore("sqlite://", refresh_wait=seconds)


# Threads, processes, closing


def test_one_store_serves_any_number_of_threads(store):
    names = [f"user{number}" for number in range(48)]
    barrier = threading.Barrier(16)

    def work(thread: int) -> None:
        barrier.wait()
        for name in names[thread::16]:
            token = granted(name)
            store.save_token(token)
            again = OAuthToken(user_signature=UserSignature(f"{name}@example.com:7001"))
            assert store.find_token(again).get_refresh_token() == token.get_refresh_token()

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(work, range(16)))
    found = {token.get_user_signature().get_name() for token in store.get_tokens()}
    assert found == {f"{name}@example.com:7001" for name in names}


def test_threads_that_merge_and_read_at_once_leave_one_row(store):
    """Also on the one connection of a database in memory, where a transaction must stay whole."""
    barrier = threading.Barrier(8)

    def work(number: int) -> None:
        barrier.wait()
        for round_ in range(5):
            own = granted(f"{number}-{round_}")
            own.set_user_signature(None)
            store.save_token(own)
            own.set_user_signature(UserSignature("the-user"))
            store.save_token(own)
            store.get_tokens()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    (token,) = store.get_tokens()
    suffix = token.get_refresh_token().removeprefix("1000.refresh-")
    assert token.get_access_token() == f"1000.access-{suffix}"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_store_made_and_used_before_a_fork_works_in_parent_and_child(store, database):
    if database.name == "sqlite-memory":
        pytest.skip("a database in memory is its process's own")
    store.save_token(granted("parent"))
    child = multiprocessing.get_context("fork").Process(
        target=lambda: store.save_token(granted("child"))
    )
    child.start()
    child.join(60)
    store.save_token(granted("parent again"))
    assert child.exitcode == 0
    assert len(store.get_tokens()) == 3


def test_a_closed_store_says_so(database):
    with SQLAlchemyTokenStore(database.url, create_schema=True) as store:
        pass
    with pytest.raises(SDKException, match="the store is closed"):
        store.get_tokens()
    store.close()


def test_the_store_holds_on_to_no_token(store):
    token = granted("alice")
    store.save_token(token)
    store.find_token(token)
    del token
    gc.collect()
    assert len(store._known) == 0


# Streaming and purging


def test_tokens_stream_in_the_order_of_their_age_across_pages(store, monkeypatch):
    monkeypatch.setattr(module, "PAGE", 10)
    for number in range(35):
        store.save_token(granted(f"user{number}"))
    streamed = [values(token) for token in store.iter_tokens()]
    assert streamed == [values(token) for token in store.get_tokens()]
    assert [token["refresh_token"] for token in streamed] == [
        f"1000.refresh-user{number}" for number in range(35)
    ]


def test_rows_of_the_same_moment_are_streamed_once_each(store, monkeypatch):
    monkeypatch.setattr(module, "PAGE", 10)
    with store.engine.connect() as connection:
        connection.exec_driver_sql(
            "INSERT INTO oauthtoken (id, created_at) VALUES "
            + ", ".join(f"('{number}', '2026-01-01 00:00:00.000000')" for number in range(35))
        )
    ids = [token.get_id() for token in store.iter_tokens()]
    assert sorted(ids, key=int) == [str(number) for number in range(35)]


def test_the_store_may_be_used_while_tokens_stream(store, monkeypatch):
    monkeypatch.setattr(module, "PAGE", 2)
    for number in range(6):
        store.save_token(granted(f"user{number}"))
    seen = 0
    for token in store.iter_tokens():
        store.delete_token(token.get_id())
        seen += 1
    assert (seen, store.get_tokens()) == (6, [])


def test_purge_deletes_what_nobody_has_saved_for_so_long_and_counts_it(store):
    for name in ("old", "fresh"):
        store.save_token(granted(name))
    a_week_ago = datetime.now(timezone.utc) - timedelta(days=7)
    with store.engine.connect() as connection:
        connection.execute(
            update(OAuthTokenRow)
            .where(OAuthTokenRow.refresh_token == "1000.refresh-old")
            .values(updated_at=a_week_ago, expiry_time=int(a_week_ago.timestamp() * 1000))
        )
    assert store.purge(unused_for=timedelta(days=8)) == 0
    assert store.purge(unused_for=timedelta(days=6)) == 1
    assert [token.get_refresh_token() for token in store.get_tokens()] == ["1000.refresh-fresh"]
    assert store.purge(unused_for=timedelta(days=999_999)) == 0
    time.sleep(0.001)
    assert store.purge(unused_for=timedelta(0)) == 1


def test_purge_is_not_misled_by_an_expiry_that_zoho_cannot_have_given(store):
    token = granted("alice")
    token.set_expires_in("4102444800000")
    store.save_token(token)
    with store.engine.connect() as connection:
        long_ago = datetime.now(timezone.utc) - timedelta(days=90)
        connection.execute(update(OAuthTokenRow).values(updated_at=long_ago))
    assert store.purge(unused_for=timedelta(days=30)) == 1


def test_purge_spares_a_token_that_another_store_has_refreshed(store):
    """The SDK's DBStore, on the same table, does not know updated_at."""
    store.save_token(granted("alice"))
    with store.engine.connect() as connection:
        long_ago = datetime.now(timezone.utc) - timedelta(days=90)
        connection.execute(update(OAuthTokenRow).values(updated_at=long_ago))
    assert store.purge(unused_for=timedelta(days=30)) == 0


@pytest.mark.parametrize("unused_for", [None, 30, timedelta(seconds=-1)])
def test_purge_refuses_what_is_no_length_of_time(store, unused_for):
    store.save_token(granted("alice"))
    with pytest.raises(SDKException, match="timedelta"):
        store.purge(unused_for)
    assert len(store.get_tokens()) == 1


# Nothing leaks, nothing is silent


def test_a_save_that_fails_is_logged_without_any_secret(store, caplog):
    token = granted("alice")
    token.set_expires_in("tomorrow")
    with caplog.at_level(logging.ERROR, "zoho_token_orm"), pytest.raises(SDKException):
        store.save_token(token)
    (record,) = caplog.records
    assert "expires_in" in record.getMessage()
    assert "1000." not in record.getMessage()


def test_a_repr_shows_where_but_no_password_and_no_secret(database, store):
    password = resolve_url(database.url).password
    assert not password or f":{password}@" not in repr(store)
    row = OAuthTokenRow(id="7", user_name="alice", refresh_token="1000.r", client_secret="geheim")
    assert repr(row) == "OAuthTokenRow(id='7', user_name='alice')"
    assert "SQLAlchemyTokenStore(" in repr(store)


def test_the_public_names_are_these():
    assert zoho_token_orm.__all__ == ["OAuthTokenRow", "SQLAlchemyTokenStore"]
