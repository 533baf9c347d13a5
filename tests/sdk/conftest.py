"""The real SDK for one test: fresh globals, a simulated Zoho, and an application that uses both."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
from zohocrmsdk.src.com.zoho.api.authenticator.oauth_token import OAuthToken
from zohocrmsdk.src.com.zoho.api.authenticator.store import TokenStore
from zohocrmsdk.src.com.zoho.crm.api import ParameterMap
from zohocrmsdk.src.com.zoho.crm.api.dc.data_center import DataCenter
from zohocrmsdk.src.com.zoho.crm.api.initializer import Initializer
from zohocrmsdk.src.com.zoho.crm.api.record import GetRecordsParam, RecordOperations
from zohocrmsdk.src.com.zoho.crm.api.user_signature import UserSignature
from zohocrmsdk.src.com.zoho.crm.api.users import APIException, GetUsersParam, UsersOperations
from zohocrmsdk.src.com.zoho.crm.api.util import Choice, Utility

from tests.databases import NAMES, Database, fresh_database
from tests.support import SDK
from zoho_token_orm import SQLAlchemyTokenStore
from zoho_token_orm.testing.simulator import SimulatedUser, ZohoSimulator

CURRENT = "CurrentUser"
WHO_IT_IS = ["users", "org"] if SDK > 5 else []
"""What the SDK asks Zoho after a grant, to learn whose token it is; 5-0 has to be told."""


def told(user: SimulatedUser) -> dict[str, Any]:
    """What a token needs in order to have its user: nothing, but for zohocrmsdk5-0."""
    return {} if SDK > 5 else {"user_signature": UserSignature(user.name)}


WITHOUT_USER = {"find_user": False} if SDK > 5 else {}
"""What keeps the SDK from asking whose token it is; 5-0 never does."""
UNKNOWN_ID = "invalid_c" if SDK == 8 else "MERGE_OBJECT"
"""What the SDK's error for an id that no row has is about."""


@pytest.fixture(autouse=True)
def fresh_sdk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The SDK as in a new process, with its files (one per user) in a folder of the test's own."""
    monkeypatch.chdir(tmp_path)  # where the SDK writes unless told otherwise
    reset_sdk()
    yield
    reset_sdk()


def reset_sdk() -> None:
    Initializer.initializer = None
    Initializer.LOCAL.init = None
    Utility.api_supported_modules = {}
    logger = logging.getLogger("SDKLogger")
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()


def initialize(
    environment: DataCenter.Environment, token: OAuthToken, store: TokenStore, **more: Any
) -> None:
    """Starts the SDK; with an id of one's own in the way that the sister SDKs want."""
    signs_in = token.get_grant_token() or token.get_refresh_token()
    if SDK == 8 or token.get_id() is None or not signs_in:
        Initializer.initialize(environment, token, store=store, **more)
        return
    store.save_token(token)
    Initializer.initialize(environment, token, store=store, **more)
    Initializer.switch_user(token=token)


@dataclass
class Application:
    """An application that keeps its tokens in the store and talks to the simulated Zoho."""

    zoho: ZohoSimulator
    store: TokenStore

    def token(self, **fields: Any) -> OAuthToken:
        """A token of this application's client, with one more thing that names it."""
        return OAuthToken(self.zoho.client_id, self.zoho.client_secret, **fields)

    def token_for(self, user: SimulatedUser, **fields: Any) -> OAuthToken:
        """A token of this application's client with which that user signs in."""
        names = fields or {"grant_token": self.zoho.grant(user)}
        return self.token(**names, **told(user))

    def initialize(self, token: OAuthToken, **more: Any) -> OAuthToken:
        initialize(self.zoho.environment, token, self.store, **more)
        return token

    def sign_in(self, user: SimulatedUser) -> OAuthToken:
        """The first login of a user, after which Zoho's record is empty."""
        token = self.initialize(self.token_for(user))
        self.zoho.clear_calls()
        return token

    def access_token(self, refresh_token: str) -> str:
        """An access token from elsewhere, of which the store knows nothing."""
        form = {
            "client_id": self.zoho.client_id,
            "client_secret": self.zoho.client_secret,
            "refresh_token": refresh_token,
            "grant_type": "refresh_token",
        }
        url = self.zoho.environment.accounts_url
        answer = requests.post(url, data=form, timeout=30).json()
        self.zoho.clear_calls()
        return str(answer["access_token"])

    def row(self, id: str) -> OAuthToken:
        """What the database holds under that id; a look-up would lease it if it is expired."""
        (found,) = (row for row in self.store.get_tokens() if row.get_id() == id)
        return found

    def only_row(self) -> OAuthToken:
        (row,) = self.store.get_tokens()
        return row

    def expire(self, id: str) -> None:
        """Makes the stored access token one whose time is over."""
        row = self.row(id)
        row.set_expires_in("1000")
        self.store.save_token(row)

    def kinds(self) -> list[str]:
        """What Zoho was asked, in that order."""
        return [call.kind for call in self.zoho.calls]


@pytest.fixture(scope="session", params=NAMES)
def database(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Database]:
    """A database of each kind in turn, for all tests of the process: each begins without rows."""
    with fresh_database(request.param, tmp_path_factory.mktemp("database")) as fresh:
        yield fresh


@pytest.fixture
def store(database: Database) -> Iterator[SQLAlchemyTokenStore]:
    """A store without rows."""
    with SQLAlchemyTokenStore(database.url, create_schema=True) as made:
        made.delete_tokens()
        yield made


@pytest.fixture
def zoho() -> Iterator[ZohoSimulator]:
    with ZohoSimulator() as running:
        yield running


@pytest.fixture
def app(zoho: ZohoSimulator, store: SQLAlchemyTokenStore) -> Application:
    return Application(zoho, store)


@pytest.fixture
def alice(zoho: ZohoSimulator) -> SimulatedUser:
    return zoho.add_user("alice@example.com", org_id="7001", leads=("Anders", "Ash"))


@pytest.fixture
def bob(zoho: ZohoSimulator) -> SimulatedUser:
    return zoho.add_user("bob@example.com", org_id="7001", leads=("Brandt",))


def lead_names() -> list[str]:
    """The last names of the leads that the SDK's current user reads."""
    parameters = ParameterMap()
    parameters.add(GetRecordsParam.fields, "Last_Name,Company")
    if SDK == 5:
        response = RecordOperations().get_records("Leads", parameters)
    else:
        response = RecordOperations("Leads").get_records(parameters)
    return [lead.get_key_value("Last_Name") for lead in response.get_object().get_data()]


def current_email() -> str:
    """The address of the SDK's current user; or the code of Zoho's error."""
    parameters = ParameterMap()
    parameters.add(GetUsersParam.type, Choice(CURRENT) if SDK in (6, 7) else CURRENT)
    answer = UsersOperations().get_users(parameters).get_object()
    if isinstance(answer, APIException):
        return str(answer.get_code().get_value())
    return str(answer.get_users()[0].get_email())


def at_once(count: int, work: Callable[[int], Any]) -> list[Any]:
    """What the work answers to that many threads that start together."""
    barrier = threading.Barrier(count)

    def start(number: int) -> Any:
        barrier.wait(timeout=30)
        return work(number)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(start, range(count)))
