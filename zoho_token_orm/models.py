"""The token table as a SQLAlchemy model, with the types that compare exactly on every database."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any
from urllib.parse import quote, unquote

from sqlalchemy import BigInteger, Dialect, MetaData, String, Table, Text
from sqlalchemy.dialects import mysql
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.expression import FunctionElement
from sqlalchemy.types import DateTime, TypeDecorator, TypeEngine

DEFAULT_TABLE_NAME = "oauthtoken"
NAMING_CONVENTION = {
    "uq": "uq_%(table_name)s_%(column_0_name)s",
    "ix": "ix_%(table_name)s_%(column_0_name)s",
}

SECRET_LENGTH = 2048
"""The most characters of a token or secret, as stored."""
SEALED = "zto1."
"""What an encrypted token or secret begins with: the format (``zoho_token_orm.encryption``)."""
_ENCODED = "UTF-8''"


class ExactString(TypeDecorator[str]):
    """Text that compares exactly: case, accents and trailing spaces count, on every database."""

    impl = String
    cache_ok = True

    def __init__(self, length: int) -> None:
        super().__init__(length)
        self.length = length
        """The most characters that fit, as stored."""

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """A VARCHAR with the collation that compares code points and pads nothing."""
        collation = None
        if dialect.name == "postgresql":
            collation = "C"
        elif dialect.name in ("mysql", "mariadb"):
            is_mariadb = getattr(dialect, "is_mariadb", False)
            collation = "utf8mb4_nopad_bin" if is_mariadb else "utf8mb4_0900_bin"
        return dialect.type_descriptor(String(self.length, collation=collation))

    def stored(self, value: str) -> str:
        """The form in which the database holds the value."""
        return value


class Secret(str):
    """A text whose repr does not show it, and so neither does a log of parameters or rows."""

    __slots__ = ()

    def __repr__(self) -> str:
        """Stars, however long it is."""
        return "'***'"


class SealedSecret(Secret):
    """A secret that is encrypted, as the model has it: it goes back as it came."""

    __slots__ = ()


class Masked(TypeDecorator[Any]):
    """A secret in a table of any shape, whose text no log of parameters and rows shows."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:
        """From Python to the database."""
        return Secret(value) if isinstance(value, str) else value

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:
        """From the database to Python; as it is, where it is no text."""
        return Secret(value) if isinstance(value, str) else value


class StoredSecret(ExactString):
    """A token or secret in the form in which it is stored: printable ASCII.

    One byte a character, so that a column of 2,048 stays below the index limits of MySQL (3,072
    bytes) and of PostgreSQL (2,704 bytes).
    """

    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """A VARCHAR of ASCII."""
        if dialect.name in ("mysql", "mariadb"):
            text = mysql.VARCHAR(self.length, charset="ascii", collation="ascii_bin")
            return dialect.type_descriptor(text)
        return super().load_dialect_impl(dialect)

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """From Python to the database, masked in a log."""
        return None if value is None else Secret(self.stored(value))

    def process_result_value(self, value: str | None, dialect: Dialect) -> str | None:
        """From the database to Python, masked in a log."""
        return None if value is None else Secret(value)


class TokenString(StoredSecret):
    """A token or secret that is not encrypted.

    Zoho's tokens are printable ASCII and are stored as they are. What holds other characters, or
    ends in a space, is stored as ``UTF-8''`` and its percent-encoding (RFC 8187), which keeps the
    comparison exact; so is what looks like something encrypted.
    """

    cache_ok = True

    def stored(self, value: str) -> str:
        """The value itself, or its encoding where the column could not hold or compare it."""
        return self.encoded(value)

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """From Python to the database, masked in a log."""
        return (
            value if isinstance(value, SealedSecret) else super().process_bind_param(value, dialect)
        )

    def process_result_value(self, value: str | None, dialect: Dialect) -> str | None:
        """From the database to Python, masked in a log; an encrypted value stays as it is."""
        if value is None:
            return None
        return SealedSecret(value) if value.startswith(SEALED) else Secret(self.loaded(value))

    @staticmethod
    def encoded(value: str) -> str:
        """The form in which the value is stored."""
        is_plain = value.isascii() and value.isprintable() and not value.endswith(" ")
        if is_plain and not value.startswith((_ENCODED, SEALED)):
            return value
        return _ENCODED + quote(value, safe="")

    @staticmethod
    def loaded(value: str) -> str:
        """The value of which this is the stored form."""
        if not value.startswith(_ENCODED):
            return value
        try:
            return unquote(value[len(_ENCODED) :], errors="strict")
        except UnicodeError:  # not of our making
            return value


class UTCDateTime(TypeDecorator[datetime]):
    """A point in time with microseconds: aware and in UTC on the Python side of every database."""

    impl = DateTime
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """TIMESTAMP WITH TIME ZONE where there is one, else a DATETIME that holds UTC."""
        if dialect.name in ("mysql", "mariadb"):
            return dialect.type_descriptor(mysql.DATETIME(fsp=6))
        return dialect.type_descriptor(DateTime(timezone=dialect.name == "postgresql"))

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """From an aware time to what the database holds."""
        if value is None:
            return None
        value = value.astimezone(timezone.utc)
        return value if dialect.name == "postgresql" else value.replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """From what the database holds to an aware time in UTC."""
        if value is None:
            return None
        aware = value if value.tzinfo else value.replace(tzinfo=timezone.utc)
        return aware.astimezone(timezone.utc)


