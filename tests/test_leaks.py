"""Marked secrets are planted, all is written that can be, and none of it holds a mark.

Every method succeeds and fails, on every database, however much is logged.
"""

from __future__ import annotations

import base64
import io
import logging
import os
import re
import secrets
import subprocess
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, StaticPool, create_engine, event, select, text
from sqlalchemy.orm import Session
from zohocrmsdk.src.com.zoho.api.authenticator.oauth_token import OAuthToken
from zohocrmsdk.src.com.zoho.api.authenticator.store import FileStore
from zohocrmsdk.src.com.zoho.crm.api.user_signature import UserSignature

from tests.databases import Database
from tests.proxy import Proxy
from tests.sdk_tables import DOCUMENTED, fill, sdk_row
from tests.support import CHECKOUT, in_an_hour, run
from zoho_token_orm import OAuthTokenRow, SQLAlchemyTokenStore, schema
from zoho_token_orm.database import URL_VARIABLE, bounds, resolve_url
from zoho_token_orm.encryption import KEYS_VARIABLE, generate_key
from zoho_token_orm.transfer import export_tokens, import_tokens

MARKS = {
    "access_token": "XaccessX",
    "refresh_token": "XrefreshX",
    "grant_token": "XgrantX",
    "client_secret": "XsecretX",
    "password": "XpasswordX",
    "key": "XenckeyX",
}
PASSWORD = MARKS["password"] * 3
KEY = MARKS["key"] * 10 + "abcdeA"
OTHER_KEY = MARKS["key"] * 10 + "abcdfA"
KEY_BYTES = base64.urlsafe_b64decode(KEY + "==")
SOUGHT = {
    **MARKS,
    "the key's bytes": repr(KEY_BYTES[:6])[2:-1],
    "the key in hexadecimal": KEY_BYTES[:6].hex(),
}


def secret(kind: str, name: str = "", times: int = 5) -> str:
    """A value that holds its mark all over, so that a part of it is found too."""
    return f"1000.{MARKS[kind] * times}{name}"


def planted(name: str, times: int = 5, **more: str) -> OAuthToken:
    token = OAuthToken(
        client_id="1000.CLIENT",
        client_secret=secret("client_secret", times=times),
        grant_token=secret("grant_token", name, times),
        refresh_token=secret("refresh_token", name, times),
        access_token=secret("access_token", name, times),
        user_signature=UserSignature(f"{name}@example.com:1"),
        **more,
    )
    token.set_expires_in(in_an_hour())
    return token


# What is written, and the search in it


def found_in(written: str) -> dict[str, str]:
    """The marks that are there, and what stands around the first of each."""
    places = {kind: written.find(mark) for kind, mark in SOUGHT.items()}
    return {
        kind: written[max(0, place - 300) : place + 60]
        for kind, place in places.items()
        if place >= 0
    }


class Watch(logging.Handler):
    """Keeps all that anybody could write down."""

    def __init__(self) -> None:
        super().__init__(1)
        self.written = io.StringIO()
        self.held: list[str] = []
        self.errors: list[BaseException] = []

    def note(self, *texts: object) -> None:
        for each in texts:
            self.written.write(f"{each}\n")

    def emit(self, record: logging.LogRecord) -> None:
        self.note(record.getMessage(), repr(record.msg), repr(record.args), record.stack_info)
        if record.exc_info:
            self.note(*traceback.format_exception(*record.exc_info))

    def look_at(self, *things: object) -> None:
        """Notes what a debugger or an error reporter shows of a thing."""
        for thing in things:
            self.note(repr(thing), str(thing))

    def attempt(self, call: Callable[[], object]) -> bool:
        """Makes the call, and notes what it returns or raises; whether it raised."""
        try:
            self.look_at(call())
        except Exception as error:
            self.errors.append(error)
            self.note(*traceback.format_exception(error))
            shown, held = chain(error)
            for link in shown:
                self.look_at(link, *link.args)
            for link in (*shown, *held):
                self.held.append(repr([link, link.args, vars(link), *diagnosis(link)]))
            return True
        return False

    @property
    def found(self) -> dict[str, str]:
        return found_in(self.written.getvalue())


def chain(error: BaseException) -> tuple[list[BaseException], list[BaseException]]:
    """The errors that a traceback shows, and those that these hold on to besides."""
    shown = linked(error, lambda link: [link.__cause__ or _context(link), _cause(link)])
    every = linked(error, lambda link: [link.__cause__, link.__context__, _cause(link)])
    return shown, [link for link in every if not any(link is other for other in shown)]


