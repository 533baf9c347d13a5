"""Small tools that several tests use."""

from __future__ import annotations

import importlib.metadata
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, event
from zohocrmsdk.src.com.zoho.api.authenticator.oauth_token import OAuthToken
from zohocrmsdk.src.com.zoho.crm.api.user_signature import UserSignature

from zoho_token_orm import SQLAlchemyTokenStore
from zoho_token_orm.database import URL_VARIABLE

CHECKOUT = Path(__file__).parent.parent
OLD, NEW = "A" * 43 + "B" * 43, "C" * 43 + "D" * 43
"""Two encryption keys; real ones are random."""


def _installed_sdk() -> int:
    owners = set(importlib.metadata.packages_distributions()["zohocrmsdk"])
    names = [re.fullmatch(r"zohocrmsdk(\d)[-_.]0", owner) for owner in owners]
    (version,) = (int(name[1]) for name in names if name)  # two would have overwritten each other
    return version


SDK = _installed_sdk()
"""Which of the SDKs is installed: 8 for zohocrmsdk8-0. The sister SDKs are 5, 6 and 7."""


def granted(name: str, **more: str) -> OAuthToken:
    """A token as it is after the exchange of a grant token, with made-up values."""
    token = OAuthToken(
        client_id="1000.CLIENT",
        client_secret="the-secret",
        grant_token=f"1000.grant-{name}",
        refresh_token=f"1000.refresh-{name}",
        access_token=f"1000.access-{name}",
        redirect_url="https://example.com/callback",
        api_domain="https://www.zohoapis.com",
        **more,
    )
    token.set_expires_in(in_an_hour())
    token.set_user_signature(UserSignature(f"{name}@example.com:7001"))
    return token


def in_an_hour() -> str:
    return str(int(time.time() * 1000) + 3_600_000)


def values(token: OAuthToken) -> dict[str, str | None]:
    """All that a token holds, by the SDK's names."""
    user = token.get_user_signature()
    return {
        "id": token.get_id(),
        "user": user.get_name() if user else None,
        "client_id": token.get_client_id(),
        "client_secret": token.get_client_secret(),
        "refresh_token": token.get_refresh_token(),
        "access_token": token.get_access_token(),
        "grant_token": token.get_grant_token(),
        "expires_in": token.get_expires_in(),
        "redirect_url": token.get_redirect_url(),
        "api_domain": token.get_api_domain(),
    }


def raw_rows(store: SQLAlchemyTokenStore) -> list[dict[str, Any]]:
    """Every row as the database has it."""
    with store.engine.connect() as connection:
        rows = connection.exec_driver_sql("SELECT * FROM oauthtoken ORDER BY id").mappings()
        return [dict(row) for row in rows]


@contextmanager
def statements(engine: Engine) -> Iterator[list[str]]:
    """The statements that the engine runs meanwhile, by their first word."""
    seen: list[str] = []

    def note(connection, cursor, statement, *rest):
        seen.append(statement.split()[0].upper())

    event.listen(engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        event.remove(engine, "before_cursor_execute", note)


def run(
    *command: str | Path, cwd: Path, url: str | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Runs a program of this Python's environment, the database URL in its environment."""
    variables = {k: v for k, v in os.environ.items() if k != URL_VARIABLE}
    if url:
        variables[URL_VARIABLE] = url
    variables["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{variables.get('PATH', '')}"
    return subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**variables, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
