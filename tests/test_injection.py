"""Whatever a string says, it is a value: stored and found exactly, or refused, and never obeyed.

``ZOHO_TOKEN_ORM_EXAMPLES=2000 pytest tests/test_injection.py`` looks further than ``make test``.
"""

from __future__ import annotations

import copy
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from click.testing import CliRunner
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sqlalchemy import URL, inspect, make_url
from zohocrmsdk.src.com.zoho.api.authenticator.oauth_token import OAuthToken
from zohocrmsdk.src.com.zoho.crm.api.exception.sdk_exception import SDKException
from zohocrmsdk.src.com.zoho.crm.api.user_signature import UserSignature

from tests.databases import Database
from zoho_token_orm import SQLAlchemyTokenStore, schema
from zoho_token_orm.cli import main
from zoho_token_orm.testing.contract import FIELDS, login, read

EXAMPLES = int(os.environ.get("ZOHO_TOKEN_ORM_EXAMPLES", "0"))
pytestmark = pytest.mark.timeout(0 if EXAMPLES else 600)
SETTINGS = settings(
    max_examples=EXAMPLES or 60,
    derandomize=not EXAMPLES,  # ``make test`` has to give the same answer twice
    deadline=None,
    database=None,
)
KEY = "A" * 43 + "B" * 43
Fields = dict[str, "str | None"]

FRAGMENTS = [
    *(
        "' OR 1=1 --",
        "' OR '1'='1",
        '" OR ""="',
        "1 or 1=1",
        "') OR ('a'='a",
        "' UNION SELECT * --",
    ),
    *('"; DROP TABLE oauthtoken; --', "'; DELETE FROM oauthtoken; --", "');COMMIT;--", "`", "``"),
    *(
        "\\",
        "\\'",
        "\\\\'",
        "\\x27",
        "\\0",
        "\\N",
        "'||'",
        "' + '",
        "'+(SELECT 1)+'",
        "$$",
        "$1",
        "$tag$",
    ),
    *("%s", "%(id)s", "%(row_id)s", "%%", "%", "_", "%_%", ":name", ":id", "?", "??", "{}", "{0}"),
    *("--", "#", "/*", "*/", "/*!50000 DROP TABLE oauthtoken */", "-- \n", ";", "\x1a", "\b"),
    *(
        "'",
        "''",
        '"',
        "\u2018",
        "\u2019",
        "\u02bc",
        "\uff07",
        "\uff02",
        "\u2032",
        "\ufe68",
        "\uff3c",
    ),
    *("\xbf'", "\xbf\\'", "\u7e37'", "\u8a31\u529f\u84cb", "\xc0\xa7", "\u00e0\\", "\U0001f600'"),
    *("\0", "\0'", "\\\0", "\ud800", "\udc27", "\ud83d'", "\ufffe", "\ufeff", "\u202e", "\x7f"),
    *("zto1.", "zto1.12345678.AAAA", "zto1.9404d567.84lccvnry5qydDVAr8kpDhO_zJfPPDSSl6A"),
    *(
        "UTF-8''",
        "UTF-8''%27%00",
        "UTF-8''%FF",
        "%27",
        "%00",
        "+",
        "\r\n",
        "\t",
        " ",
        "NULL",
        "None",
    ),
    *(
        "plain",
        "../",
        "host=elsewhere dbname=postgres",
        "?mode=memory",
        "{{7*7}}",
        "${IFS}",
        "$(id)",
    ),
]
"""What databases, drivers, shells and this package itself might take for more than a value."""

ANYTHING = st.text(st.characters(exclude_categories=()), max_size=12)
PIECES = st.sampled_from(FRAGMENTS) | ANYTHING
SHORT = st.lists(PIECES, min_size=1, max_size=4).map("".join)
LONG = st.builds(
    lambda text, times: text * times, st.sampled_from(FRAGMENTS), st.integers(50, 3000)
)
HOSTILE = st.one_of(SHORT, SHORT, SHORT, LONG)


def is_ordinary(text: str) -> bool:
    """Whether every column has to take it."""
    return len(text) <= 60 and not re.search("[\0\ud800-\udfff]", text)


