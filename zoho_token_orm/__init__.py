"""A production token store for the Zoho CRM Python SDK, on SQLAlchemy and Alembic."""

from zoho_token_orm.models import OAuthTokenRow
from zoho_token_orm.store import SQLAlchemyTokenStore

__all__ = ["OAuthTokenRow", "SQLAlchemyTokenStore"]
__version__ = "0.1.0"
