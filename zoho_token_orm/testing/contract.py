"""The contract of a token store: a pytest class for anybody's `TokenStore`."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
from zohocrmsdk.src.com.zoho.api.authenticator.oauth_token import OAuthToken
from zohocrmsdk.src.com.zoho.api.authenticator.store.token_store import TokenStore
from zohocrmsdk.src.com.zoho.crm.api.exception.sdk_exception import SDKException
from zohocrmsdk.src.com.zoho.crm.api.user_signature import UserSignature

Fields = dict[str, Any]

CLIENT_ID = "1000.CLIENT"
EXPIRY = 4_102_444_800_000
"""Epoch milliseconds, far in the future: no test has to refresh a token."""

TOKEN_FIELDS = ("access_token", "grant_token", "refresh_token")
NAMING_FIELDS = ("id", "user_name", *TOKEN_FIELDS)
TEXT_FIELDS = (*NAMING_FIELDS, "client_id", "client_secret", "redirect_url", "api_domain")
FIELDS = (*TEXT_FIELDS, "expires_in")

THREADS = 8
PATIENCE = 300.0
"""Seconds after which threads that have not returned count as deadlocked."""

NUL, SURROGATE, TOO_LONG = "1000.secret\0", "1000.secret\udc80", "1000.secret" * 1000
NO_NUMBER = "tomorrow"
BAD_VALUES = (NUL, SURROGATE, TOO_LONG)


def make_token(**fields: Any) -> OAuthToken:
    """A new token of these fields, named as the columns of the SDK's table, and `expires_in`."""
    user_name, expires_in = fields.pop("user_name", None), fields.pop("expires_in", None)
    signature = None if user_name is None else UserSignature(user_name)
    token = OAuthToken(user_signature=signature, **fields)
    token.set_expires_in(expires_in)
    return token


def app_token(**fields: Any) -> OAuthToken:
    """A token as an application makes it when it starts: its client, and what is given here."""
    return make_token(client_id=CLIENT_ID, client_secret="client-secret", **fields)


def login(number: int, **changes: Any) -> OAuthToken:
    """A new and complete token of user `number`, without an id; `changes` replace its fields."""
    fields = {
        "user_name": f"user-{number}@example.com:1",
        "client_id": CLIENT_ID,
        "client_secret": "client-secret",
        "refresh_token": f"1000.refresh-{number}",
        "access_token": f"1000.access-{number}",
        "grant_token": f"1000.grant-{number}",
        "expires_in": str(EXPIRY + number),
        "redirect_url": f"https://example.com/{number}",
        "api_domain": "https://www.zohoapis.com",
    }
    return make_token(**(fields | changes))


def early_login(number: int) -> OAuthToken:
    """A login whose user the SDK does not know yet."""
    return login(number, user_name=None)


def naming(field: str, value: str) -> OAuthToken:
    """A token that names a row by that field alone."""
    if field in ("grant_token", "refresh_token"):
        return app_token(**{field: value})
    return make_token(**{field: value})


def refreshed(token: OAuthToken, number: int) -> OAuthToken:
    """The same token after a refresh: another access token, and the expiry that belongs to it."""
    token.set_access_token(f"1000.access-{number}")
    token.set_expires_in(str(EXPIRY + number))
    return token


def read(token: OAuthToken) -> Fields:
    """What a token holds, by field."""
    signature = token.get_user_signature()
    fields = {name: getattr(token, f"get_{name}")() for name in FIELDS if name != "user_name"}
    return {**fields, "user_name": None if signature is None else signature.get_name()}


def table(tokens: Iterable[OAuthToken]) -> list[Fields]:
    """What the tokens hold, in an order that does not depend on theirs."""
    return sorted((read(token) for token in tokens), key=repr)


def rows(store: TokenStore) -> list[Fields]:
    """What the store holds, in the order of `table`."""
    return table(store.get_tokens())


def ids(store: TokenStore) -> list[str]:
    """The ids of all rows, sorted."""
    return sorted(row["id"] for row in rows(store))


def only_row(store: TokenStore) -> Fields:
    """The only row of the store."""
    found_rows = rows(store)
    assert len(found_rows) == 1, f"one row was expected, and there are {len(found_rows)}"
    return found_rows[0]


def saved(store: TokenStore, token: OAuthToken) -> OAuthToken:
    """The token, once it is saved."""
    store.save_token(token)
    return token


def loaded(store: TokenStore, id: str) -> OAuthToken:
    """The token of that id, which must be there."""
    token = store.find_token_by_id(id)
    assert token is not None, "the store did not find a row by its id"
    return token


def found(store: TokenStore, token: OAuthToken) -> OAuthToken:
    """The token, after `find_token` found and filled it."""
    assert store.find_token(token) is not None, "the store did not find what the token names"
    return token


def refused(call: Callable[..., object], *arguments: object) -> SDKException:
    """The `SDKException` that this call must raise."""
    with pytest.raises(SDKException) as caught:
        call(*arguments)
    return caught.value


