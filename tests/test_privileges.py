"""The rights that docs/least-privilege.md grants are enough, and none of them can be left out."""

from __future__ import annotations

import logging
import re
import secrets
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import pytest
from sqlalchemy import URL, Engine, create_engine, select, text
from sqlalchemy.exc import DBAPIError
from zohocrmsdk.src.com.zoho.api.authenticator.oauth_token import OAuthToken
from zohocrmsdk.src.com.zoho.crm.api.exception.sdk_exception import SDKException
from zohocrmsdk.src.com.zoho.crm.api.user_signature import UserSignature

from tests.databases import SERVERS, fresh_database, server
from tests.sdk_tables import fill, sdk_row
from tests.support import CHECKOUT, NEW, granted, in_an_hour
from zoho_token_orm import OAuthTokenRow, SQLAlchemyTokenStore, schema
from zoho_token_orm.database import resolve_url
from zoho_token_orm.errors import error_code

DOCUMENT = (CHECKOUT / "docs" / "least-privilege.md").read_text()
BLOCK = re.compile(r"^<!-- (\w+): (\w+) -->\n```sql\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BLOCKS = {(server, role): sql for server, role, sql in BLOCK.findall(DOCUMENT)}
ROLES = ("migrations", "workers", "reports")

TABLES = ("oauthtoken", "oauthtoken_alembic_version")
DUPLICATES = "oauthtoken_duplicates"
SECRETS = ("1000.grant", "1000.refresh", "1000.access", "the-secret")
DENIED = {"42501", 1044, 1142, 1143}
"""insufficient_privilege; ER_DBACCESS_DENIED_ERROR, ER_TABLEACCESS_DENIED_ERROR and of a column."""

FORBIDDEN = (
    "CREATE TABLE own (id INT)",
    "CREATE TEMPORARY TABLE own (id INT)",
    "CREATE INDEX own ON oauthtoken (client_id)",
    "ALTER TABLE oauthtoken ADD COLUMN own INT",
    "DROP TABLE oauthtoken",
    "DROP TABLE oauthtoken_alembic_version",
    "TRUNCATE TABLE oauthtoken",
    "UPDATE oauthtoken_alembic_version SET version_num = 'own'",
    "DELETE FROM oauthtoken_alembic_version",
    "SELECT id FROM invoice",
    "INSERT INTO invoice VALUES (1)",
)
LATER_MIGRATION = (
    "ALTER TABLE oauthtoken ADD COLUMN later INT",
    "UPDATE oauthtoken_alembic_version SET version_num = version_num",
)


@dataclass(frozen=True)
class Users:
    """The users of the document, on a database of the test's own, with names of its own.

    Attributes:
        name: The server's name.
        administrator: An engine that may do anything, on that database.
        suffix: What the names of the users end in.
    """

    name: str
    administrator: Engine
    suffix: str

    @property
    def password(self) -> str:
        return f"password-{self.suffix}"

    def statements(self, role: str) -> list[str]:
        """The statements of the document for that role, with the test's names."""
        sql = re.sub(r"\bcrm\b", str(self.administrator.url.database), BLOCKS[self.name, role])
        for each in ROLES:
            sql = sql.replace(f"{each}-password", self.password)
            sql = re.sub(rf"\bzoho_{each}\b", self.user(each), sql)
        return [statement.strip() for statement in sql.split(";") if statement.strip()]

    def user(self, role: str) -> str:
        return f"zoho_{role}_{self.suffix}"

    def url(self, role: str) -> URL:
        return self.administrator.url.set(username=self.user(role), password=self.password)

    @contextmanager
    def engine(self, role: str) -> Iterator[Engine]:
        made = create_engine(self.url(role), isolation_level="AUTOCOMMIT")
        try:
            yield made
        finally:
            made.dispose()

    def make(self, role: str) -> None:
        self.administer(*self.statements(role))

    def administer(self, *statements: str) -> None:
        execute(self.administrator, *statements)


def execute(engine: Engine, *statements: str) -> None:
    with engine.connect() as connection:
        for statement in statements:
            connection.execute(text(statement))


@pytest.fixture(params=SERVERS)
def users(request, tmp_path) -> Iterator[Users]:
    """The migrations' user, on an empty database; other users as the test makes them."""
    suffix = secrets.token_hex(6)
    try:
        with fresh_database(request.param, tmp_path) as database:
            engine = create_engine(resolve_url(database.url), isolation_level="AUTOCOMMIT")
            made = Users(request.param, engine, suffix)
            if (request.param, "database") in BLOCKS:
                made.make("database")
            made.make("migrations")
            yield made
            engine.dispose()
    finally:
        drop_users(request.param, suffix)


def drop_users(name: str, suffix: str) -> None:
    url = server(name)
    if url is None:
        return
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    kind, host = ("ROLE", "") if name == "postgresql" else ("USER", "@'%'")
    for role in ROLES:
        execute(engine, f"DROP {kind} IF EXISTS zoho_{role}_{suffix}{host}")
    engine.dispose()


@pytest.fixture
def provisioned(users) -> Users:
    """Both tables, made by the migrations' user, the workers' user, and a table of the host's."""
    schema.upgrade(users.url("migrations"))
    users.make("workers")
    users.administer("CREATE TABLE invoice (id INT)")
    return users


def use_every_method(users: Users) -> None:
    with SQLAlchemyTokenStore(users.url("workers"), create_schema=False) as store:
        alice = granted("alice")
        store.save_token(alice)
        refresh(store, alice)
        merge_rows(store)
        for token in (
            OAuthToken(id=alice.get_id()),
            OAuthToken(user_signature=alice.get_user_signature()),
            OAuthToken("1000.CLIENT", "the-secret", refresh_token="1000.refresh-alice"),
        ):
            assert store.find_token(token).get_id() == alice.get_id()
        assert len(store.get_tokens()) == len(list(store.iter_tokens())) == 2
        store.delete_token(alice.get_id())
        assert store.purge(timedelta(days=1)) == 0
        assert store.rotate_keys() == 0
        store.delete_tokens()
        assert store.get_tokens() == []


def refresh(store: SQLAlchemyTokenStore, token: OAuthToken) -> None:
    """What the SDKs of a worker do with a token that has expired; the lease is really taken."""
    token.set_expires_in("1000")
    store.save_token(token)
    found = store.find_token_by_id(token.get_id())
    with store.engine.connect() as connection:
        assert connection.scalar(select(OAuthTokenRow.lease_owner)) is not None
    found.set_access_token("1000.access-fresh")
    found.set_expires_in(in_an_hour())
    store.save_token(found)


def merge_rows(store: SQLAlchemyTokenStore) -> None:
    """A user's row, and a second one from before the user was known, become one."""
    store.save_token(granted("bob"))
    early = granted("early")
    early.set_user_signature(None)
    store.save_token(early)
    early.set_user_signature(UserSignature("bob@example.com:7001"))
    store.save_token(early)


def migrate(users: Users) -> None:
    """All that the migrations' user does, and what a later migration is likely to do."""
    url = users.url("migrations")
    schema.upgrade(url)
    schema.check(url)
    assert schema.current(url) == schema.head()
    with users.engine("migrations") as engine:
        execute(engine, *LATER_MIGRATION)
    schema.downgrade(url)
    schema.upgrade(url)


def make_old_table(users: Users) -> None:
    """A table of DBStore's, with two rows of one user."""
    users.administer(*(f"DROP TABLE IF EXISTS {table}" for table in (*TABLES, DUPLICATES)))
    fill(users.administrator, *(sdk_row(str(n), "a@b:1", expiry_time=str(n)) for n in (1, 2)))


def take_over(users: Users) -> None:
    """What the migrations' user does with such a table, and back."""
    url = users.url("migrations")
    assert "1 rows that have lost" in schema.upgrade(url)
    schema.check(url)
    schema.downgrade(url, "zto_sdk")
    with users.administrator.connect() as connection:
        connection.execute(text("INSERT INTO oauthtoken (id, grant_token) VALUES ('3', '')"))
    assert "1 rows that have lost" in schema.upgrade(url)
    schema.downgrade(url, "zto_sdk")
    users.administer(f"DROP TABLE {DUPLICATES}")
    assert schema.upgrade(url) == ""  # the table that was made for them goes again


def test_the_document_has_each_role_on_each_server():
    assert BLOCKS.keys() - {("postgresql", "database")} == {
        (server, role) for server in SERVERS for role in (*ROLES, "takeover")
    }


def test_the_migrations_user_can_make_check_change_and_drop_the_tables(users):
    migrate(users)


def test_the_workers_user_can_use_every_method(provisioned, caplog):
    with caplog.at_level(logging.WARNING, "zoho_token_orm"):
        use_every_method(provisioned)
    assert caplog.records == []


def test_the_workers_user_can_encrypt_what_is_there(provisioned):
    url = provisioned.url("workers")
    with SQLAlchemyTokenStore(url) as store:
        for name in ("alice", "bob"):
            store.save_token(granted(name))
    with SQLAlchemyTokenStore(url, encryption_keys=NEW) as store:
        assert store.rotate_keys() == 2


def test_the_workers_rights_hold_for_a_column_that_a_later_migration_adds(provisioned):
    with provisioned.engine("migrations") as engine:
        execute(engine, "ALTER TABLE oauthtoken ADD COLUMN later INT")
    use_every_method(provisioned)
    with provisioned.engine("workers") as engine:
        execute(engine, "SELECT later FROM oauthtoken", "UPDATE oauthtoken SET later = 1")


def test_the_workers_user_can_do_nothing_else(provisioned):
    with provisioned.engine("workers") as engine:
        assert [statement for statement in FORBIDDEN if not is_denied(engine, statement)] == []


def test_the_workers_user_cannot_migrate(provisioned):
    with pytest.raises(SDKException, match="could not migrate the schema"):
        schema.downgrade(provisioned.url("workers"))


def test_the_reports_user_sees_whose_tokens_there_are_and_no_token(provisioned):
    provisioned.make("reports")
    with SQLAlchemyTokenStore(provisioned.url("workers")) as store:
        store.save_token(granted("alice"))
    hidden = ("client_secret", "refresh_token", "access_token", "grant_token")
    forbidden = (
        *(f"SELECT {column} FROM oauthtoken" for column in hidden),
        *("UPDATE oauthtoken SET user_name = id", "DELETE FROM oauthtoken", *FORBIDDEN),
    )
    with provisioned.engine("reports") as engine:
        with engine.connect() as connection:
            rows = connection.execute(text("SELECT user_name, client_id FROM oauthtoken")).all()
        assert rows == [("alice@example.com:7001", "1000.CLIENT")]
        assert [statement for statement in forbidden if not is_denied(engine, statement)] == []


def test_the_migrations_user_can_take_over_a_table_of_dbstores(users):
    make_old_table(users)
    users.make("takeover")
    take_over(users)


def test_no_right_to_take_over_can_be_left_out(users):
    make_old_table(users)
    users.make("takeover")
    done_without = []
    for right in rights(users.statements("takeover")):
        make_old_table(users)
        users.administer(right.revoke)
        if refusal(take_over, users) is None:
            done_without.append(right.revoke)
        users.administer(right.grant)
    assert done_without == []


@pytest.mark.parametrize("role", ["migrations", "workers"])
def test_no_right_can_be_left_out_and_what_is_said_then_shows_no_token(provisioned, role):
    use = {"migrations": migrate, "workers": use_every_method}[role]
    said = {}
    for right in rights(provisioned.statements(role)):
        start_anew(provisioned, role)
        provisioned.administer(right.revoke)
        said[right.revoke] = refusal(use, provisioned)
        provisioned.administer(right.grant)
    assert [revoke for revoke, text in said.items() if text is None] == []
    everything = "".join(map(str, said.values()))
    assert not [secret for secret in (*SECRETS, provisioned.password) if secret in everything]
    start_anew(provisioned, role)
    use(provisioned)


@dataclass(frozen=True)
class Right:
    """One right on one object."""

    grant: str
    revoke: str


def rights(statements: list[str]) -> list[Right]:
    grants = [re.fullmatch(r"GRANT (.+) ON (.+) TO (.+)", statement) for statement in statements]
    return [
        Right(f"GRANT {name} ON {on} TO {user}", f"REVOKE {name} ON {on} FROM {user}")
        for names, on, user in (grant.groups() for grant in grants if grant)
        for name in names.split(", ")
    ]


def start_anew(users: Users, role: str) -> None:
    """The tables as they are before the role begins: empty, or not there."""
    if role == "workers":
        users.administer("DELETE FROM oauthtoken")
    else:
        users.administer(*(f"DROP TABLE IF EXISTS {table}" for table in TABLES))


def refusal(use: Callable[[Users], None], users: Users) -> str | None:
    """What is said where a right is missing; None where it is done without."""
    try:
        use(users)
    except SDKException as error:
        return "".join(traceback.format_exception(error))
    except DBAPIError as error:  # of the statements that stand for a later migration
        if error_code(error) in DENIED:
            return str(error.orig)
        raise
    return None


def is_denied(engine: Engine, statement: str) -> bool:
    try:
        execute(engine, statement)
    except DBAPIError as error:
        return error_code(error) in DENIED
    return False
