"""The contract of a token store: on each database, on a reference store, and on faulty ones."""

import pytest

pytest.register_assert_rewrite("zoho_token_orm.testing.contract")
