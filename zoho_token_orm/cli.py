"""The command line, ``zoho-token-orm``: the schema, and what the table holds."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import click
from zohocrmsdk.src.com.zoho.api.authenticator.oauth_token import OAuthToken
from zohocrmsdk.src.com.zoho.crm.api.exception.sdk_exception import SDKException

from zoho_token_orm import SQLAlchemyTokenStore, __version__, schema
from zoho_token_orm.database import URL_VARIABLE
from zoho_token_orm.encryption import KEYS_VARIABLE, generate_key, keys_of
from zoho_token_orm.models import DEFAULT_TABLE_NAME
from zoho_token_orm.transfer import export_tokens, import_tokens

SOURCE_VARIABLE = "ZOHO_TOKEN_SOURCE_URL"
HEADINGS = ("id", "user", "client", "refresh token", "access token", "expires (UTC)")


def _command(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options that every command has, and errors as one line on standard error, status 1."""

    @click.option(
        "--url",
        "database",
        metavar="URL",
        help=f"The database; else {URL_VARIABLE}, which keeps a password out of the process list; "
        "else sqlite:///zohooauth.db.",
    )
    @click.option("--table-name", default=DEFAULT_TABLE_NAME, show_default=True, metavar="NAME")
    @functools.wraps(function)
    def command(**options: Any) -> None:
        try:
            function(**options)
        except SDKException as error:
            raise click.ClickException(" ".join(error.error_message.split())) from error
        except ValueError as error:
            raise click.UsageError(str(error)) from error

    return command


class QuietCommand(click.Command):
    """A command that does not repeat a mistyped URL, in which there may be a password."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Reads the arguments.

        Raises:
            click.UsageError: They are not understood.
        """
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            if "://" not in error.message:
                raise
        raise click.UsageError(f"a URL is not wanted there: give it in {URL_VARIABLE}", ctx)


class QuietGroup(click.Group):
    """Its commands are quiet ones."""

    command_class = QuietCommand


