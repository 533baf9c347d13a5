"""What ``import`` reads, what it refuses, and which of several rows of one authorization stays."""

from __future__ import annotations

import csv
import sqlite3
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, text
from zohocrmsdk.src.com.zoho.api.authenticator.store import DBStore, FileStore
from zohocrmsdk.src.com.zoho.crm.api.exception.sdk_exception import SDKException

from tests.databases import fresh_database
from tests.support import NEW, OLD, granted, raw_rows, run, statements, values
from zoho_token_orm import SQLAlchemyTokenStore, schema
from zoho_token_orm.database import is_memory, resolve_url
from zoho_token_orm.database.bulk import TOGETHER
from zoho_token_orm.encryption import KEYS_VARIABLE, SECRETS, Cipher
from zoho_token_orm.mapping import COLUMNS
from zoho_token_orm.models import stored_table
from zoho_token_orm.transfer import (
    SOURCE_KEYS_VARIABLE,
    ImportSummary,
    import_tokens,
    importing,
    merging,
)
from zoho_token_orm.transfer.files import HEADER
from zoho_token_orm.transfer.importing import CHUNK

DBSTORE_COLUMNS = ", ".join(
    f"{name} varchar({'10) NOT NULL' if name == 'id' else '255)'}" for name in COLUMNS
)
"""About what the SDK documents for its DBStore."""


def row(name: str, **more: Any) -> dict[str, Any]:
    """A row of a source, with made-up values."""
    fields = {
        "id": name,
        "user_name": f"{name}@example.com:7001",
        "client_id": "1000.CLIENT",
        "client_secret": "the-secret",
        "refresh_token": f"1000.refresh-{name}",
        "access_token": f"1000.access-{name}",
        "grant_token": f"1000.grant-{name}",
        "expiry_time": "1700000000000",
        "redirect_url": "https://example.com/callback",
        "api_domain": "https://www.zohoapis.com",
    }
    return {**fields, **more}


def csv_file(path: Path, *rows: dict[str, Any], columns: Sequence[str] = HEADER) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows([[each[name] for name in COLUMNS[: len(columns)]] for each in rows])
    return path


def counts(summary: ImportSummary) -> tuple[int, int, int, int, int]:
    """New, updated, merged, unchanged, refused."""
    return (
        *(summary.new, summary.updated, summary.merged, summary.unchanged),
        len(summary.refused),
    )


def stored(store: SQLAlchemyTokenStore) -> list[dict[str, str | None]]:
    """All rows in the names of the columns, oldest first."""
    tokens = [list(values(token).values()) for token in store.get_tokens()]
    return [dict(zip(COLUMNS, each, strict=True)) for each in tokens]


# Files


def test_every_token_of_the_real_filestore_comes_as_it_is_in_its_order(store, tmp_path):
    path = tmp_path / "sdk_tokens.txt"
    old = FileStore(str(path))
    for name in ("carol", "alice", 'b"o,b\nö 漢'):
        old.save_token(granted(name))
    assert counts(import_tokens(store, path)) == (3, 0, 0, 0, 0)
    assert [values(token) for token in store.get_tokens()] == [
        values(token) for token in old.get_tokens()
    ]


def test_a_second_run_changes_nothing_and_a_dry_one_tells_the_same(store_with, tmp_path):
    store = store_with(NEW)
    store.save_token(granted("bob"))
    rows = [
        row("alice"),
        row("bob", expiry_time="1"),
        row("alice-2", user_name="alice@example.com:7001"),
        row("", user_name="carol"),
    ]
    path = csv_file(tmp_path / "tokens.csv", *rows, {**row("x"), "expiry_time": "y"})
    before = raw_rows(store)
    dry = import_tokens(store, path, dry_run=True)
    assert raw_rows(store) == before
    assert dry == import_tokens(store, path)
    assert counts(dry) == (3, 0, 1, 1, 0)
    once = raw_rows(store)
    assert counts(import_tokens(store, path)) == (0, 0, 1, 4, 0)
    assert raw_rows(store) == once


def test_nine_columns_blank_lines_and_a_byte_order_mark_are_fine(store, tmp_path):
    path = tmp_path / "tokens.csv"
    old = {k: v for k, v in row("alice").items() if k != "api_domain"}
    csv_file(path, old, columns=HEADER[:-1])
    text = "\ufeff" + path.read_text().replace("\n", "\n\n  \n")
    path.write_text(text, encoding="utf-8", newline="")
    assert counts(import_tokens(store, str(path))) == (1, 0, 0, 0, 0)
    assert stored(store) == [{**old, "api_domain": None}]


def test_what_cannot_be_stored_is_refused_with_its_line_and_the_reason(store, tmp_path):
    path = csv_file(
        tmp_path / "tokens.csv",
        row("alice", client_secret="two\nlines"),
        row("bob", refresh_token="", access_token="", grant_token=""),
        row("carol", access_token="geheim" * 1000),
        row("dave", expiry_time="geheim", refresh_token=""),
        row("erin"),
    )
    with path.open("a") as file:
        file.write("frank,geheim\r\n")
    summary = import_tokens(store, path)
    assert [tuple(each) for each in summary.refused] == [
        ("line 4", "it has neither refresh, access nor grant token"),
        ("line 5", "access_token is too long: 6000 characters, at most 2048 fit"),
        (
            "line 6",
            "its expiry_time is no number of epoch milliseconds, and it has no refresh token",
        ),
        ("line 8", "it has 2 fields, not 10"),
    ]
    assert [each["id"] for each in stored(store)] == ["alice", "erin"]


