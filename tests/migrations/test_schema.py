"""The schema's promises: the same table everywhere, made by migrations alone, beside anything."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from sqlalchemy import Engine, create_engine, inspect, select, text
from zohocrmsdk.src.com.zoho.crm.api.exception.sdk_exception import SDKException

from tests.databases import Database, fresh_database
from tests.support import granted, run
from zoho_token_orm import OAuthTokenRow, SQLAlchemyTokenStore, schema
from zoho_token_orm.database import resolve_url

SDK_COLUMNS = [
    *("id", "user_name", "client_id", "client_secret", "refresh_token", "access_token"),
    *("grant_token", "expiry_time", "redirect_url", "api_domain"),
]


@pytest.fixture(params=["sqlite-file", "postgresql", "mysql", "mariadb"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """An empty database that outlives a connection."""
    with fresh_database(request.param, tmp_path) as fresh:
        yield fresh


@pytest.fixture
def engine(database: Database) -> Iterator[Engine]:
    """An ordinary engine of somebody else's on that database."""
    made = create_engine(resolve_url(database.url))
    yield made
    made.dispose()


def test_the_table_has_the_columns_of_the_sdk_first_and_in_its_order(database, engine):
    schema.upgrade(database.url)
    columns = inspect(engine).get_columns("oauthtoken")
    assert [column["name"] for column in columns][:10] == SDK_COLUMNS


def test_what_the_sdks_own_store_does_not_insert_is_nullable_or_has_a_default(database, engine):
    schema.upgrade(database.url)
    for column in inspect(engine).get_columns("oauthtoken")[10:]:
        assert column["nullable"] or column["default"], column["name"]


def test_user_name_grant_token_and_refresh_token_are_unique(database, engine):
    schema.upgrade(database.url)
    found = inspect(engine).get_unique_constraints("oauthtoken")
    assert {(c["name"], *c["column_names"]) for c in found} == {
        (f"uq_oauthtoken_{column}", column)
        for column in ("user_name", "grant_token", "refresh_token")
    }


def test_any_number_of_rows_may_lack_the_unique_values(database, engine):
    schema.upgrade(database.url)
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO oauthtoken (id) VALUES ('1'), ('2'), ('3')"))


def test_the_database_fills_in_the_times_in_utc_whatever_its_time_zone(database, engine):
    schema.upgrade(database.url)
    with engine.begin() as connection:
        if database.name in ("mysql", "mariadb"):
            connection.execute(text("SET time_zone = '+05:00'"))
        if database.name == "postgresql":
            connection.execute(text("SET TIME ZONE 'Asia/Kolkata'"))
        connection.execute(text("INSERT INTO oauthtoken (id) VALUES ('1')"))
        created_at = connection.execute(select(OAuthTokenRow.created_at)).scalar_one()
    assert abs(datetime.now(timezone.utc) - created_at) < timedelta(minutes=10)


def test_after_an_upgrade_the_table_is_as_the_model_has_it(database):
    schema.upgrade(database.url)
    schema.check(database.url)


@pytest.mark.parametrize(
    "drift",
    [
        "ALTER TABLE oauthtoken DROP COLUMN lease_owner",
        "ALTER TABLE oauthtoken ADD COLUMN extra VARCHAR(10)",
        "CREATE INDEX ix_stray ON oauthtoken (api_domain)",
    ],
)
def test_a_table_that_has_drifted_does_not_pass_the_check(database, engine, drift):
    schema.upgrade(database.url)
    with engine.begin() as connection:
        connection.execute(text(drift))
    with pytest.raises(SDKException, match="not as the model has it"):
        schema.check(database.url)


def test_a_missing_schema_does_not_pass_the_check(database):
    with pytest.raises(SDKException, match="zoho-token-orm upgrade"):
        schema.check(database.url)


def test_down_to_base_and_up_again_leaves_the_schema_as_it_was(database, engine):
    schema.upgrade(database.url)
    schema.downgrade(database.url)
    assert not inspect(engine).has_table("oauthtoken")
    assert schema.current(database.url) is None
    schema.upgrade(database.url)
    schema.check(database.url)


def test_an_upgrade_of_an_upgraded_schema_changes_nothing(database):
    with SQLAlchemyTokenStore(database.url, create_schema=True) as store:
        store.save_token(granted("alice"))
        schema.upgrade(database.url)
        assert len(store.get_tokens()) == 1


def test_the_script_makes_the_same_schema(database, engine):
    script = schema.upgrade_script(database.url)
    with engine.begin() as connection:
        for statement in script.split(";"):
            if statement.strip() not in ("", "BEGIN", "COMMIT"):
                connection.exec_driver_sql(statement)
    assert schema.current(database.url) == schema.head()
    schema.check(database.url)


