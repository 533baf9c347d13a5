"""What the load tests share: databases that processes can share, and processes of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.databases import SERVERS, Database, fresh_database
from tests.load.process import Work, Worker, context
from zoho_token_orm import SQLAlchemyTokenStore

Start = Callable[..., list[Worker]]


@pytest.fixture(params=["sqlite-file", *SERVERS])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """An empty database that many processes can share."""
    with fresh_database(request.param, tmp_path) as fresh:
        yield fresh


@pytest.fixture
def start(database: Database, store: SQLAlchemyTokenStore) -> Iterator[Start]:
    """Starts processes that do the same work on the database, each with a store of its own."""
    made: list[Worker] = []

    def start(count: int, work: Work) -> list[Worker]:
        together = context.Barrier(count)
        started = [Worker(database.url, work, together) for _ in range(count)]
        made.extend(started)
        assert [worker.answer() for worker in started] == ["ready"] * count
        return started

    yield start
    for worker in made:
        worker.kill()
