"""What the processes of the load tests do with their stores."""

from __future__ import annotations

import itertools
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from zohocrmsdk.src.com.zoho.api.authenticator.oauth_token import OAuthToken
from zohocrmsdk.src.com.zoho.crm.api.exception.sdk_exception import SDKException
from zohocrmsdk.src.com.zoho.crm.api.user_signature import UserSignature

from tests.load.process import LONGEST, Desk
from zoho_token_orm import SQLAlchemyTokenStore

FAR = 4_000_000_000_000
"""An expiry that no test lives to see, in epoch milliseconds; to it a save's number is added."""
CLIENT = {"client_id": "1000.CLIENT", "client_secret": "the-secret"}


def numbered(number: int, *, user: str | None = None, **more: Any) -> OAuthToken:
    """A new login: what Zoho answered, each value with the number of the save."""
    fields = {"grant_token": f"1000.grant-{number}", **CLIENT, **more}
    token = OAuthToken(**fields)
    if user:
        token.set_user_signature(UserSignature(user))
    return refresh(token, number)


def refresh(token: OAuthToken, number: int) -> OAuthToken:
    """Gives a token all that one answer of Zoho's gives it, with the number of the save."""
    token.set_access_token(f"1000.access-{number}")
    token.set_refresh_token(f"1000.refresh-{number}")
    token.set_expires_in(str(FAR + number))
    return token


def number_of(token: OAuthToken) -> int:
    """The number of the save that a row is from; a row of several saves is an error."""
    numbers = {
        int(token.get_access_token().rpartition("-")[2]),
        int(token.get_refresh_token().rpartition("-")[2]),
        int(token.get_expires_in()) - FAR,
    }
    assert len(numbers) == 1, f"a row of the saves {numbers}"
    return numbers.pop()


# Ten that save the same new users


def sign_in(desk: Desk, logins: list[tuple[str, int, dict[str, str]]]) -> list[str]:
    """Saves each login at the same moment as the other processes; returns the rows' ids."""
    ids = []
    for user, number, more in logins:
        token = numbered(number, user=user, **more)
        desk.together.wait(LONGEST)
        desk.store.save_token(token)
        ids.append(token.get_id())
    return ids


def meet_access_token(desk: Desk, numbers: list[int]) -> list[str]:
    """Saves tokens that are nothing but an access token, as the SDK does before any look-up."""
    ids = []
    for number in numbers:
        token = OAuthToken(access_token=f"1000.access-{number}")
        desk.together.wait(LONGEST)
        desk.store.save_token(token)
        ids.append(token.get_id())
    return ids


# Eight that do everything at random


class Crowd:
    """One of many that save, find, delete and list a few users, in no order and without pause.

    Args:
        store: Its store.
        number: Which one it is; the numbers of its saves are nobody else's.
        seed: What its choices follow from.
    """

    def __init__(self, store: SQLAlchemyTokenStore, number: int, seed: str) -> None:
        self._store = store
        self._random = random.Random(f"{seed}-{number}")
        self._numbers = itertools.count(number * 10_000_000 + 100)
        self._kept: list[OAuthToken] = []
        self._ids: list[str] = [f"own-{number}" for number in range(4)]
        self._report = Counter[str]()
        self._errors: list[str] = []
        self._slowest = 0.0

    def work(self, seconds: float) -> dict[str, Any]:
        """Works for that time; returns how often it did what, and the errors that reached it."""
        calls = [self.save, self.save_again, self.find, self.find_by_id, self.delete]
        calls += [self.list, self.iterate, self.delete_all]
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            (call,) = self._random.choices(calls, [40, 12, 20, 10, 8, 6, 4, 0.3])
            self._do(call)
        return {"calls": self._report, "errors": self._errors, "slowest": self._slowest}

    def _do(self, call: Callable[[], None]) -> None:
        started = time.monotonic()
        try:
            call()
            self._report[call.__name__] += 1
        except SDKException as error:
            self._note(call.__name__, error)
        self._slowest = max(self._slowest, time.monotonic() - started)

    def _note(self, name: str, error: SDKException) -> None:
        """Two errors are in the contract; any other one should not have reached a caller."""
        if name == "save_again" and "has been deleted" in error.error_message:
            self._report["was deleted"] += 1
        elif name == "save" and "nothing to store" in error.error_message:
            self._report["had nothing to store"] += 1
        else:
            self._errors.append(f"{name}: {error} ({error.__cause__!r})")

    def save(self) -> None:
        token = self._token()
        self._store.save_token(token)
        self._keep(token)

    def save_again(self) -> None:
        """As after a refresh; or with the user, who was not known before."""
        if not self._kept:
            return
        token = self._random.choice(self._kept)
        self._refresh(token)
        if not token.get_user_signature() and self._random.random() < 0.3:
            token.set_user_signature(UserSignature(f"user{self._random.randrange(4)}"))
        self._store.save_token(token)

    def find(self) -> None:
        token = self._token()
        own = token.get_access_token()
        found = self._store.find_token(token)
        if found is not None:
            assert found is token
            self._keep(found)
            if own is None:
                check_pair(found)

    def find_by_id(self) -> None:
        id = self._random.choice(self._ids)
        found = self._store.find_token_by_id(id)
        if found is not None:
            assert found.get_id() == id
            check_pair(found)
            self._keep(found)

    def delete(self) -> None:
        self._store.delete_token(self._random.choice(self._ids))

    def delete_all(self) -> None:
        self._store.delete_tokens()

    def list(self) -> None:
        check_rows(self._store.get_tokens())

    def iterate(self) -> None:
        check_rows(self._store.iter_tokens())

    def _token(self) -> OAuthToken:
        """A new token object that names some of the few identities that there are."""
        few, chance = self._random.randrange, self._random.random
        if chance() < 0.1:
            number = few(4)
            token = OAuthToken(access_token=f"1000.alone-{number}")
            token.set_expires_in(str(FAR + number))
            return token
        user = UserSignature(f"user{few(4)}") if chance() < 0.7 else None
        token = OAuthToken(
            id=f"own-{few(4)}" if chance() < 0.15 else None,
            grant_token=f"1000.grant-{few(5)}" if user is None or chance() < 0.5 else None,
            refresh_token=f"1000.refresh-{few(5)}" if chance() < 0.6 else None,
            user_signature=user,
            **CLIENT,
        )
        if chance() < 0.7:
            self._refresh(token)
        return token

    def _refresh(self, token: OAuthToken) -> None:
        number = next(self._numbers)
        token.set_access_token(f"1000.access-{number}")
        token.set_expires_in(str(FAR + number))

    def _keep(self, token: OAuthToken) -> None:
        self._kept = [*self._kept[-5:], token]
        self._ids = [*self._ids[:4], *self._ids[-8:], token.get_id()]


