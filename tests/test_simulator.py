"""The Zoho simulator keeps Zoho's rules, asked by plain HTTP and by the real SDK."""

from __future__ import annotations

import gc
import http.client
import itertools
import re
import socket
import struct
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
from zohocrmsdk.src.com.zoho.api.authenticator.oauth_token import OAuthToken
from zohocrmsdk.src.com.zoho.api.authenticator.store import FileStore
from zohocrmsdk.src.com.zoho.crm.api.exception import SDKException
from zohocrmsdk.src.com.zoho.crm.api.sdk_config import SDKConfig

from tests.sdk.conftest import Application, at_once, current_email, fresh_sdk, lead_names
from zoho_token_orm.testing.simulator import Call, SimulatedUser, ZohoSimulator

__all__ = ["fresh_sdk"]  # an autouse fixture: pytest finds it here by its name

TOKEN = re.compile(r"1000\.[0-9a-f]{32}\.[0-9a-f]{32}")
THROTTLED = "Access Denied"
TIMEOUT = 30.0  # seconds; an answer that never comes fails its test


class Client:
    """An application of Zoho's, by plain HTTP."""

    def __init__(self, zoho: ZohoSimulator) -> None:
        self.zoho = zoho

    def token(self, **form: str) -> requests.Response:
        credentials = {"client_id": self.zoho.client_id, "client_secret": self.zoho.client_secret}
        return self.post("/oauth/v2/token", data=credentials | form)

    def exchange(self, grant: str, **form: str) -> dict[str, Any]:
        return self.token(grant_type="authorization_code", code=grant, **form).json()

    def refresh(self, refresh_token: str, **form: str) -> dict[str, Any]:
        return self.token(grant_type="refresh_token", refresh_token=refresh_token, **form).json()

    def revoke(self, token: str) -> requests.Response:
        return self.post("/oauth/v2/token/revoke", data={"token": token})

    def crm(self, path: str, access_token: str) -> requests.Response:
        headers = {"Authorization": f"Zoho-oauthtoken {access_token}"}
        return self.get(f"/crm/v8/{path}", headers=headers)

    def get(self, path: str, **more: Any) -> requests.Response:
        return requests.get(self.zoho.url + path, timeout=TIMEOUT, **more)

    def post(self, path: str, **more: Any) -> requests.Response:
        return requests.post(self.zoho.url + path, timeout=TIMEOUT, **more)

    def accepted(self, access_token: str) -> bool:
        return self.crm("org", access_token).status_code == 200


@pytest.fixture
def zoho() -> Iterator[ZohoSimulator]:
    with ZohoSimulator() as running:
        yield running


@pytest.fixture
def client(zoho: ZohoSimulator) -> Client:
    return Client(zoho)


@pytest.fixture
def alice(zoho: ZohoSimulator) -> SimulatedUser:
    return zoho.add_user("alice@example.com", org_id="7001", leads=("Anders", "Ash"))


@pytest.fixture
def bob(zoho: ZohoSimulator) -> SimulatedUser:
    return zoho.add_user("bob@example.com", org_id="7002", leads=("Brandt",))


