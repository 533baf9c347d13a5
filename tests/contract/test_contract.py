"""The contract, for our store on each database."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.databases import Database
from tests.support import NEW, OLD
from zoho_token_orm import SQLAlchemyTokenStore
from zoho_token_orm.encryption import PLAIN
from zoho_token_orm.testing import TokenStoreContract


class TestSQLAlchemyTokenStore(TokenStoreContract):
    KEYS = PLAIN

    @pytest.fixture
    def store(self, database: Database) -> Iterator[SQLAlchemyTokenStore]:
        options = {"create_schema": True, "encryption_keys": self.KEYS}
        with SQLAlchemyTokenStore(database.url, **options) as made:
            yield made

    @pytest.fixture
    def second_store(
        self, database: Database, store: SQLAlchemyTokenStore
    ) -> Iterator[SQLAlchemyTokenStore]:
        if database.name == "sqlite-memory":
            yield store
            return
        options = {"create_schema": False, "encryption_keys": self.KEYS}
        with SQLAlchemyTokenStore(database.url, **options) as second:
            yield second


class TestEncrypted(TestSQLAlchemyTokenStore):
    KEYS = f"{NEW},{OLD}"
