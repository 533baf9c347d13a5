"""One refresh for all: who gets a token that is about to expire, who waits, and for how long."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from sqlalchemy import event, insert, select, update
from zohocrmsdk.src.com.zoho.api.authenticator.oauth_token import OAuthToken
from zohocrmsdk.src.com.zoho.crm.api.exception.sdk_exception import SDKException
from zohocrmsdk.src.com.zoho.crm.api.user_signature import UserSignature

from tests.databases import Database
from tests.support import granted, in_an_hour, statements, values
from zoho_token_orm import OAuthTokenRow, SQLAlchemyTokenStore
from zoho_token_orm import refresh as module
from zoho_token_orm.models import epoch_milliseconds

A_MINUTE = 60.0
"""A wait that no test here sits out."""
LEASED = ["SELECT", "BEGIN", "SELECT", "UPDATE", "COMMIT"]
"""The statements of a look-up that takes the lease; the second SELECT locks the row at once."""


@pytest.fixture
def store(database: Database) -> Iterator[SQLAlchemyTokenStore]:
    """A store that waits as long as it has to."""
    with SQLAlchemyTokenStore(database.url, create_schema=True, refresh_wait=A_MINUTE) as made:
        yield made


@pytest.fixture
def worker(database, store) -> Iterator[Callable[..., SQLAlchemyTokenStore]]:
    """Makes another worker's store on the same table, with a patience of its own."""
    made = []

    def make(refresh_wait: float = A_MINUTE) -> SQLAlchemyTokenStore:
        if database.name == "sqlite-memory":
            pytest.skip("a database in memory has one store")
        made.append(SQLAlchemyTokenStore(database.url, refresh_wait=refresh_wait))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def expired(store) -> OAuthToken:
    """A stored token that the SDK refreshes when it meets it."""
    return save_expired(store, "alice")


def save_expired(store: SQLAlchemyTokenStore, name: str) -> OAuthToken:
    token = granted(name)
    token.set_expires_in("1000")
    store.save_token(token)
    return token


def refreshed(token: OAuthToken) -> OAuthToken:
    """The token as the SDK has it after a refresh."""
    token.set_access_token("1000.fresh")
    token.set_expires_in(in_an_hour())
    return token


def lease(store: SQLAlchemyTokenStore) -> tuple[str | None, int | None]:
    """Who holds the lease on the only row, and until when."""
    with store.engine.connect() as connection:
        row = connection.execute(select(OAuthTokenRow.lease_owner, OAuthTokenRow.lease_until))
        return tuple(row.one())


def written(store: SQLAlchemyTokenStore, call: Callable[[], object]) -> list[str]:
    """The statements of a call; those that only set SQLite's patience do not count."""
    with statements(store.engine) as seen:
        call()
    return [word for word in seen if word != "PRAGMA"]


@contextmanager
def looks(store: SQLAlchemyTokenStore, count: int) -> Iterator[threading.Event]:
    """Set once the store has looked at the table that often from now on."""
    seen, enough = [], threading.Event()

    def note(connection, cursor, statement, *rest):
        if statement.startswith("SELECT"):
            seen.append(statement)
            if len(seen) >= count:
                enough.set()

    event.listen(store.engine, "before_cursor_execute", note)
    yield enough
    event.remove(store.engine, "before_cursor_execute", note)


NAMINGS = {
    "id": lambda store, token: store.find_token_by_id(token.get_id()),
    "find by id": lambda store, token: store.find_token(OAuthToken(id=token.get_id())),
    "user": lambda store, token: store.find_token(
        OAuthToken(user_signature=token.get_user_signature())
    ),
    "refresh token": lambda store, token: store.find_token(
        OAuthToken("1000.CLIENT", "the-secret", refresh_token=token.get_refresh_token())
    ),
    "grant token": lambda store, token: store.find_token(
        OAuthToken("1000.CLIENT", "the-secret", grant_token=token.get_grant_token())
    ),
}


@pytest.mark.parametrize("naming", NAMINGS)
def test_the_first_caller_gets_the_expired_token_and_the_others_what_it_saves(
    store, expired, naming
):
    find = NAMINGS[naming]
    first = find(store, expired)
    assert values(first) == values(expired)
    with ThreadPoolExecutor(3) as pool, looks(store, 9) as all_wait:
        others = [pool.submit(find, store, expired) for _ in range(3)]
        assert all_wait.wait(30)
        assert not any(other.done() for other in others)
        store.save_token(refreshed(first))
        found = [other.result(30) for other in others]
    assert [values(token) for token in found] == [values(first)] * 3
    assert lease(store)[0] is None


