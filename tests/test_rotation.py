"""Every secret under the newest key: while workers go on, and again after an interruption."""

from __future__ import annotations

import re
import threading
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import insert
from zohocrmsdk.src.com.zoho.api.authenticator.oauth_token import OAuthToken
from zohocrmsdk.src.com.zoho.crm.api.exception.sdk_exception import SDKException

from tests.databases import fresh_database
from tests.support import CHECKOUT, NEW, OLD, granted, in_an_hour, raw_rows, run, values
from zoho_token_orm import SQLAlchemyTokenStore, schema
from zoho_token_orm.encryption import KEYS_VARIABLE, PLAIN, SECRETS, Cipher, generate_key
from zoho_token_orm.models import stored_table
from zoho_token_orm.rotation import PAGE, Rotation
from zoho_token_orm.saving import Merge

OLDEST = "E" * 43 + "F" * 43
MANY = PAGE + PAGE // 2
CIPHERS = [Cipher([OLDEST]), Cipher(), Cipher([OLD])]


def fill(store: SQLAlchemyTokenStore, count: int = MANY) -> None:
    """Rows of three forms in turn; every fifth has neither grant nor access token."""
    rows = [row(f"{number}", CIPHERS[number % 3], number % 5 == 0) for number in range(count)]
    with store.engine.connect() as connection:
        connection.execute(insert(stored_table()), rows)
        connection.commit()


def row(id: str, cipher: Cipher, lacks: bool = False) -> dict[str, Any]:
    secrets = {name: f"1000.{name}-{id}" for name in SECRETS}
    if lacks:
        secrets.update(grant_token=None, access_token=None)
    stored = {name: value and cipher.stored(name, value) for name, value in secrets.items()}
    return {"id": id, "user_name": f"user-{id}", "client_id": "1000.CLIENT", **stored}


def contents(store: SQLAlchemyTokenStore) -> dict[str, dict[str, str | None]]:
    return {token.get_id(): values(token) for token in store.get_tokens()}


def prefixes(store: SQLAlchemyTokenStore) -> set[str]:
    """What the secrets in the table begin with."""
    stored = [each[name] for each in raw_rows(store) for name in SECRETS]
    length = len(Cipher([NEW]).prefix)
    return {text[:length] if text.startswith("zto1.") else PLAIN for text in stored if text}


def test_afterwards_everything_is_under_the_newest_key_and_no_other_is_needed(store_with):
    store = store_with(NEW, OLD, OLDEST, PLAIN)
    fill(store)
    before, raw = contents(store), raw_rows(store)
    progress = []
    assert store.rotate_keys(lambda *done: progress.append(done)) == MANY
    assert progress == [(PAGE, MANY), (MANY, MANY)]
    assert prefixes(store) == {Cipher([NEW]).prefix}
    assert contents(store_with(NEW)) == before
    others = [name for name in raw[0] if name not in SECRETS]
    assert [[each[n] for n in others] for each in raw_rows(store)] == [
        [each[n] for n in others] for each in raw
    ]
    assert store.rotate_keys() == 0


def test_the_way_back_to_plain_text(store_with):
    fill(store_with(NEW))
    store = store_with(PLAIN, NEW, OLD, OLDEST)
    before = contents(store)
    assert store.rotate_keys() == MANY * 2 // 3
    assert prefixes(store) == {PLAIN}
    assert contents(store_with()) == before


def test_interrupted_it_can_be_run_again(store_with):
    store = store_with(NEW, OLD, OLDEST, PLAIN)
    fill(store)
    before = contents(store)

    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.rotate_keys(interrupt)
    assert contents(store) == before
    assert store.rotate_keys() == MANY - PAGE
    assert prefixes(store) == {Cipher([NEW]).prefix}
    assert contents(store) == before


