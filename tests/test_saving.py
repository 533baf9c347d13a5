"""Which row a save updates, which rows go, and what of them stays, where the contract is finest."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from sqlalchemy import update
from zohocrmsdk.src.com.zoho.api.authenticator.oauth_token import OAuthToken
from zohocrmsdk.src.com.zoho.crm.api.exception.sdk_exception import SDKException
from zohocrmsdk.src.com.zoho.crm.api.user_signature import UserSignature

from tests.support import granted, in_an_hour, values
from zoho_token_orm import OAuthTokenRow


def early(name: str, **more: str) -> OAuthToken:
    """A token whose user the SDK does not know yet."""
    token = granted(name, **more)
    token.set_user_signature(None)
    return token


def test_another_users_row_with_the_same_access_token_stays(store):
    """Only a row from before the user was known is the same authorization by its access token."""
    first, second = granted("first"), granted("second")
    second.set_access_token(first.get_access_token())
    store.save_token(first)
    store.save_token(second)
    by_id = OAuthToken(id=first.get_id(), access_token=first.get_access_token())
    store.save_token(by_id)
    assert {token.get_id() for token in store.get_tokens()} == {first.get_id(), second.get_id()}


def test_a_row_of_an_access_token_alone_becomes_one_with_the_row_of_the_id(store):
    alone = OAuthToken(access_token="1000.access-alone")
    store.save_token(alone)
    store.save_token(granted("alice"))
    (alice,) = (token for token in store.get_tokens() if token.get_user_signature())
    store.save_token(OAuthToken(id=alice.get_id(), access_token="1000.access-alone"))
    (row,) = store.get_tokens()
    assert (row.get_id(), row.get_access_token()) == (alice.get_id(), "1000.access-alone")


def test_a_known_token_is_still_there_while_a_row_holds_its_grant_token(store):
    token = early("alice")
    store.save_token(token)
    with store.engine.connect() as connection:
        connection.execute(update(OAuthTokenRow).values(id="another", refresh_token="1000.other"))
    store.save_token(token)
    (row,) = store.get_tokens()
    assert values(row) == values(token)


def test_the_row_of_the_tokens_own_id_stays_before_the_row_that_it_came_from(store):
    """Of the two that become one, the first in the order keeps what the token lacks."""
    old, own = granted("alice"), OAuthToken(id="own", refresh_token="1000.refresh-own")
    own.set_api_domain("https://own.example.com")
    store.save_token(old)
    store.save_token(own)
    token = store.find_token_by_id(old.get_id())
    token.set_id("own")
    token.set_api_domain(None)
    store.save_token(token)
    (row,) = store.get_tokens()
    assert (row.get_id(), row.get_api_domain()) == ("own", "https://own.example.com")


def test_a_merge_takes_an_expiry_only_along_with_its_access_token(store):
    stays, goes = granted("alice"), early("second")
    stays.set_expires_in(None)
    store.save_token(stays)
    store.save_token(goes)
    token = OAuthToken(
        user_signature=stays.get_user_signature(), refresh_token=goes.get_refresh_token()
    )
    store.save_token(token)
    (row,) = store.get_tokens()
    assert (row.get_access_token(), row.get_expires_in()) == ("1000.access-alice", None)


@pytest.mark.parametrize(
    "expiry",
    [
        str(2**63),
        str(-(2**63) - 1),
        2**63,
        " 17 ",
        "17\n",
        "+5",
        "1e3",
        "17.0",
        17.0,
        True,
        "\u0661\u0667",
    ],
)
def test_an_expiry_that_no_column_can_hold_is_refused(store, expiry):
    token = granted("alice")
    token.set_expires_in(expiry)
    with pytest.raises(SDKException, match="expires_in"):
        store.save_token(token)
    assert store.get_tokens() == []


def test_every_save_counts_as_a_use_also_without_an_expiry(store):
    token = granted("alice")
    token.set_expires_in(None)
    store.save_token(token)
    a_year_ago = datetime.now(timezone.utc) - timedelta(days=365)
    with store.engine.connect() as connection:
        connection.execute(update(OAuthTokenRow).values(updated_at=a_year_ago))
    store.save_token(token)
    assert store.purge(timedelta(days=30)) == 0


class Hostile(str):
    """A text that compares, and counts its length, as it likes."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("1000.secret")

    def __len__(self) -> int:
        raise RuntimeError("1000.secret")

    __hash__ = str.__hash__


