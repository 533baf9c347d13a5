"""Expired tokens, through the real SDK."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from zohocrmsdk.src.com.zoho.api.authenticator.oauth_token import OAuthToken
from zohocrmsdk.src.com.zoho.crm.api.exception import SDKException

from tests.sdk.conftest import Application, current_email, lead_names
from zoho_token_orm.testing.simulator import SimulatedUser, ZohoSimulator


@pytest.fixture
def expired(app: Application, alice: SimulatedUser, bob: SimulatedUser) -> OAuthToken:
    """The row of a user whose access token has expired, as it was before; bob's is there too."""
    app.sign_in(bob)
    id = app.sign_in(alice).get_id()
    row = app.row(id)
    app.expire(id)
    return row


@pytest.fixture(params=["grant", "refresh", "id", "user"])
def start(request, app: Application, expired: OAuthToken) -> Callable[[], OAuthToken]:
    """Starts the application, which names its user in one of the ways that there are."""
    tokens = {
        "grant": lambda: app.token(grant_token=expired.get_grant_token()),
        "refresh": lambda: app.token(refresh_token=expired.get_refresh_token()),
        "id": lambda: OAuthToken(id=expired.get_id()),
        "user": lambda: OAuthToken(user_signature=expired.get_user_signature()),
    }
    return lambda: app.initialize(tokens[request.param]())


def test_updates_the_row_with_one_call(app: Application, expired, start, alice):
    start()
    row = app.row(expired.get_id())
    assert row.get_access_token() != expired.get_access_token()
    assert int(row.get_expires_in()) >= int(expired.get_expires_in())
    assert row.get_refresh_token() == expired.get_refresh_token()
    assert row.get_user_signature().get_name() == alice.name
    assert len(app.store.get_tokens()) == 2
    assert app.kinds() == ["refresh"]
    assert app.zoho.count("refresh", alice) == 1


def test_serves_the_calls_that_follow(app: Application, start, alice):
    start()
    assert [current_email(), lead_names()] == [alice.email, list(alice.leads)]
    assert app.kinds() == ["refresh", "users", "fields", "leads"]


def test_happens_in_the_middle_of_the_work(app: Application, expired, start, alice):
    start()
    app.expire(expired.get_id())
    assert [current_email(), current_email()] == [alice.email] * 2
    assert app.kinds() == ["refresh", "refresh", "users", "users"]


def test_goes_on_as_often_as_the_token_expires(app: Application, zoho, expired, start, alice):
    zoho.access_token_lifetime = 1
    start()
    assert [current_email(), current_email()] == [alice.email] * 2
    assert app.kinds() == ["refresh", *["refresh", "users"] * 2]
    assert len(app.store.get_tokens()) == 2


@pytest.mark.parametrize(
    "fault",
    [
        lambda zoho, alice: zoho.fail_token_requests(),
        lambda zoho, alice: zoho.fail_token_requests(status=400, error="Access Denied"),
        lambda zoho, alice: zoho.revoke(alice),
    ],
    ids=["outage", "throttle", "invalid_code"],
)
def test_that_fails_raises_and_leaves_the_row(
    app: Application, zoho: ZohoSimulator, expired: OAuthToken, alice: SimulatedUser, fault
):
    fault(zoho, alice)
    with pytest.raises(SDKException):
        app.initialize(OAuthToken(id=expired.get_id()))
    row = app.row(expired.get_id())
    assert row.get_access_token() == expired.get_access_token()
    assert row.get_refresh_token() == expired.get_refresh_token()
    assert len(app.store.get_tokens()) == 2


def test_that_failed_may_be_tried_again_at_once(app: Application, zoho, expired, start, alice):
    zoho.fail_token_requests()
    with pytest.raises(SDKException):
        start()
    start()
    assert lead_names() == list(alice.leads)
    assert app.kinds() == ["refresh", "refresh", "fields", "leads"]
    assert app.row(expired.get_id()).get_access_token() != expired.get_access_token()