def test_workers_read_and_write_meanwhile(store_with, database):
    if database.name == "sqlite-memory":
        pytest.skip("a database in memory has one store")
    store, worker = store_with(NEW, OLD, OLDEST, PLAIN), store_with(NEW, OLD, OLDEST, PLAIN)
    fill(store)
    saved: dict[str, str] = {}
    errors: list[Exception] = []
    is_over = threading.Event()

    def work() -> None:
        number = 0
        try:
            while not is_over.is_set() or number < 50:
                number += 1
                token = worker.find_token_by_id(f"{number * 37 % MANY}")
                token.set_access_token(f"1000.fresh-{number}")
                token.set_expires_in(in_an_hour())
                worker.save_token(token)
                saved[token.get_id()] = token.get_access_token()
                worker.save_token(granted(f"{number}"))
                found = OAuthToken("1000.CLIENT", "s", refresh_token=f"1000.refresh-{number}")
                assert worker.find_token(found).get_access_token() == f"1000.access-{number}"
        except Exception as error:
            errors.append(error)

    working = threading.Thread(target=work)
    working.start()
    try:
        assert store.rotate_keys() > MANY / 2
    finally:
        is_over.set()
        working.join(120)
    assert errors == []
    after = contents(store_with(NEW))
    assert {id: after[id]["access_token"] for id in saved} == saved
    assert prefixes(store) == {Cipher([NEW]).prefix}


def test_what_a_worker_saves_meanwhile_is_not_taken_back(store_with, database):
    """A row that is read before and written after a worker's save."""
    if database.name == "sqlite-memory":
        pytest.skip("a database in memory has one store")
    store, worker = store_with(NEW, OLD), store_with(NEW, OLD)
    store_with(OLD).save_token(granted("alice", id="1"))
    token = worker.find_token_by_id("1")
    token.set_access_token("1000.fresh")
    is_stored = Rotation._is_stored

    def later(self, connection, changes):
        if token.get_access_token() == "1000.fresh":
            worker.save_token(token)
        return is_stored(self, connection, changes)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Rotation, "_is_stored", later)
        store.rotate_keys()
    assert store.find_token_by_id("1").get_access_token() == "1000.fresh"
    assert prefixes(store) == {Cipher([NEW]).prefix}