def raised_by(call: Callable[[], object]) -> Exception | None:
    """What the call raises, if anything."""
    try:
        call()
    except Exception as error:
        return error
    return None


def at_once(*calls: Callable[[], object]) -> list[Exception]:
    """Makes all the calls at the same moment, each in a thread, and returns what they raised."""
    start = threading.Barrier(len(calls))
    errors: list[Exception | None] = []

    def run(call: Callable[[], object]) -> None:
        start.wait()
        errors.append(raised_by(call))

    threads = [threading.Thread(target=run, args=(call,), daemon=True) for call in calls]
    for thread in threads:
        thread.start()
    end = time.monotonic() + PATIENCE
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
    assert not any(thread.is_alive() for thread in threads), "a thread does not return: a deadlock?"
    return [error for error in errors if error is not None]


def shown(error: BaseException | None) -> str:
    """All that a reader of the error may come to see, down to its last cause."""
    if error is None:
        return ""
    context = None if error.__suppress_context__ else error.__context__
    causes = {getattr(error, "cause", None), error.__cause__, context}
    return "\n".join([str(error), repr(error), *(shown(cause) for cause in causes)])


class Contract:
    """The fixtures that every area of the contract asks for."""

    @pytest.fixture
    def store(self) -> TokenStore:
        """A fresh, empty store; a subclass must give it."""
        raise NotImplementedError("override the fixture 'store' with a fresh, empty TokenStore")

    @pytest.fixture
    def second_store(self, store: TokenStore) -> TokenStore:
        """Another store object on the data of `store`, such as another process has; optional."""
        return store


class FindTokenContract(Contract):
    """Finding what a token names (`find_token`)."""

    def check_found_by(self, store: TokenStore, field: str) -> None:
        """Of two rows, the token finds the one that has its value in that field."""
        store.save_token(login(1))
        second = saved(store, login(2))
        token = found(store, naming(field, read(second)[field]))
        assert token.get_id() == second.get_id()

    def test_id_alone_finds_its_row(self, store: TokenStore) -> None:
        """A token with an id alone finds the row of that id (`revoke` depends on it)."""
        self.check_found_by(store, "id")

    def test_user_alone_finds_its_row(self, store: TokenStore) -> None:
        """A token with a user alone finds that user's row."""
        self.check_found_by(store, "user_name")

    def test_access_token_alone_finds_its_row(self, store: TokenStore) -> None:
        """A token with an access token alone finds its row."""
        self.check_found_by(store, "access_token")

    def test_spent_grant_token_finds_its_row(self, store: TokenStore) -> None:
        """A restart with the same, spent grant token in the code finds the row."""
        self.check_found_by(store, "grant_token")

    def test_refresh_token_finds_its_row(self, store: TokenStore) -> None:
        """A token with a refresh token finds its row."""
        self.check_found_by(store, "refresh_token")

    def test_id_goes_before_user_before_tokens(self, store: TokenStore) -> None:
        """Where a token names several rows, the id decides, then the user, then the tokens."""
        first, second = saved(store, early_login(1)), saved(store, login(2))
        refresh_token, user_name = first.get_refresh_token(), read(second)["user_name"]
        by_id = found(store, make_token(id=first.get_id(), user_name=user_name))
        assert by_id.get_refresh_token() == refresh_token
        by_user = found(store, app_token(user_name=user_name, refresh_token=refresh_token))
        assert by_user.get_id() == second.get_id()

    def test_access_token_goes_before_grant_before_refresh_token(self, store: TokenStore) -> None:
        """Of its tokens, the access token decides (without a client), then grant, then refresh."""
        first, second = saved(store, login(1)), saved(store, login(2))
        access_token, grant_token = second.get_access_token(), second.get_grant_token()
        by_access = make_token(access_token=access_token, grant_token=first.get_grant_token())
        assert found(store, by_access).get_id() == second.get_id()
        by_grant = app_token(grant_token=grant_token, refresh_token=first.get_refresh_token())
        assert found(store, by_grant).get_id() == second.get_id()

    def test_access_token_beside_a_client_names_nothing(self, store: TokenStore) -> None:
        """An access token beside a client id names no row."""
        store.save_token(login(1))
        assert store.find_token(app_token(access_token=login(1).get_access_token())) is None

    def test_identity_without_an_answer_leads_to_the_next(self, store: TokenStore) -> None:
        """Where the id or the user has no row, or another's, the token's next identity is asked."""
        first, second = saved(store, login(1)), saved(store, early_login(2))
        by_user = make_token(id="unknown", user_name=read(first)["user_name"])
        assert found(store, by_user).get_refresh_token() == first.get_refresh_token()
        by_grant = app_token(id=first.get_id(), user_name="new", grant_token="1000.grant-2")
        assert found(store, by_grant).get_refresh_token() == second.get_refresh_token()

    def test_row_of_another_user_is_no_answer(self, store: TokenStore) -> None:
        """The row of another user is no answer, though the token has its id or its tokens."""
        first = saved(store, login(1))
        assert store.find_token(make_token(id=first.get_id(), user_name="another")) is None
        refresh_token = first.get_refresh_token()
        assert store.find_token(app_token(refresh_token=refresh_token, user_name="another")) is None

    def test_row_of_another_client_is_no_answer(self, store: TokenStore) -> None:
        """The row of another client is no answer, though the token has its refresh token."""
        first = saved(store, login(1))
        refresh_token = first.get_refresh_token()
        other = make_token(client_id="other", client_secret="other", refresh_token=refresh_token)
        assert store.find_token(other) is None

    def test_token_that_names_nothing_finds_nothing(self, store: TokenStore) -> None:
        """A token whose id, user and tokens are empty finds nothing, whatever rows there are."""
        store.save_token(login(1))
        store.save_token(app_token(refresh_token="1000.alone"))
        for empty in ({"id": ""}, {"user_name": ""}, {"access_token": ""}):
            assert store.find_token(make_token(**empty)) is None
        assert store.find_token(app_token(grant_token="", refresh_token="")) is None

    def test_unknown_token_is_left_as_it_is(self, store: TokenStore) -> None:
        """A token without a row finds None and is left as it is."""
        store.save_token(login(1))
        token = login(2)
        assert store.find_token(token) is None
        assert read(token) == read(login(2))

    def test_same_object_is_returned(self, store: TokenStore) -> None:
        """What is returned is the very object that was passed."""
        store.save_token(login(1))
        token = app_token(refresh_token=login(1).get_refresh_token())
        assert store.find_token(token) is token

    def test_what_the_token_lacks_is_filled_in(self, store: TokenStore) -> None:
        """Each field that the token lacks is filled in from the row."""
        first = saved(store, login(1))
        token = found(store, app_token(refresh_token=first.get_refresh_token()))
        assert read(token) == read(first)

    def test_what_the_token_has_is_not_overwritten(self, store: TokenStore) -> None:
        """Each field that the token has stays as it is."""
        user_name = read(saved(store, login(1)))["user_name"]
        own = {name: f"own-{name}" for name in FIELDS if name not in ("id", "user_name")}
        own |= {"user_name": user_name, "client_id": CLIENT_ID, "expires_in": "1"}
        token = found(store, make_token(**own))
        assert {name: read(token)[name] for name in own} == own

    def test_empty_string_counts_as_lacking(self, store: TokenStore) -> None:
        """An empty string counts as lacking and is filled in."""
        first = saved(store, login(1))
        empty = {name: "" for name in FIELDS if name != "refresh_token"}
        token = make_token(refresh_token=first.get_refresh_token(), **empty)
        assert read(found(store, token)) == read(first)

    def test_expiry_comes_only_with_its_access_token(self, store: TokenStore) -> None:
        """The expiry of the row is not filled in beside another access token of the token's own."""
        refresh_token = saved(store, login(1)).get_refresh_token()
        token = app_token(refresh_token=refresh_token, access_token="1000.own")
        assert found(store, token).get_expires_in() is None

    def test_expiry_is_filled_in_beside_the_same_access_token(self, store: TokenStore) -> None:
        """The expiry of the row is filled in where the token has the row's access token."""
        first = saved(store, login(1))
        token = found(store, make_token(access_token=first.get_access_token()))
        assert token.get_expires_in() == first.get_expires_in()