class NoText:
    """Something that cannot even be compared."""

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("1000.secret")

    __hash__ = object.__hash__


def test_a_string_of_a_hostile_class_is_stored_as_the_text_that_it_is(store):
    token = granted("alice")
    token.set_api_domain(Hostile("https://example.com"))
    store.save_token(token)
    assert store.get_tokens()[0].get_api_domain() == "https://example.com"


def test_an_object_that_is_no_text_is_refused_without_being_asked(store):
    token = granted("alice")
    for setter in (token.set_refresh_token, token.set_expires_in, token.set_id):
        setter(NoText())
        for call in (store.save_token, store.find_token):
            with pytest.raises(SDKException, match="must be a string"):
                call(token)
    for call in (store.find_token_by_id, store.delete_token):
        with pytest.raises(SDKException, match="must be a string"):
            call(NoText())


def test_a_token_that_no_constructor_has_made_is_refused(store):
    token = object.__new__(OAuthToken)
    for call in (store.save_token, store.find_token):
        with pytest.raises(SDKException, match="incomplete"):
            call(token)


class AllAlike(OAuthToken):
    """An application's own token class, of which any two are equal."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AllAlike)


def test_two_tokens_that_are_equal_are_two(store):
    """What the store knows of a token goes by the object; without a hash, too."""
    tokens = [
        AllAlike(
            refresh_token=f"1000.refresh-{name}",
            user_signature=UserSignature(f"{name}@example.com:7001"),
        )
        for name in ("alice", "bob")
    ]
    for token in tokens:
        store.save_token(token)
    assert [token.get_refresh_token() for token in store.get_tokens()] == [
        "1000.refresh-alice",
        "1000.refresh-bob",
    ]


def test_a_long_text_of_any_printable_characters_fits_as_it_is(store):
    token = granted("alice")
    token.set_refresh_token(" a%41b'\\" * 256)
    assert len(token.get_refresh_token()) == 2048
    store.save_token(token)
    token.set_expires_in(in_an_hour())
    store.save_token(token)
    (row,) = store.get_tokens()
    assert values(row) == values(token)


def test_a_look_up_does_not_undo_a_log_out(store):
    """The user has logged in again: what the old token holds must not come over the new login."""
    old, new = granted("alice"), granted("again")
    store.save_token(old)
    store.delete_token(old.get_id())
    new.set_user_signature(old.get_user_signature())
    store.save_token(new)
    assert store.find_token(old) is old
    with pytest.raises(SDKException, match="has been deleted"):
        store.save_token(old)
    assert [values(row) for row in store.get_tokens()] == [values(new)]


def test_a_look_up_leaves_the_id_to_the_row_that_has_got_another(store):
    token, own = granted("alice"), granted("alice", id="own")
    store.save_token(token)
    store.save_token(own)
    store.find_token(token)
    store.save_token(token)
    assert token.get_id() == "own"
    assert [row.get_id() for row in store.get_tokens()] == ["own"]


def test_a_merge_takes_an_access_token_along_with_its_own_expiry(store):
    user = granted("alice").get_user_signature()
    lacking = OAuthToken(user_signature=user, refresh_token="1000.of-alice")
    lacking.set_expires_in("17")
    store.save_token(lacking)
    goes = early("second")
    store.save_token(goes)
    store.save_token(OAuthToken(user_signature=user, refresh_token=goes.get_refresh_token()))
    (row,) = store.get_tokens()
    assert row.get_access_token() == goes.get_access_token()
    assert row.get_expires_in() == goes.get_expires_in()