def test_a_secret_that_does_not_fit_encrypted_is_refused(store_with, tmp_path):
    path = csv_file(tmp_path / "tokens.csv", row("alice", access_token="x" * 2000), row("bob"))
    summary = import_tokens(store_with(NEW), path)
    assert counts(summary) == (1, 0, 0, 0, 1)
    assert summary.refused[0].where == "line 2"
    assert "too long to be encrypted" in summary.refused[0].reason


@pytest.mark.parametrize(
    "expiry", ["", "abc", "9" * 30, "-1", "2023-14-14 22:13:20", "1e9999999", "Infinity", "NaN"]
)
def test_an_expiry_that_cannot_be_read_counts_as_run_out_where_that_can_be_healed(
    store, tmp_path, expiry
):
    import_tokens(store, csv_file(tmp_path / "tokens.csv", row("alice", expiry_time=expiry)))
    assert [each["expiry_time"] for each in stored(store)] == ["0"]


@pytest.mark.parametrize("expiry", [" 1700000000000", "1700000000000.0", "2023-11-14 22:13:20"])
def test_a_time_is_read_however_it_is_written(store, tmp_path, expiry):
    import_tokens(store, csv_file(tmp_path / "tokens.csv", row("alice", expiry_time=expiry)))
    assert [each["expiry_time"] for each in stored(store)] == ["1700000000000"]


def test_rows_that_become_one_after_a_change_do_so_at_once(store, tmp_path):
    """In a second import otherwise."""
    fill(
        store,
        {**row("1"), "user_name": "", "refresh_token": "", "grant_token": "", "access_token": "x"},
        {**row("2"), "user_name": "alice", "access_token": "x"},
    )
    newer = row("3", user_name="alice", access_token="x", expiry_time="1800000000000")
    assert counts(imported(store, tmp_path, newer)) == (0, 0, 1, 0, 0)
    assert [each["id"] for each in stored(store)] == ["2"]


def test_an_expiry_without_an_access_token_is_dropped(store, tmp_path):
    import_tokens(store, csv_file(tmp_path / "tokens.csv", row("alice", access_token="")))
    assert [each["expiry_time"] for each in stored(store)] == [None]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "is not there"),
        (b"", "its first line must be id,user_name,"),
        (b"geheim,alice,c,s,r,a,g,1,u,d\n", "its first line must be id,user_name,"),
        (b"id,user_mail,client_id\n", "its first line must be id,user_name,"),
        ((",".join(HEADER) + "\n1,\xfc").encode("latin-1"), "is no UTF-8 text"),
        ((",".join(HEADER) + '\n1,b,c,d\n2,"geheim\n').encode(), "is no CSV file, at line 3"),
        ((",".join(HEADER) + '\n1,"b" geheim,c\n').encode(), "is no CSV file, at line 2"),
        (b"SQLite format 3\0" + bytes(100), "is a SQLite database: name it by its URL, sqlite:///"),
    ],
)
def test_a_file_that_is_not_what_it_seems_is_refused_whole(store, tmp_path, content, reason):
    path = tmp_path / "tokens.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SDKException) as caught:
        import_tokens(store, path)
    assert reason in caught.value.error_message
    assert "geheim" not in caught.value.error_message
    assert caught.value.__context__ is None or isinstance(caught.value.__context__, csv.Error)
    assert store.get_tokens() == []


def test_a_folder_is_refused(store, tmp_path):
    with pytest.raises(SDKException, match="cannot be read: Is a directory"):
        import_tokens(store, tmp_path)


def test_a_mistyped_url_is_not_shown(store):
    with pytest.raises(SDKException) as caught:
        import_tokens(store, "postgresql:app:geheim@db/crm")
    assert "geheim" not in caught.value.error_message


# Tables


def foreign_table(url: str, name: str, columns: str, *rows: dict[str, Any]) -> None:
    """A table as another store has it, with these rows."""
    from sqlalchemy import create_engine

    engine = create_engine(resolve_url(url))
    with engine.begin() as connection:
        connection.execute(text(f"CREATE TABLE {name} ({columns})"))
        for each in rows:
            marks = ", ".join(f":{column}" for column in each)
            statement = f"INSERT INTO {name} ({', '.join(each)}) VALUES ({marks})"
            connection.execute(text(statement), each)
    engine.dispose()


@pytest.mark.parametrize("name", ["mysql", "mariadb"])
def test_dbstores_own_table_with_its_duplicates(name, tmp_path):
    with fresh_database(name, tmp_path) as database:
        foreign_table(database.url, "oauthtoken", DBSTORE_COLUMNS + ", primary key (id)")
        url = resolve_url(database.url)
        old = DBStore(url.host, url.database, url.username, url.password or "", str(url.port))
        for person in ("alice", "bob"):
            old.save_token(token := granted(person))
            assert values(old.find_token_by_id(token.get_id())) == values(token)
        with SQLAlchemyTokenStore(f"sqlite:///{tmp_path / 'new.db'}") as store:
            assert counts(import_tokens(store, database.url)) == (2, 0, 0, 0, 0)
            assert [values(token) for token in store.get_tokens()] == [
                values(token) for token in old.get_tokens()
            ]
            twin = row("9", user_name="alice@example.com:7001", expiry_time="4102444800000")
            with SQLAlchemyTokenStore(database.url, table_name="new", create_schema=True) as beside:
                with beside.engine.connect() as connection:
                    connection.execute(insert(stored_table("oauthtoken")), twin)
                assert counts(import_tokens(beside, beside.engine)) == (2, 0, 1, 0, 0)
                (alice,) = [t for t in beside.get_tokens() if "alice" in values(t)["user"]]
                assert values(alice)["access_token"] == "1000.access-9"
                assert counts(import_tokens(beside, beside.engine)) == (0, 0, 1, 2, 0)


