"""Leaving and coming back, through the real SDK: remove, revoke, log-out, another consent."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext

import pytest
from zohocrmsdk.src.com.zoho.api.authenticator.oauth_token import OAuthToken
from zohocrmsdk.src.com.zoho.crm.api.exception import SDKException
from zohocrmsdk.src.com.zoho.crm.api.initializer import Initializer

from tests.sdk.conftest import (
    UNKNOWN_ID,
    WITHOUT_USER,
    Application,
    current_email,
    lead_names,
)
from tests.sdk.differences import CONSENT_IGNORED, NO_REVOKE, differs
from tests.support import SDK
from zoho_token_orm.testing.simulator import Call, SimulatedUser, ZohoSimulator


@pytest.fixture
def quiet_sdk(monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK's line about a failed save cannot be formatted, which fails any other test."""
    monkeypatch.setattr(logging.getLogger("SDKLogger"), "disabled", True)


class TestRemove:
    def test_deletes_that_row_and_no_other(self, app: Application, alice, bob):
        hers, his = app.sign_in(alice), app.sign_in(bob)
        assert hers.remove() is True
        assert app.only_row().get_id() == his.get_id()
        assert app.kinds() == []

    def test_works_by_id(self, app: Application, alice, bob):
        hers, his = app.sign_in(alice), app.sign_in(bob)
        assert OAuthToken(id=hers.get_id()).remove() is True
        assert app.only_row().get_id() == his.get_id()

    def test_without_an_id_fails_and_deletes_nothing(self, app: Application, alice):
        token = app.sign_in(alice)
        assert app.token(refresh_token=token.get_refresh_token()).remove() is False
        assert app.only_row().get_id() == token.get_id()

    def test_makes_the_next_start_ask_for_a_consent(self, app: Application, alice):
        token = app.sign_in(alice)
        grant, id = token.get_grant_token(), token.get_id()
        token.remove()
        for fields, error in (({"grant_token": grant}, "invalid_code"), ({"id": id}, UNKNOWN_ID)):
            with pytest.raises(SDKException, match=error):
                app.initialize(app.token(**fields))
        assert app.store.get_tokens() == []

    def test_lets_the_user_come_back(self, app: Application, alice):
        app.sign_in(alice).remove()
        token = app.sign_in(alice)
        assert app.only_row().get_id() == token.get_id()
        assert lead_names() == list(alice.leads)


@differs(NO_REVOKE)
class TestRevoke:
    @pytest.fixture
    def tokens(self, app: Application, alice, bob) -> dict[SimulatedUser, OAuthToken]:
        """Alice and bob have signed in; bob is the SDK's current user."""
        return {user: app.sign_in(user) for user in (alice, bob)}

    def test_concerns_the_user_of_that_id_only(self, app: Application, tokens, alice, bob):
        assert tokens[bob].revoke(tokens[alice].get_id()) is True
        assert app.zoho.calls == [Call("revoke", alice.name, 200)]
        assert current_email() == bob.email
        app.initialize(OAuthToken(id=tokens[alice].get_id()))
        assert current_email() == "INVALID_TOKEN"

    def test_of_any_row_revokes_that_row(self, app: Application, tokens):
        for user, token in tokens.items():
            app.zoho.clear_calls()
            assert token.revoke(token.get_id()) is True
            assert app.zoho.calls == [Call("revoke", user.name, 200)]

    def test_leaves_the_row_as_the_sdk_has_it(self, app: Application, tokens, alice):
        id = tokens[alice].get_id()
        tokens[alice].revoke(id)
        assert app.row(id).get_refresh_token() == tokens[alice].get_refresh_token()
        assert tokens[alice].remove() is True
        assert len(app.store.get_tokens()) == 1

    @pytest.mark.parametrize("id", ["4711", "1 or 1=1", "", "%"])
    def test_of_an_unknown_id_revokes_nobody(self, app: Application, tokens, bob, id):
        assert tokens[bob].revoke(id) is False
        assert app.kinds() == []


def test_a_refresh_token_is_revoked_where_an_id_cannot_be(app: Application, alice, bob):
    hers, _ = app.sign_in(alice), app.sign_in(bob)
    url = app.zoho.environment.accounts_url + "/revoke"
    refresh_token = app.row(hers.get_id()).get_refresh_token()
    assert OAuthToken.revoke_refresh_token(refresh_token, url) is True
    assert app.zoho.calls == [Call("revoke", alice.name, 200)]
    assert current_email() == bob.email