ORDINARY = SHORT.filter(is_ordinary)
EXPIRIES = st.sampled_from([None, "1000", "4102444800000", "-1", "007"])
ORDINARY_TOKENS = st.fixed_dictionaries(
    {name: EXPIRIES if name == "expires_in" else st.none() | ORDINARY for name in FIELDS}
)
TOKENS = ORDINARY_TOKENS | st.builds(
    lambda fields, name, text: {**fields, name: text},
    ORDINARY_TOKENS,
    st.sampled_from(list(FIELDS)),
    HOSTILE,
)
NAMING = ["id", "user_name", "access_token", "grant_token", "refresh_token"]
CHANGING = [name for name in FIELDS if name not in ("id", "user_name", "expires_in")]


@pytest.fixture(params=[None, KEY], ids=["plain", "encrypted"])
def store(request: pytest.FixtureRequest, database: Database) -> Iterator[SQLAlchemyTokenStore]:
    """A store that is made once for all examples of a test."""
    keys = request.param or "plain"
    with SQLAlchemyTokenStore(database.url, create_schema=True, encryption_keys=keys) as made:
        yield made
        assert schema.current(made.engine) == schema.head()
        schema.check(made.engine)


def for_each(strategy: st.SearchStrategy[Any], check: Callable[[Any], None]) -> None:
    """Gives the check many examples, on what the test has made once."""
    SETTINGS(given(strategy)(check))()


def made(**fields: str | None) -> OAuthToken:
    """A token of these fields; its own constructor takes not every set that the setters do."""
    token = OAuthToken(id="")
    token.set_id(None)
    for name, value in fields.items():
        if name == "user_name":
            token.set_user_signature(None if value is None else UserSignature(value))
        else:
            getattr(token, f"set_{name}")(value)
    return token


class Table:
    """The table before an example, with a bystander that no string may touch."""

    def __init__(self, store: SQLAlchemyTokenStore) -> None:
        self.store = store
        store.delete_tokens()
        store.save_token(login(0, id="bystander"))
        self.tables = inspect(store.engine).get_table_names()
        (self.bystander,) = self.rows()

    def through(self, store: SQLAlchemyTokenStore) -> Table:
        """The same, as another store sees it."""
        seen = copy.copy(self)
        seen.store = store
        return seen

    def rows(self) -> list[Fields]:
        return [read(token) for token in self.store.get_tokens()]

    def holds(self, *others: Fields) -> None:
        """It holds the bystander as it was and these rows, and no table has come or gone."""
        by_id = {row["id"]: row for row in self.rows()}
        assert by_id == {row["id"]: row for row in (self.bystander, *others)}
        assert [read(token) for token in self.store.iter_tokens()] == self.rows()
        assert inspect(self.store.engine).get_table_names() == self.tables


def refuses(call: Callable[[], object], *kinds: type[Exception]) -> bool:
    """Whether the call is refused, in the one way in which it may be."""
    expected = kinds or (SDKException,)
    try:
        call()
    except expected:
        return True
    return False


def has_to_be_stored(fields: Fields) -> bool:
    """Whether there is no reason to refuse a token: it is short, valid Unicode and has a token."""
    texts = [value for name, value in fields.items() if value and name != "expires_in"]
    is_number = re.fullmatch("-?[0-9]{1,18}", fields["expires_in"] or "0") is not None
    has_token = any(fields[name] for name in ("access_token", "refresh_token", "grant_token"))
    return is_number and has_token and all(is_ordinary(text) for text in texts)


def stored(fields: Fields, id: str) -> Fields:
    """The row that a token is to become."""
    row = {name: value or None for name, value in fields.items()}
    expiry = row["expires_in"]
    return {**row, "id": id, "expires_in": expiry if expiry is None else str(int(expiry))}


def neighbours(text: str) -> set[str]:
    """What a sloppy comparison would take for the text."""
    near = {text + " ", " " + text, text.swapcase(), text.strip(), text[:-1], text + "\0", "%"}
    near |= {"_" * len(text), f"%{text}%", text.replace("'", "\uff07"), text.replace("\\", "")}
    return near - {text}


def finds_only_by_exactly_it(store: SQLAlchemyTokenStore, name: str, row: Fields) -> None:
    found = store.find_token(made(**{name: row[name]}))
    assert found is not None, name
    assert read(found) == row
    for other in neighbours(str(row[name])):
        token = made(**{name: other})
        assert refuses(lambda token=token: store.find_token(token)) or (
            token.get_client_id() is None and token.get_api_domain() is None
        )


# The methods


