"""Where Alembic starts: on a connection that it is given, or on the database that a URL names."""

from __future__ import annotations

from typing import Any

from alembic import context
from alembic.util import CommandError
from sqlalchemy import Connection, column, delete, inspect, table, update
from zoho_token_orm.migrations import sdk_table
from zohocrmsdk.src.com.zoho.crm.api.exception.sdk_exception import SDKException

from zoho_token_orm.database import (
    Database,
    checked_table_name,
    migration_lock,
    resolve_url,
    version_table,
)
from zoho_token_orm.models import DEFAULT_TABLE_NAME, token_table

SDKS = "zto_sdk"
"""The revision of a table as the SDK documents it."""

attributes = context.config.attributes
arguments = context.get_x_argument(as_dictionary=True)
table_name = checked_table_name(
    attributes.get("table_name") or arguments.get("table_name") or DEFAULT_TABLE_NAME
)


def include_name(name: str | None, kind: str, parents: Any) -> bool:
    """Leaves out every table but ours: the database may be somebody else's."""
    return kind != "table" or name == table_name


def configure(**options: Any) -> None:
    context.configure(
        target_metadata=token_table(table_name).metadata,
        version_table=version_table(table_name),
        include_name=include_name,
        table_name=table_name,
        **options,
    )


def forget_what_is_gone(connection: Connection) -> None:
    """Takes back the revision of a table that is not there any more, so that it is made anew.

    It was dropped, or is the SDK's again: a downgrade was interrupted.
    """
    versions = version_table(table_name)
    tables = inspect(connection)
    if not tables.has_table(versions):
        return
    if [column["name"] for column in tables.get_columns(versions)] != ["version_num"]:
        return
    if not tables.has_table(table_name):
        connection.execute(delete(table(versions)))
    elif sdk_table.is_sdks([column["name"] for column in tables.get_columns(table_name)]):
        connection.execute(update(table(versions, column("version_num"))).values(version_num=SDKS))


def run_on(connection: Connection) -> None:
    with migration_lock(connection, version_table(table_name)):
        forget_what_is_gone(connection)
        configure(connection=connection)
        with context.begin_transaction():
            context.run_migrations()


def run_offline() -> None:
    url = attributes.get("url") or resolve_url(arguments.get("url"))
    configure(url=url, literal_binds=True, dialect_opts={"paramstyle": "named"})
    with context.begin_transaction():
        context.run_migrations()


def run_online() -> None:
    try:
        database = Database(arguments.get("url"), is_bounded=False)
        try:
            database.run("migrate the schema", run_on)
        finally:
            database.close()
    except (SDKException, ValueError) as error:
        raise CommandError(str(error)) from error


if context.is_offline_mode():
    run_offline()
elif "connection" in attributes:
    run_on(attributes["connection"])
else:
    run_online()