class TestGrantToken:
    def test_is_exchanged_for_a_refresh_and_an_access_token(self, zoho, client, alice):
        grant = zoho.grant(alice)
        answer = client.exchange(grant)
        texts = {grant, answer.pop("refresh_token"), answer.pop("access_token")}
        assert all(TOKEN.fullmatch(text) for text in texts)
        assert len(texts) == 3
        assert "ZohoCRM.modules.ALL" in answer.pop("scope")
        assert answer == {"api_domain": zoho.url, "token_type": "Bearer", "expires_in": 3600}

    def test_is_spent_once(self, zoho, client, alice):
        grant = zoho.grant(alice)
        client.exchange(grant)
        assert client.exchange(grant) == {"error": "invalid_code"}

    def test_is_spent_once_by_many_at_the_same_time(self, zoho, client, alice):
        grant = zoho.grant(alice)
        answers = at_once(8, lambda number: client.exchange(grant))
        assert sorted("access_token" in answer for answer in answers) == [False] * 7 + [True]

    def test_runs_out(self, zoho, client, alice):
        early, late = zoho.grant(alice), zoho.grant(alice)
        zoho.advance(zoho.grant_lifetime - 1)
        assert "access_token" in client.exchange(early)
        zoho.advance(1)
        assert client.exchange(late) == {"error": "invalid_code"}

    @pytest.mark.parametrize("wrong", ["client_id", "client_secret"])
    def test_is_not_spent_by_another_client(self, zoho, client, alice, wrong):
        grant = zoho.grant(alice)
        assert client.exchange(grant, **{wrong: "wrong"}) == {"error": "invalid_client"}
        assert "access_token" in client.exchange(grant)

    def test_needs_the_registered_redirect_uri(self, zoho, client, alice):
        zoho.redirect_uri = "https://app.example.com/callback"
        grant = zoho.grant(alice)
        assert client.exchange(grant) == {"error": "invalid_redirect_uri"}
        wrong = client.exchange(grant, redirect_uri="https://other.example.com")
        assert wrong == {"error": "invalid_redirect_uri"}
        assert "access_token" in client.exchange(grant, redirect_uri=zoho.redirect_uri)

    def test_of_nobody_is_an_invalid_code(self, client):
        answer = client.token(grant_type="authorization_code", code="1000.no.grant")
        assert (answer.status_code, answer.json()) == (200, {"error": "invalid_code"})

    def test_is_given_for_users_of_this_simulator_only(self, zoho):
        with pytest.raises(ValueError, match=r"mallory@example\.com:7001 is no user"):
            zoho.grant(SimulatedUser("mallory@example.com"))


class TestRefresh:
    def test_gives_another_access_token_and_keeps_the_refresh_token(self, zoho, client, alice):
        first = client.exchange(zoho.grant(alice))
        second = client.refresh(first["refresh_token"])
        assert "refresh_token" not in second
        assert second["access_token"] != first["access_token"]
        assert client.accepted(first["access_token"])
        assert client.accepted(second["access_token"])

    def test_announces_the_lifetime_that_the_test_sets(self, zoho, client, alice):
        zoho.access_token_lifetime = 7
        assert client.refresh(zoho.authorize(alice))["expires_in"] == 7

    def test_of_an_unknown_token_is_an_invalid_code(self, client):
        assert client.refresh("1000.not.there") == {"error": "invalid_code"}

    @pytest.mark.parametrize("wrong", ["client_id", "client_secret"])
    def test_by_another_client_is_refused(self, zoho, client, alice, wrong):
        answer = client.refresh(zoho.authorize(alice), **{wrong: "wrong"})
        assert answer == {"error": "invalid_client"}

    def test_with_a_grant_type_that_zoho_does_not_know_is_refused(self, client):
        assert client.token(grant_type="password").json() == {"error": "unsupported_grant_type"}


class TestThrottle:
    def test_denies_the_eleventh_access_token_of_the_window(self, zoho, client, alice):
        refresh_token = zoho.authorize(alice)
        assert all("access_token" in client.refresh(refresh_token) for _ in range(10))
        answer = client.token(grant_type="refresh_token", refresh_token=refresh_token)
        assert answer.status_code == 400
        assert answer.json()["error"] == THROTTLED
        assert answer.json()["status"] == "failure"

    def test_ends_with_the_window_of_its_first_refresh(self, zoho, client, alice):
        refresh_token = zoho.authorize(alice)
        client.refresh(refresh_token)
        zoho.advance(zoho.throttle_window - 1)
        assert all("access_token" in client.refresh(refresh_token) for _ in range(9))
        assert client.refresh(refresh_token)["error"] == THROTTLED
        zoho.advance(1)
        assert all("access_token" in client.refresh(refresh_token) for _ in range(10))
        assert client.refresh(refresh_token)["error"] == THROTTLED

    def test_concerns_one_refresh_token(self, zoho, client, alice):
        zoho.throttle_limit = 1
        first, second = zoho.authorize(alice), zoho.authorize(alice)
        client.refresh(first)
        assert client.refresh(first)["error"] == THROTTLED
        assert "access_token" in client.refresh(second)

    def test_counts_exactly_when_many_refresh_at_once(self, zoho, client, alice):
        refresh_token = zoho.authorize(alice)
        answers = at_once(16, lambda number: client.refresh(refresh_token))
        assert sum("access_token" in answer for answer in answers) == 10

    def test_does_not_count_the_exchange_of_the_grant(self, zoho, client, alice):
        zoho.throttle_limit = 1
        refresh_token = client.exchange(zoho.grant(alice))["refresh_token"]
        assert "access_token" in client.refresh(refresh_token)


