"""What the first store of a process loads; whoever is forked from here need not do it again."""

from __future__ import annotations

import psycopg  # noqa: F401
import pymysql  # noqa: F401
import pytest  # noqa: F401

import tests.load.worker  # noqa: F401
from zoho_token_orm import SQLAlchemyTokenStore

SQLAlchemyTokenStore("sqlite://").close()
