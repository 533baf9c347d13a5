"""No token, secret or password is seen anywhere, however much is logged."""

from __future__ import annotations

import functools
import logging
import traceback

import pytest
from sqlalchemy import create_engine, select
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session
from zohocrmsdk.src.com.zoho.api.authenticator.oauth_token import OAuthToken
from zohocrmsdk.src.com.zoho.crm.api.exception.sdk_exception import SDKException
from zohocrmsdk.src.com.zoho.crm.api.user_signature import UserSignature

from tests.support import granted
from zoho_token_orm import OAuthTokenRow, SQLAlchemyTokenStore
from zoho_token_orm.database import resolve_url, shown
from zoho_token_orm.errors import hide_values

SECRETS = ("1000.grant", "1000.refresh", "1000.access", "the-secret")


def use_every_method(store: SQLAlchemyTokenStore) -> None:
    token = granted("alice")
    store.save_token(token)
    token.set_access_token("1000.access-fresh")
    store.save_token(token)
    store.find_token_by_id(token.get_id())
    store.find_token(OAuthToken(id=token.get_id()))
    store.find_token(OAuthToken(access_token="1000.access-fresh"))
    early = granted("early")
    early.set_user_signature(None)
    store.save_token(early)
    early.set_user_signature(UserSignature("alice@example.com:7001"))
    store.save_token(early)
    store.get_tokens()
    list(store.iter_tokens())
    store.delete_token(token.get_id())
    store.delete_tokens()


def hidden(text: str) -> bool:
    return not any(secret in text for secret in SECRETS)


def test_sqlalchemys_own_log_of_parameters_and_rows_shows_none(store, caplog):
    with caplog.at_level(logging.DEBUG, "sqlalchemy"), caplog.at_level(logging.DEBUG):
        use_every_method(store)
    assert "Row (" in caplog.text
    assert hidden(caplog.text)


def test_an_engine_that_echoes_its_parameters_and_rows_shows_none(database, caplog):
    engine = create_engine(resolve_url(database.url), echo="debug", hide_parameters=False)
    use_every_method(SQLAlchemyTokenStore(engine, create_schema=True))
    engine.dispose()
    assert "[generated in" in caplog.text
    assert "'***'" in caplog.text
    assert hidden(caplog.text)


def test_what_the_sdk_gets_are_plain_strings(store):
    """The masks are for logs: a token that is loaded holds what it always held."""
    store.save_token(granted("alice"))
    (token,) = store.get_tokens()
    for get in (token.get_refresh_token, token.get_access_token, token.get_client_secret):
        assert type(get()) is str
    assert token.get_refresh_token() == "1000.refresh-alice"


def test_a_row_of_the_model_shows_no_token_either(store):
    store.save_token(granted("alice"))
    with Session(store.engine) as session:
        row = session.scalars(select(OAuthTokenRow)).one()
        assert row.refresh_token == "1000.refresh-alice"
        assert hidden(repr([row, vars(row)]))


@pytest.mark.parametrize("name", ["password", "sslpassword"])
def test_a_password_among_the_options_of_a_url_is_not_shown(name):
    assert "geheim" not in shown(resolve_url(f"postgresql://user@host/crm?{name}=geheim"))


def test_a_drivers_message_that_quotes_a_value_is_taken_apart():
    quoting = Exception("the server says: 'secr' is not to its liking")
    error = OperationalError("UPDATE …", {"new_refresh_token": "secr", "row_id": "7"}, quoting)
    hide_values(error)
    assert "secr" not in str(error) + repr(error) + str(error.orig)
    assert "not to its liking" in str(error.orig)


MARKED = "1000.refresh-" + "0123456789abcdef" * 20
QUOTE_IN_PART = {
    "sqlite": ["UPDATE oauthtoken SET refresh_token = CAST(refresh_token || x'ff' AS TEXT)"],
    "mysql": ["ALTER TABLE oauthtoken MODIFY refresh_token DATE"],
    "postgresql": [
        "CREATE FUNCTION quote_it() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'I refuse %%', left(NEW.refresh_token, 60); END $$",
        "CREATE TRIGGER quote_it BEFORE UPDATE ON oauthtoken "
        "FOR EACH ROW EXECUTE FUNCTION quote_it()",
    ],
}
"""What makes each database quote the beginning of a token in an error."""


def test_what_a_database_quotes_in_part_is_not_shown(store, database, caplog):
    token = granted("alice", id="1")
    if store.engine.dialect.name == "sqlite":
        token.set_refresh_token(MARKED)
    store.save_token(token)
    kind = database.name.replace("mariadb", "mysql").split("-")[0]
    with store.engine.connect() as connection:
        if kind == "mysql":
            connection.exec_driver_sql("UPDATE oauthtoken SET refresh_token = NULL")
        for statement in QUOTE_IN_PART[kind]:
            connection.exec_driver_sql(statement)
        connection.commit()
    token.set_refresh_token(MARKED)
    call = functools.partial(store.save_token, token)
    if kind == "sqlite":
        call = functools.partial(store.find_token_by_id, "1")
    with pytest.raises(SDKException) as caught:
        call()
    shown = "".join(traceback.format_exception(caught.value)) + caplog.text
    assert MARKED[:30] not in shown
    assert "could not" in shown


def test_what_cannot_be_stored_is_not_the_context_of_the_error_either(store):
    """Error trackers show the whole chain."""
    token = granted("alice")
    token.set_refresh_token("1000.refresh-\ud800")
    with pytest.raises(SDKException, match="refresh_token is no valid Unicode text") as caught:
        store.save_token(token)
    assert caught.value.__context__ is None


def test_a_url_that_cannot_be_read_is_not_the_context_of_the_error_either():
    with pytest.raises(ValueError, match="the database URL cannot be read") as caught:
        resolve_url("postgresql://user:geheim@host:port/database")
    assert caught.value.__context__ is None
