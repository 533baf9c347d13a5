"""What the tests share: for each test a database of its own, of each kind, and a store on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, QueuePool, create_engine

from tests.databases import NAMES, Database, fresh_database, required
from zoho_token_orm import SQLAlchemyTokenStore
from zoho_token_orm.database import forks, resolve_url
from zoho_token_orm.encryption import PLAIN


def pytest_configure() -> None:
    """Refuses a requirement that nothing could meet."""
    required()


@pytest.fixture(autouse=True)
def no_connection_leaks() -> Iterator[None]:
    """After each test, no store has a connection checked out."""
    yield
    pools = [database.engine.pool for database in forks.in_use]
    assert [pool for pool in pools if isinstance(pool, QueuePool) and pool.checkedout()] == []


@pytest.fixture(params=NAMES)
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """An empty database, on SQLite and on each server in turn."""
    with fresh_database(request.param, tmp_path) as fresh:
        yield fresh


@pytest.fixture
def store(database: Database) -> Iterator[SQLAlchemyTokenStore]:
    """A store on an empty, migrated database."""
    with SQLAlchemyTokenStore(database.url, create_schema=True) as made:
        yield made


@pytest.fixture
def callers_engine(database: Database) -> Iterator[Engine]:
    """An ordinary engine of an application's, on an empty database."""
    engine = create_engine(resolve_url(database.url))
    yield engine
    engine.dispose()


@pytest.fixture
def store_with(database: Database) -> Iterator[Callable[..., SQLAlchemyTokenStore]]:
    """Makes a store with these keys on the one database; with plain text for none."""
    made: list[SQLAlchemyTokenStore] = []

    def make(*keys: str, **options: Any) -> SQLAlchemyTokenStore:
        if made and database.name == "sqlite-memory":
            options["database"] = made[0].engine
        options = {"database": database.url, "create_schema": True, **options}
        made.append(SQLAlchemyTokenStore(**options, encryption_keys=keys or PLAIN))
        return made[-1]

    yield make
    for each in reversed(made):
        each.close()