class TestCaps:
    def test_the_twenty_first_refresh_token_kills_the_first_with_its_access_tokens(
        self, zoho, client, alice
    ):
        first, second = (client.exchange(zoho.grant(alice)) for _ in range(2))
        for _ in range(18):
            zoho.authorize(alice)
        assert "access_token" in client.refresh(first["refresh_token"])
        zoho.authorize(alice)
        assert client.refresh(first["refresh_token"]) == {"error": "invalid_code"}
        assert not client.accepted(first["access_token"])
        assert "access_token" in client.refresh(second["refresh_token"])
        assert client.accepted(second["access_token"])

    def test_of_refresh_tokens_counts_each_user_apart(self, zoho, client, alice, bob):
        zoho.refresh_token_limit = 1
        tokens = zoho.authorize(alice), zoho.authorize(bob)
        assert all("access_token" in client.refresh(token) for token in tokens)

    def test_of_refresh_tokens_counts_the_living(self, zoho, client, alice):
        zoho.refresh_token_limit = 2
        first, second = zoho.authorize(alice), zoho.authorize(alice)
        client.revoke(second)
        zoho.authorize(alice)
        assert "access_token" in client.refresh(first)

    def test_the_oldest_access_token_dies_when_there_are_too_many(self, zoho, client, alice):
        zoho.access_token_limit = 3
        refresh_token = zoho.authorize(alice)
        made = [client.refresh(refresh_token)["access_token"] for _ in range(5)]
        assert [client.accepted(token) for token in made] == [False, False, True, True, True]


class TestRevoke:
    @pytest.mark.parametrize("where", ["data", "params"])
    def test_kills_the_refresh_token_and_its_access_tokens(self, zoho, client, alice, where):
        token, other = (client.exchange(zoho.grant(alice)) for _ in range(2))
        form = {"token": token["refresh_token"]}
        answer = client.post("/oauth/v2/token/revoke", **{where: form})
        assert (answer.status_code, answer.json()) == (200, {"status": "success"})
        assert client.refresh(token["refresh_token"]) == {"error": "invalid_code"}
        assert not client.accepted(token["access_token"])
        assert client.accepted(other["access_token"])

    def test_of_a_dead_or_unknown_token_fails(self, zoho, client, alice):
        refresh_token = zoho.authorize(alice)
        client.revoke(refresh_token)
        for dead in (refresh_token, "1000.not.there", ""):
            answer = client.revoke(dead)
            assert (answer.status_code, answer.json()) == (400, {"error": "invalid_token"})

    def test_of_an_access_token_kills_that_one(self, zoho, client, alice):
        token = client.exchange(zoho.grant(alice))
        assert client.revoke(token["access_token"]).json() == {"status": "success"}
        assert not client.accepted(token["access_token"])
        assert "access_token" in client.refresh(token["refresh_token"])

    def test_by_the_user_kills_all_of_that_users_tokens(self, zoho, client, alice, bob):
        hers = [client.exchange(zoho.grant(alice)) for _ in range(2)]
        his = client.exchange(zoho.grant(bob))
        zoho.revoke(alice)
        assert not any(client.accepted(token["access_token"]) for token in hers)
        assert client.refresh(hers[1]["refresh_token"]) == {"error": "invalid_code"}
        assert client.accepted(his["access_token"])