class FindByIdContract(Contract):
    """Loading by id (`find_token_by_id`)."""

    def test_token_of_an_id_is_complete(self, store: TokenStore) -> None:
        """The token of an id has every field that was saved."""
        store.save_token(login(1))
        second = saved(store, login(2))
        assert read(loaded(store, second.get_id())) == read(second)

    def test_token_of_an_id_is_a_new_object(self, store: TokenStore) -> None:
        """Each call returns a new object, and nothing that is done to it changes the store."""
        id = saved(store, login(1)).get_id()
        first = refreshed(loaded(store, id), 2)
        assert read(loaded(store, id)) == read(login(1, id=id))
        assert loaded(store, id) is not first

    def test_token_of_an_id_is_whole(self, store: TokenStore) -> None:
        """The token was made by `OAuthToken`'s constructor, which the SDK's `switch_user` needs."""
        token = loaded(store, saved(store, login(1)).get_id())
        assert vars(token).keys() >= vars(login(1)).keys()

    def test_unknown_id_finds_none(self, store: TokenStore) -> None:
        """An id that no row has, an empty one and None find None, whatever rows there are."""
        store.save_token(login(1))
        assert store.find_token_by_id("unknown") is None
        assert store.find_token_by_id("") is None
        assert store.find_token_by_id(None) is None

    def test_ids_and_expiries_are_strings(self, store: TokenStore) -> None:
        """Ids and expiries are strings, as the SDK needs them, however they were read."""
        id = saved(store, login(1, id="7")).get_id()
        tokens = [loaded(store, id), found(store, login(1)), *store.get_tokens()]
        for token in tokens:
            assert (token.get_id(), token.get_expires_in()) == ("7", str(EXPIRY + 1))


