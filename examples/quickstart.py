"""The life of a token: a first login, a restart, a refresh, a second user.

It runs the real Zoho CRM SDK on the store. Zoho is simulated on this machine, unless
ZOHO_CLIENT_ID, ZOHO_CLIENT_SECRET, ZOHO_GRANT_TOKEN and ZOHO_DATA_CENTER (us, eu, in, au, jp, cn,
ca or sa) are set: then it is the real one; ZOHO_REDIRECT_URL may be set besides. The database is
that of ZOHO_TOKEN_DB_URL; ``make demo`` provisions one.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from zohocrmsdk.src.com.zoho.api.authenticator.oauth_token import OAuthToken
from zohocrmsdk.src.com.zoho.crm.api import dc
from zohocrmsdk.src.com.zoho.crm.api.dc.data_center import DataCenter
from zohocrmsdk.src.com.zoho.crm.api.exception import SDKException
from zohocrmsdk.src.com.zoho.crm.api.initializer import Initializer
from zohocrmsdk.src.com.zoho.crm.api.parameter_map import ParameterMap
from zohocrmsdk.src.com.zoho.crm.api.users import GetUsersParam, UsersOperations

from zoho_token_orm import SQLAlchemyTokenStore
from zoho_token_orm.cli import table_lines
from zoho_token_orm.testing import ZohoSimulator

ANSWERS_TO = ("ZOHO_CLIENT_ID", "ZOHO_CLIENT_SECRET", "ZOHO_GRANT_TOKEN", "ZOHO_DATA_CENTER")


@dataclass
class Zoho:
    """A Zoho to talk to: the client registered there, and a grant token for each user."""

    environment: DataCenter.Environment
    client_id: str
    client_secret: str
    grants: list[str]
    redirect_url: str | None = None
    simulator: ZohoSimulator | None = None
    seen: int = field(default=0)

    def token(self, grant: str) -> OAuthToken:
        """What an application knows when it starts: its client, and a grant token."""
        return OAuthToken(
            client_id=self.client_id,
            client_secret=self.client_secret,
            grant_token=grant,
            redirect_url=self.redirect_url,
        )

    def requests(self) -> str:
        """What Zoho has been asked since the last time, where that can be told."""
        if self.simulator is None:
            return ""
        calls = self.simulator.calls[self.seen :]
        self.seen += len(calls)
        return "  Zoho was asked for: " + (", ".join(call.kind for call in calls) or "nothing")


def main() -> None:
    """Walks through the life of a token, and shows the table at the end."""
    with zoho() as site, tempfile.TemporaryDirectory() as folder:
        with SQLAlchemyTokenStore() as store:
            print(f"The tokens are kept by {store!r}.\n")
            step("A first login: the grant token is spent, once")
            start(site, store, folder)
            show(site)

        with SQLAlchemyTokenStore() as store:
            step("A restart, with the same spent grant token in the code: the row is found by it")
            token = start(site, store, folder)
            show(site)

            step("An hour later: the access token has expired, and is refreshed")
            expire(store, token.get_id())
            show(site)

            for grant in site.grants[1:]:
                step("A second user logs in, and the SDK is switched to them")
                Initializer.switch_user(environment=site.environment, token=site.token(grant))
                show(site)

            print("What the database holds now:\n")
            print("\n".join(table_lines(store.get_tokens())))


def start(site: Zoho, store: SQLAlchemyTokenStore, folder: str) -> OAuthToken:
    """Starts an application whose code holds the first user's grant token, spent or not."""
    token = site.token(site.grants[0])
    Initializer.initialize(
        environment=site.environment, token=token, store=store, resource_path=folder
    )
    return token


def step(title: str) -> None:
    """Announces what comes next."""
    print(f"* {title}")


def show(site: Zoho) -> None:
    """Makes an API call as the current user, and says who that is."""
    parameters = ParameterMap()
    parameters.add(GetUsersParam.type, "CurrentUser")
    answer = UsersOperations().get_users(parameters).get_object()
    (user,) = answer.get_users()
    print(f"  the API answers {user.get_email()}")
    print(site.requests(), end="\n\n")


def expire(store: SQLAlchemyTokenStore, id: str) -> None:
    """Puts the expiry of a stored access token into the past."""
    if token := store.find_token_by_id(id):
        token.set_expires_in("0")
        store.save_token(token)


@contextmanager
def zoho() -> Iterator[Zoho]:
    """The real Zoho where the environment names a client of it, else a simulated one."""
    absent = [name for name in ANSWERS_TO if not os.environ.get(name)]
    if not absent:
        yield real_zoho()
        return
    if len(absent) < len(ANSWERS_TO):
        sys.exit("For the real Zoho set " + ", ".join(absent) + " too.")
    print("Zoho is simulated; set " + ", ".join(ANSWERS_TO) + " for the real one.")
    with ZohoSimulator() as simulator:
        users = [simulator.add_user(f"{name}@example.com") for name in ("alice", "bob")]
        yield Zoho(
            simulator.environment,
            simulator.client_id,
            simulator.client_secret,
            [simulator.grant(user) for user in users],
            simulator=simulator,
        )


def real_zoho() -> Zoho:
    """The Zoho of the data centre and the client in the environment."""
    client_id, client_secret, grant, data_center = (os.environ[name] for name in ANSWERS_TO)
    centre = getattr(dc, f"{data_center.upper()}DataCenter", None)
    if centre is None:
        sys.exit("ZOHO_DATA_CENTER must be us, eu, in, au, jp, cn, ca or sa.")
    redirect_url = os.environ.get("ZOHO_REDIRECT_URL")
    return Zoho(centre.PRODUCTION(), client_id, client_secret, [grant], redirect_url)


if __name__ == "__main__":
    try:
        main()
    except SDKException as error:
        sys.exit(f"The SDK gave up: {error}")
