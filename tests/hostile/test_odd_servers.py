"""A node gone bad that answers in HTTP as nobody should: its caller refuses, or isn't misled."""

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import Thread

import pytest
from blake3 import blake3
from syft.client.api import SyftAPIData
from syft.server.credentials import SyftSigningKey
from syft.types.uid import UID

from network.answers import NONCE, SEAL, _sealed_text
from network.client import NodeClient, NodeRefused, NodeUnreachable
from tests.hostile.attacks import crafted, packed

NODE = SyftSigningKey.generate()
Respond = Callable[[bytes, bytes], bytes]


def content(value: object = "true") -> bytes:
    blob = packed(SyftAPIData(data=value))
    fields = {
        "credentials": packed(NODE.verify_key),
        "serialized_message": packed(blob),
        "signature": packed(bytes(NODE.signing_key.sign(blob).signature)),
    }
    return crafted("SignedSyftAPICall", fields)


def seal(head: bytes, body: bytes, answered: bytes) -> bytes:
    """The seal of an answer to the request with this head and body."""
    lines = head.decode("latin-1").split("\r\n")
    method, target, _ = lines[0].split(" ")
    sent = dict(line.split(": ", 1) for line in lines[1:] if line)
    digests = blake3(body).digest(), blake3(answered).digest()
    text = _sealed_text(sent[NONCE], method, target.encode(), *digests)
    return NODE.signing_key.sign(text).signature.hex().encode()


def answer(
    *headers: bytes, status: bytes = b"200 OK", length: Callable[[int], bytes] | None = None
) -> Respond:
    """A sealed answer with further header lines."""

    def respond(head: bytes, body: bytes) -> bytes:
        whole = content()
        lines = [b"HTTP/1.1 " + status, SEAL.encode() + b": " + seal(head, body, whole), *headers]
        lines.append(b"Content-Length: " + (length(len(whole)) if length else b"%d" % len(whole)))
        return b"\r\n".join(lines) + b"\r\n\r\n" + whole

    return respond


def twice(first: Respond, second: Respond) -> Respond:
    return lambda head, body: first(head, body) + second(head, body)


def without_head(_: bytes, __: bytes) -> bytes:
    return content()


@contextmanager
def node(respond: Respond) -> Iterator[NodeClient]:
    """A server that answers so, and a client that has pinned its key."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve(line: socket.socket) -> None:
        with line, suppress(OSError, ValueError, LookupError):
            while True:
                heard = b""
                while b"\r\n\r\n" not in heard:
                    heard += line.recv(65536) or b"\r\n\r\n"
                head, _, body = heard.partition(b"\r\n\r\n")
                size = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                while len(body) < size:
                    body += line.recv(65536)
                line.sendall(respond(head, body))

    def accept() -> None:
        with suppress(OSError):
            while True:
                Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    Thread(target=accept, daemon=True).start()
    try:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        yield NodeClient("villain", url, SyftSigningKey.generate(), UID(), str(NODE.verify_key))
    finally:
        listener.close()


REFUSED: dict[str, Respond] = {
    "no head at all": without_head,
    "another protocol": lambda h, b: b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    "a status of 99999": answer(status=b"99999 OK"),
    "a status that is text": answer(status=b"OK 200"),
    "a negative length": answer(length=lambda n: b"-1"),
    "a length of 2**70": answer(length=lambda n: b"%d" % 2**70),
    "a shorter answer than its length": answer(length=lambda n: b"%d" % (n + 1)),
    "a longer answer than its length": answer(length=lambda n: b"%d" % (n - 1)),
    "no length of an empty answer": answer(length=lambda n: b"0"),
    "no content": answer(status=b"204 No Content"),
    "not modified": answer(status=b"304 Not Modified"),
    "switching protocols": answer(status=b"101 Switching Protocols"),
    "continue": twice(lambda h, b: b"HTTP/1.1 100 Continue\r\n\r\n", answer()),
    "a header of 70 kB": answer(b"X: " + b"y" * 70_000),
    "two hundred headers": answer(*[b"X: y"] * 200),
    "a seal of another key": answer(SEAL.encode() + b": " + b"0" * 128),
    "chunks": answer(b"Transfer-Encoding: chunked"),
    "a transfer coding nobody knows": answer(b"Transfer-Encoding: rot13"),
    "a login asked for": answer(b"WWW-Authenticate: Basic", status=b"401 Unauthorized"),
    "a proxy's login asked for": answer(status=b"407 Proxy Authentication Required"),
    "a redirect": answer(b"Location: http://127.0.0.1:9/", status=b"307 Temporary Redirect"),
    "escape sequences for a reason": answer(status=b"500 \x1b]0;owned\x07\x1b[2J"),
}  # fmt: skip


@pytest.mark.parametrize("how", REFUSED)
def test_an_odd_answer_is_refused_in_plain_text(how: str) -> None:
    with node(REFUSED[how]) as client, pytest.raises((NodeRefused, NodeUnreachable)) as refused:
        client.call("describe", timeout_s=2)
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 1000


IGNORED: dict[str, Respond] = {
    "a cookie": answer(b"Set-Cookie: a=b; Domain=127.0.0.1; Path=/"),
    "a refresh": answer(b"Refresh: 0; url=http://127.0.0.1:9/"),
    "another place": answer(b"Location: http://127.0.0.1:9/"),
    "to be kept for ever": answer(b"Keep-Alive: timeout=999999999, max=99999999"),
    "gzip that isn't": answer(b"Content-Encoding: gzip"),
    "compressed five times": answer(b"Content-Encoding: gzip, br, deflate, zstd, gzip"),
    "another type": answer(b"Content-Type: text/html; charset=utf-7"),
    "another server's policy": answer(b"Strict-Transport-Security: max-age=1", b"Alt-Svc: h3=:9"),
}


@pytest.mark.parametrize("how", IGNORED)
def test_what_else_a_head_says_changes_nothing(how: str) -> None:
    with node(IGNORED[how]) as client:
        assert [client.call("describe", timeout_s=120) for _ in range(2)] == ["true", "true"]
        assert client._session().cookies.get_dict() == {}


def test_an_answer_sent_ahead_is_not_taken_for_the_next_request() -> None:
    """Two answers to one request: the second, in time for the next, isn't sealed for that one."""
    ahead = twice(answer(), answer())
    with node(ahead) as client:
        assert client.call("describe", timeout_s=120) == "true"
        for _ in range(3):
            with suppress(NodeRefused, NodeUnreachable):
                assert client.call("describe", timeout_s=120) == "true"


def test_a_node_that_is_always_busy_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bytes] = []

    def busy(head: bytes, body: bytes) -> bytes:
        asked.append(body)
        return answer(b"Retry-After: 999999999", status=b"429 Too Many Requests")(head, body)

    monkeypatch.setattr("network.client.time.sleep", lambda _: None)
    with node(busy) as client, pytest.raises(NodeRefused):
        client.call("describe", timeout_s=120)
    assert len(asked) == 5
