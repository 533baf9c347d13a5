"""The tokens of a store as a file that the SDK's FileStore reads."""

from __future__ import annotations

import csv
import os
import secrets
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sqlalchemy import func, select
from zohocrmsdk.src.com.zoho.api.authenticator.oauth_token import OAuthToken

from zoho_token_orm.errors import token_store_error
from zoho_token_orm.mapping import COLUMNS, fields_of
from zoho_token_orm.models import stored_table
from zoho_token_orm.store import PAGE, SQLAlchemyTokenStore
from zoho_token_orm.transfer.files import HEADER, shown

Progress = Callable[[int, int], None]


def export_tokens(
    store: SQLAlchemyTokenStore,
    path: str | os.PathLike[str],
    on_progress: Progress | None = None,
) -> int:
    """Writes all tokens, in the clear, to a new file that ``FileStore(path)`` reads.

    Only its owner may read it. It gets its name when it is whole; where something fails, none is
    left.

    Args:
        store: Where from.
        path: The file, which must not be there yet.
        on_progress: Is told how many rows are done, of how many, after some hundreds.

    Returns:
        How many tokens were written.

    Raises:
        SDKException: The file is there already or cannot be written, the database did not answer,
            or no key opens a secret.
    """
    path = Path(path)
    count = select(func.count()).select_from(stored_table(store._database.table_name))
    total = store._run("count the rows", lambda c: int(c.execute(count).scalar_one()))
    try:
        if os.path.lexists(path):
            raise FileExistsError
        with _named_when_whole(path) as descriptor:
            tokens = _told(store.iter_tokens(), total, on_progress or (lambda done, total: None))
            return _written(descriptor, tokens)
    except FileExistsError as error:
        raise token_store_error(
            f"{shown(path)} is there already, and is not overwritten"
        ) from error
    except OSError as error:
        raise token_store_error(f"{shown(path)} cannot be written: {error.strerror}") from error


@contextmanager
def _named_when_whole(path: Path) -> Iterator[int]:
    """A new file beside that of the path, which gets its name at the end, or is removed."""
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        yield descriptor
        try:
            os.link(part, path)  # which overwrites nothing
        except (OSError, AttributeError) as error:
            if os.path.lexists(path):
                raise FileExistsError from error
            part.rename(path)  # where there are no links
    finally:
        with suppress(OSError):
            part.unlink()


def _written(descriptor: int, tokens: Iterable[OAuthToken]) -> int:
    """Writes the tokens as FileStore does; returns how many."""
    count = 0
    with open(descriptor, "w", encoding="utf-8", newline="") as file:
        if hasattr(os, "fchmod"):
            os.fchmod(descriptor, 0o600)  # whatever the umask has left of it
        writer = csv.writer(file)
        writer.writerow(HEADER)
        for token in tokens:
            fields = fields_of(token)
            writer.writerow([fields[name] for name in COLUMNS])
            count += 1
        file.flush()
        os.fsync(descriptor)
    return count


def _told(tokens: Iterable[OAuthToken], total: int, on_progress: Progress) -> Iterator[OAuthToken]:
    """The same tokens; tells how many are done."""
    done = 0
    for done, token in enumerate(tokens, 1):
        yield token
        if done % PAGE == 0:
            on_progress(done, max(done, total))
    on_progress(done, max(done, total))
