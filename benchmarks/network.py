"""The way to a server and back: how often a call goes it, and how long it takes at least."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import make_url

from benchmarks.calls import Prepare, Prepared
from benchmarks.results import Trips
from benchmarks.timing import measure
from tests.proxy import Proxy

_DELAYED = "with a delay"
CALLS = 5
"""How many calls are counted."""
START_SECONDS = 30
"""How long the other process may take to answer."""


def way_to(url: str, delay: float) -> Proxy:
    """A proxy before the server, which delays every request by that many seconds.

    Without TLS on PostgreSQL, so that a request is one packet there too.
    """
    server = make_url(url)
    is_postgresql = server.get_backend_name() == "postgresql"
    return Proxy(
        server.update_query_dict({"sslmode": "disable"}) if is_postgresql else server, delay
    )


def trips(name: str, proxy: Proxy, prepare: Prepare, seconds: float) -> Trips:
    """Counts the round trips of a call, and times it.

    Args:
        name: What is measured.
        proxy: The way to the server.
        prepare: Prepares calls that go this way.
        seconds: How long to go on.
    """
    timing = measure(name, {_DELAYED: prepare}, seconds)[_DELAYED]
    return Trips(0.0 if timing.failure else _counted(proxy, prepare(CALLS)), timing)


def _counted(proxy: Proxy, prepared: Prepared) -> float:
    before = proxy.round_trips
    for call in prepared.calls:
        call()
    counted = proxy.round_trips - before
    prepared.undo()
    return counted / len(prepared.calls)


@contextmanager
def echo() -> Iterator[Prepare]:
    """Calls that send a byte through a socket to another process, and get it back."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(START_SECONDS)
        command = [sys.executable, "-c", _SEND_BACK, str(listener.getsockname()[1])]
        with subprocess.Popen(command):  # noqa: S603 - this Python, and a text of ours
            other, _ = listener.accept()
            with other:
                other.settimeout(START_SECONDS)
                other.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                yield lambda count: Prepared([lambda: _ask(other)] * count, undo=lambda: None)


def _ask(other: socket.socket) -> None:
    other.sendall(b"?")
    other.recv(1)


_SEND_BACK = """
import socket, sys
end = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
while data := end.recv(1):
    end.sendall(data)
"""
