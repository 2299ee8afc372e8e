"""Calls are answered once, and nobody gets more of a node than the limits say."""

import asyncio
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Iterator, MutableMapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from fastapi import Request

from network import connections
from network.bodies import Bodies
from network.limits import AtOnce, BodyRoom, Limits, Rate, TooMuch, block_of
from network.replay import MAX_AGE_S, CallMemory, CallRefused
from network.tls import create_certificate, server_context
from tests.network.clock import Clock


def test_a_call_is_taken_once_and_that_outlives_a_restart(tmp_path: Path) -> None:
    memory = CallMemory(tmp_path / "calls.db")
    memory.take(b"ada", b"1", None)
    memory.take(b"ada", b"2", int(time.time()))
    memory.take(b"eve", b"1", None)
    for _ in range(2):
        with pytest.raises(CallRefused, match="before"):
            memory.take(b"ada", b"1", None)
        memory.close()
        memory = CallMemory(tmp_path / "calls.db")
    assert (tmp_path / "calls.db").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("issued", [0, -1, "now", 1.5, True, 2**70])
def test_a_call_signed_at_another_time_is_refused_and_not_kept(
    issued: object, tmp_path: Path
) -> None:
    memory = CallMemory(tmp_path / "calls.db")
    with pytest.raises(CallRefused, match=str(MAX_AGE_S)):
        memory.take(b"ada", b"1", issued)
    memory.take(b"ada", b"1", None)


def test_each_name_has_its_own_rate() -> None:
    clock = Clock()
    rate = Rate(per_s=2, burst=4, now=clock)
    for _ in range(4):
        rate.spend("ada")
    with pytest.raises(TooMuch, match="Try again in 1 s"):
        rate.spend("ada")
    rate.spend("eve")
    clock.now += 1
    rate.spend("ada")
    rate.spend("ada")
    with pytest.raises(TooMuch):
        rate.spend("ada")


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff:ffff:ffff:ffff", True),
        ("2001:db8:1:2::1", "2001:DB8:1:2:0:0:0:1", True),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
        ("fe80::1%eth0", "fe80::2%eth0", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("", "unix", False),
    ],
)
def test_one_host_of_ipv6_has_one_limit_for_all_its_addresses(
    one: str, other: str, same: bool
) -> None:
    assert (block_of(one) == block_of(other)) is same


def test_one_account_has_so_many_calls_under_way() -> None:
    at_once = AtOnce(2)
    over = at_once.begin("ada")
    at_once.begin("ada")
    with pytest.raises(TooMuch, match="At most 2"):
        at_once.begin("ada")
    at_once.begin("eve")
    over()
    at_once.begin("ada")


def test_bodies_share_a_bounded_room() -> None:
    room = BodyRoom(100, 70)
    room.take(60, "one")
    with pytest.raises(TooMuch, match="busy"):
        room.take(60, "another")
    room.give_back(60, "one")
    room.take(60, "another")


def test_one_address_fills_only_a_part_of_it() -> None:
    room = BodyRoom(100, 70)
    room.take(60, "one")
    with pytest.raises(TooMuch, match="busy"):
        room.take(11, "one")
    room.take(40, "another")


def test_small_bodies_go_on_while_long_ones_fill_the_room() -> None:
    bodies = Bodies(Limits(bodies_bytes=2**17))

    def request(*parts: bytes) -> Request:
        coming = [{"type": "http.request", "body": part, "more_body": True} for part in parts]
        coming.append({"type": "http.request", "body": b"", "more_body": False})
        left = iter(coming)

        async def receive() -> MutableMapping[str, Any]:
            return next(left)

        return Request({"type": "http", "headers": [], "client": ("192.0.2.1", 1)}, receive)

    async def run() -> None:
        async with bodies.of(request(bytes(2**17), bytes(2**16)), 2**24):
            async with bodies.of(request(bytes(2**15), bytes(2**15)), 2**24) as small:
                assert len(small) == 2**16
            with pytest.raises(TooMuch):
                async with bodies.of(request(bytes(2**16), b"!"), 2**24):
                    pass
        async with bodies.of(request(bytes(2**17)), 2**24) as again:
            assert len(again) == 2**17

    asyncio.run(run())


@contextmanager
def serving(answer: bytes) -> Iterator[tuple[str, int]]:
    """A server on impatient connections that answers this; gives its address."""

    async def app(scope, receive, send) -> None:  # type: ignore[no-untyped-def]
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": answer})

    config = uvicorn.Config(
        app, port=0, log_level="critical", lifespan="off", http=connections.ImpatientProtocol
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        thread._target, thread._args = server.run, ([listening],)  # type: ignore[attr-defined]
        thread.start()
        while not server.started:
            threading.Event().wait(0.01)
        yield listening.getsockname()
        server.should_exit = True
        thread.join(10)


REQUEST = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


def test_a_connection_whose_head_is_late_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "_limits", Limits(header_seconds=0.2))
    with serving(b"yes") as address:
        for head in (b"", REQUEST[:-2]):
            with socket.create_connection(address, timeout=120) as line:
                line.sendall(head)
                assert line.recv(100) == b"", "closed without an answer"
        monkeypatch.setattr(connections, "_limits", Limits(header_seconds=120))
        with socket.create_connection(address, timeout=120) as line:
            line.sendall(REQUEST)
            assert b"200" in line.recv(100)


