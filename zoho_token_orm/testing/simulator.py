"""A Zoho on loopback: what the SDK asks of Zoho's accounts server and CRM, under a test's control.

.. code-block:: python

    with ZohoSimulator() as zoho:
        alice = zoho.add_user("alice@example.com", org_id="7001")
        token = OAuthToken(zoho.client_id, zoho.client_secret, grant_token=zoho.grant(alice))
        Initializer.initialize(environment=zoho.environment, token=token, store=store)
        assert token.get_user_signature().get_name() == alice.name
        assert zoho.count("grant") == 1

It needs the standard library only; the SDK is imported where ``environment`` is asked for.
"""

from __future__ import annotations

import inspect
import ipaddress
import json
import secrets
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import SHUT_RDWR
from socketserver import TCPServer
from typing import TYPE_CHECKING, Any, Literal, get_args
from urllib.parse import parse_qsl, urlsplit

if TYPE_CHECKING:
    from socket import socket
    from types import TracebackType

    from typing_extensions import Self
    from zohocrmsdk.src.com.zoho.crm.api.dc.data_center import DataCenter

__all__ = ["Call", "Hold", "Kind", "SimulatedUser", "ZohoSimulator"]

Kind = Literal["grant", "refresh", "revoke", "users", "org", "leads", "fields", "modules", "other"]
"""What a request asks for: the exchange of a grant token, a refresh, …"""

_GRANT_TYPES: dict[str, Kind] = {"authorization_code": "grant", "refresh_token": "refresh"}
_VERSIONS = ("v5", "v6", "v7", "v8")
"""The versions of the CRM's API: each SDK asks for its own."""
_CRM_PATHS: dict[str, Kind] = {
    "users": "users",
    "org": "org",
    "Leads": "leads",
    "settings/fields": "fields",
    "settings/modules": "modules",
}
_PATHS: dict[tuple[str, str], Kind] = {
    ("POST", "/oauth/v2/token/revoke"): "revoke",
    **{
        ("GET", f"/crm/{version}/{path}"): kind
        for version in _VERSIONS
        for path, kind in _CRM_PATHS.items()
    },
}
_TOKEN_PATH = "/oauth/v2/token"
_SCOPE = "ZohoCRM.modules.ALL ZohoCRM.settings.ALL ZohoCRM.users.READ ZohoCRM.org.READ"
_LARGEST_BODY = 1 << 20
_FIRST_ID = 554023000000000000
_DEFAULT_LEADS = ("Boyle", "Patel")


@dataclass(frozen=True)
class SimulatedUser:
    """A user of the simulated CRM, as `ZohoSimulator.add_user` makes it.

    Attributes:
        email: The address that ``/crm/v8/users`` answers.
        org_id: The organization's ``zgid``, which ``/crm/v8/org`` answers.
        leads: The last names of the leads that this user can read.
    """

    email: str
    org_id: str = "7001"
    leads: tuple[str, ...] = _DEFAULT_LEADS

    @property
    def name(self) -> str:
        """What the SDK makes the token's `UserSignature` of: ``email:zgid``."""
        return f"{self.email}:{self.org_id}"


@dataclass(frozen=True)
class Call:
    """One request that the simulator has answered; it holds no token and no secret.

    Attributes:
        kind: What was asked for.
        user: The name of the user whose token it was (`SimulatedUser.name`); None where no user
            is known.
        status: The HTTP status of the answer.
        error: Zoho's name for the error, or None.
    """

    kind: Kind
    user: str | None
    status: int
    error: str | None = None


