"""SQLAlchemyTokenStore: the SDK's TokenStore on a relational database."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta, timezone
from types import TracebackType
from typing import TypeVar

from sqlalchemy import URL, Connection, Engine
from zohocrmsdk.src.com.zoho.api.authenticator.oauth_token import OAuthToken
from zohocrmsdk.src.com.zoho.api.authenticator.store.token_store import TokenStore
from zohocrmsdk.src.com.zoho.crm.api.exception.sdk_exception import SDKException

from zoho_token_orm import identity, mapping, schema
from zoho_token_orm.database import Database, bounds, shown
from zoho_token_orm.direct import Found
from zoho_token_orm.encryption import Cipher, keys_of
from zoho_token_orm.errors import token_store_error
from zoho_token_orm.known import KnownIds
from zoho_token_orm.models import DEFAULT_TABLE_NAME, stored_table
from zoho_token_orm.refresh import RefreshLease
from zoho_token_orm.rotation import Rotation
from zoho_token_orm.saving import Save
from zoho_token_orm.statements import FIRST, Statements

Result = TypeVar("Result")

PAGE = 500
LONGEST_WAIT = 86_400
"""The most seconds that ``refresh_wait`` may have."""

logger = logging.getLogger("zoho_token_orm")
logger.addHandler(logging.NullHandler())


class SQLAlchemyTokenStore(TokenStore):  # type: ignore[misc]
    """Keeps the SDK's OAuth tokens in SQLite, PostgreSQL, MySQL or MariaDB.

    Give it to ``Initializer.initialize(..., store=store)``. Any number of threads may use one
    store, and any number of processes and hosts one database.

    Args:
        database: A URL (string or ``sqlalchemy.URL``) or an ``Engine`` of the caller's, whose
            settings stay as they are and which is never disposed of; only in a forked child it
            forgets the parent's connections. One with a listener for ``begin`` is refused; one on
            ``sqlite://`` wants a ``StaticPool``, as each thread has a database of its own
            otherwise, and what the application has begun on that one connection ends with the
            next call of the store. None means the environment variable ``ZOHO_TOKEN_DB_URL``, and
            without it ``sqlite:///zohooauth.db``. A URL without a driver gets psycopg or PyMySQL.
        create_schema: True runs the migrations now, False never does; None means True for SQLite
            and False for a server, where ``zoho-token-orm upgrade`` is a step of the deployment.
        table_name: The table's name; letters, digits and underscores, 43 at most.
        encryption_keys: Keys of ``zoho-token-orm generate-key``, newest first: one, several
            separated by commas, or a sequence. Access, refresh and grant token and client secret
            are encrypted with the first and decrypted with any. ``"plain"`` among them reads plain
            text too, and in the first place stores it. None means the environment variable
            ``ZOHO_TOKEN_ENCRYPTION_KEYS``, and without it no encryption.
        refresh_wait: Seconds for which a look-up that meets an access token about to expire waits
            for another caller's refresh of it, at most; up to a day. 0 lets every caller refresh by
            itself.

    Attributes:
        engine: The engine in use.

    Raises:
        ValueError: An argument cannot be used.
        SDKException: The database cannot be reached, or its schema is missing or outdated; the
            message names the command to run.
    """

    def __init__(
        self,
        database: str | URL | Engine | None = None,
        *,
        create_schema: bool | None = None,
        table_name: str = DEFAULT_TABLE_NAME,
        encryption_keys: str | Sequence[str] | None = None,
        refresh_wait: float = 10.0,
    ) -> None:
        _check_wait(refresh_wait)
        self._cipher = Cipher(keys_of(encryption_keys))
        self._known = KnownIds()
        self._is_closed = False
        self._database = Database(database, table_name)
        self._statements = Statements(stored_table(table_name), self._cipher)
        self._lease = RefreshLease(self._run, self._statements, refresh_wait)
        self.engine: Engine = self._database.engine
        self._prepare_schema(create_schema)

    def _prepare_schema(self, create: bool | None) -> None:
        if create is None:
            create = self._database.is_embedded
        try:
            schema.prepare(self._database, create=create)
        except BaseException:
            self._database.close()
            raise

    def __repr__(self) -> str:
        where, table_name = shown(self.engine.url), self._database.table_name
        return f"SQLAlchemyTokenStore({where!r}, table_name={table_name!r})"

    def __enter__(self) -> SQLAlchemyTokenStore:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections that the store has opened; a caller's engine stays as it is."""
        self._is_closed = True
        self._database.close()

    # The SDK's six methods

    def find_token(self, token: OAuthToken) -> OAuthToken | None:
        """Completes a token from the row that it names; one SELECT.

        The SDK calls this in ``get_token`` for a token without an id, and in ``revoke``. Where it
        is about to refresh the access token, one caller gets it as it is (one UPDATE more), and the
        others wait for what that one saves.

        Args:
            token: What is known: an id, a user, an access token alone, a grant or a refresh token.
                It is looked up by the first of these that names a row of its own user and client.

        Returns:
            The same object, with what it lacked; None where there is no row.

        Raises:
            SDKException: It is no OAuthToken, the database did not answer, or no key opens a secret
                of a row that it names.
        """
        fields = mapping.fields_of(token)
        names = identity.names_of(fields)
        if not names:
            return None
        look_up = functools.partial(self._row_named, names, fields)
        lacks_access = fields["access_token"] is None and fields["expiry_time"] is None
        row = self._lease.settled(look_up) if lacks_access else look_up()
        if row is None:
            return None
        mapping.fill(token, row, fields)
        # A token that keeps the id of another row came from that one, which may have been deleted
        # since, as at a log-out: this row, of the same user, is not its own.
        if token.get_id() == row.id or token.get_id() != self._known_id(token):
            self._known.remember(token, row.id)
        return token

    def find_token_by_id(self, id: str) -> OAuthToken | None:
        """Loads a token by its id; one SELECT.

        The SDK calls this in ``get_token`` for a token that has an id. It waits for another
        caller's refresh as ``find_token`` does; to look only, use ``get_tokens``.

        Args:
            id: The token's id.

        Returns:
            A new, complete token; None where no row has that id.

        Raises:
            SDKException: The id is no string, the database did not answer, or no key opens a
                secret of the row.
        """
        id = mapping.checked("id", id)  # type: ignore[assignment]
        if id is None:
            return None
        row = self._lease.settled(lambda: self._row_with(id))
        return None if row is None else self._loaded(row)

    def save_token(self, token: OAuthToken) -> None:
        """Stores a token: one authorization, one row.

        The row that the token names is updated with what the token has, else a row is inserted;
        rows that turn out to be the same authorization become one. Afterwards token and row have
        one id. After a refresh this is one UPDATE. While the database is away it is tried for 15
        seconds.

        The SDK calls this in ``get_token`` after it has exchanged a grant token, refreshed an
        access token or met a new access token. It swallows any exception, so that failures are also
        logged, on the logger ``zoho_token_orm``.

        Raises:
            SDKException: It could not be stored; it is no OAuthToken; there is nothing to store; no
                key opens a secret of its row; or the token, which this store had loaded or saved,
                has been deleted since.
        """
        try:
            fields, known_id = mapping.fields_of(token), self._known_id(token)
            save = Save(self._statements, fields, known_id, self._lease.owner)
            id = self._run("save the token", save, patience=bounds.SAVE_PATIENCE)
        except SDKException as error:
            logger.error("a token was not saved: %s", error)
            raise
        token.set_id(id)
        self._known.remember(token, id)

    def delete_token(self, id: str) -> None:
        """Deletes a token by its id; that there is none is fine. One DELETE.

        The SDK calls this in ``OAuthToken.remove``.

        Raises:
            SDKException: The id is None, empty or no string, or the database did not answer.
        """
        checked = mapping.checked("id", id)
        if checked is None:
            raise token_store_error("delete_token needs an id; delete_tokens deletes all")
        self._run(
            "delete the token",
            lambda c: c.execute(self._statements.delete, {"ids": [checked]}),
        )

    def get_tokens(self) -> list[OAuthToken]:
        """Loads all tokens, oldest first, each complete and ready for ``Initializer.switch_user``.

        Raises:
            SDKException: The database did not answer, or no key opens a secret.
        """
        rows = self._run("load the tokens", lambda c: self._statements.all.run(c, {}))
        return [self._loaded(row) for row in rows]

    def delete_tokens(self) -> None:
        """Deletes all tokens, in one statement.

        Raises:
            SDKException: The database did not answer.
        """
        self._run(
            "delete the tokens",
            lambda c: c.execute(self._statements.delete_all),
        )

    # More than the SDK asks for

    def iter_tokens(self) -> Iterator[OAuthToken]:
        """Loads all tokens, oldest first, some hundreds at a time.

        Between the pages it holds no connection and no transaction, so that each token may be
        worked on for any time. A token that is saved or deleted meanwhile may or may not be seen.

        Raises:
            SDKException: The database did not answer, or no key opens a secret.
        """
        after = FIRST
        while True:
            page = functools.partial(self._statements.page, after=after, size=PAGE)
            rows, after = self._run("load the tokens", page)
            yield from map(self._loaded, rows)
            if len(rows) < PAGE:
                return

    def purge(self, unused_for: timedelta) -> int:
        """Deletes the tokens that nobody has used for a time. One DELETE.

        A token in use is saved whenever its access token has been refreshed, once an hour; so a
        token is unused for as long as nobody saves it. The authorization at Zoho is not revoked.

        Args:
            unused_for: How long; more than an hour, in practice weeks or months.

        Returns:
            How many were deleted.

        Raises:
            SDKException: It is no timedelta or a negative one, or the database did not answer.
        """
        if not isinstance(unused_for, timedelta) or unused_for < timedelta(0):
            raise token_store_error("unused_for must be a timedelta of zero or more")
        try:
            now = datetime.now(timezone.utc)
            statement = self._statements.delete_unused(now - unused_for, now)
        except OverflowError:  # longer than there have been tokens
            return 0
        return self._run("purge the tokens", lambda c: c.execute(statement).rowcount)

    def rotate_keys(self, on_progress: Callable[[int, int], None] | None = None) -> int:
        """Encrypts every secret with the newest key, those in plain text too.

        Others may read and write meanwhile, if they have the same newest key and the older ones.
        Interrupted, it goes on where it was when it is called again. Afterwards no older key is
        needed. Where ``"plain"`` is the first key, everything is decrypted.

        Args:
            on_progress: Is told how many rows are done, of how many, after some hundreds.

        Returns:
            How many rows have been changed.

        Raises:
            SDKException: The database did not answer; or a secret is encrypted with a key that is
                not given, or was tampered with: all other rows are done then.
        """
        table = stored_table(self._database.table_name)
        rotation = Rotation(self._run, table, self._cipher.with_plain())
        return rotation(on_progress or (lambda done, total: None))

    # How it is done

    def _run(
        self, what: str, work: Callable[[Connection], Result], *, patience: float = 0.0
    ) -> Result:
        if self._is_closed:
            raise token_store_error(f"could not {what}: the store is closed")
        return self._database.run(what, work, patience=patience)

    def _row_with(self, id: str) -> Found | None:
        by_id = self._statements.by_id
        rows = self._run("find the token", lambda c: by_id.run(c, {"id": id}))
        return rows[0] if rows else None

    def _row_named(self, names: Sequence[identity.Name], fields: mapping.Fields) -> Found | None:
        rows = self._run("find the token", lambda c: self._statements.rows_named(c, names))
        return identity.answer(rows, names, fields)

    def _known_id(self, token: OAuthToken) -> str | None:
        """The id of the token's row when the store last met it; None for a new token."""
        known = self._known.get(token)
        if known is None and mapping.is_merged(token):
            known = mapping.checked("id", token.get_id())
        return known

    def _loaded(self, row: Found) -> OAuthToken:
        token = mapping.token_of(row)
        self._known.remember(token, row.id)
        return token


def _check_wait(seconds: float) -> None:
    is_number = isinstance(seconds, (int, float)) and not isinstance(seconds, bool)
    if not is_number or not 0 <= seconds <= LONGEST_WAIT:
        raise ValueError(f"refresh_wait must be a number of seconds, from 0 to {LONGEST_WAIT}")