class utc_now(FunctionElement[datetime]):
    """The database's own clock, in UTC: the default for rows that somebody else inserts."""

    type = UTCDateTime()
    inherit_cache = True


@compiles(utc_now)
def _utc_now(element: utc_now, compiler: SQLCompiler, **options: Any) -> str:
    return "CURRENT_TIMESTAMP"


@compiles(utc_now, "sqlite")
def _utc_now_sqlite(element: utc_now, compiler: SQLCompiler, **options: Any) -> str:
    return "(strftime('%Y-%m-%d %H:%M:%f000', 'now'))"


@compiles(utc_now, "mysql", "mariadb")
def _utc_now_mysql(element: utc_now, compiler: SQLCompiler, **options: Any) -> str:
    return "(UTC_TIMESTAMP(6))"


class epoch_milliseconds(FunctionElement[int]):
    """The database's own clock, in epoch milliseconds: one clock for every host that uses it."""

    type = BigInteger()
    inherit_cache = True


@compiles(epoch_milliseconds, "postgresql")
def _epoch_postgresql(element: epoch_milliseconds, compiler: SQLCompiler, **options: Any) -> str:
    return "CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)"


@compiles(epoch_milliseconds, "sqlite")
def _epoch_sqlite(element: epoch_milliseconds, compiler: SQLCompiler, **options: Any) -> str:
    return "CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)"


@compiles(epoch_milliseconds, "mysql", "mariadb")
def _epoch_mysql(element: epoch_milliseconds, compiler: SQLCompiler, **options: Any) -> str:
    return "(TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(3)) DIV 1000)"


class Base(DeclarativeBase):
    """The declarative base; its metadata names every constraint and index after the table."""

    metadata = MetaData(naming_convention=NAMING_CONVENTION)


class OAuthTokenRow(Base):
    """One authorization: a row of the token table.

    The first ten columns are those that the SDK documents for its own ``DBStore``, in its order.
    Tokens and secrets that were read are strings whose ``repr`` does not show them (``Secret``).
    Where a store encrypts them, only a store decrypts them: the model has them encrypted.
    """

    __tablename__ = DEFAULT_TABLE_NAME

    id: Mapped[str] = mapped_column(ExactString(255), primary_key=True)
    """What the SDK calls the token's id: the caller's own, or 20 decimal digits at random."""
    user_name: Mapped[str | None] = mapped_column(ExactString(512), unique=True)
    """The name in the token's user signature; the SDK makes it ``email:zgid``."""
    client_id: Mapped[str | None] = mapped_column(ExactString(255))
    client_secret: Mapped[str | None] = mapped_column(TokenString(SECRET_LENGTH))
    refresh_token: Mapped[str | None] = mapped_column(TokenString(SECRET_LENGTH), unique=True)
    access_token: Mapped[str | None] = mapped_column(TokenString(SECRET_LENGTH), index=True)
    grant_token: Mapped[str | None] = mapped_column(TokenString(SECRET_LENGTH), unique=True)
    expiry_time: Mapped[int | None] = mapped_column(BigInteger)
    """When the access token expires, in epoch milliseconds."""
    redirect_url: Mapped[str | None] = mapped_column(ExactString(2048))
    api_domain: Mapped[str | None] = mapped_column(ExactString(255))
    created_at: Mapped[datetime] = mapped_column(UTCDateTime, server_default=utc_now(), index=True)
    updated_at: Mapped[datetime] = mapped_column(UTCDateTime, server_default=utc_now())
    lease_owner: Mapped[str | None] = mapped_column(ExactString(64))
    """Who refreshes the access token at the moment (``zoho_token_orm.refresh``)."""
    lease_until: Mapped[int | None] = mapped_column(BigInteger)
    """When that lease runs out, in epoch milliseconds of the database's clock."""

    def __repr__(self) -> str:
        """Which row this is; never a token or a secret."""
        return f"OAuthTokenRow(id={self.id!r}, user_name={self.user_name!r})"


def token_table(name: str = DEFAULT_TABLE_NAME) -> Table:
    """The model's table under another name, in a metadata of its own.

    Args:
        name: The table's name; constraints and indexes are named after it.

    Returns:
        The table; for the default name, the model's own.
    """
    table = OAuthTokenRow.metadata.tables[DEFAULT_TABLE_NAME]
    if name == DEFAULT_TABLE_NAME:
        return table
    return table.to_metadata(MetaData(naming_convention=NAMING_CONVENTION), name=name)


def stored_table(name: str = DEFAULT_TABLE_NAME) -> Table:
    """The same table with tokens and secrets as they are stored (``StoredSecret``).

    Args:
        name: The table's name.
    """
    table = OAuthTokenRow.metadata.tables[DEFAULT_TABLE_NAME].to_metadata(MetaData(), name=name)
    for column in table.columns:
        if isinstance(column.type, TokenString):
            column.type = StoredSecret(column.type.length)
    return table