def _context(link: BaseException) -> BaseException | None:
    return None if link.__suppress_context__ else link.__context__


def _cause(link: BaseException) -> Any:
    return getattr(link, "cause", None) or getattr(link, "orig", None)


def linked(
    error: BaseException, links: Callable[[BaseException], list[Any]]
) -> list[BaseException]:
    seen: list[BaseException] = []
    left: list[Any] = [error]
    while left:
        link = left.pop()
        if isinstance(link, BaseException) and not any(link is other for other in seen):
            seen.append(link)
            left += links(link)
    return seen


def diagnosis(error: BaseException) -> list[str]:
    """What psycopg tells apart from the message."""
    diag = getattr(error, "diag", None)
    return [str(getattr(diag, name)) for name in dir(diag) if not name.startswith("_")]


@contextmanager
def everything_watched() -> Iterator[Watch]:
    """Meanwhile all is kept that is logged, at the lowest level, or warned of.

    The level of SQLAlchemy's engines is left to their ``echo``: a store takes another way where
    they log, and is to take the one of production too.
    """
    watch, root = Watch(), logging.getLogger()
    names = [each for each in logging.root.manager.loggerDict if not each.startswith("sqlalchemy")]
    levels = {one: one.level for one in map(logging.getLogger, [None, "sqlalchemy.pool", *names])}
    echoing = logging.getLogger("sqlalchemy.engine.Engine")
    echoing.handlers[:] = [logging.NullHandler()]  # or it gets one, on a stream that pytest closes
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        for logger in levels:
            logger.setLevel(1)
        root.addHandler(watch)
        try:
            yield watch
        finally:
            root.removeHandler(watch)
            for logger, level in levels.items():
                logger.setLevel(level)
            echoing.handlers.clear()
            watch.note(*(str(warning.message) for warning in warned))


def test_the_search_finds_a_mark_wherever_it_is_written(capfd):
    mark = MARKS["access_token"]

    def raises() -> None:
        try:
            raise KeyError(mark)
        except KeyError:
            raise ValueError("hidden") from None

    writers: list[Callable[[Watch], object]] = [
        lambda watch: logging.getLogger("any.library").debug("a %s", mark),
        lambda watch: logging.getLogger("any.library").debug("%(a)s", {"a": [mark]}),
        lambda watch: warnings.warn(f"a {mark}", stacklevel=1),
        lambda watch: watch.attempt(lambda: int(mark)),
        lambda watch: watch.attempt(raises),
        lambda watch: watch.look_at(vars(planted("alice"))),
        lambda watch: watch.look_at({"a": (mark,)}),
    ]
    for write in writers:
        with everything_watched() as watch:
            write(watch)
        assert "access_token" in {**watch.found, **found_in("".join(watch.held))}
    print(mark)
    assert "access_token" in found_in(capfd.readouterr().out)
    assert set(found_in(repr(KEY_BYTES) + KEY_BYTES.hex())) == SOUGHT.keys() - MARKS.keys()
    assert found_in("nothing") == {}


# The stores


@pytest.fixture(autouse=True)
def short_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Failures are to come at once."""
    for name in ("COLLISION_PATIENCE", "SAVE_PATIENCE", "BUSY_TIMEOUT"):
        monkeypatch.setattr(bounds, name, 0.05)
    monkeypatch.setattr(bounds, "LOCK_TIMEOUT", 1)


@pytest.fixture
def url(database: Database) -> Iterator[Any]:
    """The URL of a user whose password is marked, where there are users."""
    administrator = resolve_url(database.url)
    if not database.is_server:
        yield administrator
        return
    name = f"zto_{secrets.token_hex(4)}"
    is_postgresql = database.name == "postgresql"
    who = name if is_postgresql else f"{name}@'%'"
    made = {
        True: [f"CREATE ROLE {name} LOGIN SUPERUSER PASSWORD '{PASSWORD}'"],
        False: [
            f"CREATE USER {who} IDENTIFIED BY '{PASSWORD}'",
            f"GRANT ALL ON `{administrator.database}`.* TO {who}",
        ],
    }[is_postgresql]
    _do(administrator, *made)
    yield administrator.set(username=name, password=PASSWORD)
    owned = [f"DROP OWNED BY {name} CASCADE"] if is_postgresql else []
    _do(administrator, *owned, f"DROP {'ROLE' if is_postgresql else 'USER'} {who}")


def _do(where: Any, *statements: str) -> None:
    """Does something to the database behind the store's back."""
    engine = where if isinstance(where, Engine) else create_engine(where)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for statement in statements:
            connection.execute(text(statement.replace(":", r"\:")))
    if engine is not where:
        engine.dispose()