def test_another_workers_save_ends_the_wait(store, expired, worker):
    other = worker()
    first = store.find_token_by_id(expired.get_id())
    with ThreadPoolExecutor(1) as pool, looks(other, 3) as waits:
        second = pool.submit(other.find_token_by_id, expired.get_id())
        assert waits.wait(30)
        store.save_token(refreshed(first))
        assert values(second.result(30)) == values(first)


def test_of_many_that_meet_it_at_once_one_gets_it(store, expired, worker, database):
    stores = [store] if database.name == "sqlite-memory" else [store, worker(), worker()]
    barrier = threading.Barrier(12)

    def call(number: int) -> bool:
        barrier.wait()
        mine = stores[number % len(stores)]
        token = mine.find_token_by_id(expired.get_id())
        has_expired = token.get_access_token() == expired.get_access_token()
        if has_expired:
            mine.save_token(refreshed(token))
        return has_expired

    with ThreadPoolExecutor(12) as pool:
        assert sorted(pool.map(call, range(12))) == [False] * 11 + [True]


# In how many statements


def test_a_valid_token_costs_no_statement_more(store):
    store.save_token(granted("alice"))
    (token,) = store.get_tokens()
    for find in NAMINGS.values():
        assert written(store, lambda find=find: find(store, token)) == ["SELECT"]


def test_a_lease_is_one_transaction_and_its_end_costs_nothing(store, expired):
    token = OAuthToken(id=expired.get_id())
    assert written(store, lambda: store.find_token(token)) == LEASED
    assert written(store, lambda: store.save_token(refreshed(token))) == ["UPDATE"]
    assert lease(store)[0] is None


@pytest.mark.parametrize(
    "lacking",
    [
        lambda token: token.set_refresh_token(None),
        lambda token: token.set_expires_in(None),
        lambda token: (token.set_refresh_token(None), token.set_access_token(None)),
    ],
    ids=["no refresh token", "no expiry", "a grant token alone"],
)
def test_what_the_sdk_does_not_refresh_is_not_leased(store, lacking):
    token = granted("alice")
    token.set_expires_in("1000")
    lacking(token)
    store.save_token(token)
    for _ in range(2):
        found = OAuthToken(id=token.get_id())
        assert written(store, lambda found=found: store.find_token(found)) == ["SELECT"]


def test_a_row_without_an_access_token_is_refreshed_by_one_too(store):
    token = granted("alice")
    token.set_access_token(None)
    token.set_expires_in(None)
    store.save_token(token)
    calls = written(store, lambda: store.find_token_by_id(token.get_id()))
    assert calls == LEASED


def test_a_token_that_brings_its_own_access_token_does_not_wait(store, expired):
    """It would keep that one: nothing that the others save could make it valid."""
    store.find_token_by_id(expired.get_id())
    for own in ("1000.access-alice", "1000.of-my-own"):
        token = OAuthToken(id=expired.get_id(), access_token=own)
        with ThreadPoolExecutor(1) as pool:
            call = pool.submit(written, store, lambda token=token: store.find_token(token))
            assert call.result(30) == ["SELECT"]


def test_without_a_wait_there_is_no_lease(store, expired, worker):
    stores = [worker(refresh_wait=0), worker(refresh_wait=0)]
    for off in stores:
        calls = written(off, lambda off=off: off.find_token_by_id(expired.get_id()))
        assert calls == ["SELECT"]
    assert lease(store) == (None, None)


# Whose it is


def test_an_owner_whose_refresh_failed_has_it_again_at_once(store, expired):
    for _ in range(3):
        calls = written(store, lambda: store.find_token_by_id(expired.get_id()))
        assert calls == LEASED


def test_only_the_owners_save_ends_it(store, expired, worker):
    other = worker()
    store.find_token_by_id(expired.get_id())
    owner = lease(store)[0]
    (token,) = other.get_tokens()
    other.save_token(refreshed(token))
    assert lease(store)[0] == owner
    with ThreadPoolExecutor(1) as pool:  # nor another thread's of the same store
        pool.submit(store.save_token, token).result()
    assert lease(store)[0] == owner
    store.save_token(token)
    assert lease(store)[0] is None