class SaveTokenContract(Contract):
    """Saving: one authorization, one row (`save_token`)."""

    def test_first_save_gives_an_id(self, store: TokenStore) -> None:
        """The first save gives the token the id of its row: decimal digits."""
        id = saved(store, login(1)).get_id()
        assert isinstance(id, str)
        assert id.isascii()
        assert id.isdecimal()
        assert ids(store) == [id]

    def test_ids_cannot_be_guessed(self, store: TokenStore) -> None:
        """Ids cannot be guessed from one another: ten of them lie far apart."""
        numbers = sorted(int(saved(store, login(number)).get_id()) for number in range(10))
        assert min(right - left for left, right in pairwise(numbers)) > 1000

    def test_two_users_never_get_one_id(self, store: TokenStore, second_store: TokenStore) -> None:
        """Two users get two ids, from two processes as well, and after the first is deleted."""
        made = [saved(store, login(1)).get_id(), saved(second_store, login(2)).get_id()]
        store.delete_tokens()
        made.append(saved(store, login(3)).get_id())
        assert len(set(made)) == 3

    def test_id_stays_across_saves(self, store: TokenStore) -> None:
        """A token, and each new token of the same login, keeps the id of the first save."""
        token = saved(store, login(1))
        id = token.get_id()
        store.save_token(refreshed(token, 2))
        assert saved(store, login(1)).get_id() == id
        assert ids(store) == [id]

    def test_unchanged_token_saved_again_is_one_row(self, store: TokenStore) -> None:
        """An unchanged token, saved again, is still one row."""
        token = saved(store, login(1))
        store.save_token(token)
        store.save_token(login(1))
        assert only_row(store) == read(token)

    def test_restart_with_a_spent_grant_token_is_one_row(self, store: TokenStore) -> None:
        """A token made anew from the same grant token updates the row."""
        first = saved(store, early_login(1))
        again = app_token(grant_token=first.get_grant_token(), access_token="1000.new")
        assert saved(store, again).get_id() == first.get_id()
        assert only_row(store)["access_token"] == "1000.new"

    def test_fields_of_the_token_win(self, store: TokenStore) -> None:
        """Each field that the token has replaces the row's."""
        id = saved(store, login(1)).get_id()
        store.save_token(login(2, id=id))
        assert only_row(store) == read(login(2, id=id))

    def test_fields_that_the_token_lacks_are_left_alone(self, store: TokenStore) -> None:
        """Each field that the token lacks stays in the row as it was."""
        first = saved(store, login(1))
        store.save_token(make_token(user_name=read(first)["user_name"], api_domain="other"))
        assert only_row(store) == {**read(first), "api_domain": "other"}

    def test_empty_string_is_not_stored_over_a_value(self, store: TokenStore) -> None:
        """An empty string counts as lacking: it replaces nothing in the row."""
        first = saved(store, login(1))
        kept = {name: read(first)[name] for name in ("id", "access_token")}
        store.save_token(make_token(**(dict.fromkeys(FIELDS, "") | kept)))
        assert only_row(store) == read(first)

    def test_empty_string_is_stored_as_none(self, store: TokenStore) -> None:
        """An empty string of a new row reads back as None, and two rows may have it."""
        for number in (1, 2):
            store.save_token(login(number, grant_token="", user_name="", redirect_url=""))
        for row in rows(store):
            assert (row["grant_token"], row["user_name"], row["redirect_url"]) == (None,) * 3
        assert len(rows(store)) == 2

    def test_refresh_changes_access_token_and_expiry_only(self, store: TokenStore) -> None:
        """The save after a refresh changes the access token and its expiry, and nothing else."""
        first, other = saved(store, login(1)), saved(store, login(2))
        store.save_token(refreshed(loaded(store, first.get_id()), 3))
        assert rows(store) == table([refreshed(first, 3), other])

    def test_new_access_token_does_not_keep_the_old_expiry(self, store: TokenStore) -> None:
        """A new access token without an expiry does not keep that of the one before."""
        first = saved(store, login(1))
        store.save_token(make_token(id=first.get_id(), access_token="1000.new"))
        row = only_row(store)
        assert (row["access_token"], row["expires_in"]) == ("1000.new", None)

    def test_same_access_token_keeps_its_expiry(self, store: TokenStore) -> None:
        """The same access token, saved again without its expiry, keeps it."""
        first = saved(store, login(1))
        store.save_token(make_token(id=first.get_id(), access_token=first.get_access_token()))
        assert only_row(store) == read(first)

    def test_two_rows_of_one_user_become_one(self, store: TokenStore) -> None:
        """A user's row and one from before the user was known become one; the user's row stays."""
        first = saved(store, login(1))
        store.save_token(early_login(2))
        token = saved(store, login(2, user_name=read(first)["user_name"]))
        assert token.get_id() == first.get_id()
        assert only_row(store) == read(token)

    def test_row_of_the_id_stays_of_two(self, store: TokenStore) -> None:
        """Where the user of an early row turns out to have a row already, the token's id stays."""
        first, early = saved(store, login(1)), saved(store, early_login(2))
        id = early.get_id()
        early.set_user_signature(first.get_user_signature())
        store.save_token(early)
        assert early.get_id() == id
        assert only_row(store) == read(early)

    def test_three_rows_become_one(self, store: TokenStore) -> None:
        """Three rows that one token names become one, and nobody else's row goes with them."""
        first, other = saved(store, login(1)), saved(store, login(9))
        store.save_token(early_login(2))
        store.save_token(early_login(3))
        three = {"grant_token": "1000.grant-2", "refresh_token": "1000.refresh-3"}
        token = saved(store, login(1, **three))
        assert token.get_id() == first.get_id()
        assert rows(store) == table([token, other])

    def test_own_id_is_kept_for_a_new_row(self, store: TokenStore) -> None:
        """An id of the caller's own is the id of the new row."""
        token = saved(store, login(1, id="my-own-id"))
        assert token.get_id() == "my-own-id"
        assert only_row(store) == read(login(1, id="my-own-id"))

    def test_own_id_takes_over_the_row(self, store: TokenStore) -> None:
        """An id of the caller's own becomes the id of the row that the token names otherwise."""
        store.save_token(login(1))
        token = saved(store, login(1, id="my-own-id"))
        assert token.get_id() == "my-own-id"
        assert ids(store) == ["my-own-id"]

    def test_outdated_id_is_replaced_by_the_rows(self, store: TokenStore) -> None:
        """A token whose id came from the store, and whose row has another by now, gets that one."""
        token = loaded(store, saved(store, login(1)).get_id())
        store.save_token(login(1, id="my-own-id"))
        store.save_token(refreshed(token, 2))
        assert token.get_id() == "my-own-id"
        assert only_row(store) == read(token)

    def test_user_can_be_renamed(self, store: TokenStore) -> None:
        """A token with another user name than its row renames the row's user."""
        token = loaded(store, saved(store, login(1)).get_id())
        token.set_user_signature(UserSignature("new@example.com:1"))
        store.save_token(token)
        assert only_row(store) == read(login(1, id=token.get_id(), user_name="new@example.com:1"))

    def test_nothing_to_store_is_refused(self, store: TokenStore) -> None:
        """A user or an id that has no row, and no token to store with it, is refused."""
        refused(store.save_token, make_token(user_name="nobody"))
        refused(store.save_token, make_token(id="nobody"))
        assert rows(store) == []

    def test_saved_token_is_there_for_every_store(
        self, store: TokenStore, second_store: TokenStore
    ) -> None:
        """What one process has saved or changed, another finds at once."""
        token = saved(store, login(1))
        assert read(loaded(second_store, token.get_id())) == read(token)
        store.save_token(refreshed(token, 2))
        assert read(loaded(second_store, token.get_id())) == read(token)


