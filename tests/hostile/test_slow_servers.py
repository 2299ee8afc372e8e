"""Servers that never come to an end: whoever calls them goes on after the time she gave."""

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import repeat
from threading import Event, Thread

import pytest
import requests
from syft.server.credentials import SyftSigningKey
from syft.types.uid import UID

from network.answers import ask
from network.client import NodeClient, NodeUnreachable, log_in

HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n"
ENDLESS: dict[str, tuple[bytes, bytes, float]] = {
    # what comes first, what comes again and again, every so many seconds
    "told to continue for ever": (b"", b"HTTP/1.1 100 Continue\r\n\r\n", 0.0),
    "early hints for ever": (b"", b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n", 0.0),
    "a status line by dribs": (b"HTTP/1.1 200 ", b"O", 0.1),
    "headers by dribs": (HEAD, b"x", 0.1),
    "headers without end": (HEAD, b"X-More: y\r\n", 0.0),
    "one header without end": (HEAD + b"X-More: ", b"y" * 4096, 0.0),
    "a body by dribs": (HEAD + b"\r\n", b"x", 0.1),
    "no answer": (b"", b"", 0.1),
}


@contextmanager
def server(first: bytes, again: bytes, every_s: float) -> Iterator[str]:
    """Answers every connection so; gives its address."""
    listener, over = socket.create_server(("127.0.0.1", 0)), Event()

    def answer(line: socket.socket) -> None:
        with line, suppress(OSError):
            line.recv(65536)
            line.sendall(first)
            for part in repeat(again):
                if over.wait(every_s):
                    return
                line.sendall(part)

    def accept() -> None:
        with suppress(OSError):
            while True:
                Thread(target=answer, args=(listener.accept()[0],), daemon=True).start()

    Thread(target=accept, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        over.set()
        listener.close()


@pytest.mark.parametrize("how", ENDLESS)
def test_no_server_holds_its_caller(how: str) -> None:
    line = requests.Session()
    with server(*ENDLESS[how]) as url, line, pytest.raises(requests.RequestException):
        ask(line, "POST", f"{url}/x", b"asked", timeout=(1, 1))


def calls(url: str) -> dict[str, Callable[[], object]]:
    key = SyftSigningKey.generate()
    node = NodeClient("slow", url, key, UID(), str(key.verify_key))
    return {
        "call": lambda: node.call("describe", timeout_s=1),
        "stream": lambda: node.stream("progress", timeout_s=1, plan_hash="x"),
        "login": lambda: log_in(url, "ada@uni.example", "a long password"),
    }


@pytest.mark.parametrize("what", ["call", "stream", "login"])
def test_neither_does_one_that_tells_to_continue(what: str) -> None:
    with server(*ENDLESS["told to continue for ever"]) as url, pytest.raises(NodeUnreachable):
        calls(url)[what]()