KINDS = ["url", "engine"]
"""The two ways of production and of debugging: SQLAlchemy takes another where it logs."""


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=["plain", "encrypted"])
def keys(request: pytest.FixtureRequest) -> str:
    return KEY if request.param == "encrypted" else "plain"


@pytest.fixture
def watch(capfd: pytest.CaptureFixture[str]) -> Iterator[Watch]:
    """Everything that is written meanwhile, in which there must be no mark at the end."""
    with everything_watched() as watching:
        yield watching
    watching.note(*capfd.readouterr())
    shown = [f"{what} is shown in: {where}" for what, where in watching.found.items()]
    held = {what: where for each in watching.held for what, where in found_in(each).items()}
    shown += [f"{what} is held in: {where}" for what, where in held.items()]
    if shown:
        pytest.fail("\n\n".join(shown))


@pytest.fixture
def store(url: Any, kind: str, keys: str, watch: Watch) -> Iterator[SQLAlchemyTokenStore]:
    """A store on a URL, or on an application's engine that hides nothing."""
    with ExitStack() as stack:
        where = url
        if kind == "engine":
            where = an_engine(url)
            stack.callback(where.dispose)
        options = {"create_schema": True, "encryption_keys": keys, "refresh_wait": 0.05}
        yield stack.enter_context(SQLAlchemyTokenStore(where, **options))


def an_engine(url: Any) -> Engine:
    """An engine of an application's, that shows all it can."""
    lite = url.get_backend_name() == "sqlite"
    options = {"connect_args": {"timeout": 0.05, "check_same_thread": False}} if lite else {}
    if lite and not url.database:
        options["poolclass"] = StaticPool
    return create_engine(url, echo="debug", hide_parameters=False, **options)


# What is done with them


def every_method(store: SQLAlchemyTokenStore, id: str = "1", times: int = 5) -> list[Callable]:
    """Calls of each method, in each of its ways."""
    alice = planted("alice", times, id=id)
    expired = planted("expired", times)
    expired.set_expires_in("1000")
    return [
        lambda: store.save_token(alice),
        lambda: _refresh(store, alice, times),
        lambda: store.save_token(expired),
        lambda: store.find_token_by_id(id),
        lambda: store.find_token_by_id(expired.get_id()),
        lambda: store.find_token(OAuthToken(id=id)),
        lambda: store.find_token(OAuthToken(user_signature=UserSignature("alice@example.com:1"))),
        lambda: store.find_token(OAuthToken(access_token=secret("access_token", "alice", times))),
        lambda: store.find_token(_of_client(grant_token=secret("grant_token", "alice", times))),
        lambda: store.find_token(_of_client(refresh_token=secret("refresh_token", "alice", times))),
        lambda: _merge(store, times),
        lambda: store.save_token(planted("alice", times, id=f"{id}-renamed")),
        store.get_tokens,
        lambda: list(store.iter_tokens()),
        store.rotate_keys,
        lambda: store.purge(timedelta(days=1)),
        lambda: schema.check(store.engine),
        lambda: schema.current(store.engine),
        lambda: [store, store.engine, store.engine.url, store.engine.pool, vars(store)],
        lambda: store.delete_token(id),
        store.delete_tokens,
    ]


def reading(store: SQLAlchemyTokenStore) -> list[Callable]:
    """Calls that meet the row of ``every_method`` as it is, before one of those changes it."""
    named = [
        OAuthToken(id="1"),
        OAuthToken(user_signature=UserSignature("alice@example.com:1")),
        _of_client(grant_token=secret("grant_token", "alice")),
    ]
    return [
        lambda: store.find_token_by_id("1"),
        *(lambda token=token: store.find_token(token) for token in named),
        store.get_tokens,
        lambda: list(store.iter_tokens()),
        lambda: store.save_token(planted("alice")),
        store.rotate_keys,
    ]