class DeleteContract(Contract):
    """Deleting and logging out (`delete_token`, `delete_tokens`)."""

    def test_only_the_row_of_the_id_goes(self, store: TokenStore) -> None:
        """The row of the id goes, and no other."""
        first, second = saved(store, login(1)), saved(store, login(2))
        store.delete_token(first.get_id())
        assert rows(store) == table([second])

    def test_unknown_id_is_fine(self, store: TokenStore) -> None:
        """Deleting an id that no row has, or has no longer, is no error and deletes nothing."""
        first, second = saved(store, login(1)), saved(store, login(2))
        store.delete_token("unknown")
        store.delete_token(first.get_id())
        store.delete_token(first.get_id())
        assert rows(store) == table([second])

    def test_missing_id_is_refused(self, store: TokenStore) -> None:
        """Deleting None or an empty id is refused and deletes nothing."""
        store.save_token(login(1))
        refused(store.delete_token, None)
        refused(store.delete_token, "")
        assert len(rows(store)) == 1

    def test_deleted_row_is_found_no_more(
        self, store: TokenStore, second_store: TokenStore
    ) -> None:
        """A deleted row is found no more, in this process or in another."""
        token = saved(store, login(1))
        store.delete_token(token.get_id())
        for each in (store, second_store):
            assert each.find_token(login(1)) is None
            assert each.find_token(naming("user_name", read(token)["user_name"])) is None
            assert rows(each) == []

    def test_delete_tokens_deletes_all(self, store: TokenStore) -> None:
        """All rows go; where no row is left, that is no error."""
        for number in range(3):
            store.save_token(login(number))
        store.delete_tokens()
        store.delete_tokens()
        assert rows(store) == []

    def test_deleted_token_is_not_put_back(
        self, store: TokenStore, second_store: TokenStore
    ) -> None:
        """A refresh under way at a log-out, here or in another process, puts no row back."""
        token = saved(store, login(1))
        tokens = [token, loaded(store, token.get_id()), found(store, login(1)), *store.get_tokens()]
        second_store.delete_token(token.get_id())
        for each in tokens:
            refused(store.save_token, refreshed(each, 2))
        assert rows(store) == []

    def test_deleted_token_does_not_replace_a_new_login(self, store: TokenStore) -> None:
        """A deleted token is refused, too, where its user has logged in again since."""
        old = saved(store, login(1))
        store.delete_token(old.get_id())
        new = saved(store, login(2, user_name=read(old)["user_name"]))
        refused(store.save_token, refreshed(old, 3))
        assert rows(store) == table([new])

    def test_user_can_log_in_again(self, store: TokenStore) -> None:
        """A user who has logged out can log in again."""
        token = saved(store, login(1))
        store.delete_token(token.get_id())
        again = saved(store, login(2, user_name=read(token)["user_name"]))
        assert rows(store) == table([again])