class Hold:
    """Answers that wait until the test releases them; see `ZohoSimulator.hold`."""

    def __init__(self, kind: Kind, user: SimulatedUser | None = None) -> None:
        self._kind = kind
        self._user = user
        self._held = 0
        self._released = False
        self._changed = threading.Condition()

    def wait_for(self, count: int = 1, timeout: float = 30.0) -> None:
        """Waits until that many answers have been held, counted from the start of the hold.

        Args:
            count: How many.
            timeout: The longest time to wait, in seconds.

        Raises:
            TimeoutError: Fewer have come by then.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._held >= count, timeout):
                raise TimeoutError(
                    f"{self._held} of {count} {self._kind} calls came in {timeout} s"
                )

    @property
    def held(self) -> int:
        """How many answers have been held since the start of the hold."""
        with self._changed:
            return self._held

    def release(self) -> None:
        """Lets all held answers go, and every later one pass."""
        with self._changed:
            self._released = True
            self._changed.notify_all()

    def __enter__(self) -> Self:
        """The hold itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Releases."""
        self.release()

    def _concerns(self, call: Call) -> bool:
        user = self._user
        return call.kind == self._kind and (user is None or user.name == call.user)

    def _keep(self) -> None:
        """Counts one answer and keeps its thread here until the release."""
        with self._changed:
            if not self._released:
                self._held += 1
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._released)


class ZohoSimulator:
    """A small Zoho for tests and demonstrations, on 127.0.0.1 and nowhere else.

    It answers the exchange of a grant token, the refresh and the revocation at
    ``/oauth/v2/token`` as Zoho's accounts server does, and the current user, the organization and
    some leads below ``/crm/v8`` as the CRM does: with Zoho's limits, and Zoho's errors in Zoho's
    JSON. Each SDK asks for the API of its own version: it answers below ``/crm/v5`` to
    ``/crm/v7`` in the same way. ``with ZohoSimulator() as zoho`` starts and stops it; so do
    `start` and `stop`.

    Time stands still in the simulator until the test moves it with `advance`, so that nothing
    runs out by accident. The SDK has a clock of its own: it refreshes a token whose ``expires_in``
    ends within five seconds, so with ``access_token_lifetime = 1`` it refreshes before every call,
    while the simulator goes on accepting the tokens.

    Every argument but the address and the clock is an attribute too, and may be changed while the
    simulator runs.

    Args:
        host: The address to listen on; a loopback address of IPv4, such as ``127.0.0.1``.
        port: The port; 0 lets the system choose one.
        client_id: The OAuth client's id; None makes one.
        client_secret: The OAuth client's secret; None makes one.
        redirect_uri: The client's registered redirect URI, which an exchange must name then;
            None, as for a Self Client, asks for none.
        access_token_lifetime: In seconds; sent as ``expires_in``.
        grant_lifetime: How long a grant token is valid, in seconds.
        throttle_limit: How many access tokens one refresh token gives within the window.
        throttle_window: The length of that window, in seconds; it starts with its first refresh.
        refresh_token_limit: How many refresh tokens a user has with the client; one more
            kills the oldest with its access tokens.
        access_token_limit: How many access tokens live per refresh token; one more kills the
            oldest.
        latency: How long each answer takes on top, in seconds.
        clock: A function that gives the time in seconds, such as `time.monotonic`; None
            stands still.

    Raises:
        ValueError: The host is no loopback address.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        client_id: str | None = None,
        client_secret: str | None = None,
        redirect_uri: str | None = None,
        access_token_lifetime: int = 3600,
        grant_lifetime: float = 180.0,
        throttle_limit: int = 10,
        throttle_window: float = 600.0,
        refresh_token_limit: int = 20,
        access_token_limit: int = 15,
        latency: float = 0.0,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._address = (_loopback(host), port)
        self.client_id = client_id or f"1000.{secrets.token_hex(16).upper()}"
        self.client_secret = client_secret or secrets.token_hex(21)
        self.redirect_uri = redirect_uri
        self.access_token_lifetime = access_token_lifetime
        self.grant_lifetime = grant_lifetime
        self.throttle_limit = throttle_limit
        self.throttle_window = throttle_window
        self.refresh_token_limit = refresh_token_limit
        self.access_token_limit = access_token_limit
        self.latency = latency
        self._clock = clock or (lambda: 0.0)
        self._advanced = 0.0
        self._lock = threading.RLock()
        self._server: _Server | None = None
        self._users: dict[str, _Account] = {}
        self._grants: dict[str, _GrantToken] = {}
        self._refresh_tokens: dict[str, _RefreshToken] = {}
        self._access_tokens: dict[str, _AccessToken] = {}
        self._calls: list[Call] = []
        self._holds: list[Hold] = []
        self._failures: deque[_Answer] = deque()

    def __repr__(self) -> str:
        """Where it listens and for how many users; no secret."""
        where = self.url if self._server else "stopped"
        return f"<ZohoSimulator {where}, {len(self._users)} users>"

    # Starting and stopping

    def start(self) -> Self:
        """Listens, and answers in threads of its own.

        After `stop`, a second start goes on at the same address with the same users and tokens,
        as Zoho does after an outage.

        Returns:
            The simulator.

        Raises:
            OSError: The port is taken.
            RuntimeError: It is running already.
        """
        if self._server is not None:
            raise RuntimeError("the simulator is running already")
        self._server = _Server(self._address, self._answer)
        self._address = (self._address[0], self._server.server_port)
        self._server.start()
        return self

    def stop(self) -> None:
        """Releases what is held, ends every connection and closes the port; harmless twice."""
        with self._lock:
            server, self._server = self._server, None
            holds, self._holds = self._holds, []
        for hold in holds:
            hold.release()
        if server is not None:
            server.stop()

    def __enter__(self) -> Self:
        """Starts."""
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stops."""
        self.stop()

    @property
    def url(self) -> str:
        """Where it listens, such as ``http://127.0.0.1:40123``.

        Raises:
            RuntimeError: It has not been started.
        """
        host, port = self._address
        if not port:
            raise RuntimeError(
                "the simulator has not been started: use `with ZohoSimulator() as zoho`"
            )
        return f"http://{host}:{port}"

    @property
    def environment(self) -> DataCenter.Environment:
        """The SDK's environment that points here, for ``Initializer.initialize(environment=…)``."""
        return environment_at(self.url)

    # Users and what they consent to

    def add_user(
        self, email: str, org_id: str = "7001", leads: tuple[str, ...] = _DEFAULT_LEADS
    ) -> SimulatedUser:
        """A new user of the CRM.

        Args:
            email: The user's address.
            org_id: The organization's ``zgid``.
            leads: The last names of the leads that the user can read.

        Raises:
            ValueError: That user is there already.
        """
        user = SimulatedUser(email, org_id, leads)
        with self._lock:
            if user.name in self._users:
                raise ValueError(f"there is a user {user.name} already")
            self._users[user.name] = _Account(user, _FIRST_ID + 1000 * len(self._users))
        return user

    def grant(self, user: SimulatedUser) -> str:
        """A new grant token, as after the user's consent; it can be exchanged once.

        Raises:
            ValueError: The user is not one of this simulator's.
        """
        with self._lock:
            grant = _GrantToken(self._account(user), self._now() + self.grant_lifetime)
            return _remember(self._grants, grant)

    def authorize(self, user: SimulatedUser) -> str:
        """A new refresh token, as one made by hand in Zoho's API console.

        Raises:
            ValueError: The user is not one of this simulator's.
        """
        with self._lock:
            return self._new_refresh_token(self._account(user))[0]

    # Time, dead tokens and faults

    def advance(self, seconds: float) -> None:
        """Moves the simulator's clock forward: grants and tokens run out, the throttle ends."""
        with self._lock:
            self._advanced += seconds

    def expire_access_tokens(self, user: SimulatedUser | None = None) -> None:
        """Zoho accepts none of the user's access tokens any more; None means everybody's."""
        with self._lock:
            for account in self._accounts(user):
                for refresh in account.refresh_tokens:
                    refresh.kill_access_tokens()

    def revoke(self, user: SimulatedUser) -> None:
        """Kills all of the user's tokens, as the user can in the settings of a Zoho account."""
        with self._lock:
            for refresh in self._account(user).refresh_tokens:
                refresh.kill()

    def fail_token_requests(
        self, count: int = 1, *, status: int = 500, error: str | None = None
    ) -> None:
        """Makes the next requests to the accounts server (grant, refresh, revoke) fail.

        They fail before anything is done: no grant is spent, no token made.

        Args:
            count: How many requests.
            status: The HTTP status.
            error: Zoho's name for the error, sent as JSON; None sends a page of HTML, as a
                gateway does.
        """
        page = "<html><body>Zoho is not available</body></html>"
        answer = _Answer(status, {"error": error} if error else page, error or str(status))
        with self._lock:
            self._failures.extend([answer] * count)

    def hold(self, kind: Kind, user: SimulatedUser | None = None) -> Hold:
        """Holds the answers of one kind until the test lets them go.

        Zoho has done its work by then, and recorded the call; only the answer is still under way.

        .. code-block:: python

            with zoho.hold("refresh") as held:
                thread.start()       # refreshes
                held.wait_for(1)     # it has asked, and waits for the answer
                store.delete_token(token.get_id())
            thread.join()            # the end of the block has let the answer go

        Args:
            kind: Which answers.
            user: Only this user's; None holds everybody's.

        Raises:
            ValueError: There is no such kind, or no such user.
        """
        hold = Hold(_checked(kind), user)
        with self._lock:
            self._accounts(user)
            self._holds = [earlier for earlier in self._holds if not earlier._released]
            self._holds.append(hold)
        return hold

    # The record

    @property
    def calls(self) -> list[Call]:
        """The calls so far, in the order in which they were answered; a copy."""
        with self._lock:
            return list(self._calls)

    def count(self, kind: Kind | None = None, user: SimulatedUser | None = None) -> int:
        """How many calls there were, refused ones too.

        Args:
            kind: Of this kind; None counts every kind.
            user: Of this user; None counts everybody's.

        Raises:
            ValueError: There is no such kind, or no such user.
        """
        if kind is not None:
            _checked(kind)
        with self._lock:
            self._accounts(user)
            return sum(
                kind in (None, call.kind) and (user is None or user.name == call.user)
                for call in self._calls
            )

    def clear_calls(self) -> None:
        """Forgets the calls so far."""
        with self._lock:
            self._calls.clear()

    # Answering

    def _answer(self, request: _Request) -> _Answer:
        with self._lock:
            answer = self._respond(request)
            account = answer.account
            name = account.user.name if account else None
            call = Call(request.kind, name, answer.status, answer.error)
            self._calls.append(call)
            holds = [hold for hold in self._holds if hold._concerns(call)]
        if self.latency:
            time.sleep(self.latency)
        for hold in holds:
            hold._keep()
        return answer

    def _respond(self, request: _Request) -> _Answer:
        if request.path.startswith(_TOKEN_PATH) and self._failures:
            return self._failures.popleft()
        if request.kind == "other":
            return _unknown(request)
        if request.path.startswith("/crm/"):
            return self._crm(request)
        return {"grant": self._exchange, "refresh": self._refresh, "revoke": self._revoke}[
            request.kind
        ](request)

    def _exchange(self, request: _Request) -> _Answer:
        if not self._is_client(request):
            return _refused("invalid_client")
        grant = self._grants.get(request.form.get("code", ""))
        if grant is None:
            return _refused("invalid_code")
        if grant.spent or grant.expires_at <= self._now():
            return _refused("invalid_code", grant.account)
        if self.redirect_uri not in (None, request.form.get("redirect_uri")):
            return _refused("invalid_redirect_uri", grant.account)
        grant.spent = True
        text, refresh = self._new_refresh_token(grant.account)
        return self._new_access_token(refresh, refresh_token=text)

    def _refresh(self, request: _Request) -> _Answer:
        if not self._is_client(request):
            return _refused("invalid_client")
        refresh = self._refresh_tokens.get(request.form.get("refresh_token", ""))
        if refresh is None:
            return _refused("invalid_code")
        if refresh.dead:
            return _refused("invalid_code", refresh.account)
        if refresh.throttled(self._now(), self.throttle_limit, self.throttle_window):
            return _throttled(refresh.account)
        return self._new_access_token(refresh)

    def _revoke(self, request: _Request) -> _Answer:
        text = request.form.get("token", "")
        token = self._refresh_tokens.get(text) or self._access_tokens.get(text)
        if token is None or token.dead:
            return _refused("invalid_token", token.account if token else None, 400)
        token.kill()
        return _Answer(200, {"status": "success"}, account=token.account)

    def _crm(self, request: _Request) -> _Answer:
        token = self._access_tokens.get(request.access_token)
        if token is None or token.dead or token.expires_at <= self._now():
            return _crm_error(
                401, "INVALID_TOKEN", "invalid oauth token", token.account if token else None
            )
        body = _CRM_PAGES[request.kind](token.account)
        return _Answer(200 if body else 204, body, account=token.account)

    def _new_refresh_token(self, account: _Account) -> tuple[str, _RefreshToken]:
        refresh = _RefreshToken(account)
        living = [token for token in account.refresh_tokens if not token.dead]
        for oldest in living[: max(0, len(living) + 1 - self.refresh_token_limit)]:
            oldest.kill()
        account.refresh_tokens.append(refresh)
        return _remember(self._refresh_tokens, refresh), refresh

    def _new_access_token(self, refresh: _RefreshToken, **more: str) -> _Answer:
        access = _AccessToken(refresh.account, self._now() + self.access_token_lifetime)
        refresh.add(access, self._now(), self.access_token_limit)
        body = {
            "access_token": _remember(self._access_tokens, access),
            **more,
            "scope": _SCOPE,
            "api_domain": self.url,
            "token_type": "Bearer",
            "expires_in": self.access_token_lifetime,
        }
        return _Answer(200, body, account=refresh.account)

    def _is_client(self, request: _Request) -> bool:
        given = (request.form.get("client_id"), request.form.get("client_secret"))
        return given == (self.client_id, self.client_secret)

    def _now(self) -> float:
        return self._clock() + self._advanced

    def _account(self, user: SimulatedUser) -> _Account:
        account = self._users.get(user.name)
        if account is None:
            raise ValueError(f"{user.name} is no user of this simulator: add_user makes one")
        return account

    def _accounts(self, user: SimulatedUser | None) -> list[_Account]:
        return list(self._users.values()) if user is None else [self._account(user)]


