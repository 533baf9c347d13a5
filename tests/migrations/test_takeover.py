"""A table of the SDK's own stores is taken over where it is, and given back, with all its rows."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime, timezone
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import create_engine, event, inspect, text
from zohocrmsdk.src.com.zoho.api.authenticator.oauth_token import OAuthToken
from zohocrmsdk.src.com.zoho.api.authenticator.store import DBStore
from zohocrmsdk.src.com.zoho.crm.api.exception.sdk_exception import SDKException
from zohocrmsdk.src.com.zoho.crm.api.user_signature import UserSignature

from tests.databases import fresh_database
from tests.sdk_tables import COLUMNS, DOCUMENTED, dbstore_arguments, fill, rows_in, sdk_row
from tests.support import OLD, granted, run, values
from zoho_token_orm import SQLAlchemyTokenStore, schema
from zoho_token_orm.database import URL_VARIABLE, bounds, resolve_url


@pytest.fixture(params=["sqlite-file", "postgresql", "mysql", "mariadb"])
def database(request, tmp_path):
    """An empty database of each kind that outlives a connection."""
    with fresh_database(request.param, tmp_path) as fresh:
        yield fresh


@pytest.fixture
def engine(database):
    made = create_engine(resolve_url(database.url))
    yield made
    made.dispose()


def test_the_table_that_the_sdk_documents_is_taken_over_with_its_rows(database, engine):
    rows = [sdk_row(str(n), f"user{n}@example.com:1") for n in range(1, 11)]
    fill(engine, *rows)
    assert schema.upgrade(database.url) == ""
    schema.check(database.url)
    assert not inspect(engine).has_table("oauthtoken_duplicates")
    assert rows_in(engine) == {row["id"]: {**row, "expiry_time": 1700000000000} for row in rows}
    with SQLAlchemyTokenStore(database.url) as store:
        for row in rows:
            token = store.find_token(OAuthToken(user_signature=UserSignature(row["user_name"])))
            assert token.get_id() == row["id"]
            assert token.get_expires_in() == row["expiry_time"]
            token.set_access_token(f"fresh-{token.get_id()}")
            store.save_token(token)
        assert [token.get_access_token() for token in store.get_tokens()] == [
            f"fresh-{id}" for id in sorted(row["id"] for row in rows)
        ]
        store.save_token(granted("somebody-new"))


def test_a_table_from_before_there_were_data_centres_is_taken_over(database, engine):
    row = {name: v for name, v in sdk_row("1", "a@b:1").items() if name != "api_domain"}
    fill(engine, row, create=DOCUMENTED.replace("api_domain varchar(255), ", ""))
    schema.upgrade(database.url)
    schema.check(database.url)
    assert rows_in(engine)["1"]["api_domain"] is None


def test_empty_strings_become_null_and_an_expiry_a_number(database, engine):
    empty = dict.fromkeys(set(COLUMNS) - {"id", "refresh_token"}, "")
    fill(
        engine,
        {**sdk_row("1", None), **empty},
        {**sdk_row("2", None), **empty},
        sdk_row("3", "c@example.com:1", expiry_time="soon"),
        sdk_row("4", "d@example.com:1", expiry_time=None),
        sdk_row("5", "e@example.com:1", expiry_time="0"),
        sdk_row("6", "f@example.com:1", expiry_time="", refresh_token=None),
    )
    assert schema.upgrade(database.url) == ""
    schema.check(database.url)
    rows = rows_in(engine)
    for id in ("1", "2"):
        assert {name for name, value in rows[id].items() if value} == {"id", "refresh_token"}
        assert {rows[id][name] for name in empty} == {None}
    assert [rows[id]["expiry_time"] for id in "345"] == [0, 0, 0]  # refreshed at its next use
    assert rows["6"]["expiry_time"] is None


def test_of_several_rows_of_one_user_the_newest_stays_and_the_others_are_kept(database, engine):
    carol = "carol@example.com:1"
    old = sdk_row("1", carol, expiry_time="100", access_token="old", grant_token="1000.grant")
    new = sdk_row("2", carol, expiry_time="300", access_token="new", refresh_token=None)
    middle = sdk_row("3", carol, expiry_time="200", access_token="middle")
    other = sdk_row("4", "dave@example.com:1")
    fill(engine, old, new, middle, other)
    said = schema.upgrade(database.url)
    assert "2 rows that have lost" in said
    assert "oauthtoken_duplicates" in said
    schema.check(database.url)
    rows = rows_in(engine)
    assert set(rows) == {"2", "4"}
    # What the newest lacks it gets of the others: a refresh token is not lost.
    filled = {"refresh_token": "1000.refresh-carol", "grant_token": "1000.grant"}
    assert rows["2"] == {**new, **filled, "expiry_time": 300}
    assert rows_in(engine, "oauthtoken_duplicates") == {"1": old, "3": middle}
    with engine.connect() as connection:
        stays = connection.execute(text("SELECT DISTINCT stays FROM oauthtoken_duplicates"))
        assert stays.scalars().all() == ["2"]


def test_rows_with_one_refresh_or_grant_token_in_common_are_one_authorization(database, engine):
    fill(
        engine,
        sdk_row("1", None, refresh_token="1000.r", expiry_time="1"),
        sdk_row("2", "eve@example.com:1", refresh_token="1000.r", expiry_time="2"),
        sdk_row("3", None, refresh_token=None, grant_token="1000.g", expiry_time="3"),
        sdk_row("4", "fay@example.com:1", grant_token="1000.g", expiry_time="2"),
    )
    assert "2 rows that have lost" in schema.upgrade(database.url)
    rows = rows_in(engine)
    assert set(rows) == {"2", "3"}
    assert rows["3"]["user_name"] == "fay@example.com:1"
    assert rows["3"]["refresh_token"] == "1000.refresh-fay"
    assert rows["3"]["expiry_time"] == 3


def test_nothing_goes_from_one_client_to_another(database, engine):
    fill(
        engine,
        sdk_row("1", "a@b:1", client_id="1000.ONE", expiry_time="1"),
        sdk_row("2", "a@b:1", client_id="1000.TWO", expiry_time="2", refresh_token=None),
    )
    assert "1 rows that have lost" in schema.upgrade(database.url)
    assert rows_in(engine)["2"]["refresh_token"] is None


def test_tokens_that_differ_in_case_or_accents_alone_are_different(database, engine):
    users = ("zoe@example.com:1", "ZOE@example.com:1", "zoé@example.com:1")
    rows = [sdk_row(str(n), user, refresh_token=f"1000.{n}") for n, user in enumerate(users)]
    rows.append(sdk_row("7", None, refresh_token="1000.abc"))
    rows.append(sdk_row("8", None, refresh_token="1000.ABC"))
    fill(engine, *rows)
    assert schema.upgrade(database.url) == ""
    assert len(rows_in(engine)) == 5
    with SQLAlchemyTokenStore(database.url) as store:
        for n, user in enumerate(users):
            found = store.find_token(OAuthToken(user_signature=UserSignature(user)))
            assert found.get_id() == str(n)


@pytest.mark.parametrize(
    "secret", ["sécret", "é" * 200, "with a space ", "UTF-8''a", "tab\tbed", "zto1.x"]
)
def test_secrets_of_any_characters_come_back_as_dbstore_has_written_them(database, engine, secret):
    fill(engine, sdk_row("1", "a@b:1", client_secret=secret))
    schema.upgrade(database.url)
    with SQLAlchemyTokenStore(database.url) as store:
        assert store.find_token_by_id("1").get_client_secret() == secret.replace("UTF-8''", "")
    schema.downgrade(database.url, "zto_sdk")
    assert rows_in(engine)["1"]["client_secret"] == secret.replace("UTF-8''", "")


PORTED = {
    "text and numbers": (
        ["sqlite-file", "postgresql"],
        "CREATE TABLE oauthtoken (id integer PRIMARY KEY, user_name text NOT NULL, client_id text "
        "NOT NULL, client_secret text, refresh_token text, access_token text, grant_token text "
        "DEFAULT '', expiry_time bigint, redirect_url text, api_domain text)",
    ),
    "an identity, and indexes": (
        ["postgresql"],
        "CREATE TABLE oauthtoken (id bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, "
        "user_name varchar(255) UNIQUE, client_id text, client_secret text, refresh_token text, "
        "access_token text, grant_token text NOT NULL, expiry_time varchar(20), redirect_url text, "
        "api_domain text); CREATE INDEX mine ON oauthtoken (refresh_token)",
    ),
    "a serial": (
        ["postgresql"],
        "CREATE TABLE oauthtoken (id serial PRIMARY KEY, user_name varchar(255), client_id text, "
        "client_secret text, refresh_token text, access_token text, grant_token text, "
        "expiry_time numeric, redirect_url text, api_domain text)",
    ),
    "another engine and charset, numbers and an index": (
        ["mysql", "mariadb"],
        "CREATE TABLE oauthtoken (id int NOT NULL AUTO_INCREMENT, user_name varchar(255) NOT NULL, "
        "client_id varchar(255) NOT NULL, client_secret varchar(255), refresh_token varchar(255), "
        "access_token varchar(255), grant_token varchar(255) NOT NULL DEFAULT '', expiry_time "
        "bigint, redirect_url text, api_domain varchar(255), primary key (id), "
        "unique key mine (user_name)) ENGINE=MyISAM CHARSET=latin1",
    ),
}


@pytest.mark.parametrize("shape", PORTED)
def test_a_table_that_somebody_has_ported_is_taken_over(database, engine, shape):
    names, create = PORTED[shape]
    if database.name not in names:
        pytest.skip("it is no table of this database")
    expiry = 1700000000000 if "varchar(20)" not in create else "1700000000000"
    rows = [
        sdk_row(n, f"user{n}@example.com:1", grant_token="", expiry_time=expiry) for n in (1, 2, 30)
    ]
    fill(engine, *rows, create=create)
    assert schema.upgrade(database.url) == ""
    schema.check(database.url)
    wanted = {"grant_token": None, "expiry_time": 1700000000000}
    assert rows_in(engine) == {str(r["id"]): {**r, **wanted, "id": str(r["id"])} for r in rows}
    with SQLAlchemyTokenStore(database.url) as store:
        store.save_token(granted("somebody-new"))


@pytest.mark.parametrize("kind", ["varbinary(255)", "blob", "bytea"])
def test_tokens_that_are_kept_as_bytes_are_text_afterwards(database, engine, kind):
    kinds = {"sqlite-file": ["blob"], "postgresql": ["bytea"]}
    if kind not in kinds.get(database.name, ["varbinary(255)", "blob"]):
        pytest.skip("it is no type of this database")
    create = DOCUMENTED.replace("refresh_token varchar(255)", f"refresh_token {kind}")
    fill(engine, sdk_row("1", "a@b:1", refresh_token=b"1000.one"), create=create)
    with engine.begin() as connection:
        connection.execute(
            sa.insert(sa.table("oauthtoken", sa.column("id"), sa.column("refresh_token"))),
            {"id": "2", "refresh_token": b"1000.one"},
        )
    assert "1 rows that have lost" in schema.upgrade(database.url)
    schema.check(database.url)
    assert rows_in(engine)["1"]["refresh_token"] == "1000.one"
    assert rows_in(engine, "oauthtoken_duplicates")["2"]["refresh_token"] == "1000.one"


EXPIRIES = {
    "varchar(40)": [
        " 1800000000000 ",
        "9223372036854775807",
        "1800000000000.0",
        "2027-01-15 08:00",
    ],
    "timestamp": [datetime(2027, 1, 15, 8, tzinfo=timezone.utc)],
    "decimal(20,3)": ["1800000000000"],
    "double precision": [1800000000000.0],
}


@pytest.mark.parametrize(
    ("kind", "newest"), [(kind, newest) for kind, each in EXPIRIES.items() for newest in each]
)
def test_the_newest_is_told_whatever_the_type_of_the_expiry(database, engine, kind, newest):
    if isinstance(newest, datetime):
        kind = "datetime" if "m" in database.name and "sql" in database.name else kind
        old: Any = datetime(2020, 1, 1)
        newest = newest.replace(tzinfo=None)
    else:
        old = newest if kind == "double" else type(newest)(1600000000000)
    create = DOCUMENTED.replace("expiry_time varchar(20)", f"expiry_time {kind}")
    new, previous = (
        sdk_row("1", "a@b:1", expiry_time=newest, access_token="new"),
        sdk_row("2", "a@b:1", expiry_time=old, access_token="old"),
    )
    if database.name == "sqlite-file" and isinstance(newest, datetime):
        new, previous = ({**row, "expiry_time": str(row["expiry_time"])} for row in (new, previous))
    fill(engine, new, previous, create=create)
    schema.upgrade(database.url)
    schema.check(database.url)
    row = rows_in(engine)["1"]
    assert row["access_token"] == "new"
    assert row["expiry_time"] in (1800000000000, 2**63 - 1)


def test_text_that_somebody_has_cut_is_refused_and_left_as_it_is(tmp_path):
    with fresh_database("sqlite-file", tmp_path) as database:
        engine = create_engine(database.url)
        fill(engine, sdk_row("1", "a@example.com:1"))
        with engine.begin() as connection:
            connection.execute(text("UPDATE oauthtoken SET access_token = CAST(x'61ff' AS TEXT)"))
        with pytest.raises(SDKException, match=r"access_token of the row .*'1' is no UTF-8 text"):
            schema.upgrade(database.url)
        with engine.begin() as connection:
            connection.execute(text("UPDATE oauthtoken SET access_token = 'a', id = x'61ff'"))
        with pytest.raises(SDKException, match="a row has no id, or one that is no UTF-8"):
            schema.upgrade(database.url)
        engine.dispose()


def test_blanks_that_postgresql_fills_a_column_up_with_are_no_part_of_a_token(tmp_path):
    with fresh_database("postgresql", tmp_path) as database:
        engine = create_engine(resolve_url(database.url))
        old = sdk_row("1", "a@example.com:1", expiry_time="1")
        new = sdk_row("2", "a@example.com:1", expiry_time="2", client_secret=None)
        fill(engine, old, new, create=re.sub(r"varchar\(\d+\)", "char(255)", DOCUMENTED))
        assert "1 rows that have lost" in schema.upgrade(database.url)
        assert rows_in(engine) == {"2": {**new, "client_secret": "the-secret", "expiry_time": 2}}
        assert rows_in(engine, "oauthtoken_duplicates") == {"1": old}
        engine.dispose()


def test_an_id_that_is_read_otherwise_than_it_is_met_is_refused(tmp_path):
    with fresh_database("postgresql", tmp_path) as database:
        engine = create_engine(resolve_url(database.url))
        row = sdk_row(b"1", "a@example.com:1", expiry_time="soon")
        fill(engine, row, create=DOCUMENTED.replace("id varchar(10)", "id bytea", 1))
        with pytest.raises(SDKException, match="make the column id text"):
            schema.upgrade(database.url)
        with engine.connect() as connection:
            assert connection.execute(text("SELECT id, expiry_time FROM oauthtoken")).all() == [
                (b"1", "soon")
            ]
        engine.dispose()


def test_a_table_with_conditions_is_refused_and_left_as_it_is(database, engine):
    create = DOCUMENTED.replace("primary key", "CHECK (length(id) < 11), primary key")
    fill(engine, row := sdk_row("1", "a@example.com:1"), create=create)
    with pytest.raises(SDKException, match="it has CHECK constraints"):
        schema.upgrade(database.url)
    assert rows_in(engine) == {"1": row}


def test_blanks_are_not_empty(database, engine):
    row = sdk_row("1", " ", grant_token="", refresh_token="1000.r", access_token="1000.a")
    fill(engine, row)
    schema.upgrade(database.url)
    assert rows_in(engine)["1"]["user_name"] == " "


@pytest.mark.parametrize("sql_mode", ["", "STRICT_ALL_TABLES"])
@pytest.mark.parametrize("name", ["mysql", "mariadb"])
def test_rows_that_have_lost_are_kept_whatever_the_database_makes_tables_of(
    tmp_path, name, sql_mode
):
    with fresh_database(name, tmp_path) as database:
        command = f"SET sql_mode = '{sql_mode}', default_storage_engine = MyISAM"
        url = resolve_url(database.url).set(query={"init_command": command})
        engine = create_engine(url)
        with engine.begin() as connection:
            connection.execute(text("ALTER DATABASE CHARACTER SET latin1"))
        rows = [sdk_row(str(n), "Łukasz@example.com:1", expiry_time=str(n)) for n in (1, 2)]
        fill(engine, *rows, create=f"{DOCUMENTED} CHARACTER SET utf8mb4")
        assert "1 rows that have lost" in schema.upgrade(url)
        schema.upgrade(url, table_name="another")
        assert rows_in(engine, "oauthtoken_duplicates") == {"1": rows[0]}
        engine.dispose()


def test_a_row_without_an_id_is_refused(tmp_path):
    """SQLite takes NULL in a primary key."""
    engine = create_engine(f"sqlite:///{tmp_path / 'old.db'}")
    for id in (None, ""):
        create = DOCUMENTED.replace("id varchar(10) NOT NULL", "id varchar(10)")
        fill(engine, sdk_row(id, "a@b:1"), create=create)
        with pytest.raises(SDKException, match="no id"):
            schema.upgrade(engine)
        with engine.begin() as connection:
            connection.execute(text("DROP TABLE oauthtoken"))
    engine.dispose()


def test_a_table_with_foreign_keys_is_refused_and_no_row_is_lost(database, engine):
    fill(engine, sdk_row("1", "a@b:1"), sdk_row("2", "a@b:1", expiry_time="1"))
    with engine.begin() as connection:
        connection.execute(
            text(
                "CREATE TABLE customer (token varchar(10), FOREIGN KEY (token) "
                "REFERENCES oauthtoken (id) ON DELETE CASCADE)"
            )
        )
        connection.execute(text("INSERT INTO customer VALUES ('1'), ('2')"))
    with pytest.raises(SDKException, match="foreign key between customer and it"):
        schema.upgrade(database.url)
    with engine.begin() as connection:
        assert len(connection.execute(text("SELECT * FROM customer")).all()) == 2
    assert len(rows_in(engine)) == 2


def test_what_hangs_on_a_sqlite_table_is_kept_or_refused(tmp_path):
    engine = create_engine(f"sqlite:///{tmp_path / 'old.db'}")
    fill(engine, sdk_row("1", "a@b:1"))
    with engine.begin() as connection:
        connection.execute(text("CREATE VIEW v AS SELECT user_name FROM oauthtoken"))
        connection.execute(text("CREATE TRIGGER t AFTER DELETE ON oauthtoken BEGIN SELECT 1; END"))
    with pytest.raises(SDKException, match="triggers"):
        schema.upgrade(engine)
    with engine.begin() as connection:
        connection.execute(text("DROP TRIGGER t"))
    schema.upgrade(engine)
    schema.check(engine)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT user_name FROM v")).all() == [("a@b:1",)]
    engine.dispose()


@pytest.mark.parametrize("rows", [0, 1])
def test_somebody_elses_table_of_duplicates_is_refused_and_kept(database, engine, rows):
    fill(engine, sdk_row("1", "a@b:1"))
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE oauthtoken_duplicates (x int)"))
        if rows:
            connection.execute(text("INSERT INTO oauthtoken_duplicates VALUES (1)"))
    with pytest.raises(SDKException, match="oauthtoken_duplicates, which is somebody else's"):
        schema.upgrade(database.url)
    with engine.connect() as connection:
        found = connection.execute(text("SELECT * FROM oauthtoken_duplicates")).all()
        assert len(found) == rows


def test_a_copy_of_our_table_without_its_constraints_is_refused(database, engine):
    schema.upgrade(database.url)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE tokens AS SELECT * FROM oauthtoken"))
    with pytest.raises(SDKException, match="constraints"):
        schema.upgrade(database.url, table_name="tokens")


def test_a_transaction_left_open_on_the_table_makes_it_give_up(database, engine, monkeypatch):
    if database.name == "sqlite-file":
        pytest.skip("it is the busy timeout of SQLite that ends the wait")
    monkeypatch.setattr(bounds, "LOCK_TIMEOUT", 1)
    fill(engine, sdk_row("1", "a@b:1"), sdk_row("2", "a@b:1", expiry_time="1"))
    with engine.connect() as idle:
        idle.execute(text("SELECT * FROM oauthtoken"))
        with pytest.raises(SDKException, match="could not be locked within 1 seconds"):
            schema.upgrade(database.url)
    assert len(rows_in(engine)) == 2
    assert "1 rows" in schema.upgrade(database.url)


def test_a_server_that_is_not_strict_cuts_nothing(database, engine):
    if database.name not in ("mysql", "mariadb"):
        pytest.skip("the others are always strict")
    create = DOCUMENTED.replace("client_secret varchar(255)", "client_secret varchar(60)")
    with engine.begin() as connection:
        connection.execute(text(f"ALTER DATABASE {engine.url.database} CHARACTER SET latin1"))
    name = "ユーザー@example.com:1"
    with engine.begin() as connection:
        connection.execute(text(create + " CHARSET utf8mb4"))
    fill(engine, sdk_row("1", name, client_secret="é" * 30 + "ザ"), create=None)
    lax = create_engine(
        resolve_url(database.url), connect_args={"init_command": "SET sql_mode = ''"}
    )
    schema.upgrade(lax)
    with SQLAlchemyTokenStore(database.url) as store:
        assert store.find_token_by_id("1").get_client_secret() == "é" * 30 + "ザ"
    schema.downgrade(lax, "zto_sdk")
    row = rows_in(engine)["1"]
    assert (row["user_name"], row["client_secret"]) == (name, "é" * 30 + "ザ")
    lax.dispose()


@pytest.mark.parametrize("name", ["tokens", "Tokens", "order"])
def test_a_table_of_another_name_is_taken_over_and_given_back_too(database, engine, name):
    fill(engine, sdk_row("1", "a@b:1"), sdk_row("2", "a@b:1", expiry_time="2"))
    with engine.begin() as connection:
        quoted = engine.dialect.identifier_preparer.quote(name)
        connection.execute(text(f"ALTER TABLE oauthtoken RENAME TO {quoted}"))
    assert f"{name}_duplicates" in schema.upgrade(database.url, table_name=name)
    schema.check(database.url, table_name=name)
    schema.downgrade(database.url, "zto_sdk", table_name=name)
    assert inspect(engine).get_indexes(name) == []
    schema.upgrade(database.url, table_name=name)
    schema.check(database.url, table_name=name)


@pytest.mark.parametrize(
    ("create", "names"),
    [
        (DOCUMENTED.replace("api_domain", "domain"), "lacks api_domain; it has also domain"),
        (DOCUMENTED.replace("primary key", "colour varchar(9), primary key"), "has also colour"),
        (DOCUMENTED.replace(", primary key (id)", ""), "no primary key"),
        (
            DOCUMENTED.replace("user_name", "x")
            .replace("client_id", "user_name")
            .replace("x", "client_id", 1),
            "order",
        ),
    ],
)
def test_a_table_that_is_not_the_sdks_is_refused_and_left_as_it_is(database, engine, create, names):
    with engine.begin() as connection:
        connection.execute(text(create))
        connection.execute(text("INSERT INTO oauthtoken (id) VALUES ('1')"))
    before = inspect(engine).get_columns("oauthtoken")
    with pytest.raises(SDKException, match=names):
        schema.upgrade(database.url)
    assert str(inspect(engine).get_columns("oauthtoken")) == str(before)
    assert schema.current(database.url) is None


def test_a_value_that_does_not_fit_is_refused_and_nothing_is_changed(database, engine):
    create = DOCUMENTED.replace("refresh_token varchar(255)", "refresh_token text")
    rows = [sdk_row("1", "a@b:1"), sdk_row("2", "a@b:1", expiry_time="9"), sdk_row("3", "")]
    fill(engine, *rows, sdk_row("4", "b@b:1", refresh_token="r" * 2049), create=create)
    before = rows_in(engine)
    with pytest.raises(SDKException, match="refresh_token of the row with the id '4' is too long"):
        schema.upgrade(database.url)
    assert rows_in(engine) == before
    assert not inspect(engine).has_table("oauthtoken_duplicates")


def test_the_command_says_how_many_rows_have_lost_and_where_they_are(database, engine, tmp_path):
    fill(engine, sdk_row("1", "a@b:1"), sdk_row("2", "a@b:1", expiry_time="2"))
    done = run("zoho-token-orm", "upgrade", cwd=tmp_path, url=database.url)
    assert done.returncode == 0, done.stderr
    assert "1 rows that have lost" in done.stdout
    assert "oauthtoken is at revision zto_0001" in done.stdout
    done = run("zoho-token-orm", "upgrade", cwd=tmp_path, url=database.url)
    assert done.stdout == "oauthtoken is at revision zto_0001\n"


def test_a_store_on_the_file_of_the_sdks_sample_takes_it_over_by_itself(tmp_path, caplog):
    url = f"sqlite:///{tmp_path / 'zohooauth.db'}"
    engine = create_engine(url)
    fill(engine, sdk_row("1", "a@b:1"), sdk_row("2", "a@b:1", expiry_time="2"))
    with SQLAlchemyTokenStore(url) as store:
        assert [token.get_id() for token in store.get_tokens()] == ["1"]
    assert "oauthtoken_duplicates" in caplog.text
    assert set(rows_in(engine, "oauthtoken_duplicates")) == {"2"}
    engine.dispose()


def test_upgrades_that_start_at_once_take_a_table_over_once(database, engine):
    rows = old_rows(200)
    fill(engine, *rows)
    with ThreadPoolExecutor(3) as pool:
        for done in [pool.submit(schema.upgrade, database.url) for _ in range(3)]:
            done.result()
    assert_taken_over(database, engine, rows)


def test_workers_with_dbstore_wait_while_the_table_is_taken_over(database, engine):
    """None of their calls fails, and nothing that they have saved is lost."""
    if database.name not in ("mysql", "mariadb"):
        pytest.skip("DBStore talks to MySQL and MariaDB")
    fill(engine, *({**row, "grant_token": None} for row in old_rows(3000)))
    is_over, saved = threading.Event(), {}

    def work(user: str) -> None:
        dbstore = DBStore(*dbstore_arguments(database.url))
        n = 0
        while not is_over.is_set() or n < 5:
            token = dbstore.find_token(OAuthToken(user_signature=UserSignature(user)))
            token.set_access_token(f"1000.{user}-{n}")
            token.set_expires_in(str(1800000000000 + n))
            dbstore.save_token(token)
            saved[user] = token.get_access_token()
            n += 1

    with ThreadPoolExecutor(3) as pool:
        working = [pool.submit(work, f"user{n}@example.com:1") for n in (1, 2, 3)]
        try:
            schema.upgrade(database.url)
        finally:
            is_over.set()
        for each in working:
            each.result()
    schema.check(database.url)
    with SQLAlchemyTokenStore(database.url) as store:
        for user, access_token in saved.items():
            found = store.find_token(OAuthToken(user_signature=UserSignature(user)))
            assert found.get_access_token() == access_token


# The way back


def test_a_downgrade_gives_the_sdks_table_back_with_every_row(database, engine):
    tokens = [granted(f"user{n}") for n in range(3)]
    with SQLAlchemyTokenStore(database.url, create_schema=True) as store:
        for token in tokens:
            store.save_token(token)
    schema.downgrade(database.url, "zto_sdk")
    assert [column["name"] for column in inspect(engine).get_columns("oauthtoken")] == list(COLUMNS)
    assert inspect(engine).get_unique_constraints("oauthtoken") == []
    assert inspect(engine).get_indexes("oauthtoken") == []
    assert inspect(engine).get_pk_constraint("oauthtoken")["constrained_columns"] == ["id"]
    rows = rows_in(engine)
    for token in tokens:
        row = rows[token.get_id()]
        assert list(row.values()) == list(values(token).values())
    with pytest.raises(SDKException, match="upgrade"):
        SQLAlchemyTokenStore(database.url, create_schema=False)
    schema.upgrade(database.url)
    schema.check(database.url)
    with SQLAlchemyTokenStore(database.url) as store:
        assert sorted(map(str, map(values, store.get_tokens()))) == sorted(
            map(str, map(values, tokens))
        )


def test_dbstore_works_on_the_table_that_is_given_back(database, engine):
    if database.name not in ("mysql", "mariadb"):
        pytest.skip("DBStore talks to MySQL and MariaDB")
    token = granted("alice")
    with SQLAlchemyTokenStore(database.url, create_schema=True) as store:
        store.save_token(token)
    schema.downgrade(database.url, "zto_sdk")
    dbstore = DBStore(*dbstore_arguments(database.url))
    assert values(dbstore.find_token_by_id(token.get_id())) == values(token)
    token.set_access_token("1000.fresh")
    dbstore.save_token(token)
    new = granted("bob")
    dbstore.save_token(new)
    assert new.get_id() == str(int(token.get_id()) + 1)
    assert {t.get_access_token() for t in dbstore.get_tokens()} == {
        "1000.fresh",
        "1000.access-bob",
    }


def test_a_downgrade_that_was_interrupted_is_no_obstacle_to_an_upgrade(database, engine):
    """On MySQL the table may be the SDK's again, and the revision not."""
    with SQLAlchemyTokenStore(database.url, create_schema=True) as store:
        store.save_token(granted("alice"))
    schema.downgrade(database.url, "zto_sdk")
    with engine.begin() as connection:
        versions = "UPDATE oauthtoken_alembic_version SET version_num = 'zto_0001'"
        connection.execute(text(versions))
    schema.upgrade(database.url)
    schema.check(database.url)
    with SQLAlchemyTokenStore(database.url) as store:
        assert len(store.get_tokens()) == 1