def taken(line: socket.socket) -> int:
    """The bytes that come until the end, however it comes."""
    size = 0
    with suppress(ConnectionResetError):
        while part := line.recv(2**20):
            size += len(part)
    return size


@pytest.mark.parametrize(
    "limits",
    [
        Limits(body_seconds=0.2, body_bytes_per_s=2**40),
        Limits(unread_bytes=2**20),
        Limits(unread_bytes_per_address=2**20),
    ],
    ids=["time", "room", "room of an address"],
)
def test_an_answer_that_nobody_takes_is_dropped(
    limits: Limits, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "_limits", limits)
    gone, lost = threading.Event(), connections.ImpatientProtocol.connection_lost

    def hang_up(self: connections.ImpatientProtocol, error: Exception | None) -> None:
        lost(self, error)
        gone.set()

    monkeypatch.setattr(connections.ImpatientProtocol, "connection_lost", hang_up)
    with serving(bytes(2**26)) as address, socket.create_connection(address, timeout=120) as line:
        line.sendall(REQUEST)
        assert gone.wait(120), "the server hangs up though nothing was read"
        assert connections._unread.total() == 0
        assert taken(line) < 2**26


@pytest.fixture
def with_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A server with TLS that takes four connections of one address; gives its port."""
    monkeypatch.setattr(connections, "_limits", Limits(connections_per_address=4))
    create_certificate(tmp_path, "a server", ["127.0.0.1"])
    started, stop = threading.Event(), threading.Event()
    ports = []

    async def serve() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(
            lambda: connections.ImpatientProtocol(
                config=config, server_state=uvicorn.server.ServerState(), app_state={}
            ),
            "127.0.0.1",
            0,
            ssl=server_context(tmp_path),
        )
        ports.append(server.sockets[0].getsockname()[1])
        started.set()
        await loop.run_in_executor(None, stop.wait)
        server.close()

    async def app(scope, receive, send) -> None:  # type: ignore[no-untyped-def]
        told = [(b"content-length", b"5")]
        await send({"type": "http.response.start", "status": 200, "headers": told})
        await send({"type": "http.response.body", "body": scope["scheme"].encode()})

    config = uvicorn.Config(app, log_level="critical", lifespan="off")
    config.load()

    def run() -> None:
        with asyncio.Runner(loop_factory=connections._Loop) as runner:
            runner.run(serve())

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert started.wait(120)
    yield ports[0]
    stop.set()
    thread.join(120)


def asked(port: int, address: str) -> bytes:
    """What a caller at this address is answered over TLS; empty if she is turned away."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    found = b""
    with (
        suppress(OSError),
        socket.create_connection(("127.0.0.1", port), 120, (address, 0)) as line,
        context.wrap_socket(line) as secure,
    ):
        secure.sendall(REQUEST.replace(b"Host: a", b"Host: a\r\nConnection: close"))
        while part := secure.recv(4096):
            found += part
    return found


def until_nobody_is_there() -> None:
    while connections._arrived:
        threading.Event().wait(0.01)


def test_whoever_never_shakes_hands_is_counted_too_and_others_get_in(with_tls: int) -> None:
    assert asked(with_tls, "127.0.0.1").endswith(b"https")
    until_nobody_is_there()
    with ExitStack() as open_lines:
        for _ in range(40):
            open_lines.enter_context(socket.create_connection(("127.0.0.1", with_tls)))
        assert asked(with_tls, "127.0.0.1") == b"", "one address has its part and no more"
        assert asked(with_tls, "127.0.0.2").endswith(b"https"), "another address gets in"
        assert connections._arrived["127.0.0.1"] == 4
    until_nobody_is_there()
    assert asked(with_tls, "127.0.0.1").endswith(b"https"), "what is over is forgotten"


def test_a_declared_proxy_brings_the_connections_of_all_its_callers(
    with_tls: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "_proxies", [ipaddress.ip_network("127.0.0.0/30")])
    with ExitStack() as open_lines:
        for _ in range(40):
            open_lines.enter_context(socket.create_connection(("127.0.0.1", with_tls)))
        assert asked(with_tls, "127.0.0.1").endswith(b"https")


def test_an_answer_that_is_taken_comes_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "_limits", Limits(unread_bytes=2**27,
                                                       unread_bytes_per_address=2**27))  # fmt: skip
    with serving(bytes(2**26)) as address, socket.create_connection(address, timeout=120) as line:
        line.sendall(REQUEST.replace(b"Host: a", b"Host: a\r\nConnection: close"))
        assert taken(line) > 2**26