class TestAnotherConsent:
    @differs(CONSENT_IGNORED)
    def test_updates_the_users_row(self, app: Application, zoho: ZohoSimulator, alice, bob):
        app.sign_in(bob)
        old = app.sign_in(alice)
        new = app.sign_in(alice)
        row = app.row(old.get_id())
        assert new.get_id() == old.get_id()
        assert len(app.store.get_tokens()) == 2
        assert row.get_grant_token() == new.get_grant_token() != old.get_grant_token()
        assert row.get_refresh_token() == new.get_refresh_token() != old.get_refresh_token()
        assert row.get_access_token() == new.get_access_token()
        assert lead_names() == list(alice.leads)

    @differs(CONSENT_IGNORED)
    def test_with_a_refresh_token_updates_the_users_row(self, app: Application, zoho, alice):
        old = app.sign_in(alice)
        refresh_token = zoho.authorize(alice)
        new = app.initialize(app.token_for(alice, refresh_token=refresh_token))
        row = app.only_row()
        assert new.get_id() == row.get_id() == old.get_id()
        assert row.get_refresh_token() == refresh_token

    @differs(CONSENT_IGNORED)
    def test_goes_on_where_the_old_tokens_were_revoked(self, app: Application, zoho, alice):
        old = app.sign_in(alice)
        zoho.revoke(alice)
        app.expire(old.get_id())
        with pytest.raises(SDKException, match="invalid_code"):
            app.initialize(OAuthToken(id=old.get_id()))
        app.sign_in(alice)
        assert app.only_row().get_id() == old.get_id()
        assert lead_names() == list(alice.leads)

    def test_more_often_than_zoho_keeps_refresh_tokens_leaves_one_that_works(
        self, app: Application, zoho: ZohoSimulator, alice
    ):
        zoho.refresh_token_limit = 2
        for _ in range(4):
            app.sign_in(alice)
        app.expire(app.only_row().get_id())
        assert lead_names() == list(alice.leads)
        assert app.kinds() == ["refresh", "fields", "leads"]

    @differs(CONSENT_IGNORED)
    def test_without_knowing_the_user_becomes_one_row_when_the_user_is_known(
        self, app: Application, zoho: ZohoSimulator, alice
    ):
        app.sign_in(alice)
        grant = zoho.grant(alice)
        stranger = app.initialize(app.token(grant_token=grant, **WITHOUT_USER))
        assert len(app.store.get_tokens()) == 2
        app.expire(stranger.get_id())
        app.initialize(app.token_for(alice, grant_token=grant))
        row = app.only_row()
        assert row.get_id() == stranger.get_id()
        assert row.get_refresh_token() == stranger.get_refresh_token()
        assert row.get_user_signature().get_name() == alice.name


class TestLogOut:
    """In an application that goes on with the token that it has in memory."""

    @pytest.fixture(params=["id", "user", "grant", "refresh"])
    def token(self, request, app: Application, alice: SimulatedUser) -> OAuthToken:
        """A token, named in some way, that the SDK refreshes before every call."""
        app.zoho.access_token_lifetime = 1
        signed_in = app.sign_in(alice)
        return {
            "id": OAuthToken(id=signed_in.get_id()),
            "user": OAuthToken(user_signature=signed_in.get_user_signature()),
            "grant": app.token(grant_token=signed_in.get_grant_token()),
            "refresh": app.token(refresh_token=signed_in.get_refresh_token()),
        }[request.param]

    def test_stays_one(self, app: Application, token: OAuthToken, alice, quiet_sdk):
        Initializer.switch_user(token=token)
        app.store.delete_token(app.only_row().get_id())
        with nullcontext() if SDK == 8 else pytest.raises(SDKException, match=UNKNOWN_ID):
            assert current_email() == alice.email  # Zoho knows nothing of it
        assert app.store.get_tokens() == []


@pytest.mark.usefixtures("quiet_sdk")
class TestLogOutWhileARefreshIsUnderWay:
    @pytest.fixture(params=["id", "user", "refresh"])
    def token(self, request, app: Application, alice: SimulatedUser, bob) -> OAuthToken:
        """A token, named in some way, that the SDK has to refresh; bob's row stays as it is."""
        app.sign_in(bob)
        signed_in = app.sign_in(alice)
        app.expire(signed_in.get_id())
        return {
            "id": OAuthToken(id=signed_in.get_id()),
            "user": OAuthToken(user_signature=signed_in.get_user_signature()),
            "refresh": app.token(refresh_token=signed_in.get_refresh_token()),
        }[request.param]

    @staticmethod
    def log_out(app: Application, user: SimulatedUser, token: OAuthToken) -> OAuthToken:
        """Deletes the row after Zoho was asked and before it answers; the row as it was."""
        rows = app.store.get_tokens()
        (row,) = (row for row in rows if row.get_user_signature().get_name() == user.name)
        with ThreadPoolExecutor(1) as pool:
            with app.zoho.hold("refresh") as held:
                switched = pool.submit(Initializer.switch_user, token=token)
                held.wait_for(1)
                assert OAuthToken(id=row.get_id()).remove() is True
            with pytest.raises(SDKException, match="deleted") if SDK == 5 else nullcontext():
                switched.result(timeout=60)
        return row

    def test_does_not_put_the_row_back(self, app: Application, token: OAuthToken, alice, bob):
        self.log_out(app, alice, token)
        assert app.only_row().get_user_signature().get_name() == bob.name
        assert app.kinds() == ["refresh"]

    def test_is_logged_without_a_secret(self, app: Application, token: OAuthToken, alice, caplog):
        with caplog.at_level(logging.DEBUG, logger="zoho_token_orm"):
            row = self.log_out(app, alice, token)
        (record,) = (record for record in caplog.records if record.name == "zoho_token_orm")
        text = f"{record.getMessage()} {record.args!r}"
        assert (record.levelname, "has been deleted" in text) == ("ERROR", True)
        assert "1000." not in text  # as every token of Zoho's begins, the new one too
        assert row.get_client_secret() not in text

    def test_lets_the_user_sign_in_again(self, app: Application, token: OAuthToken, alice):
        row = self.log_out(app, alice, token)
        again = app.sign_in(alice)
        assert len(app.store.get_tokens()) == 2
        assert again.get_id() != row.get_id()
        assert lead_names() == list(alice.leads)
