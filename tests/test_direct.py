"""The driver's own cursor does what SQLAlchemy does, and leaves it what is its own."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from sqlalchemy import Engine, Row, create_engine, event, make_url
from sqlalchemy.exc import IntegrityError
from zohocrmsdk.src.com.zoho.api.authenticator.oauth_token import OAuthToken
from zohocrmsdk.src.com.zoho.crm.api.exception.sdk_exception import SDKException
from zohocrmsdk.src.com.zoho.crm.api.user_signature import UserSignature

from tests.proxy import Proxy
from tests.support import granted, statements, values
from zoho_token_orm import SQLAlchemyTokenStore
from zoho_token_orm.database import Trouble, trouble
from zoho_token_orm.direct import DirectStatement
from zoho_token_orm.errors import hide_values
from zoho_token_orm.mapping import COLUMNS


@pytest.fixture
def on_cursor(monkeypatch) -> list[str]:
    """The SQL that was run on the driver's own cursor, by its first word."""
    seen: list[str] = []
    run_directly = DirectStatement._run_directly

    def note(self, connection, given):
        result = run_directly(self, connection, given)
        seen.append(self._compiled[connection.dialect].sql.split()[0])
        return result

    monkeypatch.setattr(DirectStatement, "_run_directly", note)
    return seen


TEXTS = ["plain", "ключ", "UTF-8''%41", "100%", "a'b\\c\"", "ends in a space ", "%(id)s", "?"]


@pytest.mark.parametrize("text", TEXTS)
def test_both_ways_find_the_same(store, on_cursor, text):
    token = granted("alice", id=text)
    token.set_refresh_token(f"{text}")
    token.set_grant_token(f"{text}")
    token.set_user_signature(UserSignature(text))
    store.save_token(token)

    def found() -> list[dict[str, str | None]]:
        names = [
            {"id": text},
            {"user_signature": UserSignature(text)},
            {"client_id": "1000.CLIENT", "client_secret": "the-secret", "refresh_token": text},
            {"client_id": "1000.CLIENT", "client_secret": "the-secret", "grant_token": text},
        ]
        return [
            values(store.find_token_by_id(text)),
            *(values(store.find_token(OAuthToken(**name))) for name in names),
        ]

    fast = found()
    assert on_cursor == ["UPDATE", "SELECT", "INSERT", *["SELECT"] * 5]
    del on_cursor[:]
    with statements(store.engine) as seen:
        assert found() == fast == [values(token)] * 5
    assert (seen, on_cursor) == (["SELECT"] * 5, [])
    assert {type(value) for value in fast[0].values()} == {str}


@pytest.mark.parametrize("text", TEXTS)
def test_both_ways_store_the_same(store, on_cursor, text):
    inserted, updated = insert_and_update(store, text)
    assert on_cursor == ["UPDATE", "SELECT", "INSERT", "UPDATE"]
    store.delete_token(text)
    with statements(store.engine) as seen:
        assert insert_and_update(store, text) == (inserted, updated)
    looks = ["SELECT"]  # at the row
    assert seen == ["UPDATE", "SELECT", "INSERT", *looks, "UPDATE", *looks]
    assert on_cursor[4:] == []


def insert_and_update(store: SQLAlchemyTokenStore, text: str) -> tuple[Row[Any], Row[Any]]:
    """What the row of a token is after its first save and after another one, but for the times."""
    token = granted("alice", id=text)
    token.set_expires_in("1800000000000")
    store.save_token(token)
    inserted = the_row(store.engine)
    for name in ("access_token", "refresh_token", "grant_token", "client_secret", "api_domain"):
        getattr(token, f"set_{name}")(text)
    token.set_user_signature(UserSignature(text))
    token.set_expires_in("1900000000000")
    store.save_token(token)
    return inserted, the_row(store.engine)


def the_row(engine: Engine) -> Row[Any]:
    """The only row, as it is stored."""
    with engine.connect() as connection:
        columns = ", ".join([*COLUMNS, "lease_owner", "lease_until"])
        return connection.exec_driver_sql(f"SELECT {columns} FROM oauthtoken").one()


def test_nobody_who_listens_misses_a_statement(store, on_cursor):
    store.save_token(token := granted("alice"))
    seen = []
    event.listen(store.engine, "before_execute", lambda *given: seen.append(given))
    del on_cursor[:]
    store.find_token_by_id("unknown")
    store.save_token(token)
    assert (len(seen), on_cursor) == (2, [])