class TestCRM:
    def test_answers_each_user_with_their_own(self, zoho, client, alice, bob):
        for user in (alice, bob):
            access_token = client.refresh(zoho.authorize(user))["access_token"]
            people = client.crm("users?type=CurrentUser", access_token).json()["users"]
            assert [person["email"] for person in people] == [user.email]
            assert client.crm("org", access_token).json()["org"][0]["zgid"] == user.org_id
            leads = client.crm("Leads?fields=Last_Name", access_token).json()["data"]
            assert tuple(lead["Last_Name"] for lead in leads) == user.leads

    def test_has_no_content_where_there_are_no_leads(self, zoho, client):
        carol = zoho.add_user("carol@example.com", leads=())
        access_token = client.refresh(zoho.authorize(carol))["access_token"]
        answer = client.crm("Leads", access_token)
        assert (answer.status_code, answer.content) == (204, b"")

    def test_describes_the_module_to_the_sdk(self, zoho, client, alice):
        access_token = client.refresh(zoho.authorize(alice))["access_token"]
        modules = client.crm("settings/modules", access_token).json()["modules"]
        assert [module["api_name"] for module in modules] == ["Leads"]
        fields = client.crm("settings/fields?module=Leads", access_token).json()["fields"]
        assert "Last_Name" in [one["api_name"] for one in fields]

    @pytest.mark.parametrize("path", ["users?type=CurrentUser", "org", "Leads"])
    @pytest.mark.parametrize("header", [None, "Basic abc", "Zoho-oauthtoken 1000.not.there"])
    def test_refuses_whoever_has_no_valid_token(self, client, path, header):
        answer = client.get(f"/crm/v8/{path}", headers={"Authorization": header})
        assert answer.status_code == 401
        assert answer.json() == {
            "code": "INVALID_TOKEN",
            "details": {},
            "message": "invalid oauth token",
            "status": "error",
        }

    def test_accepts_an_access_token_until_its_lifetime_ends(self, zoho, client, alice):
        access_token = client.refresh(zoho.authorize(alice))["access_token"]
        zoho.advance(3599)
        assert client.accepted(access_token)
        zoho.advance(1)
        assert not client.accepted(access_token)

    def test_accepts_a_short_lived_token_while_its_clock_stands(self, zoho, client, alice):
        zoho.access_token_lifetime = 1
        access_token = client.refresh(zoho.authorize(alice))["access_token"]
        assert client.accepted(access_token)

    def test_stops_accepting_one_users_tokens_at_the_tests_command(self, zoho, client, alice, bob):
        hers, his = (client.exchange(zoho.grant(user)) for user in (alice, bob))
        zoho.expire_access_tokens(alice)
        assert not client.accepted(hers["access_token"])
        assert client.accepted(his["access_token"])
        assert client.accepted(client.refresh(hers["refresh_token"])["access_token"])

    def test_stops_accepting_all_tokens_at_the_tests_command(self, zoho, client, alice, bob):
        tokens = [client.exchange(zoho.grant(user))["access_token"] for user in (alice, bob)]
        zoho.expire_access_tokens()
        assert not any(client.accepted(token) for token in tokens)

    @pytest.mark.parametrize(
        ("method", "path"),
        [
            ("GET", "/"),
            ("GET", "/crm/v8/Nothing"),
            ("GET", "/crm/v4/users"),
            ("GET", "/crm/users"),
            ("GET", "/oauth/v2/token"),
            ("POST", "/crm/v8/users"),
            ("PUT", "/crm/v8/Leads"),
            ("PATCH", "/crm/v8/Leads"),
            ("DELETE", "/crm/v8/Leads"),
        ],
    )
    def test_knows_no_other_address(self, zoho, method, path):
        answer = requests.request(method, zoho.url + path, timeout=TIMEOUT)
        assert answer.status_code == 404
        assert answer.json()["code"] == "INVALID_URL_PATTERN"


class TestClock:
    def test_can_be_a_real_one(self, alice):
        seconds = itertools.count(step=3600)
        with ZohoSimulator(clock=lambda: float(next(seconds))) as zoho:
            client = Client(zoho)
            refresh_token = zoho.authorize(zoho.add_user(alice.email))
            assert not client.accepted(client.refresh(refresh_token)["access_token"])


class TestFaults:
    def test_fail_as_many_token_requests_as_asked_for(self, zoho, client, alice):
        refresh_token = zoho.authorize(alice)
        zoho.fail_token_requests(2)
        for _ in range(2):
            answer = client.token(grant_type="refresh_token", refresh_token=refresh_token)
            assert answer.status_code == 500
            assert answer.headers["Content-Type"].startswith("text/html")
        assert "access_token" in client.refresh(refresh_token)

    def test_can_be_an_error_of_zohos(self, zoho, client, alice):
        zoho.fail_token_requests(status=400, error=THROTTLED)
        answer = client.token(grant_type="refresh_token", refresh_token=zoho.authorize(alice))
        assert (answer.status_code, answer.json()) == (400, {"error": THROTTLED})

    def test_happen_before_anything_is_done(self, zoho, client, alice):
        grant = zoho.grant(alice)
        zoho.fail_token_requests(error="general_error")
        assert client.exchange(grant) == {"error": "general_error"}
        assert "access_token" in client.exchange(grant)

    def test_leave_the_crm_alone(self, zoho, client, alice):
        access_token = client.refresh(zoho.authorize(alice))["access_token"]
        zoho.fail_token_requests()
        assert client.accepted(access_token)
        assert client.revoke(access_token).status_code == 500


