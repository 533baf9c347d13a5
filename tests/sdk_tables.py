"""Tables as the SDK documents them for its own store, and rows as that writes them."""

from __future__ import annotations

import re
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Engine, text

from zoho_token_orm.database import resolve_url

DOCUMENTED = (
    "CREATE TABLE oauthtoken (id varchar(10) NOT NULL, user_name varchar(255), client_id "
    "varchar(255), client_secret varchar(255), refresh_token varchar(255), access_token "
    "varchar(255), grant_token varchar(255), expiry_time varchar(20), redirect_url varchar(255), "
    "api_domain varchar(255), primary key (id))"
)
"""What the SDK documents, for MySQL, and what the sample of a custom store makes in SQLite."""
COLUMNS = tuple(re.findall(r"(\w+) varchar", DOCUMENTED))


def sdk_row(id: Any, user: str | None, **more: Any) -> dict[str, Any]:
    """A row as DBStore writes it."""
    name = (user or f"nobody{id}").split("@")[0]
    return {
        **dict.fromkeys(COLUMNS),
        "id": id,
        "user_name": user,
        "client_id": "1000.CLIENT",
        "client_secret": "the-secret",
        "refresh_token": f"1000.refresh-{name}",
        "access_token": f"1000.access-{name}",
        "expiry_time": "1700000000000",
        "redirect_url": "https://example.com/callback",
        "api_domain": "https://www.zohoapis.com",
        **more,
    }


def fill(engine: Engine, *rows: dict[str, Any], create: str | None = DOCUMENTED) -> None:
    with engine.begin() as connection:
        if create:
            connection.execute(text(create))
        table = sa.table("oauthtoken", *(sa.column(name) for name in rows[0]))
        connection.execute(sa.insert(table), list(rows))


def rows_in(engine: Engine, table: str = "oauthtoken") -> dict[str, dict[str, Any]]:
    with engine.connect() as connection:
        found = connection.execute(text(f"SELECT * FROM {table}")).mappings()
        return {str(row["id"]): {name: row[name] for name in COLUMNS} for row in found}


def dbstore_arguments(url: str) -> tuple[str | None, ...]:
    """What DBStore is made with, for the database of a URL."""
    where = resolve_url(url)
    return (where.host, where.database, where.username, where.password or "", str(where.port))