def test_a_token_of_hostile_strings_is_stored_and_found_by_exactly_them_or_refused(store):
    seen: Counter[str] = Counter()

    def check(fields: Fields) -> None:
        table, token = Table(store), made(**fields)
        is_refused = refuses(lambda: store.save_token(token))
        seen["refused" if is_refused else "stored"] += 1
        if is_refused:
            assert not has_to_be_stored(fields)
            assert read(token) == fields
            table.holds()
            return
        row = stored(fields, token.get_id())
        assert fields["id"] in (None, "", row["id"])
        table.holds(row)
        for name in NAMING:
            if row[name]:
                finds_only_by_exactly_it(store, name, row)
        assert read(store.find_token_by_id(row["id"])) == row
        store.save_token(token)
        table.holds(row)
        store.delete_token(row["id"])
        table.holds()

    for_each(TOKENS, check)
    assert min(seen["stored"], seen["refused"]) > 5, seen


def test_looking_for_a_hostile_string_finds_nothing_and_changes_nothing(store):
    def check(text: str) -> None:
        table = Table(store)
        for name in NAMING:
            token = made(**{name: text})
            assert refuses(lambda token=token: store.find_token(token)) or (
                read(token) == read(made(**{name: text}))
            )
        assert refuses(lambda: missing(store, text))
        table.holds()

    def missing(store: SQLAlchemyTokenStore, text: str) -> None:
        if store.find_token_by_id(text) is None:
            raise SDKException("nothing", "found")

    for fragment in FRAGMENTS:
        check(fragment)
    for_each(HOSTILE, check)


def test_deleting_by_a_hostile_string_deletes_nothing_else(store):
    def check(text: str) -> None:
        table = Table(store)
        if refuses(lambda: store.delete_token(text)):
            assert not text or not is_ordinary(text)
        assert refuses(lambda: store.purge(text))
        table.holds()

    for fragment in FRAGMENTS:
        check(fragment)
    for_each(HOSTILE, check)


def own_row(store) -> tuple[Table, dict[str, Any]]:
    """A table with a row of the test's own, and what is in that row."""
    table = Table(store)
    store.save_token(login(1, id="own"))
    return table, read(store.find_token_by_id("own"))


def is_taken(token, name: str, text: str, table: Table, before: dict[str, Any]) -> bool:
    """Saves the token with that value: it is stored as it is, or nothing is changed."""
    if refuses(lambda: table.store.save_token(token)):
        assert not is_ordinary(text)
        table.holds(before)
        return False
    table.holds({**before, name: text or before[name]})
    return True


def test_a_row_takes_hostile_strings_as_its_new_values_and_no_other_row_does(store):
    def check(drawn: tuple[str, str]) -> None:
        name, text = drawn
        table, before = own_row(store)
        token = store.find_token_by_id("own")
        getattr(token, f"set_{name}")(text)
        if is_taken(token, name, text, table, before):
            found = store.find_token(made(user_name=before["user_name"]))
            assert read(found) == {**before, name: text or before[name]}

    for_each(st.tuples(st.sampled_from(CHANGING), HOSTILE), check)


def test_a_row_is_renamed_to_a_hostile_id_or_user_alone(store):
    def check(drawn: tuple[str, str]) -> None:
        name, text = drawn
        table, before = own_row(store)
        is_taken(login(1, **{"id": "own", name: text}), name, text, table, before)

    for_each(st.tuples(st.sampled_from(["id", "user_name"]), HOSTILE), check)


def test_rows_whose_names_are_hostile_become_one_and_leave_the_others_alone(store):
    def check(drawn: tuple[str, str, str]) -> None:
        first, second, user = drawn
        assume(first != second and all(map(is_ordinary, drawn)))
        table = Table(store)
        store.save_token(login(1, user_name=user, refresh_token=first, grant_token=None))
        store.save_token(login(2, user_name=None, refresh_token=second, grant_token=None))
        both = login(2, user_name=user, refresh_token=second, grant_token=None)
        store.save_token(both)
        table.holds({**read(both)})

    for_each(st.tuples(SHORT, SHORT, SHORT).filter(all), check)