class TestHold:
    def test_keeps_an_answer_until_its_release(self, zoho, client, alice):
        refresh_token = zoho.authorize(alice)
        with ThreadPoolExecutor(1) as pool, zoho.hold("refresh") as held:
            answer = pool.submit(client.refresh, refresh_token)
            held.wait_for(1)
            assert not answer.done()
            assert zoho.count("refresh") == 1
            held.release()
            assert "access_token" in answer.result(timeout=TIMEOUT)

    def test_ends_with_its_block(self, zoho, client, alice):
        refresh_token = zoho.authorize(alice)
        with ThreadPoolExecutor(1) as pool:
            with zoho.hold("refresh") as held:
                answer = pool.submit(client.refresh, refresh_token)
                held.wait_for(1)
            assert "access_token" in answer.result(timeout=TIMEOUT)
        assert "access_token" in client.refresh(refresh_token)
        assert held.held == 1

    def test_concerns_one_kind_of_call(self, zoho, client, alice):
        with zoho.hold("refresh"):
            access_token = client.exchange(zoho.grant(alice))["access_token"]
            assert client.accepted(access_token)

    def test_can_concern_one_user(self, zoho, client, alice, bob):
        tokens = {user: zoho.authorize(user) for user in (alice, bob)}
        with ThreadPoolExecutor(1) as pool, zoho.hold("refresh", alice) as held:
            hers = pool.submit(client.refresh, tokens[alice])
            held.wait_for(1)
            assert "access_token" in client.refresh(tokens[bob])
            assert not hers.done()
            held.release()

    def test_gathers_as_many_as_the_test_waits_for(self, zoho, client, alice):
        refresh_token = zoho.authorize(alice)
        with ThreadPoolExecutor(4) as pool, zoho.hold("refresh") as held:
            answers = [pool.submit(client.refresh, refresh_token) for _ in range(4)]
            held.wait_for(4)
            assert not any(answer.done() for answer in answers)
            held.release()
            assert all("access_token" in answer.result(timeout=TIMEOUT) for answer in answers)

    def test_says_how_many_came_when_too_few_did(self, zoho):
        with (
            zoho.hold("refresh") as held,
            pytest.raises(TimeoutError, match="0 of 1 refresh calls"),
        ):
            held.wait_for(1, timeout=0)

    def test_ends_with_the_simulator(self, zoho, client, alice):
        refresh_token = zoho.authorize(alice)
        held = zoho.hold("refresh")
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(client.refresh, refresh_token)
            held.wait_for(1)
            zoho.stop()
            error = answer.exception(timeout=TIMEOUT)
        assert error is None or isinstance(error, requests.ConnectionError)
        assert simulator_threads() == []

    def test_of_an_unknown_kind_is_an_error(self, zoho):
        with pytest.raises(ValueError, match="no kind of call: 'refersh'"):
            zoho.hold("refersh")


