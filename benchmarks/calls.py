"""The calls that are measured: four methods of a token store, at random rows."""

from __future__ import annotations

import functools
import itertools
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from zohocrmsdk.src.com.zoho.api.authenticator.oauth_token import OAuthToken
from zohocrmsdk.src.com.zoho.api.authenticator.store.token_store import TokenStore
from zohocrmsdk.src.com.zoho.crm.api.user_signature import UserSignature

from benchmarks.rows import IdOf, expiry, new_token, user_name, zoho_token

FIND_BY_ID = "`find_token_by_id`"
FIND = "`find_token`"
REFRESH = "`save_token` after a refresh"
FIRST_SAVE = "first `save_token`"
METHODS = (FIND_BY_ID, FIND, REFRESH, FIRST_SAVE)

Call = Callable[[], object]

_new_users: Iterator[int] = itertools.count(100_000_000)


@dataclass(frozen=True)
class Prepared:
    """Calls that are ready to be made.

    Attributes:
        calls: The calls, each of which takes only as long as the method.
        undo: Deletes the rows that the calls have added, which then are as many as before.
    """

    calls: list[Call]
    undo: Call


Prepare = Callable[[int], Prepared]
"""Prepares that many calls, or fewer where there are fewer rows."""


class Workload:
    """Calls of one store.

    Args:
        store: The store.
        rows: How many rows it has.
        id_of: The id of each.
    """

    def __init__(self, store: TokenStore, rows: int, id_of: IdOf) -> None:
        self._store = store
        self._rows = rows
        self._id_of = id_of

    def prepare(self, method: str, count: int) -> Prepared:
        """Prepares calls of one of the ``METHODS``, each at another row."""
        if method == FIRST_SAVE:
            return self._first_saves(count)
        numbers = random.sample(range(self._rows), min(count, self._rows))
        if method == REFRESH:
            return self._refreshes(numbers)
        make = self._find_by_id if method == FIND_BY_ID else self._find
        return Prepared([make(number) for number in numbers], undo=_nothing)

    def _find_by_id(self, number: int) -> Call:
        return functools.partial(self._store.find_token_by_id, self._id_of(number))

    def _find(self, number: int) -> Call:
        """What ``switch_user`` leads to for a user whose tokens are stored."""
        token = OAuthToken(user_signature=UserSignature(user_name(number)))
        return functools.partial(self._store.find_token, token)

    def _refreshes(self, numbers: list[int]) -> Prepared:
        tokens = [self._store.find_token_by_id(self._id_of(number)) for number in numbers]
        return Prepared([functools.partial(self._refresh, token) for token in tokens], _nothing)

    def _refresh(self, token: OAuthToken) -> None:
        token.set_access_token(zoho_token(f"{random.getrandbits(256):064x}"))
        token.set_expires_in(expiry())
        self._store.save_token(token)

    def _first_saves(self, count: int) -> Prepared:
        tokens = [new_token(next(_new_users)) for _ in range(count)]
        calls = [functools.partial(self._store.save_token, token) for token in tokens]
        return Prepared(list(calls), undo=lambda: self._delete(tokens))

    def _delete(self, tokens: list[OAuthToken]) -> None:
        for token in tokens:
            if token.get_id():
                self._store.delete_token(token.get_id())


def _nothing() -> None:
    """Nothing has been added."""