def test_the_base_leaves_a_table_of_the_sdks(database, engine):
    fill(engine, sdk_row("1", "a@b:1"))
    schema.upgrade(database.url, "zto_sdk")
    schema.downgrade(database.url, "base")
    assert set(rows_in(engine)) == {"1"}


def test_encrypted_tokens_are_not_given_back_to_stores_that_cannot_read_them(database, engine):
    with SQLAlchemyTokenStore(database.url, create_schema=True, encryption_keys=OLD) as store:
        store.save_token(granted("alice"))
    before = rows_in(engine)
    with pytest.raises(SDKException, match="rotate-keys"):
        schema.downgrade(database.url, "zto_sdk")
    assert rows_in(engine) == before
    schema.check(database.url)
    schema.downgrade(database.url, "base")
    assert not inspect(engine).has_table("oauthtoken")


# Interrupted


def old_rows(count: int) -> list[dict[str, Any]]:
    """Rows as they are after some months of DBStore: of each tenth user there are three."""
    rows = [sdk_row(str(n), f"user{n}@example.com:1", grant_token="") for n in range(count)]
    for n in range(0, count, 10):
        user = f"user{n}@example.com:1"
        rows.append(sdk_row(f"{n}b", user, expiry_time="1700000000002", refresh_token=None))
        rows.append(sdk_row(f"{n}c", user, expiry_time="1700000000001", access_token="1000.c"))
    return rows


