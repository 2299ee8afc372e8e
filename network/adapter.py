"""How this process reaches a server: whom it takes at an address, and how long it listens.

A socket's timeout begins anew with every byte, and Python's client skips as many `100 Continue` as
a server sends: either could hold a caller for ever. Here an answer has one time for all of it, and
nobody is told to continue who didn't ask.
"""

import io
import socket
import ssl
import time
from http.client import BadStatusLine, HTTPResponse
from typing import Any

from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

_SHORT_BYTES = 2**16


class Punctual(HTTPAdapter):
    """Connections whose whole answer comes within the time that one wait for it may take.

    Args:
        context: whom to take, and what to show; None: what the system trusts.
    """

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self.context = context
        super().__init__()

    def init_poolmanager(self, *args: Any, **more: Any) -> None:
        if self.context is not None:
            more["ssl_context"] = self.context
        super().init_poolmanager(*args, **more)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, proxy: str, **more: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **more)
        manager.pool_classes_by_scheme = _POOLS
        return manager

    def cert_verify(self, conn: Any, url: str, verify: Any, cert: Any) -> None:
        """Leave a context of ours as it is; requests would add what the system trusts."""
        if self.context is None:
            super().cert_verify(conn, url, verify, cert)  # type: ignore[no-untyped-call]
            return
        conn.cert_reqs = "CERT_REQUIRED"

    def build_connection_pool_key_attributes(
        self, request: Any, verify: Any, cert: Any = None
    ) -> Any:
        host, found = super().build_connection_pool_key_attributes(request, verify, cert)
        if self.context is None:
            return host, found
        return host, {"ssl_context": self.context, "cert_reqs": "CERT_REQUIRED"}


class _Timed(io.RawIOBase):
    """What a socket brings until a deadline; then TimeoutError."""

    def __init__(self, raw: io.RawIOBase, line: socket.socket, deadline: float) -> None:
        self._raw, self._line, self._deadline = raw, line, deadline

    def readable(self) -> bool:
        return True

    def readinto(self, into: Any) -> int | None:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("The answer comes too slowly.")
        self._line.settimeout(left)
        return self._raw.readinto(into)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Answer(HTTPResponse):
    """One answer, head and body, within the timeout that its socket has when it is awaited."""

    def __init__(self, sock: socket.socket, *args: Any, **more: Any) -> None:
        super().__init__(sock, *args, **more)
        allowed = sock.gettimeout()
        if allowed is not None:
            raw = self.fp.detach()
            self.fp = io.BufferedReader(_Timed(raw, sock, time.monotonic() + allowed))

    def _read_status(self) -> tuple[str, int, str]:
        found: tuple[str, int, str] = super()._read_status()  # type: ignore[misc]
        if 100 <= found[1] < 200:
            raise BadStatusLine("told to continue, though nobody asked")
        return found


class _Connection(HTTPConnection):
    """Sends the head of a request together with a short body, so that it comes in one piece.

    In two, both ends wake up twice for each call of a round.
    """

    response_class = _Answer
    _held: list[bytes] | None = None

    def request(self, method: str, url: str, body: Any = None, *args: Any, **more: Any) -> None:
        if not isinstance(body, bytes) or len(body) > _SHORT_BYTES:
            super().request(method, url, body, *args, **more)
            return
        self._held = []
        try:
            super().request(method, url, body, *args, **more)
        finally:
            held, self._held = self._held, None
        self.send(b"".join(held))

    def send(self, data: Any) -> None:
        if self._held is None:
            super().send(data)
        else:
            self._held.append(data)


class _SecureConnection(_Connection, HTTPSConnection):
    """The same within TLS."""


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = _SecureConnection


_POOLS = {"http": _Pool, "https": _SecurePool}
