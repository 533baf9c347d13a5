"""``export`` writes what the SDK's own FileStore reads, in a file that is its owner's alone."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from zohocrmsdk.src.com.zoho.api.authenticator.oauth_token import OAuthToken
from zohocrmsdk.src.com.zoho.api.authenticator.store import FileStore
from zohocrmsdk.src.com.zoho.crm.api.exception.sdk_exception import SDKException

from tests.support import NEW, OLD, granted, run, values
from tests.test_import import counts
from zoho_token_orm import SQLAlchemyTokenStore, schema
from zoho_token_orm.store import PAGE
from zoho_token_orm.transfer import export_tokens, import_tokens
from zoho_token_orm.transfer.files import HEADER

NAMES = ["alice", 'b"o"b', "c,d", "e\nf\n", " g ", "ö漢🙂", "'", "zto1.x", "UTF-8''%41"]


def saved(store: SQLAlchemyTokenStore, *names: str) -> list[OAuthToken]:
    tokens = [granted(name) for name in names]
    for token in tokens:
        store.save_token(token)
    return tokens


@pytest.mark.parametrize("keys", [(), (NEW, OLD)], ids=["plain", "keys"])
def test_the_real_filestore_finds_every_token_as_it_is(store_with, tmp_path, keys):
    store = store_with(*keys)
    tokens = saved(store, *NAMES)
    bare = OAuthToken(access_token="1000.bare")
    store.save_token(bare)
    path = tmp_path / "tokens.csv"
    assert export_tokens(store, path) == len(NAMES) + 1
    old = FileStore(str(path))
    assert [values(t) for t in old.get_tokens()] == [values(t) for t in [*tokens, bare]]
    for token in tokens:
        assert values(old.find_token_by_id(token.get_id())) == values(token)
        found = old.find_token(OAuthToken(user_signature=token.get_user_signature()))
        assert values(found) == values(token)
    tokens[0].set_access_token("1000.fresh")
    old.save_token(tokens[0])
    assert values(old.find_token_by_id(tokens[0].get_id())) == values(tokens[0])


def test_filestore_itself_would_write_the_same_bytes(store, tmp_path):
    for token in saved(store, *NAMES):
        FileStore(str(tmp_path / "theirs.csv")).save_token(token)
    export_tokens(store, tmp_path / "ours.csv")
    assert (tmp_path / "ours.csv").read_bytes() == (tmp_path / "theirs.csv").read_bytes()


def test_what_is_exported_can_be_imported(store, tmp_path):
    tokens = saved(store, *NAMES)
    export_tokens(store, tmp_path / "tokens.csv")
    assert counts(import_tokens(store, tmp_path / "tokens.csv")) == (0, 0, 0, len(NAMES), 0)
    store.delete_tokens()
    assert counts(import_tokens(store, tmp_path / "tokens.csv")) == (len(NAMES), 0, 0, 0, 0)
    assert [values(token) for token in store.get_tokens()] == [values(token) for token in tokens]


def test_an_empty_store_gives_a_file_that_filestore_takes(store, tmp_path):
    told = []
    path = tmp_path / "tokens.csv"
    assert export_tokens(store, path, lambda *done: told.append(done)) == 0
    assert told == [(0, 0)]
    assert path.read_text() == ",".join(HEADER) + "\n"
    assert FileStore(str(path)).get_tokens() == []


def test_progress_is_told_in_pages(store, tmp_path):
    path, told = tmp_path / "tokens.csv", []
    lines = [",".join(HEADER), *(f"{n},u{n},c,s,1000.r{n},,,,," for n in range(PAGE + 1))]
    path.write_text("\n".join([*lines, ""]))
    import_tokens(store, path)
    out = tmp_path / "out.csv"
    assert export_tokens(store, out, lambda *done: told.append(done)) == PAGE + 1
    assert told == [(PAGE, PAGE + 1), (PAGE + 1, PAGE + 1)]


@pytest.mark.parametrize("umask", [0, 0o022, 0o777])
def test_the_file_is_private_whatever_the_umask(store, tmp_path, umask):
    before = os.umask(umask)
    try:
        export_tokens(store, tmp_path / "tokens.csv")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "tokens.csv").stat().st_mode) == 0o600


@pytest.mark.parametrize("kind", ["file", "link", "folder"])
def test_what_is_there_already_is_not_overwritten(store, tmp_path, kind):
    path = tmp_path / "tokens.csv"
    if kind == "file":
        path.write_text("mine")
    elif kind == "link":
        path.symlink_to(tmp_path / "elsewhere")
    else:
        path.mkdir()
    with pytest.raises(SDKException, match=r"tokens\.csv is there already, and is not overwritten"):
        export_tokens(store, path)
    assert kind != "file" or path.read_text() == "mine"
    assert kind != "link" or (path.is_symlink() and not (tmp_path / "elsewhere").exists())


def test_a_folder_that_is_not_there_is_told_of(store, tmp_path):
    with pytest.raises(SDKException, match=r"gone/tokens\.csv cannot be written: No such file"):
        export_tokens(store, tmp_path / "gone" / "tokens.csv")


def test_nothing_is_left_of_an_export_that_fails(store_with, tmp_path):
    saved(store_with(NEW), "alice", "bob")
    store = store_with(OLD)
    with pytest.raises(SDKException, match="is encrypted with the key"):
        export_tokens(store, tmp_path / "tokens.csv")
    assert not (tmp_path / "tokens.csv").exists()


def test_nothing_is_left_of_an_export_that_is_interrupted(store, tmp_path):
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    saved(store, "alice")
    with pytest.raises(KeyboardInterrupt):
        export_tokens(store, tmp_path / "tokens.csv", interrupt)
    assert not (tmp_path / "tokens.csv").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_disk_is_told_of(store, tmp_path, monkeypatch):
    saved(store, "alice")
    full, path = os.open, tmp_path / "tokens.csv"

    def opened(given, flags, mode):
        os.close(full(given, flags, mode))
        return full("/dev/full", os.O_WRONLY)

    monkeypatch.setattr(os, "open", opened)
    monkeypatch.setattr(os, "fchmod", lambda *_: None)
    with pytest.raises(SDKException, match="cannot be written: No space left on device"):
        export_tokens(store, path)
    assert not path.exists()


def test_the_command_exports_and_refuses_to_do_it_again(tmp_path):
    url = f"sqlite:///{tmp_path / 'zohooauth.db'}"
    schema.upgrade(url)
    with SQLAlchemyTokenStore(url) as store:
        (token,) = saved(store, "alice")
    result = run("zoho-token-orm", "export", "tokens.csv", cwd=tmp_path, url=url)
    assert (result.returncode, result.stdout) == (
        0,
        "1 tokens written to tokens.csv, in the clear\n",
    )
    (found,) = FileStore(str(tmp_path / "tokens.csv")).get_tokens()
    assert values(found) == values(token)
    again = run("zoho-token-orm", "export", "tokens.csv", cwd=tmp_path, url=url)
    assert (again.returncode, again.stdout) == (1, "")
    assert "Error: tokens.csv is there already, and is not overwritten" in again.stderr
    assert "Traceback" not in again.stderr


def test_a_file_gets_its_name_when_it_is_whole(store, tmp_path):
    """A job that is ended in the middle leaves nothing that looks like an export."""
    store.save_token(granted("alice"))
    path, seen = tmp_path / "tokens.csv", []

    def look(done: int, total: int) -> None:
        seen.append(path.exists())

    export_tokens(store, path, look)
    assert seen == [False]
    assert [each.name for each in tmp_path.glob("*.csv")] == ["tokens.csv"]
    assert list(tmp_path.glob(".tokens*")) == []