def _refresh(store: SQLAlchemyTokenStore, token: OAuthToken, times: int) -> None:
    token.set_access_token(secret("access_token", "fresh", times))
    store.save_token(token)
    token.set_access_token(secret("access_token", "alice", times))
    token.set_expires_in(in_an_hour())
    store.save_token(token)


def _merge(store: SQLAlchemyTokenStore, times: int) -> None:
    early = planted("early", times)
    early.set_user_signature(None)
    store.save_token(early)
    early.set_user_signature(UserSignature("alice@example.com:1"))
    store.save_token(early)


def _of_client(**names: str) -> OAuthToken:
    return OAuthToken("1000.CLIENT", secret("client_secret"), **names)


def _row_of_the_model(store: SQLAlchemyTokenStore) -> object:
    with Session(store.engine) as session:
        rows = session.scalars(select(OAuthTokenRow)).all()
        whole = session.execute(select(*OAuthTokenRow.__table__.columns)).all()
        return [*rows, *map(vars, rows), whole]


def test_nothing_is_shown_while_every_method_succeeds(store, watch):
    *calls, delete_token, delete_tokens = every_method(store)
    for call in (*calls, lambda: _row_of_the_model(store), delete_token, delete_tokens):
        assert not watch.attempt(call), watch.errors[-1]
    for statement in (store._statements.by_id, store._statements.all, store._statements.delete):
        watch.look_at(statement, vars(store._statements))


MYSQL = ["mysql", "mariadb"]
SERVERS = ["postgresql", *MYSQL]
ALL = ["sqlite-file", "sqlite-memory", *SERVERS]
SECRETS = ("access_token", "refresh_token", "grant_token", "client_secret")
TABLE = "ALTER TABLE oauthtoken"
DAMAGE: dict[str, tuple[list[str], str]] = {
    "the table dropped": (ALL, "DROP TABLE oauthtoken"),
    "a column dropped": (ALL, f"{TABLE} DROP COLUMN client_secret"),
    "a column renamed": (ALL, f"{TABLE} RENAME COLUMN api_domain TO domain"),
    "a column required": (SERVERS, f"{TABLE} ADD COLUMN more VARCHAR(9) NOT NULL"),
    "a value required": (MYSQL, f"{TABLE} MODIFY redirect_url TEXT NOT NULL"),
    "a value required by PostgreSQL": (
        ["postgresql"],
        f"{TABLE} ALTER COLUMN redirect_url SET NOT NULL",
    ),
    "a constraint": (SERVERS, f"{TABLE} ADD CONSTRAINT odd CHECK (id LIKE '2%')"),
    "one row of a client": (ALL, "CREATE UNIQUE INDEX single ON oauthtoken (client_secret)"),
    "a trigger": (
        ["sqlite-file", "sqlite-memory"],
        "CREATE TRIGGER odd BEFORE INSERT ON oauthtoken BEGIN SELECT RAISE(ABORT, 'no'); END",
    ),
    **{
        f"{name} as {kind} on MySQL": (MYSQL, f"{TABLE} MODIFY {name} {kind}")
        for name in SECRETS
        for kind in ("VARCHAR(5)", "DATE")
    },
    **{
        f"{name} as {kind} on PostgreSQL": (
            ["postgresql"],
            f"{TABLE} ALTER COLUMN {name} TYPE {kind} USING NULL",
        )
        for name in SECRETS
        for kind in ("VARCHAR(5)", "DATE")
    },
}
"""By name: the databases on which it can be done, and the statement."""


def test_nothing_is_shown_while_every_method_fails_on_a_damaged_table(store, watch, database):
    times = 40  # so long that a database quotes them in part
    for on, statement in DAMAGE.values():
        if database.name not in on:
            continue
        store.save_token(planted("before", times, id="7"))
        store.delete_tokens()
        _do(store.engine, statement)
        before = len(watch.errors)
        for call in every_method(store, times=times):
            watch.attempt(call)
        assert len(watch.errors) > before, statement
        _do(store.engine, "DROP TABLE IF EXISTS oauthtoken")
        schema.prepare(store._database, create=True)


def test_nothing_is_shown_where_a_trigger_quotes_what_is_stored(store, watch, database):
    """An application's own trigger, or a proxy before the database, may quote anything."""
    if not database.is_server:
        pytest.skip("its triggers raise fixed texts")
    _do(store.engine, *quoting_trigger(database.name))
    for times in (1, 5, 40):
        for call in every_method(store, times=times):
            watch.attempt(call)
    assert watch.errors