class ListContract(Contract):
    """Listing (`get_tokens`)."""

    def test_oldest_comes_first(self, store: TokenStore) -> None:
        """The tokens come in the order in which they were first saved, whatever changed since."""
        tokens = [saved(store, login(number)) for number in (3, 1, 4, 2, 5)]
        store.save_token(refreshed(tokens[1], 6))
        assert [token.get_id() for token in store.get_tokens()] == [t.get_id() for t in tokens]

    def test_listed_tokens_are_whole(self, store: TokenStore) -> None:
        """Each was made by `OAuthToken`'s constructor, which the SDK's `switch_user` needs."""
        store.save_token(login(1))
        store.save_token(app_token(refresh_token="1000.alone", access_token="1000.alone"))
        for token in store.get_tokens():
            assert vars(token).keys() >= vars(login(1)).keys()
        assert len(rows(store)) == 2

    def test_a_hundred_users(self, store: TokenStore) -> None:
        """A hundred users have a hundred rows, each its own and complete."""
        tokens = [saved(store, login(number)) for number in range(100)]
        assert rows(store) == table(tokens)


class ExactnessContract(Contract):
    """Values come back, and compare, exactly."""

    def check_round_trip(self, store: TokenStore, *values: str) -> None:
        """Each value comes back from every field but the id, and finds its row by each name."""
        text = [name for name in TEXT_FIELDS if name != "id"]
        tokens = [saved(store, login(0, **dict.fromkeys(text, value))) for value in values]
        assert rows(store) == table(tokens)
        for token in tokens:
            by_user = found(store, make_token(user_name=read(token)["user_name"]))
            assert by_user.get_id() == token.get_id()

    def check_apart(
        self, store: TokenStore, left: str, right: str, fields: tuple[str, ...] = NAMING_FIELDS
    ) -> None:
        """Two rows with these values, in any field that names a row, are two, and each is found."""
        for number, field in enumerate(fields):
            one = saved(store, self.with_own_id(2 * number, field, left))
            other = saved(store, self.with_own_id(2 * number + 1, field, right))
            assert len(rows(store)) == 2 * number + 2
            assert self.id_of(store, field, left) == one.get_id()
            assert self.id_of(store, field, right) == other.get_id()

    def with_own_id(self, number: int, field: str, value: str) -> OAuthToken:
        """A login with that value in one field, and an id of the caller's own."""
        return login(number, **({"id": f"own-{number}"} | {field: value}))

    def id_of(self, store: TokenStore, field: str, value: str) -> str:
        """The id of the row that the value names."""
        named = loaded(store, value) if field == "id" else found(store, naming(field, value))
        return str(named.get_id())

    def test_quotes_and_sql(self, store: TokenStore) -> None:
        """Quotes, backslashes, SQL and placeholders come back from every field as they were."""
        quotes = "o'brien \"the\" `boss` \\' \\\\"
        sql = "x'; DROP TABLE oauthtoken; -- /* #"
        self.check_round_trip(store, quotes, sql, "100%s %(id)s %% {0} :id $1 ?", "' or '1'='1")

    def test_every_script(self, store: TokenStore) -> None:
        """Accents, combining characters, any script and emoji come back from every field."""
        self.check_round_trip(store, "zo\u00eb zoe\u0308", "日本 한국", "שלום مرحبا", "👩‍👩‍👧 😀")

    def test_separators_and_white_space(self, store: TokenStore) -> None:
        """Commas, line breaks, tabs and spaces at either end come back from every field."""
        self.check_round_trip(store, "a,b;c|d", "\r\na\nb\rc\td\n", "  a b  ", " ")

    def test_own_id_may_be_any_text(self, store: TokenStore) -> None:
        """An id of the caller's own may be any text; its row is found by it and deleted by it."""
        own_ids = ("o'b\\%s", " 7 ", "7", "007", "zoë", "😀,\n", "1 or 1=1")
        for number, id in enumerate(own_ids):
            store.save_token(login(number, id=id))
        assert ids(store) == sorted(own_ids)
        for number, id in enumerate(own_ids):
            assert read(loaded(store, id)) == read(login(number, id=id))
            store.delete_token(id)
        assert rows(store) == []

    def test_sql_in_a_look_up_is_only_text(self, store: TokenStore) -> None:
        """SQL and wild cards in an id, a user or a token find nothing and delete nothing."""
        store.save_token(login(1))
        for text in ("1 or 1=1", "' or '1'='1", "%", "_" * 6, "x' or 1=1 -- ", "\\"):
            for name in ("user_name", *TOKEN_FIELDS):
                assert store.find_token(naming(name, text)) is None
            with suppress(SDKException):
                assert store.find_token_by_id(text) is None
            with suppress(SDKException):
                store.delete_token(text)
        assert len(rows(store)) == 1

    def test_case_counts(self, store: TokenStore) -> None:
        """Ids, users and tokens that differ only by case are different."""
        self.check_apart(store, "1000.abc", "1000.ABC")

    def test_accents_count(self, store: TokenStore) -> None:
        """Ids, users and tokens that differ only by an accent, or its encoding, are different."""
        self.check_apart(store, "zo\u00e9", "zoe")
        store.delete_tokens()
        self.check_apart(store, "zo\u00e9", "zoe\u0301")

    def test_trailing_spaces_count(self, store: TokenStore) -> None:
        """Ids, users and tokens that differ only by a space at the end are different."""
        self.check_apart(store, "1000.abc", "1000.abc ")

    def test_long_tokens_fit(self, store: TokenStore) -> None:
        """Tokens of 1,024 characters fit, and count to the last character."""
        self.check_apart(store, "x" * 1023 + "y", "x" * 1023 + "z", TOKEN_FIELDS)


