"""Look-ups on the driver's own cursor find what SQLAlchemy finds, and leave it what is its own."""

from __future__ import annotations

import logging

import pytest
from sqlalchemy import create_engine, event
from zohocrmsdk.src.com.zoho.api.authenticator.oauth_token import OAuthToken
from zohocrmsdk.src.com.zoho.crm.api.user_signature import UserSignature

from tests.support import granted, statements, values
from zoho_token_orm import SQLAlchemyTokenStore
from zoho_token_orm.lookups import LookUp


@pytest.fixture
def on_cursor(monkeypatch) -> list[str]:
    """The SQL that was run on the driver's own cursor."""
    seen: list[str] = []
    fetched = LookUp._fetched

    def note(self, connection, given):
        rows = fetched(self, connection, given)
        seen.append(self._compiled[connection.dialect][0])
        return rows

    monkeypatch.setattr(LookUp, "_fetched", note)
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
    assert len(on_cursor) >= 5
    del on_cursor[:]
    with statements(store.engine) as seen:
        assert found() == fast == [values(token)] * 5
    assert (seen, on_cursor) == (["SELECT"] * 5, [])
    assert {type(value) for value in fast[0].values()} == {str}


def test_nobody_who_listens_misses_a_look_up(store, on_cursor):
    seen = []
    event.listen(store.engine, "before_execute", lambda *given: seen.append(given))
    store.find_token_by_id("unknown")
    assert (len(seen), on_cursor) == (1, [])


def test_a_log_of_the_statements_has_the_look_ups_too(store, on_cursor, caplog):
    with caplog.at_level(logging.INFO, "sqlalchemy.engine"):
        store.find_token_by_id("unknown")
    assert "SELECT" in caplog.text
    assert on_cursor == []


def test_a_row_does_not_show_its_secrets(store, database):
    token = granted("alice")
    store.save_token(token)
    row = store._row_with(token.get_id())
    assert repr(row) == f"Found(id={token.get_id()!r}, user_name='alice@example.com:7001')"


def test_an_error_of_the_driver_is_told_as_ever(database):
    with SQLAlchemyTokenStore(database.url, create_schema=True) as store:
        with store.engine.connect() as connection:
            connection.exec_driver_sql("DROP TABLE oauthtoken")
        with pytest.raises(Exception, match="zoho-token-orm upgrade") as caught:
            store.find_token_by_id("1")
    assert caught.value.__cause__.statement is not None


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