def quoting_trigger(database: str) -> list[str]:
    raised = "NEW.refresh_token, ' ', NEW.client_secret"
    if database == "postgresql":
        return [
            "CREATE FUNCTION quoting() RETURNS trigger LANGUAGE plpgsql AS "
            f"$$ BEGIN RAISE EXCEPTION '%', concat({raised}); END $$",
            "CREATE TRIGGER quoting BEFORE INSERT ON oauthtoken "
            "FOR EACH ROW EXECUTE FUNCTION quoting()",
        ]
    return [
        "CREATE TRIGGER quoting BEFORE INSERT ON oauthtoken FOR EACH ROW BEGIN "
        f"DECLARE said VARCHAR(120); SET said = LEFT(CONCAT({raised}), 120); "
        "SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = said; END"
    ]


def test_nothing_is_shown_of_a_value_that_cannot_be_decoded(store, watch, database):
    """SQLite keeps whatever bytes it is given, and its driver quotes what it cannot decode."""
    if database.is_server:
        pytest.skip("a server takes none")
    for name in SECRETS:
        store.save_token(planted("alice", id="1"))
        value = f"CAST(CAST({name} AS BLOB) || X'FF' AS TEXT)"
        _do(store.engine, f"UPDATE oauthtoken SET {name} = {value}")
        for call in reading(store):
            watch.attempt(call)
        assert watch.errors
        for call in every_method(store):
            watch.attempt(call)
        store.delete_tokens()


def test_nothing_is_shown_of_what_is_no_token_or_cannot_be_stored(store, watch):
    for name in SECRETS:
        value = secret(name)
        for bad in (
            f"{value}\0",
            f"{value}\ud800",
            value * 60,
            f"{value}\xe9" * 20,
            [value],
            {name: value},
            value.encode(),
            object(),
        ):
            token = planted("alice")
            getattr(token, f"set_{name}")(bad)
            watch.attempt(lambda token=token: store.save_token(token))
            watch.attempt(lambda token=token: store.find_token(token))
        token = planted("alice")
        token.set_expires_in(value)
        assert watch.attempt(lambda token=token: store.save_token(token))
        token = planted("alice")
        token.set_user_signature(value)
        assert watch.attempt(lambda token=token: store.save_token(token))
        for bad in (value, [value], value.encode(), {name: value}, UserSignature(value)):
            assert watch.attempt(lambda bad=bad: store.save_token(bad))
            assert watch.attempt(lambda bad=bad: store.find_token(bad))
            assert watch.attempt(lambda bad=bad: store.purge(bad))
            if not isinstance(bad, str):  # which is an id, and may be shown
                watch.attempt(lambda bad=bad: store.find_token_by_id(bad))
                watch.attempt(lambda bad=bad: store.delete_token(bad))
        half = object.__new__(OAuthToken)
        half.set_access_token(value)
        assert watch.attempt(lambda half=half: store.save_token(half))


def test_nothing_is_shown_of_what_was_tampered_with_or_has_lost_its_key(
    store, watch, keys, database
):
    if keys == "plain":
        store = _with_keys(store, KEY)
    join = "{0} || 'A'" if "sqlite" in database.name else "concat({0}, 'A')"
    for name in SECRETS:
        for change in ("substr({0}, 1, 40)", join, "'zto1.'"):
            store.save_token(planted("alice", id="1"))
            _do(store.engine, f"UPDATE oauthtoken SET {name} = {change.format(name)}")
            before = len(watch.errors)
            for call in (*reading(store), *every_method(store)):
                watch.attempt(call)
            assert len(watch.errors) > before
            store.delete_tokens()
    store.save_token(planted("alice", id="1"))
    for other in (OTHER_KEY, "plain"):
        assert watch.attempt(lambda o=other: _with_keys(store, o).find_token_by_id("1"))
        for call in every_method(_with_keys(store, other)):
            watch.attempt(call)
        store.delete_tokens()
        store.save_token(planted("alice", id="1"))


def _with_keys(store: SQLAlchemyTokenStore, keys: Any) -> SQLAlchemyTokenStore:
    return SQLAlchemyTokenStore(store.engine, encryption_keys=keys, refresh_wait=0)