def test_a_sqlite_file_with_columns_of_any_type_is_read_only(store, tmp_path):
    path = tmp_path / "old.db"
    names = [f"{name} {'INTEGER' if name == 'id' else 'REAL'}" for name in COLUMNS[:-1]]
    with sqlite3.connect(path) as connection:
        connection.execute(f"CREATE TABLE Tokens (extra TEXT, {', '.join(reversed(names))})")
        for number in (5, None):
            values_ = (number, "u", "c", "s", "1000.r", b"1000.a", None, 1.7e12, "", "x")
            connection.execute(
                f"INSERT INTO Tokens ({', '.join(COLUMNS[:-1])}, extra) VALUES "
                f"({', '.join('?' * 10)})",
                values_,
            )
        connection.execute(
            "UPDATE Tokens SET refresh_token = NULL, access_token = x'ff' WHERE id IS NULL"
        )
    connection.close()
    before, files = path.read_bytes(), set(tmp_path.iterdir())
    summary = import_tokens(store, f"sqlite:///{path}", table_name="Tokens")
    assert (path.read_bytes(), set(tmp_path.iterdir())) == (before, files)
    assert [tuple(each) for each in summary.refused] == [("row 1", "access_token is no UTF-8 text")]
    assert stored(store) == [
        {
            **dict.fromkeys(COLUMNS),
            "id": "5",
            "user_name": "u",
            "client_id": "c",
            "client_secret": "s",
            "refresh_token": "1000.r",
            "access_token": "1000.a",
            "expiry_time": "1700000000000",
        }
    ]


def test_a_source_that_is_not_there_is_not_made(store, tmp_path):
    with pytest.raises(ValueError, match=r"there is no database file .*gone\.db"):
        import_tokens(store, f"sqlite:///{tmp_path / 'gone.db'}")
    assert not (tmp_path / "gone.db").exists()


def test_a_table_that_is_none_of_tokens_is_refused_whole(store, tmp_path):
    path = tmp_path / "old.db"
    url = f"sqlite:///{path}"
    foreign_table(url, "oauthtoken", "id TEXT, user_name TEXT, refresh_token TEXT, expiry_time INT")
    with pytest.raises(SDKException, match="lacks client_id, client_secret, access_token, grant_"):
        import_tokens(store, url)
    with pytest.raises(SDKException, match="there is no table other in sqlite:///"):
        import_tokens(store, url, table_name="other")
    path.write_text("geheim" * 1000)
    with pytest.raises(SDKException, match="could not read the source"):
        import_tokens(store, url)


@pytest.mark.parametrize(
    "url", ["postgresql://u:geheim@x@db/crm", "oracle://u:geheim@db/crm", "sqlite+aiosqlite:///x"]
)
def test_a_url_that_cannot_be_used_is_refused(store, url):
    with pytest.raises((ValueError, SDKException)) as caught:
        import_tokens(store, url)
    assert "geheim" not in str(caught.value)


def test_the_same_table_is_no_source(store, tmp_path):
    source = store.engine if is_memory(store.engine.url) else store.engine.url
    with pytest.raises(SDKException, match="the source and the target are the same table"):
        import_tokens(store, source)


def test_a_table_of_this_store_with_other_keys_comes_under_the_new_one(
    store_with, tmp_path, monkeypatch
):
    url = f"sqlite:///{tmp_path / 'old.db'}"
    tokens = [granted("alice"), granted("böb"), granted("UTF-8''%41"), granted("zto1.x")]
    for token, keys in zip(tokens, (OLD, "plain", "plain", OLD), strict=True):
        with SQLAlchemyTokenStore(url, encryption_keys=keys) as old:
            old.save_token(token)
    store = store_with(NEW)
    summary = import_tokens(store, url)
    assert counts(summary) == (2, 0, 0, 0, 2)
    assert summary.refused[0] == (
        f"the row with the id '{tokens[0].get_id()}'",
        f"no key in {SOURCE_KEYS_VARIABLE} opens its client_secret and refresh_token and "
        "access_token and grant_token",
    )
    monkeypatch.setenv(SOURCE_KEYS_VARIABLE, OLD)
    assert counts(import_tokens(store, url)) == (2, 0, 0, 2, 0)
    assert {t.get_id(): values(t) for t in store.get_tokens()} == {
        t.get_id(): values(t) for t in tokens
    }
    assert all(each["refresh_token"].startswith("zto1.") for each in raw_rows(store))
    once = raw_rows(store)
    assert counts(import_tokens(store, url, source_keys=[OLD])) == (0, 0, 0, 4, 0)
    assert raw_rows(store) == once


@pytest.mark.parametrize("keys", ["", " , ", "abc", f"{OLD},"])
def test_keys_of_the_source_that_are_none_are_refused(store, tmp_path, monkeypatch, keys):
    monkeypatch.setenv(SOURCE_KEYS_VARIABLE, keys)
    with SQLAlchemyTokenStore(url := f"sqlite:///{tmp_path / 'old.db'}"):
        pass
    with pytest.raises(ValueError, match=f"{SOURCE_KEYS_VARIABLE}|encryption key number 1 is no"):
        import_tokens(store, url)


SERVERS = ["postgresql", "mysql", "mariadb"]


