"""From a URL to work done on a database: all that differs between databases is in here."""

from zoho_token_orm.database.bulk import SeenRows, run_each
from zoho_token_orm.database.names import checked_table_name, upgrade_command, version_table
from zoho_token_orm.database.plans import fresh_plans
from zoho_token_orm.database.reading import any_text, padded_columns
from zoho_token_orm.database.retries import Trouble, trouble
from zoho_token_orm.database.running import Database
from zoho_token_orm.database.transactions import migration_lock, transaction
from zoho_token_orm.database.urls import (
    URL_VARIABLE,
    is_memory,
    is_same_database,
    read_only,
    resolve_url,
    shown,
)

__all__ = [
    "URL_VARIABLE",
    "Database",
    "SeenRows",
    "Trouble",
    "any_text",
    "checked_table_name",
    "fresh_plans",
    "is_memory",
    "is_same_database",
    "migration_lock",
    "padded_columns",
    "read_only",
    "resolve_url",
    "run_each",
    "shown",
    "transaction",
    "trouble",
    "upgrade_command",
    "version_table",
]
