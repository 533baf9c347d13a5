"""A TCP proxy on loopback that counts what a client asks a server."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from types import TracebackType

from sqlalchemy import URL


class CountingProxy:
    """Stands between a driver and its server.

    A driver sends a request and waits for its answer, so that what it sends in one piece is one
    round trip.

    Attributes:
        round_trips: How many requests have passed on all connections.
    """

    def __init__(self, server: URL) -> None:
        self._server = (str(server.host), int(server.port or 0))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets = [self._listener]
        self._lock = threading.Lock()
        self.round_trips = 0
        self.url = server.set(host="127.0.0.1", port=self._listener.getsockname()[1])

    def __enter__(self) -> CountingProxy:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for each in self._sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._server)
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
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
