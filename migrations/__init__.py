"""The Alembic migrations of the token table; in a wheel, ``zoho_token_orm.migrations``."""
