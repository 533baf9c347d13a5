"""The ways to sign in, through the real SDK: grant, refresh, id, user and access-token flow."""

from __future__ import annotations

import time
from typing import Any

import pytest
from zohocrmsdk.src.com.zoho.api.authenticator.oauth_token import OAuthToken
from zohocrmsdk.src.com.zoho.crm.api.exception import SDKException
from zohocrmsdk.src.com.zoho.crm.api.user_signature import UserSignature

from tests.sdk.conftest import (
    UNKNOWN_ID,
    WHO_IT_IS,
    WITHOUT_USER,
    Application,
    current_email,
    lead_names,
)
from tests.sdk.differences import NO_FIND_USER, differs
from zoho_token_orm.testing.simulator import SimulatedUser, ZohoSimulator


class TestGrantFlow:
    def test_stores_one_complete_row(self, app: Application, zoho: ZohoSimulator, alice):
        grant = zoho.grant(alice)
        before = int(time.time() * 1000)
        token = app.initialize(
            app.token_for(alice, grant_token=grant, redirect_url="https://app.example")
        )
        row = app.only_row()
        assert fields(row) == fields(token)
        assert row.get_user_signature().get_name() == alice.name
        assert (row.get_client_id(), row.get_client_secret()) == credentials(zoho)
        assert (row.get_grant_token(), row.get_redirect_url()) == (grant, "https://app.example")
        assert row.get_api_domain() == zoho.url
        assert 0 <= int(row.get_expires_in()) - before - 3600_000 <= time.time() * 1000 - before

    def test_asks_zoho_once_for_each_thing(self, app: Application, zoho: ZohoSimulator, alice):
        app.initialize(app.token_for(alice))
        assert app.kinds() == ["grant", *WHO_IT_IS]

    def test_serves_every_later_call(self, app: Application, alice):
        app.sign_in(alice)
        assert [current_email(), lead_names()] == [alice.email, list(alice.leads)]
        assert app.kinds() == ["users", "fields", "leads"]

    def test_with_the_spent_grant_again_finds_the_row(self, app: Application, alice):
        grant = app.sign_in(alice).get_grant_token()
        id = app.only_row().get_id()
        token = app.initialize(app.token(grant_token=grant))
        assert (token.get_id(), lead_names()) == (id, list(alice.leads))
        assert app.kinds() == ["fields", "leads"]

    def test_with_a_grant_that_zoho_refuses_stores_nothing(self, app: Application):
        with pytest.raises(SDKException, match="invalid_code"):
            app.initialize(app.token(grant_token="1000.never.given"))
        assert app.store.get_tokens() == []

    def test_of_another_client_is_not_given_the_row(self, app: Application, alice):
        token = app.sign_in(alice)
        thief = OAuthToken("1000.ANOTHER", "secret", grant_token=token.get_grant_token())
        with pytest.raises(SDKException, match="invalid_client"):
            app.initialize(thief)
        assert (thief.get_refresh_token(), thief.get_access_token()) == (None, None)
        assert fields(app.only_row()) == fields(token)

    def test_signs_in_when_zoho_answers_again(self, app: Application, zoho: ZohoSimulator, alice):
        token = app.token_for(alice)
        zoho.fail_token_requests()
        with pytest.raises(SDKException):
            app.initialize(token)
        app.initialize(token)
        assert app.only_row().get_user_signature().get_name() == alice.name


class TestRefreshFlow:
    def test_stores_one_complete_row(self, app: Application, zoho: ZohoSimulator, alice):
        refresh_token = zoho.authorize(alice)
        token = app.initialize(app.token_for(alice, refresh_token=refresh_token))
        row = app.only_row()
        assert fields(row) == fields(token)
        assert row.get_refresh_token() == refresh_token
        assert row.get_user_signature().get_name() == alice.name
        assert app.kinds() == ["refresh", *WHO_IT_IS]

    def test_again_uses_the_stored_access_token(self, app: Application, zoho: ZohoSimulator, alice):
        refresh_token = zoho.authorize(alice)
        first = app.initialize(app.token(refresh_token=refresh_token))
        zoho.clear_calls()
        second = app.initialize(app.token(refresh_token=refresh_token))
        assert second.get_id() == first.get_id()
        assert lead_names() == list(alice.leads)
        assert app.kinds() == ["fields", "leads"]


class TestIdFlow:
    def test_needs_nothing_but_the_id(self, app: Application, alice):
        id = app.sign_in(alice).get_id()
        token = app.initialize(OAuthToken(id=id))
        assert lead_names() == list(alice.leads)
        domain = {"api_domain": app.zoho.url}  # the SDK leaves it out of the caller's object
        assert fields(token) | domain == fields(app.only_row())
        assert app.kinds() == ["fields", "leads"]

    def test_finds_the_row_of_that_id_among_several(self, app: Application, alice, bob):
        ids = {user: app.sign_in(user).get_id() for user in (alice, bob)}
        for user in (alice, bob):
            app.initialize(OAuthToken(id=ids[user]))
            assert (current_email(), lead_names()) == (user.email, list(user.leads))

    def test_of_an_unknown_id_is_an_error_and_stores_nothing(self, app: Application, alice):
        app.sign_in(alice)
        with pytest.raises(SDKException, match=UNKNOWN_ID):
            app.initialize(OAuthToken(id="4711"))
        assert app.only_row().get_user_signature().get_name() == alice.name


