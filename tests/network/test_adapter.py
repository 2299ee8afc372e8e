"""A request comes in one piece where it is short."""

import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from http.client import HTTPConnection
from typing import Any

import pytest
import requests

from network.answers import ask


@pytest.fixture
def echo() -> Iterator[str]:
    """A server that answers each request of one connection with its body."""
    listener = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=_echo, args=(listener,), daemon=True).start()
    with listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/said"


def _echo(listener: socket.socket) -> None:
    with suppress(OSError):
        line, _ = listener.accept()
        with line, line.makefile("rb") as coming:
            while coming.readline():
                size = 0
                while head := coming.readline().strip():
                    name, _, value = head.partition(b":")
                    size = int(value) if name.lower() == b"content-length" else size
                answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size
                line.sendall(answer + coming.read(size))


@pytest.mark.parametrize(("size", "pieces"), [(1, 1), (2**16, 1), (2**16 + 1, 2)])
def test_a_short_body_goes_with_its_head(
    size: int, pieces: int, echo: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[bytes] = []
    send = HTTPConnection.send

    def noted(connection: HTTPConnection, data: Any) -> None:
        sent.append(bytes(data))
        send(connection, data)

    monkeypatch.setattr(HTTPConnection, "send", noted)
    body = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    with requests.Session() as session:
        for _ in range(2):
            assert ask(session, "POST", echo, body).content == body
    assert len(sent) == 2 * pieces
    assert sent[pieces - 1].endswith(body)
