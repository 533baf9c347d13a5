"""The sample of the SDK's README: an id of one's own, given along with the credentials."""

from __future__ import annotations

from typing import Any

import pytest
from zohocrmsdk.src.com.zoho.api.authenticator.oauth_token import OAuthToken

from tests.sdk.conftest import Application, lead_names, told
from zoho_token_orm.testing.simulator import SimulatedUser, ZohoSimulator


@pytest.fixture(params=["grant", "refresh", "both"])
def sample(request, app: Application, zoho: ZohoSimulator, alice: SimulatedUser) -> dict[str, Any]:
    """What the sample gives to OAuthToken: an id, and a grant token, a refresh token or both."""
    given = {"id": "my-own-id", "redirect_url": "https://app.example", **told(alice)}
    if request.param != "refresh":
        given["grant_token"] = zoho.grant(alice)
    if request.param != "grant":
        given["refresh_token"] = zoho.authorize(alice)
    return given


def test_is_the_rows_id(app: Application, sample: dict[str, Any], alice: SimulatedUser):
    token = app.initialize(app.token(**sample))
    row = app.only_row()
    assert token.get_id() == row.get_id() == "my-own-id"
    assert row.get_user_signature().get_name() == alice.name
    assert row.get_redirect_url() == "https://app.example"
    assert lead_names() == list(alice.leads)


def test_finds_the_row_at_the_next_start(app: Application, sample: dict[str, Any], alice):
    app.initialize(app.token(**sample))
    app.zoho.clear_calls()
    app.initialize(app.token(**sample))
    assert lead_names() == list(alice.leads)
    assert app.kinds() == ["fields", "leads"]
    assert app.only_row().get_id() == "my-own-id"


def test_is_enough_by_itself_later(app: Application, sample: dict[str, Any], alice):
    app.initialize(app.token(**sample))
    app.initialize(OAuthToken(id="my-own-id"))
    assert lead_names() == list(alice.leads)


def test_stays_through_a_refresh(app: Application, sample: dict[str, Any]):
    first = app.initialize(app.token(**sample)).get_access_token()
    app.expire("my-own-id")
    app.initialize(app.token(**sample))
    row = app.only_row()
    assert row.get_id() == "my-own-id"
    assert row.get_access_token() != first


def test_replaces_the_id_of_a_user_who_is_there(app: Application, sample: dict[str, Any], alice):
    app.sign_in(alice)
    token = app.initialize(app.token(**sample))
    row = app.only_row()
    assert token.get_id() == row.get_id() == "my-own-id"
    assert row.get_access_token() == token.get_access_token()
    assert row.get_user_signature().get_name() == alice.name
