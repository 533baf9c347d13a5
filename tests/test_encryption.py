"""Secrets at rest: encrypted under the newest key, readable under any, and never garbage."""

from __future__ import annotations

import re
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import event, select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session
from zohocrmsdk.src.com.zoho.api.authenticator.oauth_token import OAuthToken
from zohocrmsdk.src.com.zoho.crm.api.exception.sdk_exception import SDKException
from zohocrmsdk.src.com.zoho.crm.api.user_signature import UserSignature

from tests.proxy import Proxy
from tests.support import NEW, OLD, granted, in_an_hour, raw_rows, statements, values
from zoho_token_orm import OAuthTokenRow, SQLAlchemyTokenStore
from zoho_token_orm.database import resolve_url
from zoho_token_orm.direct import _Compiled
from zoho_token_orm.encryption import KEYS_VARIABLE, PLAIN, SECRETS, Cipher, generate_key
from zoho_token_orm.saving import Save

CLIENT = {"client_id": "1000.CLIENT", "client_secret": "the-secret"}
FORMS = {"old": (OLD,), "new": (NEW,), "plain": (PLAIN,), "both": (NEW, OLD)}


def change_raw(store: SQLAlchemyTokenStore, id: str, **columns: str) -> None:
    assignments = ", ".join(f"{name} = :{name}" for name in columns)
    with store.engine.begin() as connection:
        statement = text(f"UPDATE oauthtoken SET {assignments} WHERE id = :row_id")
        connection.execute(statement, {**columns, "row_id": id})


# The cipher

KNOWN = {
    "refresh_token": "zto1.9404d567.84lccvnry5qydDVAr8kpDhO_zJfPPDSSl6A",
    "access_token": "zto1.9404d567.dILqpH1U2IZukdjCeVbTOMRFTYrXMnAF_hU",
}


@pytest.mark.parametrize("column", KNOWN)
def test_what_one_release_has_encrypted_the_next_one_opens(column):
    assert Cipher([OLD]).stored(column, "1000.token") == KNOWN[column]
    assert Cipher([NEW, OLD]).opened("7", column, KNOWN[column]) == "1000.token"


def test_a_key_is_random_and_good_at_once():
    keys = {generate_key() for _ in range(20)}
    assert len(keys) == 20
    assert {len(key) for key in keys} == {86}
    assert Cipher(sorted(keys)).count == 20


BAD_KEYS = {
    "short": OLD[:-1],
    "long": OLD + "A",
    "a passphrase": "correct horse battery staple",
    "a Fernet key": "cw_0x689RpI-jtRR7oE8h_eQsKImvJapLeSbXpwF4e4=",
    "not base64": "!" * 86,
    "not ASCII": "ä" * 86,
    "all the same": "A" * 86,
}


@pytest.mark.parametrize("key", BAD_KEYS.values(), ids=BAD_KEYS)
def test_a_bad_key_is_refused_at_construction(key, monkeypatch):
    for given in (key, [NEW, key], f"{NEW},{key}"):
        with pytest.raises(ValueError, match="generate-key") as caught:
            SQLAlchemyTokenStore("sqlite://", encryption_keys=given)
        assert key not in str(caught.value)
        assert NEW not in str(caught.value)
    monkeypatch.setenv(KEYS_VARIABLE, f"{NEW},{key}")
    with pytest.raises(ValueError, match="key number 2 is no key"):
        SQLAlchemyTokenStore("sqlite://")


def test_a_key_that_is_there_twice_is_refused():
    with pytest.raises(ValueError, match="key number 3 is there twice"):
        Cipher([OLD, NEW, OLD])


@pytest.mark.parametrize("given", ["", " , ", [], ["", " "]])
def test_keys_that_are_given_and_empty_do_not_mean_plain_text(given, monkeypatch):
    with pytest.raises(ValueError, match="encryption_keys holds no key"):
        SQLAlchemyTokenStore("sqlite://", encryption_keys=given)
    monkeypatch.setenv(KEYS_VARIABLE, given if isinstance(given, str) else "")
    with pytest.raises(ValueError, match=f"{KEYS_VARIABLE} holds no key"):
        SQLAlchemyTokenStore("sqlite://")


@pytest.mark.parametrize("given", [b"bytes", [b"bytes"], [None], 7, {OLD, NEW}])
def test_keys_that_are_no_text_or_in_no_order_are_refused(given):
    with pytest.raises(ValueError, match="must be a string, or a sequence"):
        SQLAlchemyTokenStore("sqlite://", encryption_keys=given)


