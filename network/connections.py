"""HTTP connections that may not dawdle: a time limit for a request's head, and a count of them.

uvicorn waits for a request's head for ever, so that a few silent connections could hold a node.
"""

import asyncio
from collections import Counter
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from network.limits import Limits

_open: Counter[str] = Counter()
_limits = Limits()


class ImpatientProtocol(H11Protocol):
    """uvicorn's HTTP/1.1 that closes connections whose head is late or whose address has many."""

    _late: asyncio.TimerHandle | None = None
    _address: str | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        address = self.client[0] if self.client else ""
        if _open[address] >= _limits.connections_per_address:
            transport.abort()
            return
        self._address = address
        _open[address] += 1
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._address is not None:
            _open[self._address] -= 1
            if _open[self._address] <= 0:
                del _open[self._address]
        if self._late is not None:
            self._late.cancel()
        super().connection_lost(exc)

    def _watch(self) -> None:
        """Run a timer while a head is due; the keep-alive timer covers the time between two."""
        waiting = self.conn.their_state is h11.IDLE
        if waiting and self._late is None:
            self._late = self.loop.call_later(_limits.header_seconds, self._close)
        elif not waiting and self._late is not None:
            self._late.cancel()
            self._late = None

    def _close(self) -> None:
        self._late = None
        if self.conn.their_state is h11.IDLE and not self.transport.is_closing():
            self.transport.abort()


def serve_app(app: Any, host: str, port: int) -> None:
    """Serve an app until told to stop, on connections that may not dawdle."""
    import uvicorn

    uvicorn.run(
        app,
        host=host,
        port=port,
        log_level="error",
        access_log=False,
        server_header=False,
        http=ImpatientProtocol,
        ws="none",
        limit_concurrency=_limits.connections,
        timeout_keep_alive=5,
    )