def test_a_merge_of_the_owner_ends_it_too(store, expired):
    found = store.find_token_by_id(expired.get_id())
    early = granted("other")
    early.set_user_signature(None)
    store.save_token(early)
    found.set_refresh_token(early.get_refresh_token())
    store.save_token(found)
    assert len(store.get_tokens()) == 1
    assert lease(store)[0] is None


def test_a_lease_is_timed_by_the_clock_of_the_database(store, expired):
    store.find_token_by_id(expired.get_id())
    with store.engine.connect() as connection:
        now = connection.execute(select(epoch_milliseconds())).scalar_one()
    length = A_MINUTE * module.LEASE_SHARE * 1000
    assert 0 < lease(store)[1] - now <= length
    assert abs(now - time.time() * 1000) < 600_000  # the server's zone does not count


def test_a_lease_on_tokens_that_have_changed_since_is_not_had(store, expired):
    """Between the look and the UPDATE somebody else has refreshed: that is the answer then."""
    fresh = refreshed(store.get_tokens()[0])

    def save_first(connection, cursor, statement, *rest):
        if statement.startswith("UPDATE") and not saved:
            saved.append(statement)
            connection.execute(
                update(OAuthTokenRow).values(access_token="1000.fresh", expiry_time=expiry)
            )

    saved, expiry = [], int(fresh.get_expires_in())
    event.listen(store.engine, "before_cursor_execute", save_first)
    assert values(store.find_token_by_id(expired.get_id())) == values(fresh)
    assert lease(store) == (None, None)


# Holders that never save


def test_a_lease_whose_holder_has_died_is_taken_over_by_one(store, expired, worker):
    """The others still wait then, and get what that one saves."""
    dead = worker(refresh_wait=0.5)
    dead.find_token_by_id(expired.get_id())
    stores = [worker(), worker()]
    barrier = threading.Barrier(4)

    def call(number: int) -> bool:
        barrier.wait()
        mine = stores[number % 2]
        token = mine.find_token_by_id(expired.get_id())
        has_expired = token.get_access_token() == expired.get_access_token()
        if has_expired:
            mine.save_token(refreshed(token))
        return has_expired

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(call, range(4))) == [False] * 3 + [True]


def test_nobody_waits_longer_than_refresh_wait(store, expired, worker):
    """It gets the expired token then, and refreshes by itself, as it would without a lease."""
    store.find_token_by_id(expired.get_id())
    owner = lease(store)[0]
    token = worker(refresh_wait=0.1).find_token_by_id(expired.get_id())
    assert token.get_access_token() == expired.get_access_token()
    assert lease(store)[0] == owner


def test_who_has_waited_in_vain_waits_a_tenth_as_long_until_the_row_is_saved(
    store, expired, worker
):
    """Where the refresh token is revoked, every call would wait the whole time otherwise."""
    store.find_token_by_id(expired.get_id())
    impatient = worker(refresh_wait=0.2)
    waits: list[float] = []
    make = module._Wait

    class Noted(make):
        def __init__(self, seconds: float) -> None:
            waits.append(seconds)
            super().__init__(seconds)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_Wait", Noted)
        for _ in range(3):
            impatient.find_token_by_id(expired.get_id())
        with store.engine.connect() as connection:
            connection.execute(update(OAuthTokenRow).values(access_token="1000.also-expired"))
        impatient.find_token_by_id(expired.get_id())
    assert waits == [0.2, *[0.2 * module.VAIN_SHARE] * 2, 0.2]


def test_the_patience_with_countless_rows_does_not_fill_the_memory(store, expired, monkeypatch):
    monkeypatch.setattr(module, "MOST_ROWS", 3)
    with store.engine.connect() as connection:
        ids = [str(number) for number in range(9)]
        connection.execute(insert(OAuthTokenRow), [{"id": id} for id in ids])
    rows = [store._row_with(id) for id in ids]
    for row in rows:
        store._lease._patience.lose(row)
    assert len(store._lease._patience._in_vain) <= 3
    assert store._lease._patience.with_row(rows[-1]) == A_MINUTE * module.VAIN_SHARE


