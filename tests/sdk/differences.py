"""Where the sister SDKs do something else by themselves, so that no store could change it.

A test of a flow that such an SDK breaks is marked with ``differs``: there it must fail, so that a
release that mends the SDK is noticed. ``.ci/sisters`` prints the sentences in docs/sister-sdks.md.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from zohocrmsdk.src.com.zoho.crm.api.exception import SDKException

from tests.support import SDK


@dataclass(frozen=True)
class Difference:
    """What some of the SDKs do otherwise than 8-0: a sentence for the docs."""

    sdks: tuple[int, ...]
    sentence: str


NO_REVOKE = Difference(
    (5, 6, 7),
    "`revoke(id)` raises in the SDK before it asks the store. What does revoke is"
    " `OAuthToken.revoke_refresh_token(refresh_token, environment.accounts_url + '/revoke')`.",
)
UNKNOWN_ID = Difference(
    (5, 6, 7),
    "A token with an id that no row has raises (`MERGE_OBJECT`), also where it comes with a grant"
    " or a refresh token. To sign in with an id of your own, call `store.save_token(token)` before"
    " `Initializer.initialize`, and `Initializer.switch_user(token=token)` after it. After a"
    " log-out, calls with the old token raise, where 8-0 goes on with what it has in memory.",
)
NO_FIND_USER = Difference(
    (5,),
    "There is no `find_user`: the SDK never asks Zoho whose token it is. Give `user_signature`"
    " along with the grant or refresh token; a row without it has no user.",
)
CONSENT_IGNORED = Difference(
    (5,),
    "A new grant or refresh token beside a `user_signature` that has a row is not used: the SDK"
    " goes on with the row, as each SDK does for a user who is given. Delete the row before a new"
    " consent.",
)
SAVE_ERRORS = Difference(
    (5,),
    "An error of `save_token` reaches the caller, where the later SDKs swallow it: so does the"
    " refusal to put a deleted token back.",
)
DIFFERENCES = (NO_REVOKE, UNKNOWN_ID, NO_FIND_USER, CONSENT_IGNORED, SAVE_ERRORS)


def differs(difference: Difference) -> pytest.MarkDecorator:
    """Marks what must fail under the SDKs concerned."""
    return pytest.mark.xfail(
        SDK in difference.sdks,
        reason=difference.sentence,
        raises=(SDKException, AssertionError, ValueError, AttributeError),
        strict=True,
    )
