"""HTTP turned against the node: framing, odd requests, floods on one connection."""

import os
import re
import socket
from collections.abc import Callable
from contextlib import ExitStack, suppress

import pytest

from coterie.processes import running
from tests.hostile.attacks import LAST, Attack, Target, line_to, raw

pytestmark = pytest.mark.nodes

HIDDEN = b"GET /api/v2/metadata HTTP/1.1\r\nHost: a\r\n\r\n"
LOGIN = b"POST /api/v2/login HTTP/1.1\r\nHost: a\r\n"
CHUNKED = LOGIN + b"Transfer-Encoding: chunked\r\n\r\n"
MEMORY = 64 * 2**20
"""By how much a node may have grown after one attack."""

FRAMING = {
    "two transfer codings in two headers": LOGIN + b"Transfer-Encoding: chunked\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a transfer coding behind a vertical tab": LOGIN + b"Transfer-Encoding:\x0bchunked\r\n"
    b"\r\n0\r\n\r\n",
    "a transfer coding behind a folded line": LOGIN + b"Transfer-Encoding:\r\n chunked\r\n"
    b"Content-Length: 5\r\n\r\n0\r\n\r\n",
    "no transfer coding, and a length": LOGIN + b"Transfer-Encoding: identity\r\n"
    b"Content-Length: 0\r\n\r\n",
    "chunks in HTTP/1.0": CHUNKED.replace(b"1.1", b"1.0") + b"0\r\n\r\n",
    "chunks that end before their length": LOGIN + b"Content-Length: 46\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a list of lengths": LOGIN + b"Content-Length: 2, 0\r\n\r\n{}",
    "a hexadecimal length": LOGIN + b"Content-Length: 0x0\r\n\r\n",
    "a length in other digits": LOGIN + "Content-Length: \u0662\r\n\r\n{}".encode(),
    "a chunk's size with 0x": CHUNKED + b"0x2\r\n{}\r\n0\r\n\r\n",
    "a chunk's size with a plus": CHUNKED + b"+2\r\n{}\r\n0\r\n\r\n",
    "a chunk's size with underscores": CHUNKED + b"0_2\r\n{}\r\n0\r\n\r\n",
    "a line feed in a chunk's extension": CHUNKED + b"2;a\nb\r\n{}\r\n0\r\n\r\n",
    "a chunk that is longer than it says": CHUNKED + b"1\r\n{}\r\n0\r\n\r\n",
    "lines that end in a carriage return": LOGIN.replace(b"\r\n", b"\r") + b"\r",
    "a header's name with a line feed": LOGIN + b"X\n: y\r\n\r\n",
    "an upgrade to HTTP/2": LOGIN.replace(b"POST", b"GET") + b"Connection: Upgrade, HTTP2-Settings"
    b"\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\nPRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "frames of a websocket": LOGIN.replace(b"POST", b"GET") + b"Connection: Upgrade\r\nUpgrade: "
    b"websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: eDNKSEhNYkRMMUV6TGtoOQ==\r\n"
    b"\r\n\x81\xfe\xff\xff",
    "a transfer coding and a comma": LOGIN + b"Transfer-Encoding: Chunked,\r\n\r\n0\r\n\r\n",
    "chunks that are packed": LOGIN + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "a blank before a coding's colon": LOGIN + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "a blank before a length's colon": LOGIN + b"Content-Length : 2\r\n\r\n{}",
    "two lengths": LOGIN + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    "a length with a plus": LOGIN + b"Content-Length: +2\r\n\r\n{}",
    "a negative length": LOGIN + b"Content-Length: -1\r\n\r\n{}",
    "a length of 5,000 digits": LOGIN + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n{}",
    "a TLS hello without TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(200)),
}  # fmt: skip
ODD = {
    "tabs in the request line": b"GET\t/api/v2/metadata\tHTTP/1.1\r\nHost: a\r\n\r\n",
    "the address of a file": b"GET file:///etc/passwd HTTP/1.1\r\nHost: a\r\n\r\n",
    "a password in the address": b"GET http://a:b@127.0.0.1/etc/passwd HTTP/1.1\r\nHost: a\r\n\r\n",
    "options of everything": b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
    "a method of WebDAV": b"PROPFIND /api/v2/metadata HTTP/1.1\r\nHost: a\r\n\r\n",
    "a backslash in the path": b"GET /api\\v2\\..\\metadata HTTP/1.1\r\nHost: a\r\n\r\n",
    "a fragment in the path": b"GET /api/v2/metadata#x HTTP/1.1\r\nHost: a\r\n\r\n",
    "encoded twice": b"GET /api/v2/%252e%252e/metadata HTTP/1.1\r\nHost: a\r\n\r\n",
    "20,000 steps up": b"GET /" + b"../" * 20_000 + b"etc/passwd HTTP/1.1\r\nHost: a\r\n\r\n",
    "a method of 60 kB": b"A" * 60_000 + b" / HTTP/1.1\r\nHost: a\r\n\r\n",
    "20,000 headers": b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 20_000 + b"\r\n",
    "a query of 14,000 parameters": b"GET /api/v2/api?" + b"a=1&" * 14_000 + b"b HTTP/1.1\r\n"
    b"Host: a\r\n\r\n",
    "30,000 zeros before a chunk's size": CHUNKED + b"0" * 30_000 + b"2\r\n{}\r\n0\r\n\r\n",
    "a chunk's extension of 100 kB": CHUNKED + b"2;" + b"a" * 100_000 + b"\r\n{}\r\n0\r\n\r\n",
    "20,000 trailers": CHUNKED + b"2\r\n{}\r\n0\r\n" + b"X: y\r\n" * 20_000 + b"\r\n",
    "1,000 empty lines first": b"\r\n" * 1000 + LOGIN + b"Content-Length: 0\r\n\r\n",
    "no host": b"GET /healthz HTTP/1.1\r\n\r\n",
    "two hosts": b"GET /healthz HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "HTTP/0.9": b"GET /healthz\r\n",
    "no method": b" / HTTP/1.1\r\nHost: a\r\n\r\n",
    "a method in lower case": b"get /healthz HTTP/1.1\r\nHost: a\r\n\r\n",
    "a zero in the path": b"GET /healthz\x00.txt HTTP/1.1\r\nHost: a\r\n\r\n",
    "an encoded zero in the path": b"GET /healthz%00 HTTP/1.1\r\nHost: a\r\n\r\n",
    "parameters of a path": b"GET /healthz;x=1 HTTP/1.1\r\nHost: a\r\n\r\n",
    "steps up, encoded": b"GET /api/v2/%2e%2e/%2e%2e/healthz HTTP/1.1\r\nHost: a\r\n\r\n",
    "two slashes each": b"GET //api//v2//metadata HTTP/1.1\r\nHost: a\r\n\r\n",
    "another host's address": b"GET http://evil.example/healthz HTTP/1.1\r\nHost: a\r\n\r\n",
    "a tunnel": b"CONNECT 127.0.0.1:22 HTTP/1.1\r\nHost: a\r\n\r\n",
    "a trace": b"TRACE /api/v2/metadata HTTP/1.1\r\nHost: a\r\nX: y\r\n\r\n",
    "a slash in a stream's method": b"POST /coterie/v1/open%2f..%2fplans HTTP/1.1\r\nHost: a\r\n"
    b"Content-Length: 0\r\n\r\n",
    "a websocket in place of a stream": b"GET /coterie/v1/open HTTP/1.1\r\nHost: a\r\nConnection: "
    b"Upgrade\r\nUpgrade: websocket\r\n\r\n",
    "no number for an email": LOGIN + b"Content-Length: 33\r\n\r\n"
    b'{"email": NaN, "password": 1e999}',
    "a zero in an email": LOGIN + b"Content-Length: 37\r\n\r\n"
    b'{"email": "a\\u0000", "password": "x"}',
    "half a character as password": LOGIN + b"Content-Length: 37\r\n\r\n"
    b'{"email": "a", "password": "\\ud800x"}',
    "1,000 brackets for heads": b"POST /heads HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n"
    + b"[" * 1000,
    "a body that never comes": LOGIN + b"Content-Length: 4096\r\n\r\n{",
    "the owner's list by two keys": b"GET /api/v2/api?verify_key=a&verify_key=b&"
    b"communication_protocol=dev HTTP/1.1\r\nHost: a\r\n\r\n",
}  # fmt: skip