@pytest.mark.parametrize("name", SERVERS)
def test_from_a_sqlite_file_to_a_server_and_back(name, tmp_path):
    tokens = [granted(f"{person} ö'\"\\%") for person in ("alice", "bob")]
    tokens[1].set_refresh_token(None)
    with (
        fresh_database(name, tmp_path) as database,
        SQLAlchemyTokenStore(f"sqlite:///{tmp_path / 'a.db'}") as first,
        SQLAlchemyTokenStore(database.url, create_schema=True) as server,
        SQLAlchemyTokenStore(f"sqlite:///{tmp_path / 'b.db'}") as last,
    ):
        for token in tokens:
            first.save_token(token)
        for source, target in ((first, server), (server, last)):
            url = source.engine.url
            assert counts(import_tokens(target, url)) == (2, 0, 0, 0, 0)
            assert counts(import_tokens(target, url)) == (0, 0, 0, 2, 0)
            assert stored(target) == stored(first)


@pytest.mark.parametrize("name", SERVERS)
def test_dbstores_columns_on_any_server(name, tmp_path, store):
    with fresh_database(name, tmp_path) as database:
        foreign_table(database.url, "old", DBSTORE_COLUMNS, row("1"), row("1", expiry_time="5"))
        summary = import_tokens(store, database.url, table_name="old")
        assert counts(summary) == (1, 0, 1, 0, 0)


# Which row stays


def imported(store, tmp_path, *rows: dict[str, Any]) -> ImportSummary:
    """Imports the rows, after a dry run that must tell the same; and again: nothing changes."""
    path = csv_file(tmp_path / "rows.csv", *rows)
    before = raw_rows(store)
    dry = import_tokens(store, path, dry_run=True)
    assert raw_rows(store) == before
    summary = import_tokens(store, path)
    assert dry == summary
    once = raw_rows(store)
    again = import_tokens(store, path)
    assert (again.new, again.updated) == (0, 0)
    assert raw_rows(store) == once
    return summary


def fill(store: SQLAlchemyTokenStore, *rows: dict[str, Any]) -> None:
    typed = [{**each, "expiry_time": int(each["expiry_time"])} for each in rows]
    with store.engine.connect() as connection:
        for each in typed:
            connection.execute(
                insert(stored_table()), {name: value or None for name, value in each.items()}
            )


def test_the_same_id_by_chance_overwrites_nobody(store, tmp_path):
    fill(store, row("1"), row("5"))
    summary = imported(store, tmp_path, row("alice", id="1"), row("bob", id="1"), row("2"))
    assert counts(summary) == (3, 0, 0, 0, 0)
    by_user = {each["user_name"].partition("@")[0]: each for each in stored(store)}
    assert by_user["1"] == row("1")
    assert by_user["2"] == row("2")
    assert summary.renumbered == [("1", by_user[name]["id"]) for name in ("alice", "bob")]
    for name in ("alice", "bob"):
        assert len(by_user[name]["id"]) == 20
        assert {**by_user[name], "id": ""} == row(name, id="")


@pytest.mark.parametrize("column", ["user_name", "grant_token", "refresh_token", "access_token"])
def test_a_newer_row_of_the_source_wins_and_the_row_keeps_its_id(store, tmp_path, column):
    old = row("old", **dict.fromkeys(("user_name", "grant_token", "api_domain"), ""))
    old = {**old, column: "in-common", "redirect_url": "https://old"}
    if column == "access_token":
        old["refresh_token"] = ""
    fill(store, old)
    new = row("new", expiry_time="1700000000001", redirect_url="", **{column: "in-common"})
    summary = imported(store, tmp_path, new)
    assert counts(summary) == (0, 1, 0, 0, 0)
    assert stored(store) == [{**new, "id": "old", "redirect_url": "https://old"}]


def test_an_older_row_of_the_source_only_fills_what_is_missing(store, tmp_path):
    fill(store, row("old", refresh_token="", api_domain=""))
    older = row("new", user_name="old@example.com:7001", expiry_time="1600000000000")
    assert counts(imported(store, tmp_path, older)) == (0, 1, 0, 0, 0)
    expected = row("old", refresh_token=older["refresh_token"])
    assert stored(store) == [expected]


def test_an_older_row_of_the_same_user_at_another_client_changes_nothing(store, tmp_path):
    fill(store, row("old", refresh_token=""))
    other = row("new", user_name="old@example.com:7001", client_id="2", expiry_time="1")
    summary = imported(store, tmp_path, other)
    assert counts(summary) == (0, 0, 0, 0, 1)
    assert summary.refused[0].reason == "the same user has a newer row of another client"
    assert stored(store) == [{**row("old"), "refresh_token": None}]


def test_a_newer_row_of_the_same_user_at_another_client_gets_nothing_of_the_old_one(
    store, tmp_path
):
    fill(store, row("old"))
    other = row("new", user_name="old@example.com:7001", client_id="2", expiry_time="1800000000000")
    other["api_domain"] = other["client_secret"] = ""
    assert counts(imported(store, tmp_path, other)) == (0, 1, 0, 0, 0)
    assert stored(store) == [{**other, "id": "old", "api_domain": None, "client_secret": None}]


@pytest.mark.parametrize("expiry", ["", "5", "1800000000000"])
def test_rows_of_the_target_that_the_source_tells_to_be_one_become_one(store, tmp_path, expiry):
    fill(store, row("a", refresh_token=""), row("b", user_name="", grant_token="", expiry_time=9))
    both = row("c", user_name="a@example.com:7001", refresh_token="1000.refresh-b", grant_token="")
    both["expiry_time"] = expiry
    assert counts(imported(store, tmp_path, both)) == (0, 0, 1, 0, 0)
    expected = row("a", refresh_token="1000.refresh-b")
    if len(expiry) > 1:
        expected.update(access_token="1000.access-c", expiry_time=expiry)
    assert stored(store) == [expected]


