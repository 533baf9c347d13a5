"""The errors that callers see, and what must not stand in them."""

from __future__ import annotations

import sqlite3
from typing import Any

from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, StatementError
from zohocrmsdk.src.com.zoho.crm.api.exception.sdk_exception import SDKException

CODE = "TOKEN_STORE"
_SHORTEST_HIDDEN = 4

# Of these the text is about anything but a value. Classes of SQLSTATE: connection, feature not
# supported, transaction state, authorization, catalog and schema names, rollback, access rule (with
# the names of tables and columns), resources, state of an object, intervention, system.
_SQLSTATES_PLAIN = ("08", "0A", "25", "28", "3D", "3F", "40", "42", "53", "55", "57", "58")
# Disk full, connections, access denied, no such database, table or column, shutdown, lock timeout,
# deadlock, read-only, and what a privilege or a limit forbids; from 2000 to 2999 the client's own.
_MYSQL_CODES_PLAIN = {
    *(0, 1020, 1021, 1040, 1044, 1045, 1047, 1049, 1053, 1054, 1114, 1142, 1143, 1146, 1203, 1205),
    *(1206, 1213, 1226, 1227, 1290, 1317, 1370, 1412, 1792, 1836, 1927, 3024, 3572, 4031),
    *range(2000, 3000),
}
_SQLITE_QUOTING = "Could not decode"


def token_store_error(message: str, cause: BaseException | None = None) -> SDKException:
    """The SDK's own exception, with the code that the SDK gives to token stores.

    Args:
        message: What happened and what to do, without any token, secret or password.
        cause: The original error, already without them; the SDK appends its text to the message.
    """
    return SDKException(CODE, f"{message}: " if cause is not None else message, cause=cause)


def is_unicode(text: str) -> bool:
    """Whether it holds no half of a surrogate pair; asked, since the error would hold the text."""
    try:
        text.encode()
    except UnicodeError:
        return False
    return True


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
    if hasattr(error.orig, "diag"):
        error.orig = error.__cause__ = error.__context__ = _without_attachments(error.orig)


def _without_attachments(error: Any) -> Any:
    """The same error of psycopg's, without the row that was refused, and the connection."""
    return type(error)(*error.args).with_traceback(error.__traceback__)


def _hidden(text: object, error: StatementError, values: list[str]) -> object:
    if not isinstance(text, str):
        return text
    if isinstance(error, DBAPIError) and _may_quote(error):
        return f"{type(error.orig).__name__} ({error_code(error)})"
    for value in values:
        text = text.replace(value, "***")
    return text


def _may_quote(error: DBAPIError) -> bool:
    """Whether the database's own text may quote a value, or only the beginning of one."""
    code = error_code(error)
    if isinstance(error, (IntegrityError, DataError)):
        return True
    if isinstance(error.orig, sqlite3.Error):
        return str(error.orig).startswith(_SQLITE_QUOTING)
    if error.statement is None or code is None:  # nothing has been sent; the driver's own error
        return False
    if isinstance(code, int):
        return code not in _MYSQL_CODES_PLAIN
    return not code.startswith(_SQLSTATES_PLAIN)


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
