"""An application in a process of its own: ``python -m tests.sdk.other_process``.

It reads what to do from its standard input (tokens have no place on a command line), signs in,
reads the leads, and prints what it saw. Both are JSON.
"""

from __future__ import annotations

import json
import sys

from zohocrmsdk.src.com.zoho.api.authenticator.oauth_token import OAuthToken
from zohocrmsdk.src.com.zoho.crm.api.dc.data_center import DataCenter
from zohocrmsdk.src.com.zoho.crm.api.initializer import Initializer

from tests.sdk.conftest import lead_names
from zoho_token_orm import SQLAlchemyTokenStore


def main() -> None:
    order = json.load(sys.stdin)
    url = order["zoho"]
    environment = DataCenter.Environment(url, f"{url}/oauth/v2/token", url)
    token = OAuthToken(**order["token"])
    with SQLAlchemyTokenStore(order["database"]) as store:
        Initializer.initialize(environment, token, store, resource_path=order["folder"])
        json.dump(
            {"leads": lead_names(), "ids": [one.get_id() for one in store.get_tokens()]}, sys.stdout
        )


if __name__ == "__main__":
    main()