def test_rows_of_two_users_stay_two_whatever_an_old_row_says(store, tmp_path):
    fill(store, row("a", refresh_token=""), row("b"))
    both = row("c", user_name="a@example.com:7001", refresh_token="1000.refresh-b")
    both["expiry_time"] = "5"
    summary = imported(store, tmp_path, both)
    assert summary.refused[0].reason == "its refresh or grant token is that of another user's row"
    assert counts(summary) == (0, 0, 0, 0, 1)
    assert [each["user_name"][0] for each in stored(store)] == ["a", "b"]


def test_a_row_with_nothing_but_an_access_token_waits_until_the_others_are_settled(store, tmp_path):
    """Found by random rows: its token goes when two rows of the target become one."""
    nothing = {"refresh_token": "", "expiry_time": "0"}
    fill(store, row("a", **{**nothing, "user_name": ""}), row("b", **nothing, grant_token=""))
    bare = row("c", **nothing, user_name="", grant_token="", access_token="1000.access-a")
    both = row("d", **nothing, user_name="b@example.com:7001", grant_token="1000.grant-a")
    imported(store, tmp_path, bare, {**both, "access_token": ""})


def test_of_two_rows_of_one_age_that_which_tells_more_is_settled_first(store, tmp_path):
    """Found by random rows."""
    same = {"refresh_token": "", "grant_token": "", "expiry_time": "0", "api_domain": ""}
    fill(store, row("a", **same))
    bare = row("b", **same, user_name="", access_token="1000.access-a")
    more = row("c", **{**same, "api_domain": "https://d"}, user_name="a@example.com:7001")
    imported(store, tmp_path, bare, more)


def test_the_access_token_that_another_users_row_has_by_a_fault_tells_nothing(store, tmp_path):
    """As an old store of the SDK's samples gives it to every user after the first."""
    rows = [row(name, access_token="1000.same") for name in ("alice", "bob")]
    assert counts(imported(store, tmp_path, *rows)) == (2, 0, 0, 0, 0)
    assert counts(imported(store, tmp_path, row("carol", access_token="1000.same"))) == (
        *(1, 0, 0, 0, 0),
    )
    assert [each["refresh_token"] for each in stored(store)] == [
        f"1000.refresh-{name}" for name in ("alice", "bob", "carol")
    ]


def test_a_new_row_that_goes_into_another_within_the_chunk_is_never_written(store, tmp_path):
    fill(store, row("t", refresh_token="", expiry_time="99", grant_token=""))
    same = {"access_token": "1000.same", "grant_token": ""}
    rows = [
        row("new", **same, user_name="", expiry_time="9"),
        row("old", **same, user_name="t@example.com:7001", refresh_token="", expiry_time="5"),
        row("other", **same, refresh_token="", expiry_time="3"),
    ]
    assert counts(imported(store, tmp_path, *rows)) == (2, 0, 1, 0, 0)
    by_id = {each["id"]: each["refresh_token"] for each in stored(store)}
    assert by_id == {"t": "1000.refresh-new", "other": None}


def test_an_access_token_in_common_joins_no_rows_with_two_grants(store, tmp_path):
    """Found by random rows."""
    same = {"access_token": "1000.same", "expiry_time": "0"}
    fill(store, row("a", **same, refresh_token=""), row("b", **same, user_name=""))
    grant = row("c", user_name="", refresh_token="", grant_token="1000.grant-b", expiry_time="0")
    both = row("d", user_name="a@example.com:7001", refresh_token="1000.refresh-b")
    both.update(access_token="", grant_token="")
    assert counts(imported(store, tmp_path, grant, both)) == (0, 0, 0, 2, 0)


def test_a_dry_run_knows_in_one_chunk_what_it_has_decided_in_another(store, tmp_path, monkeypatch):
    monkeypatch.setattr(importing, "CHUNK", 1)
    fill(store, row("t"))
    newest = row("s", user_name="t@example.com:7001", expiry_time="1800000000000")
    oldest = row("u", refresh_token="1000.refresh-t", expiry_time="1")
    assert counts(imported(store, tmp_path, oldest, newest)) == (1, 1, 0, 0, 0)


def test_rows_that_hold_one_secret_under_two_keys_become_one(store_with, tmp_path):
    store = store_with(NEW, OLD)
    with store.engine.connect() as connection:
        twin = row("a", id="b", user_name=None, access_token="1000.other")
        for key, each in ((NEW, row("a")), (OLD, twin)):
            cipher = Cipher([key])
            sealed = {name: cipher.stored(name, each[name]) for name in SECRETS}
            each = {**each, **sealed, "expiry_time": 5}
            connection.execute(insert(stored_table()), each)
    assert counts(imported(store, tmp_path, row("a"))) == (0, 0, 1, 0, 0)
    assert stored(store) == [row("a")]


def test_the_id_of_a_row_that_went_is_given_to_nobody_else(store, tmp_path, monkeypatch):
    """A worker may still hold a token with that id."""
    monkeypatch.setattr(importing, "CHUNK", 1)
    fill(store, row("a", refresh_token=""), row("b", user_name="", grant_token=""))
    both = row("c", user_name="a@example.com:7001", refresh_token="1000.refresh-b")
    other = row("other", id="b", expiry_time="1")
    assert counts(imported(store, tmp_path, both, other)) == (1, 0, 1, 0, 0)
    assert {each["id"] for each in stored(store)} & {"a", "b"} == {"a"}