def assert_taken_over(database, engine, rows: list[dict[str, Any]]) -> None:
    """Everybody has a row, the newest one, and each row is in one of the two tables."""
    schema.check(database.url)
    kept, lost = rows_in(engine), rows_in(engine, "oauthtoken_duplicates")
    assert {*kept, *lost} == {row["id"] for row in rows}
    assert not kept.keys() & lost.keys()
    ascending = sorted(rows, key=lambda row: row["expiry_time"])
    newest = {row["user_name"]: row["expiry_time"] for row in ascending}
    assert {row["user_name"]: str(row["expiry_time"]) for row in kept.values()} == newest
    assert len(kept) == len(newest)
    assert all(row["refresh_token"] and row["grant_token"] is None for row in kept.values())


@pytest.mark.parametrize("engine_name", ["MyISAM", "InnoDB"])
def test_rows_that_were_set_aside_are_there_though_the_table_never_got_its_shape(
    database, engine, engine_name
):
    if database.name not in ("mysql", "mariadb"):
        pytest.skip("the others take all of it back")
    rows = old_rows(30)
    fill(engine, *rows, create=f"{DOCUMENTED} ENGINE={engine_name}")
    dying = create_engine(resolve_url(database.url))

    def die(connection, cursor, statement, *rest):
        if "ADD CONSTRAINT" in statement:
            raise KeyboardInterrupt

    event.listen(dying, "before_cursor_execute", die)
    with pytest.raises(KeyboardInterrupt):
        schema.upgrade(dying)
    dying.dispose()
    assert {*rows_in(engine), *rows_in(engine, "oauthtoken_duplicates")} == {r["id"] for r in rows}
    assert "6 rows that have lost" in schema.upgrade(database.url)
    assert_taken_over(database, engine, rows)


