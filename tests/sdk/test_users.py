"""Many users in one application, through the real SDK: switch_user, and threads of their own."""

from __future__ import annotations

from typing import Any

import pytest
from zohocrmsdk.src.com.zoho.api.authenticator.oauth_token import OAuthToken
from zohocrmsdk.src.com.zoho.crm.api.initializer import Initializer
from zohocrmsdk.src.com.zoho.crm.api.user_signature import UserSignature

from tests.sdk.conftest import WHO_IT_IS, Application, at_once, current_email, lead_names
from zoho_token_orm.testing.simulator import SimulatedUser, ZohoSimulator


@pytest.fixture
def dozen(zoho: ZohoSimulator) -> list[SimulatedUser]:
    return [
        zoho.add_user(f"user{number}@example.com", str(7001 + number % 2), (f"Lead {number}",))
        for number in range(12)
    ]


@pytest.fixture
def signed_in(app: Application, dozen: list[SimulatedUser]) -> dict[SimulatedUser, OAuthToken]:
    """The tokens of a dozen users: the first one's by initialize, the others' by switch_user."""
    first, *others = dozen
    tokens = {first: app.initialize(app.token_for(first))}
    for user in others:
        tokens[user] = app.token_for(user)
        Initializer.switch_user(token=tokens[user])
    return tokens


class TestSwitchUser:
    def test_signs_a_dozen_users_in(self, app: Application, signed_in, dozen):
        assert app.kinds() == ["grant", *WHO_IT_IS] * 12
        assert [name(row) for row in app.store.get_tokens()] == [user.name for user in dozen]
        assert len({token.get_id() for token in signed_in.values()}) == 12

    def test_goes_back_and_forth_without_asking_again(self, app: Application, signed_in, dozen):
        app.zoho.clear_calls()
        for user in [*dozen, *reversed(dozen)]:
            Initializer.switch_user(token=signed_in[user])
            assert current_email() == user.email
        assert app.kinds() == ["users"] * 24

    @pytest.mark.parametrize("way", ["id", "user", "grant", "refresh"])
    def test_finds_each_user(self, app: Application, signed_in, way):
        app.zoho.clear_calls()
        for user, token in signed_in.items():
            Initializer.switch_user(token=named(app, token, way))
            assert (current_email(), lead_names()) == (user.email, list(user.leads))
        assert app.kinds() == ["users", "fields", "leads"] * 12

    def test_goes_through_every_token_of_the_store(self, app: Application, signed_in, dozen):
        app.zoho.clear_calls()
        seen = []
        for token in app.store.get_tokens():
            Initializer.switch_user(token=token)
            seen.append((current_email(), lead_names()))
        assert seen == [(user.email, list(user.leads)) for user in dozen]
        assert app.kinds() == ["users", "fields", "leads"] * 12

    def test_goes_through_every_expired_token_of_the_store(self, app, signed_in, dozen):
        for token in signed_in.values():
            app.expire(token.get_id())
        app.zoho.clear_calls()
        for user, token in zip(dozen, app.store.get_tokens(), strict=True):
            Initializer.switch_user(token=token)
            assert current_email() == user.email
        assert app.kinds() == ["refresh", "users"] * 12
        assert [name(row) for row in app.store.get_tokens()] == [user.name for user in dozen]

    def test_keeps_users_apart_who_look_alike(self, app: Application, zoho: ZohoSimulator):
        people = [("ann", "7001"), ("ann", "7002"), ("Ann", "7001"), ("änn", "7001"), ("a'nn", "7")]
        users = [zoho.add_user(f"{person}@example.com", org_id) for person, org_id in people]
        ids = [app.sign_in(user).get_id() for user in users]
        for user, id in zip(users, ids, strict=True):
            token = OAuthToken(user_signature=UserSignature(user.name))
            Initializer.switch_user(token=token)
            assert (token.get_id(), current_email()) == (id, user.email)
        assert [row.get_id() for row in app.store.get_tokens()] == ids


class TestThreads:
    """Each has a user of its own, as the SDK's switch_user promises."""

    def test_read_each_their_own_users_records(self, app: Application, signed_in, dozen):
        ids = [signed_in[user].get_id() for user in dozen]
        app.zoho.clear_calls()

        def work(number: int) -> list[Any]:
            Initializer.switch_user(token=OAuthToken(id=ids[number]))
            return [current_email(), lead_names(), current_email()]

        answers = at_once(12, work)
        assert answers == [[user.email, list(user.leads), user.email] for user in dozen]
        assert app.zoho.count("refresh") == app.zoho.count("grant") == 0

    def test_sign_each_their_own_user_in(self, app: Application, alice, dozen):
        app.sign_in(alice)

        def work(number: int) -> list[Any]:
            Initializer.switch_user(token=app.token_for(dozen[number]))
            return [current_email(), lead_names()]

        assert at_once(12, work) == [[user.email, list(user.leads)] for user in dozen]
        names = {name(row) for row in app.store.get_tokens()}
        assert names == {user.name for user in [alice, *dozen]}
        assert app.zoho.count("grant") == 12

    def test_refresh_each_their_own_users_token(self, app: Application, signed_in, dozen):
        for token in signed_in.values():
            app.expire(token.get_id())
        app.zoho.clear_calls()

        def work(number: int) -> str:
            Initializer.switch_user(token=OAuthToken(user_signature=UserSignature(names[number])))
            return current_email()

        names = [user.name for user in dozen]
        assert at_once(12, work) == [user.email for user in dozen]
        assert [app.zoho.count("refresh", user) for user in dozen] == [1] * 12
        assert len(app.store.get_tokens()) == 12

    def test_that_share_an_expired_token_all_go_on(self, app: Application, alice, bob):
        app.sign_in(bob)
        signed_in = app.sign_in(alice)
        app.expire(signed_in.get_id())

        def work(number: int) -> list[Any]:
            Initializer.switch_user(token=OAuthToken(id=signed_in.get_id()))
            return [current_email(), lead_names()]

        assert at_once(6, work) == [[alice.email, list(alice.leads)]] * 6
        assert app.zoho.count("refresh") == 1
        row = app.row(signed_in.get_id())
        assert row.get_refresh_token() == signed_in.get_refresh_token()
        assert len(app.store.get_tokens()) == 2

    def test_that_sign_the_same_user_in_leave_one_row_that_works(self, app, alice, bob):
        app.sign_in(bob)

        def work(number: int) -> str:
            Initializer.switch_user(token=app.token_for(alice))
            return current_email()

        assert at_once(4, work) == [alice.email] * 4
        (row,) = (row for row in app.store.get_tokens() if name(row) == alice.name)
        app.expire(row.get_id())
        Initializer.switch_user(token=OAuthToken(id=row.get_id()))
        assert current_email() == alice.email


def named(app: Application, token: OAuthToken, way: str) -> OAuthToken:
    """A new token object that names the same row in another way."""
    if way == "id":
        return OAuthToken(id=token.get_id())
    if way == "user":
        return OAuthToken(user_signature=token.get_user_signature())
    if way == "grant":
        return app.token(grant_token=token.get_grant_token())
    return app.token(refresh_token=token.get_refresh_token())


def name(token: OAuthToken) -> str:
    return str(token.get_user_signature().get_name())
