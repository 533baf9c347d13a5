"""What a source yields: rows that can be stored, and those that cannot, each with the reason."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any, NamedTuple

from zohocrmsdk.src.com.zoho.crm.api.exception.sdk_exception import SDKException

from zoho_token_orm.encryption import SECRETS
from zoho_token_orm.errors import token_store_error
from zoho_token_orm.foreign import expiry_of, text_of
from zoho_token_orm.mapping import COLUMNS, TOKENS, Fields, checked
from zoho_token_orm.models import SEALED


class Record(NamedTuple):
    """A row of a source."""

    where: str
    """Where it stands: a line of a file, or the id of a row."""
    fields: Fields

    def __repr__(self) -> str:
        """Where it stands; never a token or a secret."""
        return f"Record({self.where!r})"


class Refusal(NamedTuple):
    """A row of a source that was not imported."""

    where: str
    """Where it stands: a line of a file, or the id of a row."""
    reason: str
    """Why, without any token or secret."""


class Contents(NamedTuple):
    """All that a source holds."""

    records: list[Record]
    refusals: list[Refusal]

    def __repr__(self) -> str:
        """How much it is; never a token or a secret."""
        return f"Contents({len(self.records)} records, {len(self.refusals)} refusals)"


class Raw(NamedTuple):
    """A row as it stands in a source."""

    where: str
    values: Mapping[str, Any]
    """By column, each as the source has it."""
    reason: str | None = None
    """Why it cannot be read at all."""

    def __repr__(self) -> str:
        """Where it stands; never a token or a secret."""
        return f"Raw({self.where!r})"


def contents_of(rows: Iterable[Raw]) -> Contents:
    """Sorts the rows of a source into those that can be stored and those that cannot."""
    contents = Contents([], [])
    for row in rows:
        fields, reason = ({}, row.reason) if row.reason else _checked(row.values)
        if reason:
            contents.refusals.append(Refusal(row.where, reason))
        else:
            contents.records.append(Record(row.where, fields))
    return contents


def _checked(values: Mapping[str, Any]) -> tuple[Fields, str | None]:
    """The fields, or why they cannot be stored."""
    try:
        return _fields(values), None
    except SDKException as error:
        return {}, str(error.error_message)


def _fields(values: Mapping[str, Any]) -> Fields:
    names = [name for name in COLUMNS if name != "expiry_time"]
    found = {name: checked(name, _text(name, values.get(name))) for name in names}
    if not any(found[name] for name in TOKENS):
        raise token_store_error("it has neither refresh, access nor grant token")
    if any((found[name] or "").startswith(SEALED) for name in SECRETS):
        raise token_store_error("it is encrypted, and stands where it cannot be decrypted")
    expiry = _expiry(values.get("expiry_time"), found)
    return {name: expiry if name == "expiry_time" else found[name] for name in COLUMNS}


def _expiry(value: Any, fields: Fields) -> int | None:
    """When the access token expires; what an odd expiry in a source means.

    An expiry without an access token says nothing, and is dropped. To the SDK an access token
    without an expiry is valid for ever. So one that is missing or cannot be read counts as run out
    where there is a refresh token, with which the SDK gets a new access token; without, a row with
    one that cannot be read is refused.
    """
    if not fields["access_token"]:
        return None
    try:
        expiry = expiry_of(value)
        return 0 if expiry is None and fields["refresh_token"] else expiry
    except ValueError:
        if fields["refresh_token"]:
            return 0
    raise token_store_error(
        "its expiry_time is no number of epoch milliseconds, and it has no refresh token"
    )


def _text(column: str, value: Any) -> str | None:
    """The value as text, whatever type the column of a table has."""
    try:
        text = text_of(value)
    except UnicodeError:  # it holds the value: so it must not be the context of another one
        text = None
    if text is None and value is not None:
        raise token_store_error(f"{column} is no UTF-8 text")
    is_number = isinstance(value, (float, Decimal)) and math.isfinite(value)
    is_whole = is_number and value == int(value)
    return str(int(value)) if is_whole else text  # SQLite may have made an id REAL
