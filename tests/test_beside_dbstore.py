"""The SDK's own DBStore goes on working on the table of this store, as in a rolling change-over."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from zohocrmsdk.src.com.zoho.api.authenticator.oauth_token import OAuthToken
from zohocrmsdk.src.com.zoho.api.authenticator.store import DBStore
from zohocrmsdk.src.com.zoho.crm.api.user_signature import UserSignature

from tests.databases import Database, fresh_database
from tests.support import granted, values
from zoho_token_orm import SQLAlchemyTokenStore
from zoho_token_orm.database import resolve_url


@pytest.fixture(params=["mysql", "mariadb"])
def database(request, tmp_path) -> Iterator[Database]:
    """An empty database on the servers that DBStore can talk to."""
    with fresh_database(request.param, tmp_path) as fresh:
        yield fresh


@pytest.fixture
def dbstore(database: Database, store: SQLAlchemyTokenStore) -> DBStore:
    """The SDK's own store on the same table."""
    url = resolve_url(database.url)
    return DBStore(url.host, url.database, url.username, url.password or "", str(url.port))


def test_dbstore_finds_what_this_store_has_saved(store, dbstore):
    token = granted("alice")
    store.save_token(token)
    assert values(dbstore.find_token_by_id(token.get_id())) == values(token)
    found = dbstore.find_token(OAuthToken(user_signature=token.get_user_signature()))
    assert values(found) == values(token)


def test_this_store_finds_what_dbstore_has_saved(store, dbstore):
    store.save_token(granted("alice"))
    token = granted("bob")
    dbstore.save_token(token)
    found = store.find_token(OAuthToken(user_signature=token.get_user_signature()))
    assert values(found) == values(token)
    assert [t.get_refresh_token() for t in store.get_tokens()] == [
        "1000.refresh-alice",
        "1000.refresh-bob",
    ]


def test_each_sees_what_the_other_has_refreshed(store, dbstore):
    store.save_token(granted("alice"))
    user = UserSignature("alice@example.com:7001")
    for writer, reader, fresh in ((dbstore, store, "1000.one"), (store, dbstore, "1000.two")):
        token = writer.find_token(OAuthToken(user_signature=user))
        token.set_access_token(fresh)
        token.set_expires_in("4102444800000")
        writer.save_token(token)
        assert values(reader.find_token(OAuthToken(user_signature=user))) == values(token)
    assert len(store.get_tokens()) == 1


@pytest.mark.parametrize("text", ["100%", "a%41b", "a b", "~!@#$^&*()\\'\""])
def test_both_read_any_printable_token_as_the_other_has_written_it(store, dbstore, text):
    for number, (writer, reader) in enumerate(((store, dbstore), (dbstore, store))):
        token = granted(f"user{number}")
        token.set_refresh_token(f"{text}{number}")
        token.set_client_secret(text)
        writer.save_token(token)
        found = reader.find_token(OAuthToken(user_signature=token.get_user_signature()))
        assert values(found) == values(token)
        named = OAuthToken("1000.CLIENT", text, refresh_token=f"{text}{number}")
        assert store.find_token(named).get_id() == token.get_id()