# What Zoho knows. The tokens' own text is a key of the simulator's tables, never a field here.


@dataclass(eq=False)
class _Account:
    user: SimulatedUser
    id: int
    refresh_tokens: list[_RefreshToken] = field(default_factory=list, repr=False)


@dataclass(eq=False)
class _GrantToken:
    account: _Account
    expires_at: float
    spent: bool = False


@dataclass(eq=False)
class _AccessToken:
    account: _Account
    expires_at: float
    dead: bool = False

    def kill(self) -> None:
        self.dead = True


@dataclass(eq=False)
class _RefreshToken:
    account: _Account
    dead: bool = False
    living: list[_AccessToken] = field(default_factory=list)
    window_start: float | None = None
    window_count: int = 0

    def kill(self) -> None:
        self.dead = True
        self.kill_access_tokens()

    def kill_access_tokens(self) -> None:
        for access in self.living:
            access.kill()
        self.living.clear()

    def add(self, access: _AccessToken, now: float, limit: int) -> None:
        """Takes an access token in; the oldest die, so that no more than the limit live."""
        self.living = [one for one in self.living if not one.dead and one.expires_at > now]
        self.living.append(access)
        while len(self.living) > limit:
            self.living.pop(0).kill()

    def throttled(self, now: float, limit: int, window: float) -> bool:
        """Counts one more access token, unless the window has had as many as it may."""
        if self.window_start is None or now - self.window_start >= window:
            self.window_start, self.window_count = now, 0
        if self.window_count >= limit:
            return True
        self.window_count += 1
        return False


