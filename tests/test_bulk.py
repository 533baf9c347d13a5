"""Updates and deletes of many rows at once touch those alone that are as they were seen."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

import pytest
from sqlalchemy import create_engine, delete, insert, select

from zoho_token_orm import schema
from zoho_token_orm.database import SeenRows, transaction
from zoho_token_orm.database.bulk import TOGETHER
from zoho_token_orm.mapping import COLUMNS
from zoho_token_orm.models import TokenString, stored_table

TABLE = stored_table("oauthtoken")
MOMENT = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=timezone.utc)
LATER = MOMENT.replace(year=2027)
PROMISED = 1024
"""Longer values fit a column each, but MySQL updates no row in which all of them are longer."""
HOSTILE = ["%s %(a)s %", ":seen_id_0", "\\:b", "it's", '"', "\\", "`", "; DROP TABLE oauthtoken --"]


@pytest.fixture
def connection(store):
    with store.engine.connect() as connection:
        yield connection


def row(number: int, **more: Any) -> dict[str, Any]:
    fields = {name: f"{name}-{number}" for name in COLUMNS}
    return {**fields, "expiry_time": number, **more}


def fill(connection, *rows: dict[str, Any]) -> None:
    stamps = {"created_at": MOMENT, "updated_at": MOMENT}
    connection.execute(insert(TABLE), [{**each, **stamps} for each in rows])


def stored(connection) -> dict[str, dict[str, Any]]:
    columns = [TABLE.c[name] for name in (*COLUMNS, "updated_at")]
    found = connection.execute(select(*columns)).mappings()
    return {each["id"]: dict(each) for each in found}


def changed(before: dict[str, Any], **more: Any) -> dict[str, Any]:
    new = {"access_token": f"new of {before['id']}", "expiry_time": None, "updated_at": LATER}
    return {**before, **new, **more}


def update(connection, seen: list[dict[str, Any]], new: list[dict[str, Any]]) -> int:
    with transaction(connection):
        return SeenRows(TABLE, COLUMNS, ["updated_at"]).update(connection, seen, new)


@pytest.mark.parametrize("count", [0, 1, TOGETHER, 2 * TOGETHER + 1])
def test_all_that_was_seen_is_changed_and_nothing_else(connection, count):
    rows = [row(number) for number in range(count + 3)]
    fill(connection, *rows)
    untouched = stored(connection)
    new = [changed(each) for each in rows[:count]]
    assert update(connection, rows[:count], new) == count
    assert stored(connection) == {**untouched, **{each["id"]: each for each in new}}


@pytest.mark.parametrize(
    ("column", "value"),
    [
        *(("id", other) for other in ("ID-1", "id-1 ", "íd-1", "none")),
        *(("user_name", other) for other in ("USER_NAME-1", "user_name-1 ", "üser_name-1", None)),
        *(("access_token", other) for other in ("Access_token-1", "access_token-", "", None)),
        *(("grant_token", other) for other in ("grant_token-10", None)),
        *(("expiry_time", other) for other in (0, 2, None)),
        *(("redirect_url", other) for other in ("REDIRECT_URL-1", "", None)),
        *(
            (name, "other")
            for name in ("client_id", "client_secret", "refresh_token", "api_domain")
        ),
    ],
)
@pytest.mark.parametrize("is_null", [False, True], ids=["value", "null"])
def test_what_is_not_as_it_was_seen_stays(connection, column, value, is_null):
    if is_null and (column == "id" or value is None):
        pytest.skip("it is what was seen, or cannot be")
    there = row(1, **({column: None} if is_null else {}))
    fill(connection, there, row(2))
    before = stored(connection)
    seen = [{**there, column: value}, row(2)]
    assert update(connection, seen[:1], [changed(there)]) == 0
    with transaction(connection):
        assert SeenRows(TABLE, COLUMNS, []).delete(connection, seen[:1]) == 0
    assert stored(connection) == before
    assert update(connection, seen, [changed(there), changed(row(2))]) == 1
    assert stored(connection) == {there["id"]: before[there["id"]], "id-2": changed(row(2))}


def test_any_text_goes_through_and_is_met_again(connection):
    texts = [*HOSTILE, "ünïcödé 😀", "trailing ", "UTF-8''%20", "x" * 255]
    rows = [row(n, user_name=f"{n}{text}", client_id=text) for n, text in enumerate(texts)]
    fill(connection, *rows)
    for secret in ("access_token", "refresh_token", "client_secret"):
        tokens = [TokenString.encoded(f"{n}{text}") for n, text in enumerate(texts)]
        new = [changed(each, **{secret: token}) for each, token in zip(rows, tokens, strict=True)]
        assert update(connection, rows, new) == len(texts)
        assert stored(connection) == {each["id"]: each for each in new}
        rows = new


def test_the_longest_rows_fit_together(connection):
    def longest(number: int, letter: str) -> dict[str, Any]:
        names = [name for name in COLUMNS if name != "expiry_time"]
        lengths = {name: min(TABLE.c[name].type.length, PROMISED) for name in names}
        texts = {name: f"{number:03}".ljust(length, letter) for name, length in lengths.items()}
        return {**texts, "expiry_time": 2**63 - 1}

    rows = [longest(number, "a") for number in range(TOGETHER)]
    fill(connection, *rows)
    new = [changed(longest(number, "b"), id=rows[number]["id"]) for number in range(TOGETHER)]
    assert update(connection, rows, new) == TOGETHER
    assert stored(connection) == {each["id"]: each for each in new}


def test_a_few_values_are_deleted(connection):
    rows = [row(number, grant_token=None) for number in range(5)]
    fill(connection, *rows)
    with transaction(connection):
        assert SeenRows(TABLE, COLUMNS, []).delete(connection, rows[1:4]) == 3
    assert list(stored(connection)) == ["id-0", "id-4"]


def test_whatever_collation_the_connection_has(connection, database):
    if database.name not in ("mysql", "mariadb"):
        pytest.skip("the others have none")
    for collation in ("utf8mb4_bin", "utf8mb4_general_ci", "latin1_swedish_ci"):
        fill(connection, row(1))
        connection.exec_driver_sql(f"SET collation_connection = {collation}")
        assert update(connection, [row(1, id="ID-1")], [changed(row(1))]) == 0
        assert update(connection, [row(1)], [changed(row(1))]) == 1
        connection.execute(delete(TABLE))


def test_an_engine_that_puts_the_table_elsewhere_is_followed(database):
    if database.name not in ("mysql", "mariadb"):
        pytest.skip("the others take the statement that SQLAlchemy makes")
    schema.upgrade(database.url)
    engine = create_engine(database.url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        fill(connection, row(1))
        elsewhere = connection.execution_options(schema_translate_map={None: "nowhere"})
        with pytest.raises(Exception, match="nowhere"):
            update(elsewhere, [row(1)], [changed(row(1))])
    engine.dispose()
