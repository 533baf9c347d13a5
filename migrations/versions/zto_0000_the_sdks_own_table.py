"""The table as the SDK documents it for its own DBStore, or none: where this package begins.

Revision ID: zto_sdk
Revises:
Create Date: 2026-11-26
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import context, op

revision = "zto_sdk"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Nothing is to be done: the next revision takes over the SDK's table, or makes one."""


def downgrade() -> None:
    table = op.get_context().opts["table_name"]
    if context.is_offline_mode() or sa.inspect(op.get_bind()).has_table(table):
        op.drop_table(table)
