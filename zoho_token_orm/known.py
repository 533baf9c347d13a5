"""Which tokens a store has met, by object, for as long as the objects live."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from zohocrmsdk.src.com.zoho.api.authenticator.oauth_token import OAuthToken


class KnownIds:
    """The id that each token's row had when the store last met that very object.

    It goes by the object and not by ``==``, which a subclass of OAuthToken may define as it likes.
    """

    def __init__(self) -> None:
        self._entries: dict[int, tuple[weakref.ref[OAuthToken], str]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, token: OAuthToken) -> str | None:
        """The id of the token's row; None for a token that the store has not met."""
        entry = self._entries.get(id(token))
        return None if entry is None else entry[1]

    def remember(self, token: OAuthToken, row_id: str) -> None:
        """Takes note of the id; forgotten when the token is."""
        key, entries = id(token), self._entries

        def forget(_: object) -> None:
            entries.pop(key, None)

        entries[key] = (weakref.ref(token, forget), row_id)
