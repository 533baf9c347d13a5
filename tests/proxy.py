"""A TCP proxy on loopback that counts what a client asks a server, and can fail it."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import TracebackType

from sqlalchemy import URL


class Proxy:
    """Stands between a driver and its server.

    A driver sends a request and waits for its answer, so that what it sends in one piece is one
    round trip.

    Args:
        server: The server's URL.
        delay: How much longer each request takes, in seconds, as over a network.

    Attributes:
        round_trips: How many requests have passed on all connections.
        url: The URL of the way through the proxy.
    """

    def __init__(self, server: URL, delay: float = 0.0) -> None:
        self._delay = delay
        self._server = (str(server.host), int(server.port or 0))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets: list[socket.socket] = []
        self._lock = threading.Lock()
        self._refused = threading.Condition(self._lock)
        self._refusals: int | None = None
        self._flows = threading.Event()
        self._flows.set()
        self.round_trips = 0
        self.url = server.set(host="127.0.0.1", port=self._listener.getsockname()[1])

    def __enter__(self) -> Proxy:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._flows.set()
        self.cut()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def cut(self) -> None:
        """Ends every connection, as a restart of the server or a firewall does."""
        with self._lock:
            ended, self._sockets = self._sockets, []
        for each in ended:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    @contextmanager
    def refusing(self) -> Iterator[None]:
        """The server is away meanwhile: connections are cut, and new ones refused."""
        with self._lock:
            self._refusals = 0
        self.cut()
        yield
        with self._lock:
            self._refusals = None

    @contextmanager
    def stalled(self) -> Iterator[None]:
        """Every connection stays open meanwhile, also a new one, and none gets an answer."""
        self._flows.clear()
        try:
            yield
        finally:
            self._flows.set()

    def wait_for_refusals(self, count: int) -> None:
        """Waits until that many connections have been refused."""
        with self._refused:
            assert self._refused.wait_for(lambda: (self._refusals or 0) >= count, timeout=60)

    def _refuses(self) -> bool:
        with self._refused:
            if self._refusals is None:
                return False
            self._refusals += 1
            self._refused.notify_all()
            return True

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                if self._refuses():
                    client.close()
                    continue
                server = socket.create_connection(self._server)
                with self._lock:
                    self._sockets += (client, server)
                for each in (client, server):
                    each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                for ends in ((client, server, 1), (server, client, 0)):
                    threading.Thread(target=self._pass_on, args=ends, daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket, counts: int) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 20):
                with self._lock:
                    self.round_trips += counts
                if counts and self._delay:
                    time.sleep(self._delay)
                self._flows.wait()
                target.sendall(data)
        with suppress(OSError):  # also where the connection was reset
            target.shutdown(socket.SHUT_WR)