def _remember(tokens: dict[str, Any], token: object) -> str:
    text = f"1000.{secrets.token_hex(16)}.{secrets.token_hex(16)}"
    tokens[text] = token
    return text


# Zoho's answers


@dataclass(frozen=True)
class _Answer:
    status: int
    body: dict[str, Any] | str | None = field(repr=False)
    error: str | None = None
    account: _Account | None = None


def _refused(error: str, account: _Account | None = None, status: int = 200) -> _Answer:
    """An error of the accounts server, which sends most of them with the status 200."""
    return _Answer(status, {"error": error}, error, account)


def _throttled(account: _Account) -> _Answer:
    body = {
        "error_description": "You have made too many requests continuously. "
        "Please try again after some time.",
        "error": "Access Denied",
        "status": "failure",
    }
    return _Answer(400, body, "Access Denied", account)


def _crm_error(status: int, code: str, message: str, account: _Account | None = None) -> _Answer:
    body = {"code": code, "details": {}, "message": message, "status": "error"}
    return _Answer(status, body, code, account)


def _unknown(request: _Request) -> _Answer:
    if request.path == _TOKEN_PATH and request.method == "POST":
        return _refused("unsupported_grant_type")
    message = "Please check if the URL trying to access is a correct one"
    return _crm_error(404, "INVALID_URL_PATTERN", message)


