"""Values as other stores hold them, in columns of any type."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from decimal import Decimal, InvalidOperation
from typing import Any

_BIGINT = range(2**63)
_MOST_DIGITS = 18
"""How many digits follow the first one, at most."""


def text_of(value: Any) -> str | None:
    """What a value of any type is as text.

    Raises:
        UnicodeError: It is bytes that are no UTF-8; the error holds them, so let it be no context
            of another one.
    """
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value).decode()
    return value if value is None or isinstance(value, str) else str(value)


def unpadded(row: Mapping[str, Any], columns: Iterable[str]) -> dict[str, Any]:
    """The row, its text in these columns without the blanks at its end."""
    values = {name: row[name] for name in columns}
    texts = {name: value.rstrip(" ") for name, value in values.items() if isinstance(value, str)}
    return {**row, **texts}


def expiry_of(value: Any) -> int | None:
    """A time in epoch milliseconds, whatever the column holds; None where it is empty.

    Args:
        value: Milliseconds as any number or text, or a date and time, in UTC unless it says where.

    Raises:
        ValueError: It says no time, or none that a BIGINT holds.
    """
    if isinstance(value, str) and "-" in value.strip()[1:]:
        value = datetime.fromisoformat(value.strip())
    if isinstance(value, datetime):
        aware = value if value.tzinfo else value.replace(tzinfo=timezone.utc)
        value = int(aware.timestamp() * 1000)
    text = (text_of(value) or "").strip()
    if not text:
        return None
    try:
        number = Decimal(text)
    except InvalidOperation as error:
        raise ValueError("no number") from error
    if not number.is_finite() or number.adjusted() > _MOST_DIGITS or int(number) not in _BIGINT:
        raise ValueError("out of range")  # told before int(): 1e9999999 would take it minutes
    return int(number)
