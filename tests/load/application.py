"""What an application does at its start: it makes a store, and sets the SDK up on it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from zohocrmsdk.src.com.zoho.api.authenticator.oauth_token import OAuthToken
from zohocrmsdk.src.com.zoho.crm.api.dc.data_center import DataCenter
from zohocrmsdk.src.com.zoho.crm.api.initializer import Initializer

from tests.sdk.conftest import lead_names
from zoho_token_orm import SQLAlchemyTokenStore
from zoho_token_orm.testing.simulator import ZohoSimulator

__all__ = ["celery_settings", "environment_of", "lead_names", "set_up"]


def environment_of(zoho: ZohoSimulator, grant: str) -> dict[str, str]:
    """The environment variables that `set_up` reads."""
    return {
        "ZOHO": zoho.url,
        "ZOHO_CLIENT_ID": zoho.client_id,
        "ZOHO_CLIENT_SECRET": zoho.client_secret,
        "ZOHO_GRANT_TOKEN": grant,
    }


def celery_settings(folder: Path | str) -> dict[str, Any]:
    """What a Celery application and those who send it tasks agree upon: files in a folder."""
    return {
        "broker_url": "filesystem://",
        "broker_transport_options": {
            "data_folder_in": f"{folder}/queue",
            "data_folder_out": f"{folder}/queue",
            "control_folder": f"{folder}/control",
            "polling_interval": 0.05,
        },
        "result_backend": f"file://{folder}/results",
        "worker_prefetch_multiplier": 1,
    }


def set_up() -> SQLAlchemyTokenStore:
    """Makes the store on the database of ``ZOHO_TOKEN_DB_URL``, and signs in with the grant."""
    url = os.environ["ZOHO"]
    token = OAuthToken(
        os.environ["ZOHO_CLIENT_ID"],
        os.environ["ZOHO_CLIENT_SECRET"],
        grant_token=os.environ["ZOHO_GRANT_TOKEN"],
    )
    store = SQLAlchemyTokenStore()
    environment = DataCenter.Environment(url, f"{url}/oauth/v2/token", url)
    Initializer.initialize(environment, token, store, resource_path=str(Path.cwd()))
    return store