def test_nothing_is_shown_where_a_statement_waits_for_a_lock_or_is_interrupted(
    store, watch, url, database
):
    if database.name == "sqlite-memory":
        pytest.skip("there is nobody else")
    expired = planted("alice", id="1")
    expired.set_expires_in("1000")
    store.save_token(expired)
    other = create_engine(url)
    if store._database.is_owner is False and database.is_server:
        _bound_locks(store.engine)
    with other.connect() as connection:
        connection.execute(text("UPDATE oauthtoken SET api_domain = 'x'"))
        assert watch.attempt(lambda: store.save_token(expired))
        assert watch.attempt(store.delete_tokens)
        watch.attempt(lambda: store.find_token_by_id("1"))
        connection.rollback()
    other.dispose()


def _bound_locks(engine: Engine) -> None:
    is_postgresql = engine.dialect.name == "postgresql"
    statement = "SET lock_timeout = 1000" if is_postgresql else "SET innodb_lock_wait_timeout = 1"

    def bound(connection: Any, *rest: object) -> None:
        cursor = connection.cursor()
        cursor.execute(statement)
        cursor.close()
        connection.commit()

    event.listen(engine, "connect", bound)
    engine.dispose()


def test_nothing_is_shown_where_the_server_is_away_or_cuts_the_connection(
    url, kind, keys, watch, database
):
    if not database.is_server:
        pytest.skip("there is no way that could be cut")
    with Proxy(url) as proxy, ExitStack() as stack:
        where = proxy.url
        if kind == "engine":
            where = an_engine(proxy.url)
            stack.callback(where.dispose)
        made = SQLAlchemyTokenStore(where, create_schema=True, encryption_keys=keys)
        store = stack.enter_context(made)
        for call in every_method(store):
            watch.attempt(call)
        with proxy.refusing():
            for call in every_method(store):
                watch.attempt(call)
            assert watch.attempt(lambda: SQLAlchemyTokenStore(where, encryption_keys=keys))
            assert watch.attempt(lambda: schema.upgrade(where))
        before = len(watch.errors)

        def cut(connection, cursor, statement, *rest):
            proxy.cut()

        event.listen(store.engine, "before_cursor_execute", cut)
        for call in every_method(store):
            watch.attempt(call)
        event.remove(store.engine, "before_cursor_execute", cut)
        assert len(watch.errors) > before


def test_nothing_is_shown_by_a_store_that_is_closed(store, watch):
    store.close()
    for call in every_method(store)[:9]:
        watch.attempt(call)
    assert watch.errors
    watch.look_at(store, vars(store))


def test_nothing_is_shown_where_a_file_may_only_be_read(watch, keys, kind, tmp_path):
    path = tmp_path / "tokens.db"
    with SQLAlchemyTokenStore(f"sqlite:///{path}", encryption_keys=keys) as writer:
        writer.save_token(planted("alice", id="1"))
    url = resolve_url(f"sqlite:///file:{path}?mode=ro&uri=true")
    where = an_engine(url) if kind == "engine" else url
    with SQLAlchemyTokenStore(where, create_schema=False, encryption_keys=keys) as store:
        for call in every_method(store):
            watch.attempt(call)
        store.engine.dispose()
    assert len(watch.errors) > 5


def test_nothing_is_shown_while_a_table_of_the_sdks_is_taken_over_and_given_back(
    url, watch, database
):
    if database.name == "sqlite-memory":
        pytest.skip("it ends with its connection")
    engine = an_engine(url)
    create = DOCUMENTED.replace("refresh_token varchar(255)", "refresh_token text")
    rows = [
        sdk_row(str(n), "alice@example.com:1", **{name: secret(name) for name in SECRETS})
        for n in range(3)
    ]
    rows.append(sdk_row("3", "bob@example.com:1", refresh_token=secret("refresh_token", times=500)))
    fill(quiet := create_engine(url), *rows, create=create)
    quiet.dispose()
    assert watch.attempt(lambda: schema.upgrade(engine))
    _do(engine, "UPDATE oauthtoken SET refresh_token = 'short' WHERE id = '3'")
    for call in (
        lambda: schema.upgrade(engine),
        lambda: schema.check(engine),
        lambda: schema.downgrade(engine, "zto_sdk"),
        lambda: schema.upgrade(url),
    ):
        assert not watch.attempt(call)
    _do(engine, "UPDATE oauthtoken SET grant_token = 'zto1.0' WHERE id = '3'")
    assert watch.attempt(lambda: schema.downgrade(url, "zto_sdk"))
    engine.dispose()


