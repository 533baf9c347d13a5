"""The SDK's own DBStore goes on working on the table of this store, as in a rolling change-over."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
from sqlalchemy import create_engine
from zohocrmsdk.src.com.zoho.api.authenticator.oauth_token import OAuthToken
from zohocrmsdk.src.com.zoho.api.authenticator.store import DBStore
from zohocrmsdk.src.com.zoho.api.authenticator.store.token_store import TokenStore
from zohocrmsdk.src.com.zoho.crm.api.exception.sdk_exception import SDKException
from zohocrmsdk.src.com.zoho.crm.api.user_signature import UserSignature

from tests.databases import Database, fresh_database
from tests.sdk_tables import dbstore_arguments, fill, sdk_row
from tests.support import granted, in_an_hour, values
from zoho_token_orm import SQLAlchemyTokenStore, schema
from zoho_token_orm.database import resolve_url


@pytest.fixture(params=["mysql", "mariadb"])
def database(request, tmp_path) -> Iterator[Database]:
    """An empty database on the servers that DBStore can talk to."""
    with fresh_database(request.param, tmp_path) as fresh:
        yield fresh


@pytest.fixture
def dbstore(database: Database, store: SQLAlchemyTokenStore) -> DBStore:
    """The SDK's own store on the same table."""
    return _dbstore(database)


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


@pytest.fixture
def taken_over(database: Database) -> Iterator[SQLAlchemyTokenStore]:
    """A store on a table that DBStore has used, ten users in it, for whom its ids last."""
    engine = create_engine(resolve_url(database.url))
    fill(engine, *(sdk_row(str(n), f"user{n}@example.com:1") for n in range(1, 11)))
    engine.dispose()
    schema.upgrade(database.url)
    with SQLAlchemyTokenStore(database.url, create_schema=False) as store:
        yield store


def test_dbstore_makes_new_ids_once_this_store_has_made_one(database, taken_over):
    """On its own it makes ten: to it, as text, 9 is the greatest, and 10 the next one."""
    dbstore = _dbstore(database)
    with pytest.raises(SDKException):
        dbstore.save_token(granted("eleventh"))
    ours = granted("ours")
    taken_over.save_token(ours)
    for n in range(3):
        theirs = granted(f"theirs{n}")
        dbstore.save_token(theirs)
        assert theirs.get_id() == str(int(ours.get_id()) + n + 1)
        assert values(taken_over.find_token_by_id(theirs.get_id())) == values(theirs)


def test_both_work_at_once_on_a_table_that_was_taken_over(database, taken_over):
    """Workers of both kinds look up, refresh and log in; nothing fails, and nothing is lost."""
    taken_over.save_token(granted("first"))
    rounds, saved = 12, {}

    def refresh(store: TokenStore, user: UserSignature, name: str) -> None:
        for n in range(rounds):
            token = store.find_token(OAuthToken(user_signature=user))
            token.set_access_token(f"1000.{name}-{n}")
            token.set_expires_in(str(int(in_an_hour()) + n))
            store.save_token(token)
            saved[user.get_name()] = values(token)

    def log_in(store: TokenStore, name: str) -> None:
        for n in range(rounds):
            token = granted(f"{name}{n}")
            store.save_token(token)
            saved[token.get_user_signature().get_name()] = values(token)
            assert values(store.find_token_by_id(token.get_id())) == values(token)

    dbstore, users = _dbstore(database), iter(range(1, 11))
    work = [
        *(partial(refresh, store, _user(next(users)), kind) for kind, store in _twice(dbstore)),
        *(partial(refresh, store, _user(next(users)), kind) for kind, store in _twice(taken_over)),
        partial(log_in, dbstore, "theirs"),
        partial(log_in, taken_over, "ours"),
        partial(log_in, taken_over, "ours-too"),
    ]
    with ThreadPoolExecutor(len(work)) as pool:
        for done in [pool.submit(each) for each in work]:
            done.result()
    for name, expected in saved.items():
        for store in (dbstore, taken_over):
            token = store.find_token(OAuthToken(user_signature=UserSignature(name)))
            assert values(token) == expected
    tokens = taken_over.get_tokens()
    assert len(tokens) == 11 + 3 * rounds
    assert len({token.get_user_signature().get_name() for token in tokens}) == len(tokens)


def test_dbstore_can_no_longer_make_a_second_row_of_one_user(database, taken_over):
    """It saves an unchanged token as a new row; its error is one that the SDK swallows."""
    dbstore = _dbstore(database)
    token = dbstore.find_token(OAuthToken(user_signature=_user(3)))
    with pytest.raises(SDKException):
        dbstore.save_token(token)
    assert len(taken_over.get_tokens()) == 10


def _dbstore(database: Database) -> DBStore:
    return DBStore(*dbstore_arguments(database.url))


def _user(n: int) -> UserSignature:
    return UserSignature(f"user{n}@example.com:1")


def _twice(store: TokenStore) -> list[tuple[str, TokenStore]]:
    name = type(store).__name__
    return [(f"{name}-one", store), (f"{name}-two", store)]