def test_keys_are_rotated_past_hostile_strings(database):
    if database.name == "sqlite-memory":
        pytest.skip("a database in memory has one store")
    plain = SQLAlchemyTokenStore(database.url, create_schema=True, encryption_keys="plain")
    with plain, SQLAlchemyTokenStore(database.url, encryption_keys=KEY) as encrypted:

        def check(fields: Fields) -> None:
            table, token = Table(plain), made(**fields)
            if refuses(lambda: plain.save_token(token)):
                return
            row = stored(fields, token.get_id())
            if refuses(lambda: encrypted.rotate_keys()):
                assert not has_to_be_stored(fields)
            else:
                table.through(encrypted).holds(row)

        for_each(TOKENS, check)


# The constructor


def test_a_hostile_table_name_is_refused(store):
    table = Table(store)

    def check(text: str) -> None:
        if re.fullmatch("[A-Za-z0-9_]{1,43}", text):
            return
        for call in (
            lambda: SQLAlchemyTokenStore(store.engine, table_name=text, create_schema=True),
            lambda: schema.upgrade(store.engine, table_name=text),
            lambda: schema.downgrade(store.engine, table_name=text),
            lambda: schema.check(store.engine, table_name=text),
            lambda: schema.current(store.engine, table_name=text),
        ):
            assert refuses(call, ValueError)

    for fragment in FRAGMENTS:
        check(fragment)
    for_each(HOSTILE, check)
    table.holds()


def test_hostile_options_of_the_constructor_are_refused(store):
    table = Table(store)

    def check(text: str) -> None:
        for options in (
            {"refresh_wait": text},
            {"encryption_keys": text},
            {"encryption_keys": [KEY, text]},
        ):
            if text.strip() in ("", "plain"):
                continue
            assert refuses(lambda o=options: SQLAlchemyTokenStore(store.engine, **o), ValueError)

    for fragment in FRAGMENTS:
        check(fragment)
    for_each(HOSTILE, check)
    table.holds()


def test_a_hostile_url_is_refused(store, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    table = Table(store)

    def check(text: str) -> None:
        call = lambda: SQLAlchemyTokenStore(text, create_schema=False)  # noqa: E731
        assert refuses(call, ValueError, SDKException)

    for_each(HOSTILE.filter(lambda text: not text.startswith("sqlite")), check)
    table.holds()


def test_a_url_of_hostile_parts_leads_nowhere(store, database, tmp_path):
    table, url = Table(store), make_url(database.url)

    def check(text: str) -> None:
        for each in hostile_urls(url, text, tmp_path):
            call = lambda each=each: SQLAlchemyTokenStore(each, create_schema=False)  # noqa: E731
            assert refuses(call, ValueError, SDKException)

    for_each(SHORT.filter(str.strip), check)
    table.holds()


def hostile_urls(url: URL, text: str, folder: Path) -> list[URL | str]:
    """The URL with the text in each of its places, as an object and as a string."""
    if not url.host:
        path = folder / "elsewhere"
        path.mkdir(exist_ok=True)
        return [URL.create("sqlite", database=f"{path}/{text.replace('/', '|')}")]
    parts = [{"username": text}, {"password": text}, {"database": text.strip("/") or "x"}]
    try:
        quoted = quote(text, safe="")
    except UnicodeError:
        quoted = "%FF"
    strings = [f"{url.drivername}://{quoted}:{quoted}@{url.host}:{url.port}/{quoted}"]
    return [*(url.set(**part) for part in parts), *strings]


# The command line


def test_hostile_arguments_of_the_command_line_are_refused_in_a_line(store, database, tmp_path):
    if database.name == "sqlite-memory":
        pytest.skip("a database in memory ends with the command")
    table = Table(store)
    url = ("--url", database.url)
    runner = CliRunner()

    def check(text: str) -> None:
        assume(text.strip() not in ("", "head", "base") and not text.startswith("sqlite"))
        assume(not re.fullmatch("[A-Za-z0-9_]+", text))
        for arguments in (
            ("list", *url, "--table-name", text),
            ("upgrade", *url, "--table-name", text),
            ("downgrade", *url, "--yes", "--table-name", text, "--", "base"),
            ("upgrade", *url, "--", text),
            ("downgrade", *url, "--yes", "--", text),
            ("purge", *url, "--unused-for", text),
            ("check", "--url", text),
            (text,),
        ):
            done = runner.invoke(main, arguments)
            assert done.exit_code in (1, 2), (arguments, done.output)
            assert isinstance(done.exception, SystemExit), repr(done.exception)

    for_each(HOSTILE, check)
    table.holds()