def upgrade_and_die(url: str, at: int) -> bool:
    """Upgrades in a child process that is gone at a statement; whether it came so far."""
    child = os.fork()
    if child == 0:
        engine = create_engine(resolve_url(url), isolation_level="AUTOCOMMIT")
        left = at

        def die(connection, cursor, statement, *rest):
            nonlocal left
            left -= not statement.lstrip().upper().startswith(("SELECT", "SHOW", "PRAGMA"))
            if left < 0:
                os._exit(7)

        event.listen(engine, "before_cursor_execute", die)
        try:
            schema.upgrade(engine)
        finally:
            os._exit(0 if left >= 0 else 1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def test_wherever_an_upgrade_dies_the_next_one_finishes_and_nothing_is_lost(database, engine):
    rows = old_rows(30)
    deaths = 0
    while True:
        fill(engine, *rows)
        has_died = upgrade_and_die(database.url, deaths)
        if not has_died:
            break
        deaths += 1
        schema.upgrade(database.url)
        assert_taken_over(database, engine, rows)
        schema.downgrade(database.url, "base")
        with engine.begin() as connection:
            connection.execute(text("DROP TABLE oauthtoken_duplicates"))
    assert deaths > 8
    assert_taken_over(database, engine, rows)


def test_a_hundred_thousand_rows_are_taken_over_though_the_command_is_killed(
    database, engine, tmp_path
):
    rows = old_rows(84_000)
    fill(engine, *rows)
    environment = {**os.environ, URL_VARIABLE: database.url}
    for seconds in (1.2, 1.8, 2.6):
        with subprocess.Popen(
            [sys.executable, "-m", "zoho_token_orm", "upgrade"], env=environment, cwd=tmp_path
        ) as process:
            with suppress(subprocess.TimeoutExpired):
                process.wait(seconds)
            process.kill()
    schema.upgrade(database.url)
    assert_taken_over(database, engine, rows)