def _users_page(account: _Account) -> dict[str, Any]:
    person = {
        "id": str(account.id),
        "email": account.user.email,
        "full_name": account.user.email.partition("@")[0],
        "status": "active",
    }
    return {"users": [person], "info": _page_info(1)}


def _org_page(account: _Account) -> dict[str, Any]:
    company = {
        "id": str(_FIRST_ID - 1),
        "zgid": account.user.org_id,
        "company_name": f"Company {account.user.org_id}",
    }
    return {"org": [company]}


def _leads_page(account: _Account) -> dict[str, Any] | None:
    leads = [
        {
            "id": str(account.id + number),
            "Last_Name": last_name,
            "Company": f"{last_name} & Co.",
            "Email": f"{last_name.lower()}@example.com",
        }
        for number, last_name in enumerate(account.user.leads, start=1)
    ]
    return {"data": leads, "info": _page_info(len(leads))} if leads else None


def _fields_page(account: _Account) -> dict[str, Any]:
    types = {"Last_Name": "text", "Company": "text", "Email": "email"}
    fields = [
        {
            "id": str(_FIRST_ID - 100 - number),
            "api_name": name,
            "field_label": name.replace("_", " "),
            "data_type": data_type,
        }
        for number, (name, data_type) in enumerate(types.items())
    ]
    return {"fields": fields}