@pytest.mark.parametrize(
    "given", [f",{PLAIN}", f"{PLAIN},", f",{OLD}", [NEW, " "], f"{NEW},,{OLD}"]
)
def test_a_key_that_is_missing_among_others_is_told(given):
    """As by a variable that is not set; the rest might mean plain text."""
    with pytest.raises(ValueError, match="one of the keys in encryption_keys is empty"):
        SQLAlchemyTokenStore("sqlite://", encryption_keys=given)


@pytest.mark.parametrize("given", [f"{NEW},{OLD}", f" {NEW} ,\n{OLD}\n", [NEW, OLD], (NEW, OLD)])
def test_keys_come_from_the_argument_or_the_environment(given, monkeypatch):
    with SQLAlchemyTokenStore("sqlite://", encryption_keys=given) as store:
        assert store._cipher.count == 2
    monkeypatch.setenv(KEYS_VARIABLE, given if isinstance(given, str) else ",".join(given))
    with SQLAlchemyTokenStore("sqlite://") as store:
        assert store._cipher.prefix == Cipher([NEW]).prefix


def test_without_cryptography_the_error_names_the_extra(monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "cryptography"]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(SDKException) as caught:
        SQLAlchemyTokenStore("sqlite://", encryption_keys=NEW)
    assert "pip install 'zoho-token-orm[encryption]'" in caught.value.error_message


def test_nothing_shows_a_key():
    with SQLAlchemyTokenStore("sqlite://", encryption_keys=[NEW, OLD]) as store:
        shown = repr(store) + repr(store._cipher) + repr(store._cipher._keys)
    assert OLD not in shown
    assert NEW not in shown


def test_the_longest_secrets_are_kept_and_a_longer_one_is_refused(store_with):
    store = store_with(NEW)
    fitting = {"refresh_token": "1" * 1500, "access_token": "é" * 340, "grant_token": "x y." * 375}
    store.save_token(token := OAuthToken("1000.CLIENT", "s" * 1500, **fitting))
    assert values(store.find_token_by_id(token.get_id())) == values(token)
    token.set_refresh_token("1" * 1510)
    with pytest.raises(SDKException, match=r"refresh_token is too long.* 1510 bytes, at most 1\d+"):
        store.save_token(token)


# On the databases


@pytest.fixture
def store(store_with) -> SQLAlchemyTokenStore:
    return store_with(NEW)


def test_no_secret_is_in_the_database_in_the_clear(store, database):
    token = granted("alice", id="1")
    store.save_token(token)
    token.set_access_token("1000.access-fresh")
    store.save_token(token)
    (row,) = raw_rows(store)
    assert all(row[name].startswith(Cipher([NEW]).prefix) for name in SECRETS)
    stored = repr(row)
    store.close()
    for path in Path(database.url.removeprefix("sqlite:///")).parent.glob("zohooauth.db*"):
        stored += path.read_bytes().decode("latin-1")
    for secret in ("1000.grant", "1000.refresh", "1000.access", "the-secret"):
        assert secret not in stored


def test_a_token_is_found_by_each_of_its_names(store):
    store.save_token(token := granted("alice"))
    store.save_token(granted("bob"))
    names = [
        {"id": token.get_id()},
        {"user_signature": token.get_user_signature()},
        {"access_token": "1000.access-alice"},
        {**CLIENT, "grant_token": "1000.grant-alice"},
        {**CLIENT, "refresh_token": "1000.refresh-alice"},
    ]
    for name in names:
        assert values(store.find_token(OAuthToken(**name))) == values(token), list(name)
    assert values(store.find_token_by_id(token.get_id())) == values(token)
    assert [values(each) for each in store.get_tokens()] == [
        values(each) for each in store.iter_tokens()
    ]


def test_case_counts_encrypted_too(store):
    store.save_token(OAuthToken("1000.CLIENT", "s", refresh_token="1000.abc"))
    assert store.find_token(OAuthToken("1000.CLIENT", "s", refresh_token="1000.ABC")) is None


def test_the_constraints_hold_on_what_is_encrypted(store):
    store.save_token(granted("alice", id="1"))
    store.save_token(granted("bob", id="2"))
    alice = raw_rows(store)[0]
    for column in ("refresh_token", "grant_token"):
        with pytest.raises(IntegrityError):
            change_raw(store, "2", **{column: alice[column]})