def test_nothing_is_shown_of_a_source_that_is_imported_or_refused(store, watch, tmp_path):
    path = tmp_path / "sdk_tokens.csv"
    source = FileStore(str(path))
    for name in ("alice", "bob"):
        source.save_token(planted(name))
    assert not watch.attempt(lambda: import_tokens(store, path))
    good = path.read_text()
    newer = re.sub(r",(1[0-9]{12}),", r",9\1,", good)
    assert newer != good
    path.write_text(newer)
    assert not watch.attempt(lambda: import_tokens(store, path))
    path.write_text(good)
    assert not watch.attempt(lambda: export_tokens(store, tmp_path / "back.csv"))
    assert watch.attempt(lambda: export_tokens(store, tmp_path / "back.csv"))
    line = good.splitlines()[1]
    for bad in (
        f"{line},{PASSWORD}",
        line.replace("XrefreshX", "XrefreshX" * 50),
        line.replace("XrefreshX", "XrefreshX\0"),
        line.replace(",1", f",{secret('access_token')}"),
        f'"{line}',
        good.splitlines()[1] + '"',
    ):
        path.write_text(f"{good}{bad}\n")
        watch.attempt(lambda: import_tokens(store, path, dry_run=True))
        watch.attempt(lambda: import_tokens(store, path))
    path.write_text(line)
    assert watch.attempt(lambda: import_tokens(store, path))
    path.write_bytes(good.encode() + b"\xff")
    assert watch.attempt(lambda: import_tokens(store, path))
    for wrong in (f"postgresql://app:{PASSWORD}@127.0.0.1:1/x", f"app:{PASSWORD}@db"):
        assert watch.attempt(lambda wrong=wrong: import_tokens(store, wrong))


def test_nothing_is_shown_where_no_store_can_be_made(url, watch, kind, database):
    bad: list[Any] = [f"{PASSWORD}", f"://app:{PASSWORD}@db", f"oracle://app:{PASSWORD}@db/x"]
    if database.is_server:
        bad += [
            url.set(password=f"{PASSWORD}wrong"),
            url.set(password=f"{PASSWORD}\xe9\u20ac"),
            url.set(password=f"{PASSWORD}\ud800"),
            url.set(password=f"{PASSWORD}\0"),
            url.set(database="nowhere"),
            url.set(host="127.0.0.1", port=1),
            url.set(host="nowhere.invalid"),
            url.set(host=f"app:{PASSWORD}@127.0.0.1"),
            url.update_query_dict({"nonsense": PASSWORD}),
            url.update_query_dict({"ssl_ca": f"/{PASSWORD}", "sslrootcert": f"/{PASSWORD}"}),
        ]
    for where in bad:
        for call in (
            lambda w=where: SQLAlchemyTokenStore(w, create_schema=True),
            lambda w=where: schema.upgrade(w),
            lambda w=where: schema.downgrade(w),
            lambda w=where: schema.check(w),
            lambda w=where: schema.current(w),
        ):
            assert watch.attempt(call), where
        if kind == "engine" and not isinstance(where, str) and "\u20ac" not in str(where.password):
            # a euro sign PyMySQL cannot encode, which SQLAlchemy's pool logs
            with suppress(Exception):
                engine = an_engine(where)
                assert watch.attempt(lambda e=engine: SQLAlchemyTokenStore(e))
                engine.dispose()
    for keys in (f"{KEY}x", [KEY, KEY], [KEY, KEY[:-1]], f"{KEY}; {KEY}", KEY.encode(), [7, KEY]):
        assert watch.attempt(lambda k=keys: SQLAlchemyTokenStore(url, encryption_keys=k)), keys
    for options in (
        {"refresh_wait": PASSWORD},
        {"table_name": f"{PASSWORD}'"},
        {"table_name": PASSWORD * 9},
    ):
        assert watch.attempt(lambda o=options: SQLAlchemyTokenStore(url, **o))


# The command line

COMMANDS = [
    ("upgrade",),
    ("upgrade", "--sql"),
    ("upgrade", "nonsense"),
    ("current",),
    ("check",),
    ("list",),
    ("purge", "--unused-for", "30"),
    ("rotate-keys",),
    ("export", "tokens.csv"),
    ("export", "tokens.csv"),
    ("import", "tokens.csv"),
    ("downgrade", "nonsense", "--yes"),
    ("downgrade", "base"),
    ("downgrade", "zto_sdk", "--yes"),
    ("list",),
    ("downgrade", "base", "--yes"),
    ("list",),
    ("check",),
    ("purge", "--unused-for", "soon"),
    ("nonsense",),
]