@click.group(cls=QuietGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def main() -> None:
    """Provisions and looks after the token table of the Zoho CRM SDK."""


@main.command()
@click.argument("revision", default=schema.HEAD)
@click.option(
    "--sql",
    is_flag=True,
    help="Print the SQL instead of running it; for MariaDB let the URL begin with mariadb://.",
)
@_command
def upgrade(revision: str, sql: bool, database: str | None, table_name: str) -> None:
    """Bring the schema to a REVISION, by default the newest.

    A table that the SDK's own DBStore has used is taken over, with its rows.
    """
    if sql:
        click.echo(schema.upgrade_script(database, revision, table_name=table_name), nl=False)
        return
    said = schema.upgrade(database, revision, table_name=table_name)
    if said:
        click.echo(said)
    click.echo(f"{table_name} is at revision {schema.current(database, table_name=table_name)}")


@main.command()
@click.argument("revision")
@click.option("--yes", is_flag=True, help="Do not ask.")
@_command
def downgrade(revision: str, yes: bool, database: str | None, table_name: str) -> None:
    """Take the schema back to a REVISION; "base" drops the table with all tokens in it.

    "zto_sdk" leaves the table as the SDK's own DBStore wants it, with all tokens.
    """
    if not yes:
        click.confirm(f"This may delete the tokens in {table_name}. Go on?", abort=True, err=True)
    schema.downgrade(database, revision, table_name=table_name)
    revision_now = schema.current(database, table_name=table_name)
    click.echo(f"{table_name} is at revision {revision_now or schema.BASE}")


@main.command()
@_command
def current(database: str | None, table_name: str) -> None:
    """Print the revision that the schema is at."""
    click.echo(schema.current(database, table_name=table_name) or schema.BASE)


@main.command()
@_command
def check(database: str | None, table_name: str) -> None:
    """Make sure that the schema is the newest and the table has not drifted; else status 1."""
    schema.check(database, table_name=table_name)
    click.echo(f"{table_name} is up to date, at revision {schema.head()}")


@main.command(name="list")
@_command
def list_tokens(database: str | None, table_name: str) -> None:
    """List the tokens, oldest first, with their secrets masked."""
    with SQLAlchemyTokenStore(database, create_schema=False, table_name=table_name) as store:
        for line in table_lines(store.get_tokens()):
            click.echo(line)


@main.command()
@click.option("--unused-for", "days", type=click.IntRange(0, timedelta.max.days), required=True)
@_command
def purge(days: int, database: str | None, table_name: str) -> None:
    """Delete the tokens that nobody has used for some DAYS."""
    with SQLAlchemyTokenStore(database, create_schema=False, table_name=table_name) as store:
        click.echo(f"{store.purge(timedelta(days=days))} deleted")


@main.command(name="generate-key")
def print_key() -> None:
    """Print a new encryption key, for ZOHO_TOKEN_ENCRYPTION_KEYS."""
    click.echo(generate_key())


@main.command(name="rotate-keys")
@_command
def rotate(database: str | None, table_name: str) -> None:
    """Encrypt every secret with the newest key of ZOHO_TOKEN_ENCRYPTION_KEYS.

    The variable holds the keys, newest first, separated by commas; "plain" in the first place
    decrypts everything. Workers may go on meanwhile, with the same keys.
    """
    if not keys_of(None):
        raise ValueError(f"set {KEYS_VARIABLE} to the keys, newest first, separated by commas")
    with (
        SQLAlchemyTokenStore(database, create_schema=False, table_name=table_name) as store,
        _progress() as show,
    ):
        count = store.rotate_keys(show)
    click.echo(f"{count} rows changed; no older key is needed")


@main.command(name="import")
@click.argument("source", envvar=SOURCE_VARIABLE)
@click.option(
    "--table",
    "source_table",
    default=DEFAULT_TABLE_NAME,
    show_default=True,
    metavar="NAME",
    help="The source's table, where it is a database.",
)
@click.option("--dry-run", is_flag=True, help="Tell what would happen, and write nothing.")
@_command
def import_(
    source: str, source_table: str, dry_run: bool, database: str | None, table_name: str
) -> None:
    """Bring in the tokens of SOURCE: a file of FileStore's, or a database's URL.

    A URL with a password is better given in ZOHO_TOKEN_SOURCE_URL than as an argument, which
    everybody on the machine can read. Where the source is an encrypted table of this store, its
    keys are taken from ZOHO_TOKEN_SOURCE_ENCRYPTION_KEYS.

    The newest expiry wins; doing it twice is as doing it once. Status 1 if a row was refused.
    """
    with (
        SQLAlchemyTokenStore(database, create_schema=False, table_name=table_name) as store,
        _progress() as show,
    ):
        summary = import_tokens(
            store, source, table_name=source_table, dry_run=dry_run, on_progress=show
        )
    for where, reason in summary.refused:
        click.echo(f"{where}: {reason}", err=True)
    for old, new in summary.renumbered:
        given = "a new one" if dry_run else new
        click.echo(f"the id {old!r} is another row's: the row that is new gets {given}", err=True)
    click.echo(f"{summary}{'; nothing was written (dry run)' if dry_run else ''}")
    sys.exit(1 if summary.refused else 0)


@main.command()
@click.argument("path", metavar="FILE", type=click.Path(path_type=Path))
@_command
def export(path: Path, database: str | None, table_name: str) -> None:
    """Write all tokens to a new FILE, in the clear, as the SDK's FileStore has them."""
    with (
        SQLAlchemyTokenStore(database, create_schema=False, table_name=table_name) as store,
        _progress() as show,
    ):
        count = export_tokens(store, path, show)
    click.echo(f"{count} tokens written to {path}, in the clear")


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None]]:
    """A bar on standard error, moved by how many rows are done, of how many."""
    with click.progressbar(length=1, label="Rows", file=sys.stderr) as bar:

        def show(done: int, total: int) -> None:
            bar.length = total
            bar.update(done - bar.pos)

        yield show


def table_lines(tokens: list[OAuthToken]) -> list[str]:
    """A readable table of tokens, a line each below the headings; secrets are masked."""
    rows = [HEADINGS, *map(_cells, tokens)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    return [lines[0], "-" * max(map(len, lines)), *lines[1:]]


def _cells(token: OAuthToken) -> tuple[str, ...]:
    user = token.get_user_signature()
    return (
        token.get_id(),
        user.get_name() if user else "-",
        _shortened(token.get_client_id()),
        masked(token.get_refresh_token()),
        masked(token.get_access_token()),
        _time(token.get_expires_in()),
    )


def _shortened(text: str | None) -> str:
    return "-" if not text else text if len(text) <= 14 else f"{text[:13]}…"


def masked(secret: str | None) -> str:
    """That there is a secret, and its last characters if it is long enough to spare them."""
    if not secret:
        return "-"
    return f"…{secret[-4:]}" if len(secret) >= 32 else "…"


def _time(epoch_milliseconds: str | None) -> str:
    if epoch_milliseconds is None:
        return "-"
    try:
        moment = datetime.fromtimestamp(int(epoch_milliseconds) / 1000, timezone.utc)
    except (OverflowError, ValueError, OSError):
        return epoch_milliseconds
    return f"{moment:%Y-%m-%d %H:%M:%S}"


if __name__ == "__main__":
    sys.exit(main())
