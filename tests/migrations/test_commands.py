"""The ways to migrate: ``alembic`` in the checkout, ``zoho-token-orm`` anywhere, beside a host."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
from sqlalchemy import create_engine, inspect, text

from tests.support import CHECKOUT, granted, run
from zoho_token_orm import SQLAlchemyTokenStore, schema
from zoho_token_orm.database import resolve_url

INI = CHECKOUT / "alembic.ini"


@pytest.fixture
def database(request, tmp_path):
    """An empty database that outlives a process, of each kind."""
    from tests.databases import fresh_database

    with fresh_database(request.param, tmp_path) as fresh:
        yield fresh


ON_EACH = pytest.mark.parametrize(
    "database", ["sqlite-file", "postgresql", "mysql", "mariadb"], indirect=True
)


def alembic(*arguments: str, cwd: Path, url: str | None = None):
    return run("alembic", "-c", INI, *arguments, cwd=cwd, url=url)


@ON_EACH
def test_alembic_in_the_checkout_takes_the_url_from_the_environment(database, tmp_path):
    for arguments in (["upgrade", "head"], ["check"], ["downgrade", "base"], ["upgrade", "head"]):
        result = alembic(*arguments, cwd=tmp_path, url=database.url)
        assert result.returncode == 0, result.stderr
    schema.check(database.url)


@ON_EACH
def test_alembic_takes_the_url_and_the_table_from_x_arguments(database, tmp_path):
    result = alembic(
        *("-x", f"url={database.url}", "-x", "table_name=tokens", "upgrade", "head"), cwd=tmp_path
    )
    assert result.returncode == 0, result.stderr
    schema.check(database.url, table_name="tokens")


def test_without_a_url_alembic_upgrades_the_default_sqlite_file(tmp_path):
    assert alembic("upgrade", "head", cwd=tmp_path).returncode == 0
    schema.check(f"sqlite:///{tmp_path / 'zohooauth.db'}")


def test_a_checkout_below_a_folder_with_a_percent_sign_is_no_obstacle(tmp_path):
    """Some CI servers name their folders after branches, such as ``feature%2Fone``."""
    folder = tmp_path / "feature%2Fone's 50%"
    folder.mkdir()
    shutil.copy(INI, folder)
    url = f"sqlite:///{tmp_path / 'tokens.db'}"
    result = run("alembic", "upgrade", "head", cwd=folder, url=url)
    assert result.returncode == 0, result.stderr
    schema.check(url)


@ON_EACH
def test_alembic_prints_the_script(database, tmp_path):
    result = alembic("upgrade", "head", "--sql", cwd=tmp_path, url=database.url)
    assert result.returncode == 0, result.stderr
    assert "CREATE TABLE oauthtoken" in result.stdout
    assert schema.current(database.url) is None


def test_alembic_check_fails_where_the_table_has_drifted(tmp_path):
    url = f"sqlite:///{tmp_path / 'tokens.db'}"
    schema.upgrade(url)
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE oauthtoken DROP COLUMN lease_owner"))
    engine.dispose()
    assert alembic("check", cwd=tmp_path, url=url).returncode != 0


def test_alembic_says_in_a_line_that_the_database_cannot_be_reached(tmp_path):
    result = alembic("upgrade", "head", cwd=tmp_path, url="postgresql://u:geheim@127.0.0.1:1/x")
    assert result.returncode != 0
    assert "geheim" not in result.stdout + result.stderr
    assert "could not migrate the schema" in result.stdout + result.stderr


@ON_EACH
def test_the_command_upgrades_checks_and_downgrades(database, tmp_path):
    def command(*arguments):
        result = run("zoho-token-orm", *arguments, cwd=tmp_path, url=database.url)
        return result.returncode, result.stdout.strip(), result.stderr

    head = schema.head()
    assert command("current") == (0, "base", "")
    assert command("check")[0] == 1
    assert command("upgrade") == (0, f"oauthtoken is at revision {head}", "")
    assert command("check") == (0, f"oauthtoken is up to date, at revision {head}", "")
    assert command("current") == (0, head, "")
    assert command("downgrade", "base", "--yes") == (0, "oauthtoken is at revision base", "")


def test_the_command_prints_the_script_without_a_connection(tmp_path):
    url = "postgresql://nobody@127.0.0.1:1/nowhere"
    result = run("zoho-token-orm", "upgrade", "--sql", cwd=tmp_path, url=url)
    assert result.returncode == 0
    assert "CREATE TABLE oauthtoken" in result.stdout


def test_the_module_runs_the_same_command(tmp_path):
    result = run(sys.executable, "-m", "zoho_token_orm", "current", cwd=tmp_path)
    assert (result.returncode, result.stdout) == (0, "base\n")


def test_a_downgrade_asks_first(tmp_path):
    url = f"sqlite:///{tmp_path / 'tokens.db'}"
    schema.upgrade(url)
    assert run("zoho-token-orm", "downgrade", "base", cwd=tmp_path, url=url).returncode == 1
    schema.check(url)


@pytest.mark.parametrize(
    ("url", "status"),
    [
        ("postgresql://app:geheim@127.0.0.1:1/crm", 1),
        ("mysql://app:geheim@127.0.0.1:1/crm", 1),
        ("oracle://app:geheim@db/crm", 2),
        ("://app:geheim", 2),
        ("postgresql://app:geheim@host:port/crm", 2),
    ],
)
def test_an_unusable_url_is_one_line_without_the_password(url, status, tmp_path):
    result = run("zoho-token-orm", "upgrade", cwd=tmp_path, url=url)
    assert result.returncode == status
    assert "geheim" not in result.stdout + result.stderr
    assert "Traceback" not in result.stderr
    assert result.stderr.splitlines()[-1].startswith("Error: ")


def test_list_masks_the_secrets_and_purge_counts(tmp_path):
    url = f"sqlite:///{tmp_path / 'tokens.db'}"
    with SQLAlchemyTokenStore(url) as store:
        token = granted("alice")
        token.set_refresh_token("1000." + "a" * 32 + ".b" * 16 + "1234")
        store.save_token(token)
    listed = run("zoho-token-orm", "list", cwd=tmp_path, url=url)
    assert "alice@example.com:7001" in listed.stdout
    assert "…1234" in listed.stdout
    assert token.get_refresh_token() not in listed.stdout
    assert token.get_access_token() not in listed.stdout
    purged = run("zoho-token-orm", "purge", "--unused-for", "30", cwd=tmp_path, url=url)
    assert purged.stdout == "0 deleted\n"


@ON_EACH
def test_beside_an_application_with_its_own_alembic_neither_sees_the_other(database, tmp_path):
    """A host whose env.py leaves our tables out, as the README tells it to."""
    host = _host_application(tmp_path / "host")
    engine = create_engine(resolve_url(database.url))
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE invoice (id INTEGER PRIMARY KEY NOT NULL)"))
        connection.execute(text("CREATE TABLE alembic_version (version_num VARCHAR(32))"))
        connection.execute(text("INSERT INTO alembic_version VALUES ('h1')"))
    schema.upgrade(database.url)
    schema.check(database.url)
    result = run("alembic", "check", cwd=host, HOST_URL=str(_visible(engine.url)))
    assert result.returncode == 0, result.stdout + result.stderr
    schema.downgrade(database.url)
    with engine.begin() as connection:
        assert connection.execute(text("SELECT version_num FROM alembic_version")).scalar() == "h1"
    assert inspect(engine).has_table("invoice")
    engine.dispose()


def _visible(url):
    return url.render_as_string(hide_password=False)


def _host_application(folder: Path) -> Path:
    (folder / "versions").mkdir(parents=True)
    (folder / "alembic.ini").write_text("[alembic]\nscript_location = %(here)s\n")
    (folder / "versions" / "h1.py").write_text("revision = 'h1'\ndown_revision = None\n")
    (folder / "env.py").write_text(
        """
import os
from alembic import context
from sqlalchemy import Column, Integer, MetaData, Table, create_engine

metadata = MetaData()
Table("invoice", metadata, Column("id", Integer, primary_key=True))

def include_name(name, type_, parent_names):
    return type_ != "table" or not str(name).startswith("oauthtoken")

engine = create_engine(os.environ["HOST_URL"])
with engine.connect() as connection:
    context.configure(
        connection=connection, target_metadata=metadata, include_name=include_name
    )
    with context.begin_transaction():
        context.run_migrations()
engine.dispose()
"""
    )
    return folder


@pytest.mark.parametrize("days", ["-1", "inf", "nan", "1e300", "1000000000", "soon"])
def test_purge_refuses_what_is_no_number_of_days_in_a_line(tmp_path, days):
    result = run("zoho-token-orm", "purge", f"--unused-for={days}", cwd=tmp_path)
    assert result.returncode == 2
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("command", [["upgrade"], ["downgrade", "base", "--yes"]])
def test_a_database_that_ends_with_the_command_is_refused(tmp_path, command):
    result = run("zoho-token-orm", *command, "--url", "sqlite://", cwd=tmp_path)
    assert result.returncode == 2
    assert "memory" in result.stderr