def test_a_call_is_one_statement_and_one_round_trip(database):
    if not database.is_server:
        pytest.skip("there are no round trips")
    with (
        Proxy(resolve_url(database.url)) as proxy,
        SQLAlchemyTokenStore(proxy.url, create_schema=True, encryption_keys=[NEW, OLD]) as store,
    ):
        store.save_token(token := granted("alice"))
        token.set_access_token("1000.fresh")
        calls = [
            lambda: store.save_token(token),
            lambda: store.find_token_by_id(token.get_id()),
            lambda: store.find_token(OAuthToken(user_signature=token.get_user_signature())),
            lambda: store.find_token(OAuthToken(**CLIENT, refresh_token="1000.refresh-alice")),
        ]
        for call in calls:
            before = proxy.round_trips
            call()
            assert proxy.round_trips - before == 1
        with statements(store.engine) as seen:
            for call in calls:
                call()
        assert seen == ["UPDATE", "SELECT", "SELECT", "SELECT"]


@pytest.mark.parametrize("form", FORMS)
def test_rows_of_every_form_live_side_by_side(store_with, form):
    store_with(*FORMS[form]).save_token(token := granted("alice", id="1"))
    store = store_with(NEW, OLD, PLAIN)
    names = [
        {"id": "1"},
        {"access_token": "1000.access-alice"},
        {**CLIENT, "grant_token": "1000.grant-alice"},
        {**CLIENT, "refresh_token": "1000.refresh-alice"},
    ]
    for name in names:
        assert values(store.find_token(OAuthToken(**name))) == values(token), list(name)
    again = granted("alice")
    again.set_user_signature(None)
    again.set_access_token("1000.fresh")
    store.save_token(again)  # found by its grant and its refresh token
    assert again.get_id() == "1"
    (row,) = raw_rows(store)
    secrets = ("refresh_token", "access_token", "grant_token", "client_secret")
    assert all(row[name].startswith(Cipher([NEW]).prefix) for name in secrets)


@pytest.mark.parametrize("form", FORMS)
def test_a_refreshed_token_is_stored_under_the_newest_key_in_one_statement(store_with, form):
    store_with(*FORMS[form]).save_token(granted("alice", id="1"))
    store = store_with(NEW, OLD, PLAIN)
    token = store.find_token_by_id("1")
    token.set_access_token("1000.fresh")
    with statements(store.engine) as seen:
        store.save_token(token)
    assert seen == ["UPDATE"]
    (row,) = raw_rows(store)
    assert all(row[name].startswith(Cipher([NEW]).prefix) for name in SECRETS)


@pytest.mark.parametrize("form", FORMS)
def test_a_row_of_another_form_with_the_same_secret_becomes_one_with_it(store_with, form):
    """No constraint tells that they are the same: their ciphertexts differ."""
    early = granted("alice", id="1")
    early.set_user_signature(None)
    store_with(*FORMS[form]).save_token(early)
    store = store_with(NEW, OLD, PLAIN)
    other = OAuthToken("1000.CLIENT", "the-secret", id="2", access_token="1000.other")
    other.set_user_signature(UserSignature("alice@example.com:7001"))
    store.save_token(other)
    other.set_refresh_token(early.get_refresh_token())
    store.save_token(other)
    (row,) = store.get_tokens()
    assert (row.get_id(), row.get_grant_token()) == ("2", early.get_grant_token())


def test_an_access_token_without_an_expiry_keeps_the_one_it_has_in_every_form(store_with):
    for keys in FORMS.values():
        first = store_with(*keys)
        first.delete_tokens()
        first.save_token(granted("alice", id="1"))
        store = store_with(NEW, OLD, PLAIN)
        expiry = store.find_token_by_id("1").get_expires_in()
        for access_token, expected in (("1000.access-alice", expiry), ("1000.new", None)):
            token = OAuthToken("1000.CLIENT", "the-secret", id="1", access_token=access_token)
            store.save_token(token)
            assert store.find_token_by_id("1").get_expires_in() == expected