def test_every_name_follows_the_table_so_that_two_can_share_a_database(database, engine):
    longest = "t" * 43
    for name in ("oauthtoken", longest):
        schema.upgrade(database.url, table_name=name)
        schema.check(database.url, table_name=name)
    schema.downgrade(database.url, table_name="oauthtoken")
    schema.check(database.url, table_name=longest)
    assert set(inspect(engine).get_table_names()) == {
        longest,
        f"{longest}_alembic_version",
        "oauthtoken_alembic_version",
    }


@pytest.mark.parametrize("name", ["", "a b", "x;DROP TABLE y", "t" * 44, "é", None])
def test_a_name_that_can_be_no_tables_is_refused(name):
    with pytest.raises(ValueError, match="table_name"):
        schema.upgrade("sqlite://", table_name=name)


def test_upgrades_from_many_threads_at_once_all_succeed(database):
    barrier = threading.Barrier(6)

    def upgrade(_: int) -> None:
        barrier.wait()
        schema.upgrade(database.url)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(upgrade, range(6)))
    schema.check(database.url)


def test_upgrades_from_several_processes_at_once_all_succeed(database, tmp_path):
    with ThreadPoolExecutor(4) as pool:
        upgrades = [
            pool.submit(run, "zoho-token-orm", "upgrade", cwd=tmp_path, url=database.url)
            for _ in range(4)
        ]
        results = [upgrade.result() for upgrade in upgrades]
    assert [(r.returncode, r.stderr) for r in results] == [(0, "")] * 4
    schema.check(database.url)


def test_a_table_of_somebody_elses_is_refused_and_left_as_it_is(database, engine):
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE oauthtoken (id VARCHAR(10), colour VARCHAR(10))"))
        connection.execute(text("INSERT INTO oauthtoken VALUES ('1', 'red')"))
    with pytest.raises(SDKException, match="table_name"):
        schema.upgrade(database.url)
    with engine.begin() as connection:
        assert connection.execute(text("SELECT * FROM oauthtoken")).all() == [("1", "red")]
    assert schema.current(database.url) is None


def test_a_table_that_has_the_name_of_a_version_table_keeps_its_rows(database, engine):
    name = "tokens_alembic_version"
    with SQLAlchemyTokenStore(database.url, create_schema=True, table_name=name) as store:
        store.save_token(granted("alice"))
        with pytest.raises(Exception, match="version_num"):
            schema.upgrade(database.url, table_name="tokens")
        assert len(store.get_tokens()) == 1


def test_an_upgrade_that_was_interrupted_is_finished_by_the_next(database, engine):
    with SQLAlchemyTokenStore(database.url, create_schema=True) as store:
        store.save_token(granted("alice"))
    with engine.begin() as connection:
        on_table = " ON oauthtoken" if database.name in ("mysql", "mariadb") else ""
        connection.execute(text(f"DROP INDEX ix_oauthtoken_created_at{on_table}"))
        connection.execute(text("DELETE FROM oauthtoken_alembic_version"))
    schema.upgrade(database.url)
    schema.check(database.url)
    with SQLAlchemyTokenStore(database.url) as store:
        assert len(store.get_tokens()) == 1


def test_a_revision_of_a_newer_release_is_refused_with_what_to_do(database, engine):
    schema.upgrade(database.url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE oauthtoken_alembic_version SET version_num = 'zto_9999'"))
    with pytest.raises(SDKException, match="upgrade the package"):
        SQLAlchemyTokenStore(database.url, create_schema=False)


def test_an_unknown_revision_to_upgrade_to_is_an_error(database):
    with pytest.raises(SDKException, match="could not be migrated"):
        schema.upgrade(database.url, "nonsense")


def test_migrations_leave_the_hosts_logging_as_it_is(database):
    host = logging.getLogger("a.host.application")
    before = (logging.getLogger().level, list(logging.getLogger().handlers))
    schema.upgrade(database.url)
    assert not host.disabled
    assert (logging.getLogger().level, logging.getLogger().handlers) == before


@pytest.mark.parametrize("name", ["mysql", "mariadb"])
def test_a_password_of_special_characters_is_no_obstacle(name, tmp_path):
    with fresh_database(name, tmp_path) as database:
        admin = create_engine(database.url)
        own = admin.url.database
        password = "p%40%%s@:/ü€"
        with admin.begin() as connection:
            connection.exec_driver_sql(
                f"CREATE USER {own}@'127.0.0.1' IDENTIFIED BY '{password.replace('%', '%%')}'"
            )
            connection.exec_driver_sql(f"GRANT ALL ON {own}.* TO {own}@'127.0.0.1'")
        try:
            url = admin.url.set(username=own, password=password)
            schema.upgrade(url.render_as_string(hide_password=False))
            schema.check(url)
        finally:
            with admin.begin() as connection:
                connection.exec_driver_sql(f"DROP USER {own}@'127.0.0.1'")
            admin.dispose()