def _modules_page(account: _Account) -> dict[str, Any]:
    leads = {
        "id": str(_FIRST_ID - 200),
        "api_name": "Leads",
        "module_name": "Leads",
        "api_supported": True,
        "generated_type": "default",
    }
    return {"modules": [leads]}


def _page_info(count: int) -> dict[str, Any]:
    return {"per_page": 200, "count": count, "page": 1, "more_records": False}


_CRM_PAGES: dict[Kind, Callable[[_Account], dict[str, Any] | None]] = {
    "users": _users_page,
    "org": _org_page,
    "leads": _leads_page,
    "fields": _fields_page,
    "modules": _modules_page,
}


def environment_at(url: str) -> DataCenter.Environment:
    """The SDK's environment of a simulator that listens there, perhaps in another process."""
    from zohocrmsdk.src.com.zoho.crm.api.dc.data_center import DataCenter

    given = {"url": url, "accounts_url": url + _TOKEN_PATH, "file_upload_url": url}
    if "name" in inspect.signature(DataCenter.Environment).parameters:  # zohocrmsdk5-0 wants one
        given["name"] = "simulator"
    return DataCenter.Environment(**given)


def _checked(kind: Kind) -> Kind:
    if kind not in get_args(Kind):
        raise ValueError(f"no kind of call: {kind!r}; there are {', '.join(get_args(Kind))}")
    return kind