class BadInputContract(Contract):
    """Bad input is refused: nothing stored, nothing lost, nothing shown."""

    def check_refused(self, store: TokenStore, fields: tuple[str, ...], value: str) -> None:
        """A token with that value in any of the fields is refused and leaves the rows alone."""
        store.save_token(login(1))
        before = rows(store)
        for field in fields:
            refused(store.save_token, login(2, **{field: value}))
            assert rows(store) == before

    def test_what_is_no_oauth_token_is_refused(self, store: TokenStore) -> None:
        """Looking for or saving something that is no `OAuthToken` is refused."""
        for thing in (None, "1", {}, object(), OAuthToken):
            refused(store.find_token, thing)
            refused(store.save_token, thing)
        assert rows(store) == []

    def test_nul_is_refused(self, store: TokenStore) -> None:
        """A NUL character in any field is refused, and nothing is stored."""
        self.check_refused(store, TEXT_FIELDS, NUL)

    def test_lone_surrogate_is_refused(self, store: TokenStore) -> None:
        """A lone surrogate in any field is refused, and nothing is stored."""
        self.check_refused(store, TEXT_FIELDS, SURROGATE)

    def test_too_long_is_refused(self, store: TokenStore) -> None:
        """More than 10,000 characters in any field are refused, not cut off."""
        self.check_refused(store, TEXT_FIELDS, TOO_LONG)

    def test_expiry_that_is_no_number_is_refused(self, store: TokenStore) -> None:
        """An expiry that is no number is refused, and nothing is stored."""
        self.check_refused(store, ("expires_in",), NO_NUMBER)

    def test_refused_change_leaves_the_row_as_it_was(self, store: TokenStore) -> None:
        """A change that is refused leaves the row as it was."""
        id = saved(store, login(1)).get_id()
        bad = [refreshed(login(1, id=id, api_domain=value), 2) for value in BAD_VALUES]
        bad += [login(1, access_token=value) for value in BAD_VALUES]
        bad += [login(1, access_token="1000.new", expires_in=NO_NUMBER)]
        for token in bad:
            before = rows(store)
            if raised_by(partial(store.save_token, token)) is not None:
                assert rows(store) == before

    def test_errors_have_the_code_of_token_stores(self, store: TokenStore) -> None:
        """Every error is an `SDKException` with the SDK's code for token stores, and says why."""
        for error in self.errors(store):
            assert isinstance(error, SDKException)
            assert error.code == "TOKEN_STORE"
            assert error.error_message

    def test_errors_show_no_secret(self, store: TokenStore) -> None:
        """No error shows a token or a client secret, nor does anything that caused it."""
        for error in self.errors(store):
            assert "1000." not in shown(error)
            assert "client-secret" not in shown(error)

    def test_logs_show_no_secret(self, store: TokenStore, caplog: pytest.LogCaptureFixture) -> None:
        """No log line shows a token or a client secret, whether a call succeeds or fails."""
        with caplog.at_level(logging.DEBUG):
            token = loaded(store, saved(store, login(1)).get_id())
            store.save_token(refreshed(found(store, token), 2))
            store.get_tokens()
            self.errors(store)
        assert "1000." not in caplog.text
        assert "client-secret" not in caplog.text

    def errors(self, store: TokenStore) -> list[Exception]:
        """What the store raises for every kind of bad input; for some, at least."""
        deleted = saved(store, login(8))
        store.delete_token(deleted.get_id())
        bad = [login(1, refresh_token=value) for value in BAD_VALUES]
        bad += [login(1, expires_in=NO_NUMBER), make_token(id="nobody"), deleted, None]
        calls = [partial(store.save_token, token) for token in bad]
        calls += [partial(store.find_token, "1000.text"), partial(store.delete_token, None)]
        raised = [error for call in calls if (error := raised_by(call)) is not None]
        assert raised, "the store refuses nothing"
        return raised