class TestUserFlow:
    def test_needs_nothing_but_the_user(self, app: Application, alice, bob):
        for user in (alice, bob):
            app.sign_in(user)
        for user in (alice, bob):
            app.initialize(OAuthToken(user_signature=UserSignature(user.name)))
            assert (current_email(), lead_names()) == (user.email, list(user.leads))
        assert app.kinds() == ["users", "fields", "leads"] * 2

    def test_of_an_unknown_user_asks_for_what_is_missing(self, app: Application, zoho, alice):
        app.sign_in(alice)
        with pytest.raises(SDKException, match="user_name token details not found"):
            app.initialize(OAuthToken(user_signature=UserSignature("mallory@example.com:7001")))
        assert app.kinds() == []

    def test_with_a_grant_signs_in_without_asking_who_it_is(self, app: Application, zoho, alice):
        signature = UserSignature(alice.name)
        app.initialize(app.token(grant_token=zoho.grant(alice), user_signature=signature))
        assert app.only_row().get_user_signature().get_name() == alice.name
        assert app.kinds() == ["grant"]


class TestAccessTokenFlow:
    @pytest.fixture
    def access_token(self, zoho: ZohoSimulator, app: Application, alice: SimulatedUser) -> str:
        """An access token from elsewhere, of which the store knows nothing."""
        return app.access_token(zoho.authorize(alice))

    @pytest.fixture(autouse=True)
    def initialized(self, app: Application, bob: SimulatedUser) -> None:
        """The SDK's own refresh wants an initialized SDK; bob's row is also there to be found."""
        app.sign_in(bob)

    @differs(NO_FIND_USER)
    def test_stores_the_token_with_its_user(self, app: Application, access_token, alice):
        token = app.initialize(OAuthToken(access_token=access_token))
        row = app.row(token.get_id())
        assert row.get_access_token() == access_token
        assert row.get_user_signature().get_name() == alice.name
        assert (row.get_expires_in(), row.get_refresh_token()) == (None, None)
        assert app.kinds() == ["users", "org"]

    def test_again_finds_the_row(self, app: Application, zoho, access_token, alice):
        first = app.initialize(OAuthToken(access_token=access_token))
        zoho.clear_calls()
        second = app.initialize(OAuthToken(access_token=access_token))
        assert second.get_id() == first.get_id()
        assert lead_names() == list(alice.leads)
        assert app.kinds() == ["fields", "leads"]

    def test_without_its_user_has_a_row_too(self, app: Application, access_token, alice):
        token = app.initialize(OAuthToken(access_token=access_token, **WITHOUT_USER))
        assert app.row(token.get_id()).get_user_signature() is None
        again = app.initialize(OAuthToken(access_token=access_token, **WITHOUT_USER))
        assert again.get_id() == token.get_id()
        assert app.kinds() == []
        assert lead_names() == list(alice.leads)

    @differs(NO_FIND_USER)
    def test_of_a_known_user_joins_the_row(self, app: Application, alice):
        signed_in = app.sign_in(alice)
        access_token = app.access_token(signed_in.get_refresh_token())
        joined = app.initialize(OAuthToken(access_token=access_token))
        assert joined.get_id() == signed_in.get_id()
        row = app.row(joined.get_id())
        assert row.get_access_token() == access_token
        assert row.get_refresh_token() == signed_in.get_refresh_token()


class TestWithoutFindUser:
    def test_nobody_asks_who_it_is(self, app: Application, zoho: ZohoSimulator, alice):
        app.initialize(app.token(grant_token=zoho.grant(alice), **WITHOUT_USER))
        assert app.only_row().get_user_signature() is None
        assert lead_names() == list(alice.leads)
        assert app.kinds() == ["grant", "fields", "leads"]

    def test_the_spent_grant_finds_the_row(self, app: Application, zoho: ZohoSimulator, alice):
        grant = zoho.grant(alice)
        first = app.initialize(app.token(grant_token=grant, **WITHOUT_USER))
        second = app.initialize(app.token(grant_token=grant, **WITHOUT_USER))
        assert second.get_id() == first.get_id()
        assert app.kinds() == ["grant"]

    def test_a_refresh_updates_the_row(self, app: Application, zoho: ZohoSimulator, alice):
        token = app.initialize(app.token(grant_token=zoho.grant(alice), **WITHOUT_USER))
        app.expire(token.get_id())
        refreshed = app.initialize(OAuthToken(id=token.get_id(), **WITHOUT_USER))
        row = app.only_row()
        assert row.get_access_token() == refreshed.get_token() != token.get_access_token()
        assert app.kinds() == ["grant", "refresh"]

    def test_several_users_have_a_row_each(self, app: Application, zoho: ZohoSimulator, alice, bob):
        tokens = [
            app.initialize(app.token(grant_token=zoho.grant(user), **WITHOUT_USER))
            for user in (alice, bob)
        ]
        assert len({token.get_id() for token in tokens}) == len(app.store.get_tokens()) == 2

    def test_the_row_learns_its_user_later(self, app: Application, zoho: ZohoSimulator, alice):
        grant = zoho.grant(alice)
        first = app.initialize(app.token(grant_token=grant, **WITHOUT_USER))
        app.expire(first.get_id())
        app.initialize(app.token_for(alice, grant_token=grant))
        row = app.only_row()
        assert row.get_id() == first.get_id()
        assert row.get_user_signature().get_name() == alice.name


def credentials(zoho: ZohoSimulator) -> tuple[str, str]:
    return zoho.client_id, zoho.client_secret


def fields(token: OAuthToken) -> dict[str, Any]:
    """All that a token says of itself."""
    signature = token.get_user_signature()
    return {
        "id": token.get_id(),
        "user_name": signature and signature.get_name(),
        "client_id": token.get_client_id(),
        "client_secret": token.get_client_secret(),
        "refresh_token": token.get_refresh_token(),
        "access_token": token.get_access_token(),
        "grant_token": token.get_grant_token(),
        "expires_in": token.get_expires_in(),
        "redirect_url": token.get_redirect_url(),
        "api_domain": token.get_api_domain(),
    }
