"""Many workers that meet an expired token at once, through the real SDK: Zoho sees one refresh."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from multiprocessing.context import ForkProcess
from typing import Any

import pytest
from zohocrmsdk.src.com.zoho.api.authenticator.oauth_token import OAuthToken
from zohocrmsdk.src.com.zoho.crm.api.exception import SDKException
from zohocrmsdk.src.com.zoho.crm.api.initializer import Initializer

from tests.databases import Database
from tests.sdk.conftest import Application, at_once, current_email, reset_sdk
from zoho_token_orm import SQLAlchemyTokenStore
from zoho_token_orm.testing.simulator import SimulatedUser, ZohoSimulator

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here"),
    pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning"),
]

WORKERS = 12
fork = multiprocessing.get_context("fork")


@pytest.fixture(autouse=True)
def shared(database: Database) -> None:
    if database.name == "sqlite-memory":
        pytest.skip("a database in memory is its process's own")


@pytest.fixture
def expired(app: Application, alice: SimulatedUser, bob: SimulatedUser) -> OAuthToken:
    """The row of a user whose access token has expired; bob's is there too."""
    app.sign_in(bob)
    id = app.sign_in(alice).get_id()
    app.expire(id)
    return app.row(id)


class Worker:
    """A process of its own that signs in and calls Zoho once it is let go."""

    def __init__(self, store: SQLAlchemyTokenStore, zoho: ZohoSimulator, id: str) -> None:
        self._theirs, self.answers = fork.Pipe()
        self.process: ForkProcess = fork.Process(target=self._work, args=(store, zoho, id))
        self.process.start()

    def _work(self, store: SQLAlchemyTokenStore, zoho: ZohoSimulator, id: str) -> None:
        reset_sdk()
        self._theirs.send("ready")
        self._theirs.recv()
        try:
            Initializer.initialize(zoho.environment, OAuthToken(id=id), store=store)
            self._theirs.send(current_email())
        except SDKException as error:
            self._theirs.send(str(error))

    def go(self) -> None:
        self.answers.send("go")

    def answer(self) -> Any:
        connection: Connection = self.answers
        assert connection.poll(120)
        return connection.recv()


@pytest.fixture
def workers(
    app: Application, database: Database, zoho: ZohoSimulator, expired: OAuthToken
) -> Iterator[Callable[..., list[Worker]]]:
    """Forks workers that share a store made before, and are all ready."""
    made: list[Worker] = []
    stores: list[SQLAlchemyTokenStore] = []

    def start(count: int, refresh_wait: float) -> list[Worker]:
        store = SQLAlchemyTokenStore(database.url, refresh_wait=refresh_wait)
        stores.append(store)
        started = [Worker(store, zoho, expired.get_id()) for _ in range(count)]
        made.extend(started)
        assert [worker.answer() for worker in started] == ["ready"] * count
        zoho.clear_calls()
        return started

    yield start
    for worker in made:
        worker.process.kill()
        worker.process.join()
    for store in stores:
        store.close()


def let_go(workers: list[Worker]) -> list[Any]:
    for worker in workers:
        worker.go()
    return [worker.answer() for worker in workers]


def test_twelve_processes_make_one_refresh_and_twelve_calls(app, zoho, alice, expired, workers):
    zoho.latency = 0.1
    answers = let_go(workers(WORKERS, refresh_wait=60.0))
    assert answers == [alice.email] * WORKERS
    assert zoho.count("refresh") == 1
    assert app.row(expired.get_id()).get_access_token() != expired.get_access_token()
    assert len(app.store.get_tokens()) == 2


def test_a_holder_that_is_killed_delays_the_others_and_no_more(zoho, alice, workers):
    """Its lease runs out; one of the others refreshes then, and the rest still wait."""
    (holder,) = workers(1, refresh_wait=1.0)
    others = workers(5, refresh_wait=60.0)
    with zoho.hold("refresh") as held:
        holder.go()
        held.wait_for(1)
        holder.process.kill()
        holder.process.join()
    assert let_go(others) == [alice.email] * 5
    assert zoho.count("refresh") == 2


def test_a_refresh_that_fails_is_made_by_one_of_the_others(zoho, alice, workers):
    (holder,) = workers(1, refresh_wait=1.0)
    others = workers(4, refresh_wait=60.0)
    zoho.fail_token_requests()
    assert isinstance(let_go([holder])[0], str)
    assert let_go(others) == [alice.email] * 4
    assert zoho.count("refresh") == 2


def test_a_revoked_refresh_token_is_an_error_for_each(zoho, alice, workers):
    zoho.revoke(alice)
    answers = let_go(workers(4, refresh_wait=1.0))
    assert all("invalid_code" in answer for answer in answers)


def test_without_the_lease_each_refreshes(zoho, alice, workers):
    started = workers(4, refresh_wait=0)
    with zoho.hold("refresh") as held:
        for worker in started:
            worker.go()
        held.wait_for(4)
    assert [worker.answer() for worker in started] == [alice.email] * 4


def test_twelve_threads_make_one_refresh_too(app: Application, zoho, alice, expired):
    zoho.clear_calls()

    def work(number: int) -> str:
        Initializer.switch_user(token=OAuthToken(id=expired.get_id()))
        return current_email()

    assert at_once(WORKERS, work) == [alice.email] * WORKERS
    assert zoho.count("refresh") == 1