class TestRecord:
    def test_tells_what_was_asked_by_whom_and_how_it_went(self, zoho, client, alice, bob):
        grant = zoho.grant(alice)
        token = client.exchange(grant)
        client.exchange(grant)
        client.crm("Leads", client.refresh(zoho.authorize(bob))["access_token"])
        client.revoke(token["refresh_token"])
        client.crm("org", token["access_token"])
        client.crm("users", "1000.not.there")
        client.get("/")
        assert zoho.calls == [
            Call("grant", "alice@example.com:7001", 200),
            Call("grant", "alice@example.com:7001", 200, "invalid_code"),
            Call("refresh", "bob@example.com:7002", 200),
            Call("leads", "bob@example.com:7002", 200),
            Call("revoke", "alice@example.com:7001", 200),
            Call("org", "alice@example.com:7001", 401, "INVALID_TOKEN"),
            Call("users", None, 401, "INVALID_TOKEN"),
            Call("other", None, 404, "INVALID_URL_PATTERN"),
        ]

    def test_counts_by_kind_and_user(self, zoho, client, alice, bob):
        for user in (alice, alice, bob):
            client.exchange(zoho.grant(user))
        client.refresh("1000.not.there")
        assert (zoho.count("grant"), zoho.count("grant", alice), zoho.count(user=bob)) == (3, 2, 1)
        assert (zoho.count(), zoho.count("refresh"), zoho.count("revoke")) == (4, 1, 0)
        with pytest.raises(ValueError, match="no kind of call: 'grants'"):
            zoho.count("grants")

    def test_tells_users_of_two_organizations_with_one_address_apart(self, zoho, client, alice):
        elsewhere = zoho.add_user(alice.email, org_id="7009")
        client.exchange(zoho.grant(elsewhere))
        assert (zoho.count("grant", alice), zoho.count("grant", elsewhere)) == (0, 1)

    def test_knows_its_own_users_only(self, zoho):
        stranger = SimulatedUser("stranger@example.com")
        for ask in (zoho.count, zoho.hold):
            with pytest.raises(ValueError, match="no user of this simulator"):
                ask("grant", stranger)

    def test_starts_anew_when_cleared(self, zoho, client):
        client.refresh("1000.not.there")
        before = zoho.calls
        zoho.clear_calls()
        assert (zoho.calls, zoho.count(), len(before)) == ([], 0, 1)

    def test_misses_nothing_when_many_ask_at_once(self, zoho, client, alice):
        access_token = client.refresh(zoho.authorize(alice))["access_token"]
        zoho.clear_calls()
        at_once(8, lambda number: [client.accepted(access_token) for _ in range(10)])
        assert zoho.calls == [Call("org", "alice@example.com:7001", 200)] * 80

    def test_and_every_repr_hold_no_secret(self, zoho, client, alice):
        grant = zoho.grant(alice)
        token = client.exchange(grant)
        client.crm("users", token["access_token"])
        client.revoke(token["refresh_token"])
        zoho.fail_token_requests()
        held = zoho.hold("grant")
        text = repr([zoho, zoho.calls, alice, held, vars(zoho)["_users"], vars(zoho)["_failures"]])
        secrets = [grant, token["access_token"], token["refresh_token"], zoho.client_secret]
        assert not any(secret in text for secret in secrets)
        assert "alice@example.com" in text


class TestServer:
    @pytest.mark.parametrize(
        "host", ["0.0.0.0", "192.0.2.1", "", "localhost", "::", "::1", "example.com", "127.1"]
    )
    def test_refuses_any_address_but_loopback(self, host):
        with pytest.raises(ValueError, match="loopback only"):
            ZohoSimulator(host=host)

    def test_listens_where_it_is_told(self):
        with closing(socket.create_server(("127.0.0.1", 0))) as taken:
            port = taken.getsockname()[1]
        with ZohoSimulator(host="127.0.0.1", port=port) as zoho:
            assert zoho.url == f"http://127.0.0.1:{port}"
            assert Client(zoho).get("/").status_code == 404

    def test_has_no_address_before_its_start(self):
        with pytest.raises(RuntimeError, match="has not been started"):
            _ = ZohoSimulator().url

    def test_starts_once(self, zoho):
        with pytest.raises(RuntimeError, match="running already"):
            zoho.start()

    def test_comes_back_at_its_address_with_its_tokens(self, zoho, client, alice):
        refresh_token, url = zoho.authorize(alice), zoho.url
        zoho.stop()
        with pytest.raises(requests.ConnectionError):
            client.refresh(refresh_token)
        zoho.start()
        assert zoho.url == url
        assert "access_token" in client.refresh(refresh_token)

    def test_answers_many_requests_on_one_connection(self, zoho, client, alice):
        access_token = client.refresh(zoho.authorize(alice))["access_token"]
        headers = {"Authorization": f"Zoho-oauthtoken {access_token}"}
        with closing(http.client.HTTPConnection(*address(zoho))) as connection:
            connection.connect()
            port = connection.sock.getsockname()
            for method, path in [("GET", "/crm/v8/org"), ("POST", "/nowhere")] * 5:
                connection.request(method, path, body=b"some=thing", headers=headers)
                assert connection.getresponse().read()
            assert connection.sock.getsockname() == port

    def test_ends_the_connections_that_clients_keep_open(self, zoho):
        with requests.Session() as session:
            session.get(zoho.url, timeout=TIMEOUT)
            zoho.stop()
            assert simulator_threads() == []
            with pytest.raises(requests.ConnectionError):
                session.get(zoho.url, timeout=TIMEOUT)
        zoho.stop()  # harmless
        gc.collect()  # a socket left open is a ResourceWarning, and with it a failure

    def test_says_nothing_on_the_console(self, zoho, client, capfd):
        with zoho.hold("other") as held, socket.create_connection(address(zoho)) as hung_up:
            hung_up.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            hung_up.sendall(b"GET /nowhere HTTP/1.1\r\n\r\n")
            held.wait_for(1)
        client.refresh("1000.not.there")
        zoho.stop()
        assert capfd.readouterr() == ("", "")

    def test_refuses_a_body_that_it_cannot_read(self, client):
        url = "/oauth/v2/token"
        assert client.post(url, data=iter([b"grant_type=refresh_token"])).status_code == 411
        assert client.post(url, headers={"Content-Length": "-1"}).status_code == 411
        assert client.post(url, headers={"Content-Length": "9999999"}).status_code == 413

    def test_takes_a_user_once(self, zoho, alice):
        with pytest.raises(ValueError, match=r"there is a user alice@example\.com:7001 already"):
            zoho.add_user(alice.email, org_id=alice.org_id)
        assert zoho.add_user(alice.email, org_id="7002").name == "alice@example.com:7002"