def test_no_command_shows_anything_as_it_succeeds_or_fails(url, database, tmp_path):
    if database.name == "sqlite-memory":
        pytest.skip("a database in memory ends with the command")
    address, keys = url.render_as_string(hide_password=False), f"plain,{KEY}"
    statuses = set()
    for command in COMMANDS:
        if command == ("list",) and schema.current(url) == schema.head():
            with SQLAlchemyTokenStore(url, encryption_keys=keys) as store:
                store.save_token(planted("alice"))
        statuses.add(_is_silent(*command, cwd=tmp_path, url=address, keys=keys))
    assert {0, 1, 2} <= statuses
    for wrong in _wrong(url):
        for command in (("upgrade",), ("list",), ("rotate-keys",)):
            _is_silent(*command, cwd=tmp_path, url=wrong, keys=keys)


def _wrong(url: Any) -> list[str]:
    if not url.host:
        return [f"oracle://app:{PASSWORD}@db/x"]
    wrong = [url.set(password=f"{PASSWORD}wrong"), url.set(port=1)]
    return [each.render_as_string(hide_password=False) for each in wrong]


def _is_silent(*command: str, cwd: Path, url: str, keys: str) -> int:
    done = run("zoho-token-orm", *command, cwd=cwd, url=url, **{KEYS_VARIABLE: keys})
    assert found_in(done.stdout + done.stderr) == {}, command
    return done.returncode


def test_bad_keys_are_not_shown_by_a_command(tmp_path):
    url = f"sqlite:///{tmp_path / 'tokens.db'}"
    for keys in (f"{KEY}x", f"{KEY},{KEY}", f"{KEY};{KEY}", f"plain,{KEY[:-1]}"):
        for command in (("list",), ("rotate-keys",)):
            status = _is_silent(*command, cwd=tmp_path, url=url, keys=keys)
            assert status != 0


def test_alembic_shows_nothing_either(url, database, tmp_path):
    if database.name == "sqlite-memory":
        pytest.skip("a database in memory ends with the command")
    alembic = ("alembic", "-c", CHECKOUT / "alembic.ini")
    commands = [
        ("upgrade", "head"),
        ("upgrade", "head", "--sql"),
        ("current", "--verbose"),
        ("check",),
        ("downgrade", "base"),
    ]
    tries = [(url.render_as_string(hide_password=False), command) for command in commands]
    tries += [(wrong, command) for wrong in _wrong(url) for command in commands[::2]]
    for address, command in tries:
        done = run(*alembic, *command, cwd=tmp_path, url=address, **{KEYS_VARIABLE: KEY})
        assert found_in(done.stdout + done.stderr) == {}, command


def test_a_new_key_is_all_that_generate_key_prints(tmp_path):
    done = run("zoho-token-orm", "generate-key", cwd=tmp_path, url=f"oracle://app:{PASSWORD}@db")
    assert (len(done.stdout), done.stderr, done.returncode) == (len(generate_key()) + 1, "", 0)


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="there is no /proc")
@pytest.mark.parametrize("program", [["zoho-token-orm"], [sys.executable, "-m", "zoho_token_orm"]])
def test_the_process_list_shows_nothing_of_a_command(program, tmp_path):
    """It is looked at while the command waits for an answer of its user."""
    url = f"postgresql://app:{PASSWORD}@127.0.0.1:1/crm"
    folder = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": folder, URL_VARIABLE: url, KEYS_VARIABLE: KEY}
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [*program, "downgrade", "base"],
        cwd=tmp_path,
        env=environment,
        stdin=pipe,
        stdout=pipe,
        stderr=pipe,
    ) as process:
        question = process.stderr.read(len("This may delete"))
        lines = command_lines(process.pid)
        process.communicate(b"n\n", timeout=60)
    assert question == b"This may delete"
    assert "downgrade" in lines[0]
    assert found_in("\n".join(lines)) == {}


def command_lines(pid: int) -> list[str]:
    """What the process list shows of a process and its children."""
    lines = [Path(f"/proc/{pid}/{name}").read_text() for name in ("cmdline", "comm")]
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in children.read_text().split():
            lines += command_lines(int(child))
    return lines
