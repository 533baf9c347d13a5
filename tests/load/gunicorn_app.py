"""A WSGI application as a user has it: the store and the SDK are set up when it is imported.

``gunicorn --preload`` imports it in the master, which then forks its workers. What it needs stands
in its environment.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from typing import Any

from tests.load.application import lead_names, set_up

store = set_up()
IN_MASTER = lead_names()


def application(request: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    answer = {
        "pid": os.getpid(),
        "in_master": IN_MASTER,
        "leads": lead_names(),
        "checked_out": store.engine.pool.checkedout(),
    }
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(answer).encode()]