class ConcurrencyContract(Contract):
    """Eight threads at once."""

    def test_one_new_user_saved_at_once_is_one_row(self, store: TokenStore) -> None:
        """A new login, saved by all at once, is one row, and every token has its id."""
        tokens = [refreshed(login(1), number) for number in range(THREADS)]
        assert at_once(*(partial(store.save_token, token) for token in tokens)) == []
        assert {token.get_id() for token in tokens} == set(ids(store))
        assert only_row(store) in [read(token) for token in tokens]

    def test_one_user_logging_in_at_once_is_one_row(
        self, store: TokenStore, second_store: TokenStore
    ) -> None:
        """A user who logs in through two processes at once, with other tokens each, has one row."""
        user_name = read(login(0))["user_name"]
        tokens = [login(number, user_name=user_name) for number in range(THREADS)]
        stores = [store, second_store] * (THREADS // 2)
        saves = (
            partial(each.save_token, token) for each, token in zip(stores, tokens, strict=True)
        )
        assert at_once(*saves) == []
        assert only_row(store) in [read(token) for token in tokens]

    def test_different_users_saved_at_once_are_all_there(
        self, store: TokenStore, second_store: TokenStore
    ) -> None:
        """Different users, saved through two processes at once, are all there."""
        tokens = [login(number) for number in range(5 * THREADS)]
        batches = [tokens[number::THREADS] for number in range(THREADS)]
        stores = [store, second_store] * (THREADS // 2)

        def save(each: TokenStore, batch: list[OAuthToken]) -> None:
            for token in batch:
                each.save_token(token)

        saves = (partial(save, each, batch) for each, batch in zip(stores, batches, strict=True))
        assert at_once(*saves) == []
        assert rows(store) == table(tokens)

    def test_rows_that_become_one_at_once(self, store: TokenStore) -> None:
        """Two rows of one user, joined by all at once, are one row."""
        first = saved(store, login(1))
        store.save_token(early_login(2))
        user_name = read(first)["user_name"]
        tokens = [refreshed(login(2, user_name=user_name), number) for number in range(THREADS)]
        assert at_once(*(partial(store.save_token, token) for token in tokens)) == []
        assert only_row(store) in [read(token) for token in tokens]
        assert only_row(store)["id"] == first.get_id()

    def test_one_token_refreshed_at_once_is_one_whole_row(self, store: TokenStore) -> None:
        """A token that all refresh at once is one row, with access token and expiry of one save."""
        other, id = saved(store, login(100)), saved(store, login(99)).get_id()
        tokens = [refreshed(loaded(store, id), number) for number in range(THREADS)]
        assert at_once(*(partial(store.save_token, token) for token in tokens)) == []
        assert rows(store) in [table([token, other]) for token in tokens]

    def test_nobody_sees_half_a_save(self, store: TokenStore) -> None:
        """Who reads while others save never sees one save's access token with another's expiry."""
        id = saved(store, login(99)).get_id()
        seen: list[Fields] = []

        def save(token: OAuthToken, first: int) -> None:
            for number in range(first, first + 5):
                store.save_token(refreshed(token, number))

        def look() -> None:
            seen.extend(read(loaded(store, id)) for _ in range(10))

        savers = [partial(save, loaded(store, id), 100 * number) for number in range(THREADS // 2)]
        assert at_once(*savers, *[look] * (THREADS // 2)) == []
        assert len(seen) == 10 * (THREADS // 2)
        assert [row for row in seen if not _is_one_save(row)] == []

    def test_log_out_during_refreshes_holds(
        self, store: TokenStore, second_store: TokenStore
    ) -> None:
        """A log-out in the midst of refreshes holds: each save is before it, or refused."""
        id = saved(store, login(99)).get_id()
        tokens = [refreshed(loaded(store, id), number) for number in range(THREADS - 1)]
        saves = [partial(store.save_token, token) for token in tokens]
        errors = at_once(*saves, partial(second_store.delete_token, id))
        assert [error for error in errors if not isinstance(error, SDKException)] == []
        assert rows(store) == []


def _is_one_save(row: Fields) -> bool:
    number = int(row["expires_in"]) - EXPIRY
    return bool(row["access_token"] == f"1000.access-{number}")


class TokenStoreContract(
    FindTokenContract,
    FindByIdContract,
    SaveTokenContract,
    DeleteContract,
    ListContract,
    ExactnessContract,
    BadInputContract,
    ConcurrencyContract,
):
    """Every promise that a `TokenStore` of the SDK should keep, each as a test.

    A subclass gives one fixture, and pytest runs the promises over its store:

        import pytest
        from zoho_token_orm.testing import TokenStoreContract

        class TestMyStore(TokenStoreContract):
            @pytest.fixture
            def store(self, tmp_path):
                return MyStore(tmp_path / "tokens")

    `store` is a fresh and empty store for each test. A second fixture, `second_store`, may give
    another store object on the same data, as another process would have it; without it, the tests
    of several processes use the one object. The tests call nothing but the six methods of
    `TokenStore`, from up to eight threads at once.
    """


AREAS = TokenStoreContract.__bases__
"""The areas of the contract; the docstring of each is its title, and that of a test its promise."""
