"""Statements that are planned for the table as it is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection


@contextmanager
def fresh_plans(connection: Connection) -> Iterator[None]:
    """Has each statement inside planned for the table as it is, and not as it was once.

    psycopg prepares what is executed again and again, and PostgreSQL then keeps its plan: for a
    long list of values one that reads the whole table, if that was empty or small at the time.
    """
    driver: Any = connection.connection.driver_connection
    threshold = getattr(driver, "prepare_threshold", None)
    if threshold is None:
        yield
        return
    driver.prepare_threshold = None
    try:
        yield
    finally:
        driver.prepare_threshold = threshold
