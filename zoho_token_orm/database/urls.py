"""From what somebody writes to the URL that is meant."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from zoho_token_orm.errors import is_unicode

URL_VARIABLE = "ZOHO_TOKEN_DB_URL"
DEFAULT_URL = "sqlite:///zohooauth.db"
DRIVERS = {
    "postgres": "postgresql+psycopg",
    "postgresql": "postgresql+psycopg",
    "mysql": "mysql+pymysql",
    "mariadb": "mariadb+pymysql",
}
"""The drivers that this package ships, for URLs that name none."""
DATABASES = ("sqlite", "postgresql", "mysql", "mariadb")

_UNREADABLE = (
    "the database URL cannot be read; write it like postgresql://user:password@host/database, with "
    "the special characters of user and password percent-encoded"
)


def resolve_url(database: str | URL | None) -> URL:
    """The URL that is meant: with a driver that this package ships, and an absolute SQLite path.

    Args:
        database: A URL; None means the environment variable ``ZOHO_TOKEN_DB_URL``, and without it
            ``sqlite:///zohooauth.db``.

    Raises:
        ValueError: It is no URL, or names a database that is not supported.
    """
    if database is None:
        database = os.environ.get(URL_VARIABLE) or DEFAULT_URL
    if not isinstance(database, (str, URL)):
        raise ValueError("database must be a URL (a string or sqlalchemy.URL) or an Engine")
    url = _parsed(database)
    if url is None:
        raise ValueError(_UNREADABLE)
    refuse_misread(url, database if isinstance(database, str) else "")
    url = url.set(drivername=DRIVERS.get(url.drivername, url.drivername))
    if url.get_backend_name() not in DATABASES:
        raise ValueError(f"{url.get_backend_name()} is not supported: use one of {DATABASES}")
    _refuse_unverified(url)
    return _with_absolute_path(url)


def _parsed(text: str | URL) -> URL | None:
    """The URL; None where it is none: the parser's error may hold the password, and is dropped."""
    try:
        return make_url(text)
    except (ArgumentError, ValueError):
        return None


def refuse_misread(url: URL, text: str = "") -> None:
    """Refuses a URL whose password holds an ``@`` as it is: the rest of it is read as the host.

    And one that no driver can encode: its error would hold the password.
    """
    is_misread = "@" in (url.host or "") or text.count("@") > 1
    is_encodable = is_unicode("".join(map(str, (url.username, url.password, url.host))))
    if url.get_backend_name() != "sqlite" and (is_misread or not is_encodable):
        raise ValueError(_UNREADABLE)


def _refuse_unverified(url: URL) -> None:
    """Refuses options that turn each other off, so that any certificate for any host would do."""
    unset = [name for name in ("ssl_verify_cert", "ssl_verify_identity") if name in url.query]
    if unset and "ssl_ca" in url.query and url.get_driver_name() == "pymysql":
        raise ValueError(
            f"leave {' and '.join(unset)} out of the database URL: with ssl_ca alone PyMySQL "
            "verifies authority and host, and with both it forgets that authority"
        )


def _with_absolute_path(url: URL) -> URL:
    """A relative path is resolved once, so that a later chdir does not lead to another file."""
    if (
        url.get_backend_name() != "sqlite"
        or is_memory(url)
        or str(url.database).startswith("file:")
    ):
        return url
    return url.set(database=str(Path(str(url.database)).absolute()))


def is_memory(url: URL) -> bool:
    """Whether the URL names a SQLite database that lives in memory."""
    if url.get_backend_name() != "sqlite":
        return False
    return url.database in (None, "", ":memory:") or url.query.get("mode") == "memory"


def read_only(url: URL) -> URL:
    """The URL under which nothing is written or created where SQLite can be told so.

    Args:
        url: The URL (``resolve_url``).

    Raises:
        ValueError: It names a file that is not there.
    """
    if url.get_backend_name() != "sqlite" or is_memory(url):
        return url
    if str(url.database).startswith("file:"):
        return url.update_query_dict({"mode": "ro", "uri": "true"})
    path = Path(str(url.database))
    if not path.is_file():
        raise ValueError(f"there is no database file {path}")
    return url.set(
        database=f"file:{quote(str(path))}", query={**url.query, "mode": "ro", "uri": "true"}
    )


def is_same_database(one: URL, other: URL) -> bool:
    """Whether two URLs name the same database, as far as they tell."""
    if {one.get_backend_name(), other.get_backend_name()} & {"sqlite"}:
        paths = [_file(url) for url in (one, other)]
        return None not in paths and paths[0] == paths[1]
    return _place(one) == _place(other) and one.query == other.query


def _file(url: URL) -> str | None:
    """The file of a SQLite database, without links; None for one in memory or on a server."""
    if url.get_backend_name() != "sqlite" or is_memory(url):
        return None
    name = str(url.database)
    return os.path.realpath(unquote(urlsplit(name).path) if name.startswith("file:") else name)


def _place(url: URL) -> tuple[str, int, str]:
    port = url.port or (5432 if url.get_backend_name() == "postgresql" else 3306)
    host = "127.0.0.1" if url.host in (None, "", "localhost") else str(url.host).lower()
    return host, port, str(url.database)


def shown(url: URL) -> str:
    """The URL as it can be shown: without the password, and without options, which may hold one."""
    return url.set(query={}).render_as_string(hide_password=True)
