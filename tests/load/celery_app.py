"""A Celery application as a user has it: the store and the SDK are set up when it is imported.

``celery worker --pool=prefork`` imports it in the parent, which then forks its pool. What it needs
stands in its environment.
"""

from __future__ import annotations

import os
from typing import Any

from celery import Celery

from tests.load.application import celery_settings, lead_names, set_up
from tests.support import granted

app = Celery("load")
app.conf.update(celery_settings(os.environ["LOAD_FOLDER"]))
store = set_up()
PARENT = os.getpid()
LEADS_IN_PARENT = lead_names()


@app.task
def read_leads() -> dict[str, Any]:
    return {"leads": lead_names(), **_where()}


@app.task
def save_and_find(name: str) -> dict[str, Any]:
    token = granted(name)
    store.save_token(token)
    found = store.find_token_by_id(token.get_id())
    return {"refresh_token": found and found.get_refresh_token(), **_where()}


def _where() -> dict[str, Any]:
    return {
        "pid": os.getpid(),
        "parent": PARENT,
        "leads_in_parent": LEADS_IN_PARENT,
        "checked_out": store.engine.pool.checkedout(),
    }