def test_two_rotations_at_once_both_end(store_with, database):
    if database.name == "sqlite-memory":
        pytest.skip("a database in memory has one store")
    stores = [store_with(NEW, OLD, OLDEST, PLAIN), store_with(NEW, OLD, OLDEST, PLAIN)]
    fill(stores[0])
    before = contents(stores[0])
    threads = [threading.Thread(target=store.rotate_keys) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert prefixes(stores[0]) == {Cipher([NEW]).prefix}
    assert contents(stores[0]) == before


def test_rows_that_turn_out_to_be_the_same_become_one(store_with):
    """Two workers have saved one login, each under its own key, and no constraint told them."""
    store = store_with(NEW, OLD)
    twin = {**row("1", Cipher([OLD])), "id": "2", "user_name": None, "client_id": None}
    first = {**row("1", Cipher([NEW])), "grant_token": None, "access_token": None}
    twin["access_token"] = twin["client_secret"] = None
    with store.engine.connect() as connection:
        for each in (first, twin, row("3", Cipher())):
            connection.execute(insert(stored_table()), each)
        connection.commit()
    assert store.rotate_keys() >= 2
    assert prefixes(store) == {Cipher([NEW]).prefix}
    tokens = {token.get_refresh_token(): token for token in store.get_tokens()}
    assert sorted(tokens) == ["1000.refresh_token-1", "1000.refresh_token-3"]
    one = tokens["1000.refresh_token-1"]
    assert (one.get_user_signature().get_name(), one.get_client_id()) == ("user-1", "1000.CLIENT")
    assert one.get_grant_token() == "1000.grant_token-1"


@pytest.mark.parametrize("fresh", ["1", "2"])
def test_of_two_rows_of_one_login_the_fresh_access_token_stays(store_with, fresh):
    store = store_with(NEW, OLD)
    rows = [row("1", Cipher([OLD])), {**row("1", Cipher([NEW])), "id": "2", "user_name": None}]
    for each in rows:
        token = f"1000.access-{each['id']}"
        each["access_token"] = Cipher([NEW]).stored("access_token", token)
        each["expiry_time"] = 2000 if each["id"] == fresh else 1000
    with store.engine.connect() as connection:
        connection.execute(insert(stored_table()), rows)
        connection.commit()
    store.rotate_keys()
    (token,) = store.get_tokens()
    assert (token.get_access_token(), token.get_expires_in()) == (f"1000.access-{fresh}", "2000")
    assert token.get_user_signature().get_name() == "user-1"


def test_a_row_that_is_deleted_before_it_is_merged_is_not_put_back(store_with, monkeypatch):
    store = store_with(NEW, OLD)
    rows = [row("1", Cipher([OLD])), {**row("1", Cipher([NEW])), "id": "2", "user_name": None}]
    with store.engine.connect() as connection:
        connection.execute(insert(stored_table()), rows)
        connection.commit()
    merge = Merge.__call__

    def later(self, connection):
        connection.exec_driver_sql("DELETE FROM oauthtoken")
        return merge(self, connection)

    monkeypatch.setattr(Merge, "__call__", later)
    store.rotate_keys()
    assert store.get_tokens() == []


def test_what_cannot_be_read_is_named_and_all_else_is_done(store_with):
    store = store_with(NEW, OLD)
    fill(store, 30)
    before = raw_rows(store)
    with pytest.raises(SDKException) as caught:
        store.rotate_keys()
    message = caught.value.error_message
    assert "20 rows are done, and 10 cannot be" in message
    assert f"the key {Cipher([OLDEST]).prefix[5:13]}, which is not given" in message
    for old, new in zip(before, raw_rows(store), strict=True):
        is_oldest = old["refresh_token"].startswith(Cipher([OLDEST]).prefix)
        assert (old == new) is is_oldest
    assert store_with(NEW, OLDEST).rotate_keys() == 10


def test_a_worker_that_goes_on_under_an_older_key_is_told_of(store_with):
    store = store_with(NEW, OLD)
    behind = store_with(OLD, NEW)
    store_with(OLD).save_token(token := granted("alice", id="1"))
    with pytest.raises(SDKException, match="give all workers the same newest key"):
        store.rotate_keys(lambda done, total: behind.save_token(granted("alice", id="1")))
    assert values(store.find_token_by_id("1"))["refresh_token"] == token.get_refresh_token()


def test_what_was_saved_under_an_older_key_meanwhile_is_gone_through_again(store_with):
    """As by a worker that was in the middle of a save when it was restarted with the new key."""
    store, behind = store_with(NEW, OLD), store_with(OLD, NEW)
    behind.save_token(granted("alice", id="1"))
    late = iter([granted("alice", id="0")])
    store.rotate_keys(lambda done, total: [behind.save_token(token) for token in late])
    assert prefixes(store) == {Cipher([NEW]).prefix}


def test_an_unused_row_stays_unused(store_with):
    """``purge`` goes by ``updated_at``."""
    store = store_with(NEW, OLD)
    fill(store, 3)
    with store.engine.connect() as connection:
        connection.exec_driver_sql("UPDATE oauthtoken SET updated_at = '2020-01-01 00:00:00'")
        connection.commit()
    store_with(NEW, OLD, OLDEST, PLAIN).rotate_keys()
    assert store.purge(timedelta(days=365)) == 3


# The commands


def command(*arguments: str, tmp_path, url: str, **environment: str):
    return run("zoho-token-orm", *arguments, cwd=tmp_path, url=url, **environment)


@pytest.mark.parametrize("name", ["sqlite-file", "postgresql", "mysql", "mariadb"])
def test_the_commands_take_a_table_to_a_key_to_another_and_back(name, tmp_path):
    with fresh_database(name, tmp_path) as database:
        schema.upgrade(database.url)
        with SQLAlchemyTokenStore(database.url) as store:
            store.save_token(granted("alice", id="1"))
            before = contents(store)
        first, second = (
            command("generate-key", tmp_path=tmp_path, url=database.url).stdout.strip()
            for _ in range(2)
        )
        for keys in (first, f"{second},{first}", f"plain,{second}"):
            environment = {KEYS_VARIABLE: keys}
            result = command("rotate-keys", tmp_path=tmp_path, url=database.url, **environment)
            assert (result.returncode, result.stdout) == (
                0,
                "1 rows changed; no older key is needed\n",
            )
            assert first not in result.stderr
            newest = keys.split(",")[0]
            with SQLAlchemyTokenStore(database.url, encryption_keys=newest) as store:
                assert contents(store) == before
                assert prefixes(store) == {Cipher([newest]).prefix or PLAIN}


def test_without_keys_there_is_nothing_to_rotate(tmp_path):
    url = f"sqlite:///{tmp_path / 'zohooauth.db'}"
    schema.upgrade(url)
    result = command("rotate-keys", tmp_path=tmp_path, url=url)
    assert result.returncode == 2
    assert f"set {KEYS_VARIABLE} to the keys" in result.stderr


def test_a_row_that_no_key_opens_ends_the_command_with_a_line_that_says_so(tmp_path):
    url = f"sqlite:///{tmp_path / 'zohooauth.db'}"
    with SQLAlchemyTokenStore(url, encryption_keys=OLD) as store:
        store.save_token(granted("alice", id="1"))
    result = command("rotate-keys", tmp_path=tmp_path, url=url, **{KEYS_VARIABLE: generate_key()})
    assert result.returncode == 1
    assert "client_secret of the row with the id '1' is encrypted with the key" in result.stderr
    assert "Traceback" not in result.stderr


# The guide

GUIDE = (CHECKOUT / "docs" / "security.md").read_text()
WAYS = [block for block in re.findall(r"```sh\n(.*?)```", GUIDE, re.DOTALL) if "_KEYS" in block]
BEFORE = {"plain,NEW": [], "OLD,NEW": [OLD], "OLD,plain": [OLD]}
"""What the workers have before the first step of each way, by that step."""


def keys_in(step: str) -> list[str]:
    """The keys that a step of the guide gives to the workers."""
    assert re.fullmatch(rf"{KEYS_VARIABLE}=[A-Za-z,]+|unset {KEYS_VARIABLE}", step)
    named = {"NEW": NEW, "OLD": OLD, PLAIN: PLAIN}
    return [named[name] for name in step.partition("=")[2].split(",") if name]


def work_together(one: SQLAlchemyTokenStore, other: SQLAlchemyTokenStore, name: str) -> None:
    """One logs a user in, the other refreshes the token; each finds what the other has saved."""
    one.save_token(token := granted(name))
    found = other.find_token(OAuthToken(user_signature=token.get_user_signature()))
    assert values(found) == values(token)
    found.set_access_token(f"1000.fresh-{name}")
    other.save_token(found)
    again = OAuthToken("1000.CLIENT", "the-secret", refresh_token=token.get_refresh_token())
    one.save_token(again)
    assert values(one.find_token_by_id(again.get_id())) == values(found)


@pytest.mark.parametrize("way", WAYS, ids=["on", "change", "off"])
def test_no_step_of_the_guide_needs_a_pause(way, store_with):
    steps = [step for step in way.splitlines() if not step.startswith("#")]
    before = store_with(*BEFORE[steps[0].partition("=")[2]])
    for number, step in enumerate(steps):
        if step == "zoho-token-orm rotate-keys":
            before.rotate_keys()
            assert len(prefixes(before)) == 1
            continue
        after = store_with(*keys_in(step))
        work_together(before, after, f"{number}-forward")
        work_together(after, before, f"{number}-back")
        before = after
    assert len(before.get_tokens()) == 2 * (len(steps) - 1)
    assert prefixes(before) == {PLAIN if way is WAYS[-1] else Cipher([NEW]).prefix}
