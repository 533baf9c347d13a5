"""What the benchmark runs on: the machine, the versions, how durable the databases are."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sqlite3
from typing import Any

import pyperf  # type: ignore[import-untyped]
from sqlalchemy import Connection, Engine

PACKAGES = ("SQLAlchemy", "psycopg", "PyMySQL", "mysql-connector-python", "zohocrmsdk8-0", "pyperf")
_POSTGRESQL = ("fsync", "synchronous_commit", "full_page_writes", "shared_buffers", "ssl")
_MYSQL = (
    "innodb_flush_log_at_trx_commit",
    "innodb_doublewrite",
    "log_bin",
    "innodb_buffer_pool_size",
)


def machine() -> dict[str, str]:
    """The machine and the versions of what runs in this process."""
    metadata = pyperf.Run([1.0], collect_metadata=True).get_metadata()
    model = metadata.get("cpu_model_name", platform.machine())
    python = f"{platform.python_implementation()} {platform.python_version()}"
    return {
        "Machine": f"{os.cpu_count()} CPUs ({model}), {platform.system()}; servers on the same one",
        "Python": ", ".join([python, *map(_version, PACKAGES)]),
    }


def _version(package: str) -> str:
    return f"{package} {importlib.metadata.version(package)}"


def database(engine: Engine) -> str:
    """The version and the settings of a database, in one line."""
    with engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            return f"{sqlite3.sqlite_version}; {_settings(_sqlite(connection))}"
        if engine.dialect.name == "postgresql":
            return (
                f"{_value(connection, 'SHOW server_version')}; {_settings(_postgresql(connection))}"
            )
        return f"{_value(connection, 'SELECT VERSION()')}; {_settings(_mysql(connection))}"


def _sqlite(connection: Connection) -> dict[str, Any]:
    return {name: _value(connection, f"PRAGMA {name}") for name in ("journal_mode", "synchronous")}


def _postgresql(connection: Connection) -> dict[str, Any]:
    return {name: _value(connection, f"SHOW {name}") for name in _POSTGRESQL}


def _mysql(connection: Connection) -> dict[str, Any]:
    values = {name: _value(connection, f"SELECT @@{name}") for name in _MYSQL}
    cipher = connection.exec_driver_sql("SHOW STATUS LIKE 'Ssl_cipher'").one()[1]
    return {**values, "TLS of our connections": cipher or "none"}


def _settings(values: dict[str, Any]) -> str:
    return ", ".join(f"{name} = {value}" for name, value in values.items())


def _value(connection: Connection, statement: str) -> Any:
    return connection.exec_driver_sql(statement).scalar()
