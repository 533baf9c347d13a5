"""Between a row and the SDK's OAuthToken, and the one list of the columns; no database here."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from zohocrmsdk.src.com.zoho.api.authenticator.oauth_token import OAuthToken
from zohocrmsdk.src.com.zoho.crm.api.user_signature import UserSignature

from zoho_token_orm.direct import Found
from zoho_token_orm.errors import is_unicode, token_store_error
from zoho_token_orm.models import ExactString, OAuthTokenRow

Fields = dict[str, Any]
"""A token's values by column: strings, the expiry as an int, None for what the token lacks."""

SDK_NAMES = {
    "id": "id",
    "user_name": "user_signature",
    "client_id": "client_id",
    "client_secret": "client_secret",
    "refresh_token": "refresh_token",
    "access_token": "access_token",
    "grant_token": "grant_token",
    "expiry_time": "expires_in",
    "redirect_url": "redirect_url",
    "api_domain": "api_domain",
}
"""What the SDK's getters and setters call each column, in the order of the SDK's own table."""
_GETTERS = {column: f"get_{name}" for column, name in SDK_NAMES.items()}
_SETTERS = {column: f"set_{name}" for column, name in SDK_NAMES.items()}
COLUMNS = tuple(SDK_NAMES)
TOKENS = ("refresh_token", "access_token", "grant_token")
"""The columns without which there is nothing to store."""

_TYPES: dict[str, ExactString] = {
    column.name: column.type
    for column in OAuthTokenRow.__table__.columns
    if isinstance(column.type, ExactString)
}
_SHORTEST = min(_TYPES[column].length for column in COLUMNS if column in _TYPES)
"""What is no longer fits every column, also where a token's encoding makes it three times that."""
_NUMBER = re.compile(r"-?[0-9]{1,19}")
_BIGINT = range(-(2**63), 2**63)


def fields_of(token: object) -> Fields:
    """What a token has, by column; an empty string counts as nothing.

    Raises:
        SDKException: It is no OAuthToken, or holds what cannot be stored.
    """
    if not isinstance(token, OAuthToken):
        raise token_store_error(f"the token must be an OAuthToken, not {type(token).__name__}")
    try:
        fields = {column: _get(token, column) for column in COLUMNS}
    except AttributeError:
        raise token_store_error(
            "the OAuthToken is incomplete: make it with OAuthToken(...)"
        ) from None
    return {
        column: checked_expiry(value) if column == "expiry_time" else checked(column, value)
        for column, value in fields.items()
    }


def _get(token: OAuthToken, column: str) -> Any:
    value = getattr(token, _GETTERS[column])()
    if column != "user_name" or value is None:
        return value
    if not isinstance(value, UserSignature):
        raise token_store_error("the token's user_signature must be a UserSignature")
    return value.get_name()


def checked(column: str, value: object) -> str | None:
    """The value itself where the column can hold it, None where it is empty.

    Raises:
        SDKException: It is no string, holds a NUL or half a surrogate pair, or is too long.
    """
    if type(value) is str and value.isascii() and value.isprintable() and len(value) <= _SHORTEST:
        return value or None  # as most are
    text = _text(column, value)
    if text is None:
        return None
    if "\0" in text:
        raise token_store_error(f"{column} must not contain a NUL character")
    if not is_unicode(text):
        raise token_store_error(f"{column} is no valid Unicode text")
    length = len(_TYPES[column].stored(text))
    if length > _TYPES[column].length:
        raise token_store_error(
            f"{column} is too long: {length} characters, at most {_TYPES[column].length} fit"
        )
    return text


def checked_expiry(value: object) -> int | None:
    """An expiry as a number of epoch milliseconds, None where it is empty.

    Raises:
        SDKException: It is no whole number, or out of range.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        number = int.__int__(value)
    else:
        text = _text("expires_in", value)
        if text is None:
            return None
        if not _NUMBER.fullmatch(text):
            raise token_store_error("expires_in must be epoch milliseconds, as a string of digits")
        number = int(text)
    if number not in _BIGINT:
        raise token_store_error("expires_in is out of range: it must be epoch milliseconds")
    return number


def _text(name: str, value: object) -> str | None:
    """A plain string, since a subclass may compare as it likes; None where it is empty."""
    if value is None:
        return None
    if not isinstance(value, str):
        raise token_store_error(f"{name} must be a string, not {type(value).__name__}")
    return str.__str__(value) or None


def is_merged(token: OAuthToken) -> bool:
    """Whether the SDK has merged a stored token into this one, as it does for a token with an id.

    The store has not met that object, but its tokens come from a row. ``OAuthToken.merge_objects``
    leaves a trace: it copies the getters and setters onto the object.
    """
    return "get_id" in vars(token)


def token_of(row: Found) -> OAuthToken:
    """A new, complete token, made by its own constructor, so that ``switch_user`` takes it."""
    # Not with the setters, as this is on the way of every API call.
    plain = [None if value is None else str(value) for value in row[: len(COLUMNS)]]
    fields = dict(zip(SDK_NAMES.values(), plain, strict=True))
    expires_in, user_name = fields.pop("expires_in"), fields.pop("user_signature")
    token = OAuthToken(
        **fields, user_signature=None if user_name is None else UserSignature(user_name)
    )
    token.set_expires_in(expires_in)
    return token


def fill(token: OAuthToken, row: Found, fields: Fields) -> None:
    """Gives a token what it lacks of the row, and overwrites nothing.

    The expiry goes only along with the access token that it belongs to.

    Args:
        token: The token.
        row: The row that it names.
        fields: What the token has already.
    """
    keeps_own = fields.get("access_token") not in (None, row.access_token)
    for column, setter in _SETTERS.items():
        value = getattr(row, column)
        if value is None or fields.get(column) is not None:
            continue
        if column == "expiry_time" and keeps_own:
            continue
        text = str(value)  # of a Secret, its plain text
        getattr(token, setter)(UserSignature(text) if column == "user_name" else text)


def merged(fields: Fields, first: Found, others: Iterable[Found]) -> Fields:
    """The token's fields, and what neither it nor the first row has but one of the others does.

    An expiry comes only along with its access token.
    """
    result = dict(fields)
    for row in others:
        if result["access_token"] is None and first.access_token is None and row.access_token:
            own = fields["expiry_time"]
            result["expiry_time"] = row.expiry_time if own is None else own
        for column in COLUMNS[1:]:
            lacks = result[column] is None and getattr(first, column) is None
            if lacks and column != "expiry_time":
                result[column] = getattr(row, column)
    return result
