"""Create the token table, or make it of the SDK's own.

Revision ID: zto_0001
Revises: zto_sdk
Create Date: 2026-11-23
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import context, op
from alembic.util import CommandError
from sqlalchemy.dialects import mysql
from zoho_token_orm.migrations import sdk_rows, sdk_table
from zoho_token_orm.migrations.reshaping import ENGINE, Target

revision = "zto_0001"
down_revision = "zto_sdk"
branch_labels = None
depends_on = None

INDEXED = ("access_token", "created_at")


def upgrade() -> None:
    table = _table_name()
    found = sdk_table.found_columns(table)
    if not found:
        op.create_table(table, *_columns(), *_constraints(table), **ENGINE)
    else:
        said = _taken_over(table, found)
        if said:
            context.config.print_stdout("%s", said)
    for column, name in _indexes(table).items():  # MySQL may have been interrupted before
        if not _has_index(table, name):
            op.create_index(name, table, [column])


def downgrade() -> None:
    if context.get_revision_argument() is None:
        return  # to the base: the table is dropped next
    if context.is_offline_mode():
        raise CommandError("the way back to the SDK's table is no script: run it on the database")
    sdk_table.give_back(_target(_table_name()))


def _taken_over(table: str, found: list[str]) -> str:
    if sdk_table.is_sdks(found):
        return sdk_table.take_over(_target(table))
    sdk_table.require_constraints(_target(table))  # an earlier run was interrupted
    return sdk_table.report(table)


def _target(table: str) -> Target:
    return Target(table, _columns(), _unique(table), _indexes(table))


def _table_name() -> str:
    return op.get_context().opts["table_name"]


def _columns() -> list[sa.Column]:
    text, ascii_text, moment, now = _types()
    return [
        sa.Column("id", text(255), primary_key=True),
        sa.Column("user_name", text(512)),
        sa.Column("client_id", text(255)),
        sa.Column("client_secret", ascii_text(2048)),
        sa.Column("refresh_token", ascii_text(2048)),
        sa.Column("access_token", ascii_text(2048)),
        sa.Column("grant_token", ascii_text(2048)),
        sa.Column("expiry_time", sa.BigInteger()),
        sa.Column("redirect_url", text(2048)),
        sa.Column("api_domain", text(255)),
        sa.Column("created_at", moment, server_default=now, nullable=False),
        sa.Column("updated_at", moment, server_default=now, nullable=False),
        sa.Column("lease_owner", text(64)),
        sa.Column("lease_until", sa.BigInteger()),
    ]


def _types():
    """Text and tokens that compare exactly, and a point in time with its default, in UTC."""
    dialect = op.get_context().dialect
    if dialect.name == "postgresql":

        def text(length):
            return sa.String(length, collation="C")

        return text, text, sa.DateTime(timezone=True), sa.text("CURRENT_TIMESTAMP")
    if dialect.name == "sqlite":
        now = sa.text("(strftime('%Y-%m-%d %H:%M:%f000', 'now'))")
        return sa.String, sa.String, sa.DateTime(), now

    def text(length):
        # Neither of the two knows the other's collation that pads nothing.
        collation = "utf8mb4_nopad_bin" if dialect.is_mariadb else "utf8mb4_0900_bin"
        return mysql.VARCHAR(length, collation=collation)

    def ascii_text(length):
        return mysql.VARCHAR(length, charset="ascii", collation="ascii_bin")

    return text, ascii_text, mysql.DATETIME(fsp=6), sa.text("(UTC_TIMESTAMP(6))")


def _unique(table: str) -> dict[str, str]:
    return {column: f"uq_{table}_{column}" for column in sdk_rows.UNIQUE}


def _indexes(table: str) -> dict[str, str]:
    return {column: f"ix_{table}_{column}" for column in INDEXED}


def _constraints(table: str) -> list[sa.UniqueConstraint]:
    return [sa.UniqueConstraint(column, name=name) for column, name in _unique(table).items()]


def _has_index(table: str, name: str) -> bool:
    if context.is_offline_mode():
        return False
    return name in {index["name"] for index in sa.inspect(op.get_bind()).get_indexes(table)}