def do_everything(desk: Desk, order: tuple[float, int, str]) -> dict[str, Any]:
    """Works at random for that many seconds, as the process of that number, with that seed."""
    seconds, number, seed = order
    desk.together.wait(LONGEST)
    return Crowd(desk.store, number, seed).work(seconds)


def check_rows(tokens: Iterable[OAuthToken]) -> None:
    """The unique values are unique, at this moment, and every row is consistent in itself."""
    rows = list(tokens)
    for row in rows:
        check_pair(row)
    for get in (
        lambda row: row.get_id(),
        lambda row: row.get_user_signature() and row.get_user_signature().get_name(),
        lambda row: row.get_grant_token(),
        lambda row: row.get_refresh_token(),
    ):
        values = [get(row) for row in rows if get(row)]
        assert len(values) == len(set(values)), f"twice: {values}"


def check_pair(row: OAuthToken) -> None:
    """Access token and expiry are of one save, and so are the client's id and secret."""
    access, expiry = row.get_access_token(), row.get_expires_in()
    assert (access and int(access.rpartition("-")[2]) + FAR) == (expiry and int(expiry))
    assert (row.get_client_id() is None) == (row.get_client_secret() is None)
    assert any((access, row.get_grant_token(), row.get_refresh_token()))


# A writer that is killed


def write_until_killed(desk: Desk, order: tuple[int, int]) -> None:
    """Saves without end, and tells of each save when it is done: ``(what, number)``.

    Args:
        desk: What it works with.
        order: Which writer it is, whose rows nobody else writes; and the number of its first save.
    """
    writer, number = order
    for what, token in _saves(writer, itertools.count(number)):
        desk.store.save_token(token)
        desk.pipe.send((what, number_of(token)))


def _saves(writer: int, numbers: Iterator[int]) -> Iterator[tuple[str, OAuthToken]]:
    """The saves of a writer; each is made when the one before is done."""
    own = numbered(next(numbers), user=f"updated{writer}", grant_token=f"1000.grant-of-{writer}")
    while True:
        yield "update", refresh(own, next(numbers))  # but for the first time, by its id
        number = next(numbers)
        yield "sign in", numbered(number, user=f"user{number}")
        yield from _merge(writer, numbers, is_same_object=True)
        yield from _merge(writer, numbers, is_same_object=False)


def _merge(
    writer: int, numbers: Iterator[int], is_same_object: bool
) -> Iterator[tuple[str, OAuthToken]]:
    """A row from before the user is known, and then it turns out to be one who is there.

    With the same object, which has the id of that row, the user's own row goes; with a new one, the
    user's row stays.
    """
    number = next(numbers)
    token = numbered(number)
    yield "meet", token
    if not is_same_object:
        token = numbered(number)
    token.set_user_signature(UserSignature(f"merged{writer}"))
    yield "merge", refresh(token, next(numbers))
