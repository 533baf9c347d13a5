"""The errors that callers see, and what must not stand in them."""

from __future__ import annotations

from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, StatementError
from zohocrmsdk.src.com.zoho.crm.api.exception.sdk_exception import SDKException

CODE = "TOKEN_STORE"
_SHORTEST_HIDDEN = 4


def token_store_error(message: str, cause: BaseException | None = None) -> SDKException:
    """The SDK's own exception, with the code that the SDK gives to token stores.

    Args:
        message: What happened and what to do, without any token, secret or password.
        cause: The original error, already without them; the SDK appends its text to the message.
    """
    return SDKException(CODE, f"{message}: " if cause is not None else message, cause=cause)


def hide_values(error: BaseException) -> None:
    """Takes the values of a statement out of a database error, in place, before anybody reads it.

    SQLAlchemy shows the parameters unless the engine hides them, which a caller's engine may not
    do; and the drivers quote values themselves (``Duplicate entry '…'``, ``Key (…)=(…) already
    exists``).
    """
    if not isinstance(error, StatementError):
        return
    error.hide_parameters = True
    values = _strings(error.params)
    for link in (error, error.orig):
        if link is not None:
            link.args = tuple(_hidden(arg, error, values) for arg in link.args)


def _hidden(text: object, error: StatementError, values: list[str]) -> object:
    if not isinstance(text, str):
        return text
    if isinstance(error, (IntegrityError, DataError)):
        return f"{type(error.orig).__name__} ({error_code(error)})"
    for value in values:
        text = text.replace(value, "***")
    return text.split(" with text ")[0]  # SQLite quotes what it cannot decode


def error_code(error: DBAPIError) -> str | int | None:
    """The database's own code for an error: an SQLSTATE on PostgreSQL, a number elsewhere."""
    orig = error.orig
    first = orig.args[0] if orig is not None and orig.args else None
    if isinstance(first, int):  # MySQL's drivers; the newer ones have an SQLSTATE besides
        return first
    code: str | int | None = getattr(orig, "sqlstate", getattr(orig, "sqlite_errorcode", None))
    return code


def _strings(params: object) -> list[str]:
    """Every string in a statement's parameters, longest first."""
    if isinstance(params, str):
        return [params] if len(params) >= _SHORTEST_HIDDEN else []
    if isinstance(params, dict):
        params = list(params.values())
    if isinstance(params, (list, tuple)):
        found = [string for value in params for string in _strings(value)]
        return sorted(set(found), key=len, reverse=True)
    return []