def test_duplicates_within_the_source_become_one(store, tmp_path):
    same = {"user_name": "alice", "refresh_token": ""}
    rows = [
        row("1", **same),
        row("2", **{**same, "expiry_time": "1800000000000", "api_domain": ""}),
        row("3", user_name="alice", expiry_time="1500000000000"),
    ]
    assert counts(imported(store, tmp_path, *rows)) == (1, 0, 2, 0, 0)
    winner = {**rows[1], "refresh_token": "1000.refresh-3", "api_domain": rows[0]["api_domain"]}
    assert stored(store) == [winner]


# How much it takes


@pytest.mark.parametrize("is_newer", [False, True])
def test_a_chunk_takes_a_handful_of_statements_whatever_its_size(
    store, database, tmp_path, is_newer
):
    rows = [row(f"{number}") for number in range(CHUNK)]
    import_tokens(store, csv_file(tmp_path / "rows.csv", *(rows if is_newer else rows[:1])))
    newer = [{**each, "expiry_time": "1800000000000"} for each in rows]
    path = csv_file(tmp_path / "newer.csv", *newer)
    with statements(store.engine) as seen:
        summary = import_tokens(store, path)
    assert counts(summary)[:2] == ((0, CHUNK) if is_newer else (CHUNK - 1, 1))
    look_ups = ["SELECT"] * (1 + (3 if is_newer else 5))  # the first: whether keys are missing
    is_joined = database.name in ("mysql", "mariadb") and is_newer
    writes = ["UPDATE"] * (CHUNK // TOGETHER if is_joined else 1)
    writes += [] if is_newer else ["INSERT"]
    assert [word for word in seen if word not in ("BEGIN", "COMMIT")] == [*look_ups, *writes]


def test_no_plan_for_the_first_chunks_stays_while_the_table_grows(
    store, database, tmp_path, monkeypatch
):
    """PostgreSQL would read a whole table for each chunk, if it was empty when it was planned."""
    if database.name != "postgresql":
        pytest.skip("psycopg alone prepares what is executed often, and its plan stays")
    monkeypatch.setattr(importing, "CHUNK", 2)
    path = csv_file(tmp_path / "rows.csv", *(row(f"{number}") for number in range(40)))
    import_tokens(store, path)
    with store.engine.connect() as connection:
        prepared = connection.exec_driver_sql("SELECT statement FROM pg_prepared_statements")
        kept = prepared.scalars().all()
        threshold = connection.connection.driver_connection.prepare_threshold
    assert any(statement.startswith("INSERT") for statement in kept)  # it does prepare
    assert not [each for each in kept if "FROM oauthtoken" in each and " IN (" in each]
    assert threshold is not None


def test_progress_is_told_in_chunks(store, tmp_path):
    rows = [row(f"{number}") for number in range(CHUNK + 1)]
    told = []
    path = csv_file(tmp_path / "rows.csv", *rows)
    import_tokens(store, path, on_progress=lambda *done: told.append(done))
    assert told == [(CHUNK, CHUNK + 1), (CHUNK + 1, CHUNK + 1)]
    assert len(store.get_tokens()) == CHUNK + 1


# The command


def command(*arguments: str | Path, tmp_path: Path, **environment: str):
    url = f"sqlite:///{tmp_path / 'zohooauth.db'}"
    return run("zoho-token-orm", *arguments, cwd=tmp_path, url=url, **environment)


def test_the_command_tells_what_it_did_and_ends_with_1_where_a_row_was_refused(tmp_path):
    schema.upgrade(f"sqlite:///{tmp_path / 'zohooauth.db'}")
    path = csv_file(tmp_path / "t.csv", row("alice"), row("bob", access_token="geheim" * 999))
    line = "2 rows: 1 new, 0 updated, 0 merged, 0 unchanged, 1 refused"
    dry = command("import", path, "--dry-run", tmp_path=tmp_path)
    assert (dry.returncode, dry.stdout) == (1, f"{line}; nothing was written (dry run)\n")
    real = command("import", path, tmp_path=tmp_path)
    assert (real.returncode, real.stdout) == (1, f"{line}\n")
    assert "line 3: access_token is too long" in real.stderr
    assert "geheim" not in real.stderr + real.stdout
    again = command("import", csv_file(path, row("alice")), tmp_path=tmp_path)
    assert (again.returncode, again.stdout) == (
        0,
        "1 rows: 0 new, 0 updated, 0 merged, 1 unchanged, 0 refused\n",
    )


def test_the_command_takes_url_and_keys_of_the_source_from_the_environment(tmp_path):
    old = f"sqlite:///{tmp_path / 'old.db'}"
    schema.upgrade(f"sqlite:///{tmp_path / 'zohooauth.db'}")
    with SQLAlchemyTokenStore(old, table_name="mine", encryption_keys=OLD) as store:
        store.save_token(granted("alice"))
    environment = {
        "ZOHO_TOKEN_SOURCE_URL": old,
        SOURCE_KEYS_VARIABLE: OLD,
        KEYS_VARIABLE: NEW,
    }
    result = command("import", "--table", "mine", tmp_path=tmp_path, **environment)
    assert (result.returncode, result.stdout) == (
        0,
        "1 rows: 1 new, 0 updated, 0 merged, 0 unchanged, 0 refused\n",
    )
    result = command("import", tmp_path=tmp_path, **environment)
    assert result.returncode == 1
    assert "there is no table oauthtoken in sqlite:///" in result.stderr
    assert "Traceback" not in result.stderr


# What a hostile reader has found


def test_a_row_whose_token_is_another_users_is_refused_and_both_keep_theirs(store, tmp_path):
    fill(store, row("u1", expiry_time="5000"), row("u2", expiry_time="1000"))
    before = stored(store)
    for name in ("refresh_token", "grant_token"):
        wrong = row("u1", expiry_time="9000", **{name: row("u2")[name]})
        summary = imported(store, tmp_path, wrong)
        assert counts(summary) == (0, 0, 0, 0, 1)
        assert (summary.refused[0].where, stored(store)) == ("line 2", before)


def test_a_user_with_two_clients_keeps_the_newer_one_and_is_told_of_the_other(store, tmp_path):
    one, two = (
        row(n, user_name="u", client_id=f"1000.{n}", expiry_time=expiry)
        for n, expiry in (("one", "1000"), ("two", "2000"))
    )
    summary = imported(store, tmp_path, one, two)
    assert counts(summary) == (1, 0, 0, 0, 1)
    assert summary.refused == [("line 2", "the same user has a newer row of another client")]


def test_a_file_that_filestore_is_writing_is_read_when_it_is_whole(store, tmp_path):
    """FileStore empties it, and fills it again, with every save."""
    path = tmp_path / "tokens.csv"
    filestore, is_over = FileStore(str(path)), threading.Event()
    tokens = [granted(f"user{n}") for n in range(400)]
    with path.open("a", newline="") as file:
        csv.writer(file).writerows(
            [[f"{n}", *list(values(t).values())[1:]] for n, t in enumerate(tokens)]
        )

    def save() -> None:
        while not is_over.wait(0.1):
            filestore.save_token(filestore.find_token_by_id("7"))

    with ThreadPoolExecutor(1) as pool:
        saving = pool.submit(save)
        try:
            for _ in range(5):
                summary = import_tokens(store, path)
                assert (sum(counts(summary)), summary.refused) == (400, [])
        finally:
            is_over.set()
        saving.result()


@pytest.mark.parametrize("cut", [1, 2, 40])
def test_a_file_that_was_cut_is_refused_whole(store, tmp_path, cut):
    path = csv_file(tmp_path / "tokens.csv", row("alice"), row("bob"))
    path.write_bytes(path.read_bytes().rstrip(b"\r\n")[: -cut + 1 or None])
    with pytest.raises(SDKException, match="in the middle of a line"):
        import_tokens(store, path)
    assert stored(store) == []


def test_what_is_encrypted_is_not_taken_for_a_token(store, tmp_path):
    sealed = row("alice", refresh_token="zto1.00000000.AAAA")
    summary = imported(store, tmp_path, sealed, row("bob"))
    assert counts(summary) == (1, 0, 0, 0, 1)
    assert "encrypted" in summary.refused[0].reason


def test_a_row_of_the_target_that_no_key_opens_refuses_those_that_concern_it(tmp_path):
    url = f"sqlite:///{tmp_path / 'target.db'}"
    with SQLAlchemyTokenStore(url, encryption_keys=OLD) as old:
        old.save_token(granted("alice"))
    with SQLAlchemyTokenStore(url, encryption_keys=[NEW, "plain"]) as target:
        alice = row("alice", user_name="alice@example.com:7001")
        summary = imported(target, tmp_path, *(row(f"user{n}") for n in range(600)), alice)
        assert counts(summary) == (600, 0, 0, 0, 1)
        assert "encrypted with the key" in summary.refused[0].reason


def test_without_the_key_of_an_encrypted_target_nothing_is_imported(store_with, tmp_path):
    store_with(OLD).save_token(granted("alice"))
    keyless = store_with()
    before = raw_rows(keyless)
    for options in ({}, {"dry_run": True}):
        with pytest.raises(SDKException, match="no key is given: set ZOHO_TOKEN_ENCRYPTION_KEYS"):
            import_tokens(
                keyless, csv_file(tmp_path / "new.csv", row("bob", user_name="")), **options
            )
    assert raw_rows(keyless) == before


def test_a_row_that_has_tokens_of_two_users_brings_neither_into_the_other(store, tmp_path):
    ann = row("ann", grant_token="1000.g", expiry_time="1600000000000")
    bob = row("bob", grant_token="", expiry_time="1800000000000")
    fill(store, ann, bob)
    before = stored(store)
    mixed = row("1", user_name="", refresh_token=bob["refresh_token"], grant_token="1000.g")
    summary = imported(store, tmp_path, mixed)
    assert counts(summary) == (0, 0, 0, 0, 1)
    assert summary.refused[0].reason == "its tokens are those of rows of two users"
    older = {**mixed, "id": "2", "api_domain": "https://x.example.com", "expiry_time": "1"}
    summary = imported(store, tmp_path, mixed, older)  # what has gone into it is refused with it
    assert (counts(summary), summary.refused[0].reason) == (
        (0, 0, 0, 0, 2),
        summary.refused[1].reason,
    )
    assert stored(store) == before


def test_a_row_of_nobody_takes_the_place_of_no_users_row_at_another_client(store, tmp_path):
    fill(store, row("ann", grant_token="1000.g"))
    before = stored(store)
    other = row("1", user_name="", client_id="2", grant_token="1000.g", expiry_time="1" + "9" * 12)
    summary = imported(store, tmp_path, other)
    assert counts(summary) == (0, 0, 0, 0, 1)
    assert summary.refused[0].reason == "its token is also that of a user's row, at another client"
    assert stored(store) == before


def test_two_rows_of_two_clients_and_no_user_are_not_called_one_users(store, tmp_path):
    rows = [row("1", user_name=""), row("2", user_name="", client_id="2", expiry_time="1")]
    rows[1]["refresh_token"] = rows[0]["refresh_token"]
    summary = imported(store, tmp_path, *rows)
    assert [each.reason for each in summary.refused] == [
        "its token is also in a newer row of another client"
    ]


def test_a_row_that_another_row_of_the_source_makes_room_for_comes_in_at_once(store, tmp_path):
    fill(store, row("bob", refresh_token="1000.r", expiry_time="1600000000000"))
    eve = row("eve", refresh_token="1000.r", expiry_time="1800000000000")
    bob = row("bob", refresh_token="1000.s", expiry_time="1700000000000")
    path = csv_file(tmp_path / "rows.csv", eve, bob)
    dry = import_tokens(store, path, dry_run=True)
    assert counts(dry) == counts(import_tokens(store, path)) == (1, 1, 0, 0, 0)
    assert {each["id"]: each["refresh_token"] for each in stored(store)} == {
        "bob": "1000.s",
        "eve": "1000.r",
    }
    assert counts(import_tokens(store, path)) == (0, 0, 0, 2, 0)


def test_an_access_token_alone_that_rows_of_two_authorizations_have_is_refused(store, tmp_path):
    bare = {**dict.fromkeys(COLUMNS, ""), "id": "9", "access_token": "1000.same"}
    rows = [row(name, access_token="1000.same") for name in ("alice", "bob")]
    path = csv_file(tmp_path / "rows.csv", bare, *rows)
    for expected in ((2, 0, 0, 0, 1), (0, 0, 0, 2, 1)):
        summary = import_tokens(store, path)
        assert counts(summary) == expected
        assert summary.refused == [("line 2", importing._AMBIGUOUS)]
    assert [each["id"] for each in stored(store)] == ["alice", "bob"]


def test_an_access_token_that_many_have_by_a_fault_costs_each_of_them_little(
    store, tmp_path, monkeypatch
):
    compared = []
    resolved = merging.resolved
    monkeypatch.setattr(
        merging, "resolved", lambda rows, *more: compared.append(len(rows)) or resolved(rows, *more)
    )
    rows = [row(f"{number}", access_token="1000.same") for number in range(200)]
    path = csv_file(tmp_path / "rows.csv", *rows)
    assert counts(import_tokens(store, path)) == (200, 0, 0, 0, 0)
    assert counts(import_tokens(store, path)) == (0, 0, 0, 200, 0)
    assert sum(compared) < 200 * 30
    assert len(stored(store)) == 200


@pytest.mark.parametrize("column", ["id", "redirect_url", "expiry_time", "access_token"])
def test_numbers_that_are_none_stop_no_import(store, tmp_path, column):
    path = tmp_path / "old.db"
    columns = ", ".join(name + (" REAL" if name == column else " TEXT") for name in COLUMNS)
    foreign_table(f"sqlite:///{path}", "oauthtoken", columns, row("alice"), row("bob"))
    with sqlite3.connect(path) as connection:
        connection.execute(f"UPDATE oauthtoken SET {column} = 9e999 WHERE user_name LIKE 'alice%'")
    connection.close()
    assert counts(import_tokens(store, f"sqlite:///{path}")) == (2, 0, 0, 0, 0)
    (alice, _) = stored(store)
    assert alice[column] == ("0" if column == "expiry_time" else "inf")


def test_text_that_is_no_utf_8_refuses_its_row_alone(store, tmp_path):
    path = tmp_path / "old.db"
    columns = ", ".join(f"{name} TEXT" for name in COLUMNS)
    rows = [row("alice"), row("bob"), row("carol"), row("dave")]
    foreign_table(f"sqlite:///{path}", "oauthtoken", columns, *rows)
    with sqlite3.connect(path) as connection:
        for name, column in (("alice", "user_name"), ("bob", "access_token"), ("carol", "id")):
            statement = f"UPDATE oauthtoken SET {column} = CAST(x'61ff' AS TEXT) WHERE id = ?"
            connection.execute(statement, (name,))
    connection.close()
    summary = import_tokens(store, f"sqlite:///{path}")
    assert counts(summary) == (1, 0, 0, 0, 3)
    assert {each.reason for each in summary.refused} == {
        f"{column} is no UTF-8 text" for column in ("user_name", "access_token", "id")
    }
    assert [each["id"] for each in stored(store)] == ["dave"]


def test_blanks_that_postgresql_fills_a_column_up_with_are_no_part_of_a_token(store, tmp_path):
    with fresh_database("postgresql", tmp_path) as database:
        columns = ", ".join(f"{name} char(100)" for name in COLUMNS)
        foreign_table(database.url, "oauthtoken", columns, row("alice"))
        assert counts(import_tokens(store, database.url)) == (1, 0, 0, 0, 0)
    plain = tmp_path / "plain.csv"
    assert counts(import_tokens(store, csv_file(plain, row("alice")))) == (0, 0, 0, 1, 0)


def test_a_mistyped_url_is_not_repeated(tmp_path):
    url, target = "postgresql://app:hunter2@db/crm", f"sqlite:///{tmp_path / 'tokens.db'}"
    for command in (
        ("import", "tokens.csv", url),
        ("export", "tokens.csv", url),
        ("export", url),
        ("check", url),
        ("import", url.replace(":/", "/")),
        ("import", "--table", url, target),
    ):
        done = run("zoho-token-orm", *command, cwd=tmp_path, url=target)
        assert done.returncode != 0
        assert "hunter2" not in done.stdout + done.stderr, command