def test_who_waits_gets_what_is_saved_however_short_it_lives(store, expired, worker):
    """Where access tokens live for seconds, each caller refreshes by itself, and none queues."""
    other = worker()
    first = store.find_token_by_id(expired.get_id())
    with ThreadPoolExecutor(1) as pool, looks(other, 3) as waits:
        second = pool.submit(other.find_token_by_id, expired.get_id())
        assert waits.wait(30)
        first.set_access_token("1000.short")
        first.set_expires_in("2000")
        store.save_token(first)
        assert values(second.result(30)) == values(first)
    assert lease(store)[0] is None


def test_a_closed_store_waits_no_longer(store, expired, worker):
    other = worker()
    store.find_token_by_id(expired.get_id())
    looked, pauses = [], threading.Event()

    @event.listens_for(other.engine, "checkin")
    def note(*given):
        looked.append(given)
        if len(looked) >= 12:  # its pauses are long by now
            pauses.set()

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(other.find_token_by_id, expired.get_id())
        assert pauses.wait(30)
        other.close()
        with pytest.raises(SDKException, match="the store is closed"):
            waiting.result(30)
    assert other.engine.pool.checkedin() == 0


def test_a_row_that_is_deleted_meanwhile_is_not_found(store, expired):
    store.find_token_by_id(expired.get_id())
    with ThreadPoolExecutor(2) as pool, looks(store, 6) as both_wait:
        calls: list[Future] = [
            pool.submit(store.find_token_by_id, expired.get_id()),
            pool.submit(
                store.find_token, OAuthToken(user_signature=UserSignature("alice@example.com:7001"))
            ),
        ]
        assert both_wait.wait(30)
        store.delete_token(expired.get_id())
        assert [call.result(30) for call in calls] == [None, None]


# When the SDK refreshes


def test_a_token_that_is_due_in_a_moment_is_handed_out_when_it_is_due(store):
    """The SDK looks a little later than the store: it must not find it due without a lease."""
    token = granted("alice")
    token.set_expires_in(str(int(time.time() * 1000) + 5_060))
    store.save_token(token)
    found = store.find_token_by_id(token.get_id())
    assert int(found.get_expires_in()) - int(time.time() * 1000) < module.SDK_MARGIN
    assert lease(store)[0] is not None


@pytest.mark.parametrize("milliseconds", [6_000, 3_600_000])
def test_a_token_that_is_not_due_is_handed_to_everybody(store, milliseconds):
    token = granted("alice")
    token.set_expires_in(str(int(time.time() * 1000) + milliseconds + 60_000))
    store.save_token(token)
    store.find_token_by_id(token.get_id())
    assert lease(store) == (None, None)


# What goes wrong with a lease is nobody's error


def test_where_no_lease_can_be_had_everybody_refreshes(store, expired, database, caplog):
    """As on a database that takes no writes from this user."""
    with store.engine.connect() as connection:
        connection.exec_driver_sql(REFUSALS[store.engine.dialect.name][0])
        for statement in REFUSALS[store.engine.dialect.name][1:]:
            connection.exec_driver_sql(statement)
    with caplog.at_level(logging.WARNING, "zoho_token_orm"), ThreadPoolExecutor(1) as pool:
        calls = [pool.submit(store.find_token_by_id, expired.get_id()) for _ in range(2)]
        assert [values(call.result(30)) for call in calls] == [values(expired)] * 2
    assert "without a lease" in caplog.text
    assert "1000." not in caplog.text


_RAISE = (
    "CREATE TRIGGER no_lease BEFORE UPDATE ON oauthtoken FOR EACH ROW "
    "SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'refused'"
)
REFUSALS = {
    "sqlite": [
        "CREATE TRIGGER no_lease BEFORE UPDATE ON oauthtoken "
        "BEGIN SELECT RAISE(ABORT, 'refused'); END"
    ],
    "postgresql": [
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql "
        "AS 'BEGIN RAISE EXCEPTION ''refused''; END'",
        "CREATE TRIGGER no_lease BEFORE UPDATE ON oauthtoken "
        "FOR EACH ROW EXECUTE FUNCTION refuse()",
    ],
    "mysql": [_RAISE],
    "mariadb": [_RAISE],
}
"""A trigger by which the server refuses each update."""
