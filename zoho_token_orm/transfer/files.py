"""FileStore's CSV file: its columns, and how it is read."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from zoho_token_orm.errors import token_store_error
from zoho_token_orm.mapping import COLUMNS
from zoho_token_orm.transfer.records import Contents, Raw, contents_of

HEADER = ["redirect_uri" if name == "redirect_url" else name for name in COLUMNS]
"""FileStore's first line; the files of older releases lack the last column, ``api_domain``."""
LINE_ENDS = (b"\n", b"\r")
_CUT = (
    "ends in the middle of a line: somebody is writing it, or has been interrupted; if it is "
    "whole, end its last line"
)
MOST_READINGS = 20
BETWEEN_READINGS = 0.05
"""Seconds; FileStore takes less to write ten thousand rows."""
_SQLITE = b"SQLite format 3\0"


def read_file(path: Path) -> Contents:
    """Reads a file of FileStore's; it is not changed.

    FileStore writes the whole file anew with every save, so that a reader may find a part of it:
    it is read until it is whole, and twice the same. A row is named by the line of the file on
    which it begins: a quoted value may span several.

    Args:
        path: The file: UTF-8, with or without a byte order mark.

    Raises:
        SDKException: It cannot be read, or is not what FileStore writes.
    """
    try:
        data = _whole(path)
        problem = _problem(path, data)
        if problem is None:
            text = data.decode("utf-8-sig")
            contents = contents_of(_rows(io.StringIO(text, newline=""), path))
            if data.endswith(LINE_ENDS):
                return contents
            problem = _CUT
    except OSError as error:
        problem = f"cannot be read: {error.strerror}"
    except UnicodeError:  # it holds what it could not decode: so it must not be the context
        problem = "is no UTF-8 text: save it as that"
    raise token_store_error(f"{shown(path)} {problem}")


def shown(path: Path) -> str:
    """The path as it can be shown: what looks like a mistyped URL may hold a password."""
    return "the file" if set("@:") & set(str(path)) else str(path)


def _whole(path: Path) -> bytes:
    """The file's contents, when nobody is writing it; what comes through a pipe is read once."""
    if not path.exists():
        return b""
    data = path.read_bytes()
    for _ in range(MOST_READINGS if path.is_file() else 0):
        time.sleep(BETWEEN_READINGS)
        before, data = data, path.read_bytes()
        if data == before and data.endswith(LINE_ENDS):
            break
    return data


def _problem(path: Path, data: bytes) -> str | None:
    """What can be told of a file before it is read as text."""
    if not path.exists():
        return "is not there; a database is named by its URL, as in postgresql://user@host/database"
    if data.startswith(_SQLITE):
        return f"is a SQLite database: name it by its URL, sqlite:///{shown(path)}"
    return None


def _rows(file: TextIO, path: Path) -> Iterator[Raw]:
    """The rows below the header; blank lines are left out."""
    reader = csv.reader(file, strict=True)
    try:
        columns = _columns(next(reader, []), path)
        end = reader.line_num
        for cells in reader:
            where, end = f"line {end + 1}", reader.line_num
            if len(cells) > 1 or any(cell.strip() for cell in cells):
                yield _row(where, columns, cells)
    except csv.Error as error:
        problem = f"{shown(path)} is no CSV file, at line {reader.line_num}: {error}"
        raise token_store_error(problem) from error


def _columns(header: list[str], path: Path) -> tuple[str, ...]:
    names = [name.strip() for name in header]
    if names in (HEADER, HEADER[:-1]):
        return COLUMNS[: len(names)]
    raise token_store_error(
        f"{shown(path)} is no file of FileStore's: its first line must be {','.join(HEADER)}, with "
        "or without the last column"
    )


def _row(where: str, columns: tuple[str, ...], cells: list[str]) -> Raw:
    if len(cells) != len(columns):
        return Raw(where, {}, f"it has {len(cells)} fields, not {len(columns)}")
    return Raw(where, dict(zip(columns, cells, strict=True)))