@pytest.mark.parametrize("has_row", [False, True], ids=["new", "one that has a row"])
def test_two_workers_of_different_newest_keys_that_save_one_login_make_one_row(
    store_with, database, has_row
):
    if database.name == "sqlite-memory":
        pytest.skip("a database in memory has one store")
    stores = [store_with(NEW, OLD), store_with(OLD, NEW)]
    for number in range(15):
        barrier = threading.Barrier(4)
        user = UserSignature(f"user-{number}")
        if has_row:
            early = OAuthToken("1000.CLIENT", "s", access_token=f"1000.a-{number}")
            early.set_user_signature(user)
            stores[0].save_token(early)

        def save(store, number=number, barrier=barrier, user=user) -> None:
            token = OAuthToken("1000.CLIENT", "s", refresh_token=f"1000.refresh-{number}")
            if has_row and store is stores[0]:
                token.set_user_signature(user)
            barrier.wait()
            store.save_token(token)

        with ThreadPoolExecutor() as threads:
            for saved in [threads.submit(save, store) for store in stores * 2]:
                saved.result(60)
    tokens = [token.get_refresh_token() for token in stores[0].get_tokens()]
    assert sorted(tokens) == sorted(f"1000.refresh-{number}" for number in range(15))


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_a_row_that_another_worker_adds_between_look_and_save_is_no_second_one(
    store_with, monkeypatch
):
    """The other servers, and SQLite, let the other worker wait meanwhile."""
    store, other = store_with(NEW, OLD), store_with(OLD, NEW)
    token = OAuthToken("1000.CLIENT", "s", id="1", access_token="1000.access")
    store.save_token(token)
    token.set_refresh_token("1000.refresh")
    later = iter([OAuthToken("1000.CLIENT", "s", refresh_token="1000.refresh")])
    store_found = Save.store

    def between(self, connection, rows):
        if connection.engine is store.engine:
            for each in later:
                other.save_token(each)
        return store_found(self, connection, rows)

    monkeypatch.setattr(Save, "store", between)
    store.save_token(token)
    (row,) = store.get_tokens()
    assert (row.get_refresh_token(), row.get_access_token()) == ("1000.refresh", "1000.access")


@pytest.mark.parametrize("form", FORMS)
def test_one_refreshes_for_all_whatever_the_form(store_with, database, form):
    if database.name == "sqlite-memory":
        pytest.skip("a database in memory has one store")
    token = granted("alice", id="1")
    token.set_expires_in("1000")
    store_with(*FORMS[form]).save_token(token)
    first, second = (store_with(NEW, OLD, PLAIN, refresh_wait=60) for _ in range(2))
    mine = first.find_token_by_id("1")
    assert mine.get_access_token() == "1000.access-alice"
    assert raw_rows(first)[0]["lease_owner"]
    with ThreadPoolExecutor() as threads:
        waiting = threads.submit(second.find_token_by_id, "1")
        mine.set_access_token("1000.fresh")
        mine.set_expires_in(in_an_hour())
        first.save_token(mine)
        assert waiting.result(60).get_access_token() == "1000.fresh"


@pytest.mark.parametrize("keys", FORMS.values(), ids=FORMS)
def test_a_token_that_looks_encrypted_is_a_token_like_any_other(store_with, keys):
    store = store_with(*keys)
    for number, value in enumerate(["zto1.", "zto1.12345678.abc", KNOWN["refresh_token"]]):
        token = OAuthToken("1000.CLIENT", value, refresh_token=value, id=f"{number}")
        store.save_token(token)
        assert values(store.find_token_by_id(f"{number}")) == values(token)
        found = store.find_token(OAuthToken("1000.CLIENT", value, refresh_token=value))
        assert found.get_id() == f"{number}"


# What no key opens

BASE64 = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


def tampered(text: str) -> dict[str, str]:
    middle = len(text) // 2
    other = "A" if text[middle] != "A" else "B"
    return {
        "one character": text[:middle] + other + text[middle + 1 :],
        "cut off": text[:-1],
        "longer": text + "A",
        "another spelling of the same bytes": text[:-1] + BASE64[BASE64.index(text[-1]) ^ 1],
        "without its end": text[:14],
        "nothing but the format": "zto1.",
        "no base64": text[:-2] + "**",
        "without its first character": text[1:],
        "without the format": text[5:],
        "the format in capitals": text.upper(),
        "plain text": "1000.0123456789abcdef",
    }


@pytest.mark.parametrize("how", tampered("x" * 99))
@pytest.mark.parametrize("column", SECRETS)
def test_what_was_tampered_with_is_an_error_that_says_where(store, column, how):
    store.save_token(token := granted("alice", id="1"))
    store.save_token(granted("bob", id="2"))
    before = raw_rows(store)[0]
    change_raw(store, "1", **{column: tampered(before[column])[how]})
    where = rf"{column} of the row with the id '1' .*delete it and log the user in again"
    known = OAuthToken(user_signature=token.get_user_signature())
    for call in (
        lambda: store.find_token_by_id("1"),
        lambda: store.find_token(known),
        store.get_tokens,
        lambda: list(store.iter_tokens()),
    ):
        with pytest.raises(SDKException) as caught:
            call()
        assert_matches(caught.value.error_message, where)
    assert store.find_token_by_id("2") is not None
    store.delete_token("1")
    assert len(store.get_tokens()) == 1


def assert_matches(message: str, pattern: str) -> None:
    assert re.search(pattern, message), message


