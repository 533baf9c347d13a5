"""An application in a process of its own: ``python -m tests.sdk.other_process``.

It reads what to do from its standard input (tokens have no place on a command line), signs in,
reads the leads, and prints what it saw. Both are JSON.
"""

from __future__ import annotations

import json
import sys

from zohocrmsdk.src.com.zoho.api.authenticator.oauth_token import OAuthToken

from tests.sdk.conftest import initialize, lead_names
from zoho_token_orm import SQLAlchemyTokenStore
from zoho_token_orm.testing.simulator import environment_at


def main() -> None:
    order = json.load(sys.stdin)
    environment = environment_at(order["zoho"])
    token = OAuthToken(**order["token"])
    with SQLAlchemyTokenStore(order["database"]) as store:
        initialize(environment, token, store, resource_path=order["folder"])
        json.dump(
            {"leads": lead_names(), "ids": [one.get_id() for one in store.get_tokens()]}, sys.stdout
        )


if __name__ == "__main__":
    main()