def test_a_log_of_the_statements_has_all_of_them(store, on_cursor, caplog):
    store.save_token(token := granted("alice"))
    del on_cursor[:]
    with caplog.at_level(logging.INFO, "sqlalchemy.engine"):
        store.find_token_by_id("unknown")
        store.save_token(token)
    assert "SELECT" in caplog.text
    assert "UPDATE" in caplog.text
    assert on_cursor == []


def test_a_row_does_not_show_its_secrets(store, database):
    token = granted("alice")
    store.save_token(token)
    row = store._row_with(token.get_id())
    assert repr(row) == f"Found(id={token.get_id()!r}, user_name='alice@example.com:7001')"


def test_an_error_of_the_driver_is_told_as_ever(database, on_cursor):
    with SQLAlchemyTokenStore(database.url, create_schema=True) as store:
        with store.engine.connect() as connection:
            connection.exec_driver_sql("DROP TABLE oauthtoken")
        with pytest.raises(SDKException, match="zoho-token-orm upgrade") as caught:
            store.find_token_by_id("1")
    assert caught.value.__cause__.statement is not None
    assert on_cursor == []


def change_to_a_value_of_another_row(store: SQLAlchemyTokenStore) -> IntegrityError:
    update = store._statements.update
    with store.engine.connect() as connection, pytest.raises(IntegrityError) as caught:
        update(connection, "1", {"refresh_token": "1000.refresh-bob"}, "nobody")
    return caught.value


def test_both_ways_report_the_same_error(store):
    for id, name in (("1", "alice"), ("2", "bob")):
        store.save_token(granted(name, id=id))
    direct = change_to_a_value_of_another_row(store)
    with statements(store.engine):
        other = change_to_a_value_of_another_row(store)
    assert type(direct) is type(other)
    assert type(direct.orig) is type(other.orig)
    assert (direct.orig.args, trouble(direct)) == (other.orig.args, Trouble.COLLISION)
    assert "[SQL parameters hidden" in str(direct)
    assert "nobody" not in str(direct) + repr(direct.params)
    assert hidden(direct) == hidden(other)


def hidden(error: IntegrityError) -> str:
    hide_values(error)
    assert "bob" not in str(error)
    return str(error)


def test_a_statement_that_the_server_refuses_is_asked_once(database):
    """Asked again it would wait again, as for a row that somebody has locked."""
    if not database.is_server:
        pytest.skip("there are no round trips")
    with (
        Proxy(make_url(database.url)) as proxy,
        SQLAlchemyTokenStore(proxy.url, create_schema=True) as store,
    ):
        for id, name in (("1", "alice"), ("2", "bob")):
            store.save_token(granted(name, id=id))
        before = proxy.round_trips
        change_to_a_value_of_another_row(store)
        assert proxy.round_trips - before == 1


def test_who_listens_for_errors_hears_of_them(store):
    for id, name in (("1", "alice"), ("2", "bob")):
        store.save_token(granted(name, id=id))
    heard = []
    event.listen(store.engine, "handle_error", lambda context: heard.append(context.statement))
    change_to_a_value_of_another_row(store)
    assert len(heard) == 1


def test_an_engine_that_has_its_tables_in_another_schema_finds_them_there(tmp_path, on_cursor):
    engine = create_engine(f"sqlite:///{tmp_path / 'main.db'}")
    attach = f"ATTACH '{tmp_path / 'tenant.db'}' AS tenant"
    event.listen(engine, "connect", lambda connection, record: connection.execute(attach))
    SQLAlchemyTokenStore(engine, create_schema=True).save_token(granted("alice", id="1"))
    with engine.connect() as connection:
        for table in ("oauthtoken", "oauthtoken_alembic_version"):
            connection.exec_driver_sql(f"CREATE TABLE tenant.{table} AS SELECT * FROM main.{table}")
        connection.exec_driver_sql("UPDATE tenant.oauthtoken SET id = '2'")
        connection.commit()
    translated = engine.execution_options(schema_translate_map={None: "tenant"})
    store = SQLAlchemyTokenStore(translated, create_schema=False)
    del on_cursor[:]
    assert (store.find_token_by_id("1"), on_cursor) == (None, [])
    assert store.find_token_by_id("2") is not None
    engine.dispose()