def not_smuggled(request: bytes) -> Callable[[Target], str]:
    """Refused unless the request that is hidden behind this one is answered."""

    def run(target: Target) -> str:
        found = raw(target, request, HIDDEN + LAST)
        return (
            f"answered: {found[-80:]!r}" if b"verify_key" in found else f"refused: {found[:40]!r}"
        )

    return run


def not_answered(request: bytes) -> Callable[[Target], str]:
    def run(target: Target) -> str:
        first = raw(target, request).split(b"\r\n", 1)[0]
        return f"answered: {first!r}" if b" 200 " in first else f"refused: {first!r}"

    return run


def memory_of(target: Target) -> int:
    pid = running(target.network.home.domain("east").pid_file)
    with open(f"/proc/{pid}/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def pipelined(target: Target) -> str:
    """Thousands of requests before the first answer is read: no more are answered than allowed."""
    found = raw(target, HIDDEN.replace(b"metadata", b"api_call") * 3000)
    answers = re.findall(rb"HTTP/1\.1 (\d+)", found)
    return "answered" if b"200" in answers else f"refused: {len(answers)} answers"


def unread_and_pipelined(target: Target) -> str:
    """Requests without end whose answers aren't read: the node stops listening to that line."""
    sent, many = 0, HIDDEN * 1000
    with line_to(target) as line, suppress(OSError):
        while sent < 2**26:
            sent += line.send(many)
    return f"refused: after {sent} bytes" if sent < 2**26 else "answered: all were taken"


def promises(target: Target) -> str:
    """A hundred bodies announced, of 16 MiB each, that don't come: no room is set aside."""
    before = memory_of(target)
    head = b"POST /api/v2/api_call HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: "
    with ExitStack() as open_lines:
        for _ in range(100):
            line = open_lines.enter_context(line_to(target))
            line.sendall(head + b"16777216\r\n\r\n")
        assert "node_key" in target.node.call("describe"), "others are served meanwhile"
        grown = memory_of(target) - before
    return "refused: no memory is set aside" if grown < MEMORY else f"answered: {grown} bytes"


def half_closed(target: Target) -> str:
    """A thousand connections closed in the middle of a head; none is kept."""
    for _ in range(1000):
        with line_to(target) as line:
            line.sendall(b"POST /api/v2/api_call HTTP/1.1\r\nHost:")
            line.shutdown(socket.SHUT_WR)
    pid = running(target.network.home.domain("east").pid_file)
    kept, asked = 1000, 0
    while kept >= 500 and asked < 1000:  # it hears of the last ones while it answers
        assert "node_key" in target.node.call("describe")
        kept, asked = len(os.listdir(f"/proc/{pid}/fd")), asked + 1
    return f"refused: {kept} descriptors are open" if kept < 500 else f"answered: {kept} are open"


def odd_nonces(target: Target) -> str:
    """Nonces that no client sends: the answer is whole and unsealed, or the request is refused."""
    for nonce in (b"\xe9" * 64, b"a" * 63, b"a" * 65, b"a" * 60000, b"\xb2" * 64, b"a b" * 22):
        found = raw(target, HIDDEN[:-2] + b"X-Coterie-Nonce: " + nonce + b"\r\n\r\n")
        if b" 500 " in found[:20]:
            return f"failed: {nonce[:5]!r}"
    return "refused: nothing fails"


ATTACKS = [
    *(Attack(what, f"a request hidden behind {what}", not_smuggled(request))
      for what, request in FRAMING.items()),
    *(Attack(what, what, not_answered(request)) for what, request in ODD.items()),
    Attack("pipelined", "3,000 requests before an answer is read", pipelined),
    Attack("unread", "20,000 requests whose answers aren't read", unread_and_pipelined),
    Attack("promises", "100 bodies of 16 MiB announced and not sent", promises),
    Attack("half-closed", "1,000 heads broken off by a half-close", half_closed),
    Attack("odd nonces", "nonces that no client sends", odd_nonces),
]  # fmt: skip


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_no_request_gets_round_the_nodes_http(
    attack: Attack, target: Target, record_property: Callable[[str, str], None]
) -> None:
    before = memory_of(target)
    got = attack.run(target)
    record_property("tried", attack.tried)
    record_property("got", got)
    print(f"http | {attack.tried} | {got}")
    assert got.startswith("refused"), got
    assert "node_key" in target.node.call("describe"), "the node goes on"
    assert memory_of(target) - before < MEMORY, "its memory stays"
