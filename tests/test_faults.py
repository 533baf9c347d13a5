"""What a store does while its server, or the way there, fails: a proxy really cuts and refuses."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from sqlalchemy import create_engine
from zohocrmsdk.src.com.zoho.api.authenticator.oauth_token import OAuthToken
from zohocrmsdk.src.com.zoho.crm.api.exception.sdk_exception import SDKException

from tests.databases import SERVERS, Database, fresh_database
from tests.proxy import Proxy
from tests.support import granted, values
from zoho_token_orm import SQLAlchemyTokenStore
from zoho_token_orm import store as module
from zoho_token_orm.database import resolve_url


@pytest.fixture(params=SERVERS)
def database(request, tmp_path) -> Iterator[Database]:
    """An empty database on a server."""
    with fresh_database(request.param, tmp_path) as fresh:
        yield fresh


@pytest.fixture
def proxy(database) -> Iterator[Proxy]:
    """The way to the server."""
    with Proxy(resolve_url(database.url)) as running:
        yield running


@pytest.fixture(params=["url", "engine"])
def store(request, proxy) -> Iterator[SQLAlchemyTokenStore]:
    """A store on a URL of that way, or on an application's engine."""
    engine = create_engine(proxy.url)
    with SQLAlchemyTokenStore(
        engine if request.param == "engine" else proxy.url, create_schema=True
    ) as made:
        yield made
    engine.dispose()


def fill_the_pool(store: SQLAlchemyTokenStore) -> None:
    """Leaves several connections in the pool."""
    opened = [store.engine.connect() for _ in range(4)]
    for connection in opened:
        connection.close()


def test_nobody_notices_that_every_connection_was_cut(store, proxy):
    token = granted("alice")
    store.save_token(token)
    calls = {
        "find_token_by_id": lambda: store.find_token_by_id(token.get_id()),
        "find_token": lambda: store.find_token(OAuthToken(id=token.get_id())),
        "save_token": lambda: store.save_token(token),
        "get_tokens": store.get_tokens,
        "delete_token": lambda: store.delete_token("another"),
    }
    for call in calls.values():
        fill_the_pool(store)
        proxy.cut()
        call()
    (row,) = store.get_tokens()
    assert values(row) == values(token)


def test_a_look_up_raises_while_the_server_is_away_and_never_answers_none(store, proxy):
    token = granted("alice")
    store.save_token(token)
    with proxy.refusing():
        for call in (
            lambda: store.find_token_by_id(token.get_id()),
            lambda: store.find_token(granted("alice")),
        ):
            with pytest.raises(SDKException, match="could not find the token"):
                call()
    assert values(store.find_token_by_id(token.get_id())) == values(token)


def test_a_save_goes_on_until_the_server_is_back(store, proxy):
    """A grant token is spent once: what it was exchanged for must not be lost to a restart."""
    token = granted("alice")
    with proxy.refusing():
        saving = threading.Thread(target=store.save_token, args=(token,))
        saving.start()
        proxy.wait_for_refusals(3)
    saving.join(60)
    assert [values(row) for row in store.get_tokens()] == [values(token)]


def test_a_save_that_has_waited_long_enough_raises_and_stores_nothing(store, proxy, monkeypatch):
    monkeypatch.setattr(module, "SAVE_PATIENCE", 0.3)
    token = granted("alice")
    with proxy.refusing(), pytest.raises(SDKException, match=r"tried \d+ times in \d+\.\d seconds"):
        store.save_token(token)
    assert token.get_id() is None
    assert store.get_tokens() == []
