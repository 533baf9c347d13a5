"""The names of the tables, and of the command that makes them."""

from __future__ import annotations

import re

from zoho_token_orm.models import DEFAULT_TABLE_NAME

_TABLE_NAME = re.compile(r"[A-Za-z0-9_]+")
_LONGEST_TABLE_NAME = 43  # PostgreSQL allows 63; the longest name made from it adds 20


def checked_table_name(name: str) -> str:
    """The name itself, where it can be a table's.

    Raises:
        ValueError: It is empty, too long, or holds anything but ASCII letters, digits and
            underscores.
    """
    if not isinstance(name, str) or not _TABLE_NAME.fullmatch(name):
        raise ValueError("table_name must consist of ASCII letters, digits and underscores")
    if len(name) > _LONGEST_TABLE_NAME:
        raise ValueError(f"table_name must have at most {_LONGEST_TABLE_NAME} characters")
    return name


def version_table(table_name: str = DEFAULT_TABLE_NAME) -> str:
    """The table of Alembic's revision for that token table; never ``alembic_version``."""
    return f"{table_name}_alembic_version"


def upgrade_command(table_name: str) -> str:
    """What to type for a table that is missing or outdated."""
    option = "" if table_name == DEFAULT_TABLE_NAME else f" --table-name {table_name}"
    return f"zoho-token-orm upgrade{option}"
