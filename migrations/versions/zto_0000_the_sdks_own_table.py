"""The table as the SDK documents it for its own DBStore, or none: where this package begins.

Revision ID: zto_sdk
Revises:
Create Date: 2026-11-26
"""

from __future__ import annotations

from alembic import context, op
from zoho_token_orm.migrations import sdk_table

revision = "zto_sdk"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Changes nothing: the next revision takes over the SDK's table, or makes one."""
    table = op.get_context().opts["table_name"]
    sdk_table.refuse_others(table, sdk_table.found_columns(table))


def downgrade() -> None:
    """Drops this package's table; one that is the SDK's stays."""
    table = op.get_context().opts["table_name"]
    found = sdk_table.found_columns(table)
    if context.is_offline_mode() or (found and not sdk_table.is_sdks(found)):
        op.drop_table(table)
