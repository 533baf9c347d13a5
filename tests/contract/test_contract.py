"""The contract, for our store on each database."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.databases import Database
from zoho_token_orm import SQLAlchemyTokenStore
from zoho_token_orm.testing import TokenStoreContract


class TestSQLAlchemyTokenStore(TokenStoreContract):
    @pytest.fixture
    def store(self, store: SQLAlchemyTokenStore) -> SQLAlchemyTokenStore:
        return store

    @pytest.fixture
    def second_store(
        self, database: Database, store: SQLAlchemyTokenStore
    ) -> Iterator[SQLAlchemyTokenStore]:
        if database.name == "sqlite-memory":
            yield store
            return
        with SQLAlchemyTokenStore(database.url, create_schema=False) as second:
            yield second