def _loopback(host: str) -> str:
    try:
        address = ipaddress.IPv4Address(host)
    except ValueError:
        address = None
    if address is None or not address.is_loopback:
        raise ValueError(f"the simulator listens on loopback only, such as 127.0.0.1, not {host!r}")
    return host


# HTTP


@dataclass(frozen=True)
class _Request:
    method: str
    path: str
    form: dict[str, str] = field(repr=False)
    authorization: str = field(repr=False)

    @property
    def kind(self) -> Kind:
        if (self.method, self.path) == ("POST", _TOKEN_PATH):
            return _GRANT_TYPES.get(self.form.get("grant_type", ""), "other")
        return _PATHS.get((self.method, self.path), "other")

    @property
    def access_token(self) -> str:
        scheme, _, token = self.authorization.partition(" ")
        return token if scheme in ("Zoho-oauthtoken", "Bearer") else ""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "ZohoSimulator"
    sys_version = ""
    disable_nagle_algorithm = True
    wbufsize = -1  # head and body in one write
    server: _Server

    def do_GET(self) -> None:
        form = self._form()
        if form is not None:
            path = urlsplit(self.path).path
            authorization = self.headers.get("Authorization", "")
            self._send(self.server.answer(_Request(self.command, path, form, authorization)))

    do_POST = do_PUT = do_PATCH = do_DELETE = do_GET

    def _form(self) -> dict[str, str] | None:
        """The parameters of query and body; None where the body is refused."""
        length = self.headers.get("Content-Length", "0")
        if "Transfer-Encoding" in self.headers or not length.isdecimal():
            self.send_error(411)
        elif int(length) > _LARGEST_BODY:
            self.send_error(413)
        else:
            body = self.rfile.read(int(length)).decode("utf-8", "replace")
            return dict(parse_qsl(urlsplit(self.path).query)) | dict(parse_qsl(body))
        return None

    def _send(self, answer: _Answer) -> None:
        self.send_response(answer.status)
        if answer.body is None:
            self.end_headers()
            return
        is_json = isinstance(answer.body, dict)
        content = (json.dumps(answer.body) if is_json else str(answer.body)).encode()
        self.send_header(
            "Content-Type", f"{'application/json' if is_json else 'text/html'};charset=UTF-8"
        )
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the calls are in the simulator's record."""


class _Server(ThreadingHTTPServer):
    """The HTTP server, with the connections and threads that have to end when it does."""

    request_queue_size = 128

    def __init__(self, address: tuple[str, int], answer: Callable[[_Request], _Answer]) -> None:
        self.answer = answer
        self._connections: dict[threading.Thread, socket] = {}
        self._lock = threading.Lock()
        super().__init__(address, _Handler)
        self._thread = self._new_thread(self.serve_forever, 0.02)

    def server_bind(self) -> None:
        """Binds without asking a name server for the host's name, as HTTPServer would."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ends the connections, also those that a client keeps open, and waits for the threads."""
        self.shutdown()
        self._thread.join()
        self.server_close()
        with self._lock:
            connections = dict(self._connections)
        for connection in connections.values():
            _end(connection)
        for thread in connections:
            thread.join(timeout=10.0)

    def process_request(self, request: Any, client_address: Any) -> None:
        thread = self._new_thread(self.process_request_thread, request, client_address)
        with self._lock:
            thread.start()
            self._connections[thread] = request

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        super().process_request_thread(request, client_address)
        with self._lock:
            del self._connections[threading.current_thread()]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Says nothing where a client has hung up."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)

    @staticmethod
    def _new_thread(work: Callable[..., None], *args: Any) -> threading.Thread:
        return threading.Thread(target=work, args=args, name="zoho-simulator", daemon=True)


def _end(connection: socket) -> None:
    try:
        connection.shutdown(SHUT_RDWR)
    except OSError:
        return