class TestThroughTheSDK:
    """With the SDK's own FileStore, so that the simulator is all that is tried here."""

    @pytest.fixture
    def app(self, zoho, tmp_path) -> Application:
        return Application(zoho, FileStore(str(tmp_path / "tokens.csv")))

    def test_a_grant_token_signs_in(self, zoho, app, alice):
        token = app.initialize(app.token(grant_token=zoho.grant(alice)))
        assert token.get_user_signature().get_name() == alice.name == "alice@example.com:7001"
        assert token.get_api_domain() == zoho.url
        assert app.kinds() == ["grant", "users", "org"]

    def test_records_can_be_read(self, app, alice):
        app.sign_in(alice)
        assert (current_email(), lead_names()) == (alice.email, list(alice.leads))
        assert app.kinds() == ["users", "fields", "leads"]

    def test_all_fields_can_be_read_in_advance(self, zoho, app, alice):
        config = SDKConfig(auto_refresh_fields=True)
        app.initialize(app.token(refresh_token=zoho.authorize(alice)), sdk_config=config)
        zoho.clear_calls()
        assert lead_names() == list(alice.leads)
        assert app.kinds() == ["modules", "fields", "leads"]

    def test_a_short_lifetime_makes_the_sdk_refresh_before_every_call(self, zoho, app, alice):
        zoho.access_token_lifetime = 1
        app.sign_in(alice)
        assert [current_email(), current_email()] == [alice.email] * 2
        assert app.kinds() == ["refresh", "users"] * 2

    @pytest.mark.parametrize(
        ("fault", "message"),
        [
            (lambda zoho, alice: zoho.revoke(alice), "invalid_code"),
            (lambda zoho, alice: setattr(zoho, "throttle_limit", 0), THROTTLED),
            (lambda zoho, alice: setattr(zoho, "client_secret", "new"), "invalid_client"),
            (lambda zoho, alice: zoho.fail_token_requests(error="general_error"), "general_error"),
            (lambda zoho, alice: zoho.fail_token_requests(), "Expecting value"),
        ],
    )
    def test_zohos_errors_arrive(self, zoho, app, alice, fault, message):
        token = app.token(refresh_token=zoho.authorize(alice))
        fault(zoho, alice)
        with pytest.raises(SDKException, match=message):
            app.initialize(token)
        assert app.kinds() == ["refresh"]

    def test_a_dead_access_token_is_an_api_exception(self, zoho, app, alice):
        app.sign_in(alice)
        zoho.expire_access_tokens(alice)
        assert current_email() == "INVALID_TOKEN"

    def test_a_revocation_succeeds_once(self, zoho, alice):
        refresh_token = zoho.authorize(alice)
        url = zoho.environment.accounts_url + "/revoke"
        assert OAuthToken.revoke_refresh_token(refresh_token, url) is True
        assert OAuthToken.revoke_refresh_token(refresh_token, url) is False


def simulator_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "zoho-simulator"]


def address(zoho: ZohoSimulator) -> tuple[str, int]:
    url = urlsplit(zoho.url)
    return str(url.hostname), int(url.port or 0)
