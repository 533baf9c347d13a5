"""An application that starts again in a new process, with the same token in its code."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.databases import Database
from tests.sdk.conftest import WHO_IT_IS, Application
from zoho_token_orm.testing.simulator import SimulatedUser, ZohoSimulator

Restart = Callable[..., dict[str, Any]]


@pytest.fixture(autouse=True)
def lasting(database: Database) -> None:
    if database.name == "sqlite-memory":
        pytest.skip("a database in memory ends with its process")


@pytest.fixture
def restart(app: Application, database: Database, tmp_path: Path) -> Restart:
    """Runs the application in a new process, with a token of these fields."""

    def run(**fields: str) -> dict[str, Any]:
        order = {
            "zoho": app.zoho.url,
            "database": database.url,
            "folder": str(tmp_path),
            "token": fields,
        }
        done = subprocess.run(
            [sys.executable, "-m", "tests.sdk.other_process"],
            cwd=Path(__file__).parents[2],
            input=json.dumps(order),
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


@pytest.fixture
def client(zoho: ZohoSimulator) -> dict[str, str]:
    return {"client_id": zoho.client_id, "client_secret": zoho.client_secret}


def test_with_the_spent_grant_reuses_the_stored_token(
    app: Application, zoho: ZohoSimulator, restart: Restart, client, alice: SimulatedUser
):
    grant = zoho.grant(alice)
    first = restart(grant_token=grant, **client)
    assert app.kinds() == ["grant", *WHO_IT_IS, "fields", "leads"]
    zoho.clear_calls()
    second = restart(grant_token=grant, **client)
    assert first == second == {"leads": list(alice.leads), "ids": [app.only_row().get_id()]}
    assert app.kinds() == ["leads"]


def test_with_the_spent_grant_refreshes_an_expired_token(
    app: Application, restart: Restart, client, alice: SimulatedUser
):
    token = app.sign_in(alice)
    app.expire(token.get_id())
    again = restart(grant_token=token.get_grant_token(), **client)
    assert again == {"leads": list(alice.leads), "ids": [token.get_id()]}
    assert app.kinds() == ["refresh", "fields", "leads"]
    assert app.only_row().get_refresh_token() == token.get_refresh_token()


def test_with_the_refresh_token_reuses_the_stored_token(
    app: Application, restart: Restart, client, alice: SimulatedUser
):
    token = app.sign_in(alice)
    again = restart(refresh_token=token.get_refresh_token(), **client)
    assert again == {"leads": list(alice.leads), "ids": [token.get_id()]}
    assert app.kinds() == ["fields", "leads"]


def test_with_an_id_of_ones_own_needs_no_second_grant(
    app: Application, zoho: ZohoSimulator, restart: Restart, client, alice: SimulatedUser
):
    fields = {"id": "my-own-id", "grant_token": zoho.grant(alice), **client}
    first, second = restart(**fields), restart(**fields)
    assert first == second == {"leads": list(alice.leads), "ids": ["my-own-id"]}
    assert zoho.count("grant") == 1


def test_with_the_id_alone_needs_no_credentials(
    app: Application, restart: Restart, alice: SimulatedUser, bob: SimulatedUser
):
    tokens = {user: app.sign_in(user) for user in (alice, bob)}
    for user, token in tokens.items():
        assert restart(id=token.get_id())["leads"] == list(user.leads)
    assert zoho_token_calls(app) == 0


def zoho_token_calls(app: Application) -> int:
    return app.zoho.count("grant") + app.zoho.count("refresh")
