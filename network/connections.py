"""HTTP connections that may not dawdle: time limits for a request's head and for taking an answer,
and a count of them and of what they leave unread.

uvicorn waits for both for ever, so that a few silent connections could hold a node.
"""

import asyncio
import ipaddress
import resource
import ssl
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h11
import uvicorn
import uvloop
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvloop.loop import SSLProtocol  # type: ignore[attr-defined]

from network.limits import Limits, block_of
from network.tls import server_context

_FAREWELL_S = 2.0

_open: Counter[str] = Counter()
_arrived: Counter[str] = Counter()
_unread: Counter[str] = Counter()
_limits = Limits()
_proxies: list[ipaddress.IPv4Network | ipaddress.IPv6Network] = []


class ImpatientProtocol(H11Protocol):
    """uvicorn's HTTP/1.1 that closes connections whose head is late, whose answer isn't taken, or
    whose address has many.
    """

    _late: asyncio.TimerHandle | None = None
    _untaken: asyncio.TimerHandle | None = None
    _unread = 0
    _address: str | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        address = block_of(self.client[0]) if self.client else ""
        if _open[address] >= _most_from(address):
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
            _less(_open, self._address)
        if self._late is not None:
            self._late.cancel()
        self._taken()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Called when the caller is slower than the answer: what is left has a time and a room."""
        super().pause_writing()
        self._taken()
        self._unread = self.transport.get_write_buffer_size()
        _unread[self._address or ""] += self._unread
        if (
            _unread[self._address or ""] > _limits.unread_bytes_per_address
            or _unread.total() > _limits.unread_bytes
        ):
            self.transport.abort()
            return
        allowed = _limits.body_seconds + self._unread / _limits.body_bytes_per_s
        self._untaken = self.loop.call_later(allowed, self.transport.abort)

    def resume_writing(self) -> None:
        self._taken()
        super().resume_writing()

    def _taken(self) -> None:
        if self._untaken is not None:
            self._untaken.cancel()
            self._untaken = None
        _unread[self._address or ""] -= self._unread
        if _unread[self._address or ""] <= 0:
            del _unread[self._address or ""]
        self._unread = 0

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


class _Doorman(asyncio.Protocol):
    """Counts a connection that wants TLS before its handshake, and turns it away if it's too many.

    Else whoever never shakes hands would be counted by nobody: each costs 50 kB and a descriptor.
    """

    def __init__(self, loop: uvloop.Loop, context: ssl.SSLContext, inner: asyncio.Protocol) -> None:
        self._loop, self._context, self._inner = loop, context, inner

    def connection_made(self, transport: Any) -> None:
        client = transport.get_extra_info("peername")
        address = block_of(str(client[0])) if client else ""
        if _arrived[address] >= _most_from(address) or _arrived.total() >= _limits.arrivals:
            transport.abort()
            return
        _arrived[address] += 1
        handshake = _Handshake(
            self._loop,
            self._inner,
            self._context,
            None,
            server_side=True,
            ssl_handshake_timeout=_limits.header_seconds,
            ssl_shutdown_timeout=_FAREWELL_S,
        )
        handshake.address = address
        transport.set_protocol(handshake)
        handshake.connection_made(transport)


class _Handshake(SSLProtocol):
    """uvloop's TLS, which gives up on slow handshakes and slow farewells."""

    address = ""

    def connection_lost(self, error: Exception | None) -> None:
        _less(_arrived, self.address)
        super().connection_lost(error)


class _Loop(uvloop.Loop):
    """An event loop whose TLS listeners count connections from their first moment on."""

    async def create_server(  # type: ignore[override]
        self, factory: Any, *args: Any, **more: Any
    ) -> Any:
        context = more.pop("ssl", None)
        if context is None:
            return await super().create_server(factory, *args, **more)
        return await super().create_server(
            lambda: _Doorman(self, context, factory()), *args, **more
        )


def _most_from(address: str) -> int:
    """Connections at once; a proxy that was declared has all of its callers' and counts them."""
    try:
        is_proxy = any(ipaddress.ip_address(address) in each for each in _proxies)
    except ValueError:
        is_proxy = False
    return _limits.connections if is_proxy else _limits.connections_per_address


def _less(counted: Counter[str], address: str) -> None:
    counted[address] -= 1
    if counted[address] <= 0:
        del counted[address]


def serve_app(
    app: Any, host: str, port: int, tls: Path | None = None, proxies: Sequence[str] = ()
) -> None:
    """Serve an app until told to stop, on connections that may not dawdle.

    Args:
        tls: folder of the certificate and key to serve with; None: without TLS.
        proxies: addresses or networks of proxies whose word on the client's address and scheme
            is taken; of nobody else's.

    Raises:
        TlsError: the certificate or key can't be used.
    """
    _use_all_descriptors()
    _proxies[:] = [ipaddress.ip_network(each) for each in proxies]
    config = uvicorn.Config(
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
        proxy_headers=bool(proxies),
        forwarded_allow_ips=list(proxies),
    )
    config.load()
    if tls is not None:
        config.ssl = server_context(tls)
    with asyncio.Runner(loop_factory=_Loop) as runner:
        runner.run(uvicorn.Server(config).serve())


def _use_all_descriptors() -> None:
    """Connections in the middle of a handshake aren't counted yet, and need descriptors too."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 16_384 if hard == resource.RLIM_INFINITY else min(hard, 16_384)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