def test_a_ciphertext_that_was_moved_to_another_column_is_noticed(store):
    store.save_token(granted("alice", id="1"))
    row = raw_rows(store)[0]
    change_raw(store, "1", access_token=row["refresh_token"])
    with pytest.raises(SDKException, match="access_token of the row with the id '1'"):
        store.find_token_by_id("1")


def test_no_secret_is_sent_to_the_database_in_the_clear(store, monkeypatch):
    """Not as what is looked for either: servers log statements, and show them to others."""
    sent: list[str] = []
    parameters = _Compiled.parameters

    def note(self, values):
        made = parameters(self, values)
        sent.append(str(made))
        return made

    monkeypatch.setattr(_Compiled, "parameters", note)
    use_every_method(store)
    assert len(sent) > 8

    @event.listens_for(store.engine, "before_cursor_execute")
    def note_too(connection, cursor, statement, parameters, *rest):
        plain = parameters.values() if isinstance(parameters, dict) else parameters
        sent.append(statement + str([str(value) for value in plain]))

    use_every_method(store)
    assert [each for each in sent if any(secret in each for secret in IN_THE_CLEAR)] == []
    assert any("lease_until" in each for each in sent)


IN_THE_CLEAR = ("1000.grant", "1000.refresh", "1000.access", "1000.fresh", "the-secret")


def use_every_method(store: SQLAlchemyTokenStore) -> None:
    token = granted("alice")
    token.set_expires_in("1000")
    store.save_token(token)
    store.find_token_by_id(token.get_id())  # takes the lease
    token.set_access_token("1000.fresh")
    store.save_token(token)
    for name in ({"refresh_token": "1000.refresh-alice"}, {"grant_token": "1000.grant-alice"}):
        assert store.find_token(OAuthToken(**CLIENT, **name))
    assert store.find_token(OAuthToken(access_token="1000.fresh"))
    early = granted("early")
    early.set_user_signature(None)
    store.save_token(early)
    early.set_user_signature(token.get_user_signature())
    store.save_token(early)  # merges
    store.rotate_keys()
    store.get_tokens()
    store.delete_tokens()


def test_with_keys_alone_plain_text_is_no_answer_but_says_what_to_do(store_with):
    store_with(PLAIN).save_token(granted("alice", id="1"))
    strict = store_with(NEW)
    with pytest.raises(SDKException) as caught:
        strict.find_token_by_id("1")
    assert_matches(caught.value.error_message, "is not encrypted: put 'plain' after the keys in")
    assert strict.rotate_keys() == 1
    assert strict.find_token_by_id("1").get_refresh_token() == "1000.refresh-alice"


def test_an_empty_secret_which_the_sdks_own_store_writes_is_none(store):
    store.save_token(granted("alice", id="1"))
    change_raw(store, "1", grant_token="")
    assert store.find_token_by_id("1").get_grant_token() is None
    assert store.rotate_keys() == 0


def test_a_store_without_keys_does_not_write_over_what_is_encrypted(store_with):
    store_with(NEW).save_token(granted("alice", id="1"))
    before = raw_rows(store_with(NEW))
    plain = store_with(PLAIN)
    with pytest.raises(SDKException, match="which is not given"):
        plain.save_token(granted("alice", id="1"))
    assert raw_rows(plain) == before


def test_the_model_gives_back_what_is_encrypted_as_it_was(store):
    store.save_token(granted("alice", id="1"))
    before = raw_rows(store)
    with Session(store.engine) as session:
        row = session.scalars(select(OAuthTokenRow)).one()
        same = select(OAuthTokenRow.id).where(OAuthTokenRow.refresh_token == row.refresh_token)
        assert session.scalars(same).all() == ["1"]
        values_of_row = {c.name: getattr(row, c.name) for c in OAuthTokenRow.__table__.c}
        session.delete(row)
        session.flush()
        session.add(OAuthTokenRow(**values_of_row))
        session.commit()
    assert raw_rows(store) == before


@pytest.mark.parametrize("keys", [(OLD,), (PLAIN,)], ids=["another key", "no key"])
def test_without_its_key_a_row_is_an_error_that_says_what_to_do(store_with, keys):
    store_with(NEW).save_token(token := granted("alice", id="1"))
    store = store_with(*keys)
    key_id = Cipher([NEW]).prefix.split(".")[1]
    with pytest.raises(SDKException) as caught:
        store.find_token_by_id("1")
    assert_matches(caught.value.error_message, f"key {key_id}, which is not given: add it to")
    before = raw_rows(store)
    with pytest.raises(SDKException):
        store.save_token(granted("alice"))
    assert raw_rows(store) == before
    assert values(store_with(NEW).find_token_by_id("1")) == values(token)
