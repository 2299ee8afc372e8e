"""What anyone can send to the port: calls that were tampered with, odd HTTP and odd logins."""

import gzip
import json
import struct

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from syft.serde.recursive import recursive_scheme
from syft.server.credentials import SyftSigningKey

from domains.witness import ask_for_heads
from network.federation import read_accounts
from tests.hostile.attacks import (
    Target,
    get,
    message,
    packed,
    post,
    raw,
    signed,
    verdict,
)  # fmt: skip


def good(target: Target) -> bytes:
    return signed(packed(message(target)), target.key)


def halves_swapped(target: Target) -> str:
    blob = good(target)
    return post(target, blob[len(blob) // 2 :] + blob[: len(blob) // 2])


def another_message(target: Target) -> str:
    other = packed(packed(message(target, path="user.get_all")))
    return post(target, signed(packed(message(target)), target.key, serialized_message=other))


def another_key(target: Target) -> str:
    owner = packed(target.network.home and target.rival._key.verify_key)
    return post(target, signed(packed(message(target)), target.key, credentials=owner))


def planted_message(target: Target) -> str:
    planted = packed(message(target, path="user.get_all"))
    return post(
        target,
        signed(packed(message(target)), target.key, cached_deseralized_message=planted),
    )


def many_times_the_same(target: Target) -> str:
    """List pointers that all lead back to one long list: a small frame that reads as a huge one."""
    pointers = 4096
    words = [(1 << 32) | (4 << 48), 1, 0]
    words += [1 | (((2) << 2) & 0xFFFFFFFC) | (6 << 32) | (pointers << 35), 0, 0]
    words += [
        (1 | (-(i + 1) << 2) & 0xFFFFFFFF) | (6 << 32) | (pointers << 35) for i in range(4096)
    ]
    body = b"".join(struct.pack("<Q", word & 0xFFFFFFFFFFFFFFFF) for word in words)
    return post(target, struct.pack("<II", 0, len(words)) + body)


def names_without_end(target: Target) -> str:
    """An envelope that claims two million fields, each of which would take a place in memory."""
    frame = recursive_scheme.new_message()
    frame.canonicalName, frame.version = "SignedSyftAPICall", 1
    frame.init("fieldsName", 2**21 - 100)
    return post(target, bytes(frame.to_bytes()))


def pointer_to_itself(target: Target) -> str:
    return post(target, struct.pack("<IIQQ", 0, 2, 2 | (1 << 3), 2))


def chunked_oversize(target: Target) -> str:
    import requests

    def parts():  # type: ignore[no-untyped-def]
        for _ in range(20):
            yield bytes(2**20)

    try:
        answer = requests.post(f"{target.url}/api_call", data=parts(), timeout=120)
    except requests.ConnectionError:
        return "refused: the connection was closed"
    return f"refused ({answer.status_code})" if answer.status_code == 413 else "answered"


def smuggled(target: Target) -> str:
    found = raw(
        target,
        b"POST /api/v2/api_call HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
        b"GET /api/v2/metadata HTTP/1.1\r\nHost: a\r\n\r\n",
    )
    return "refused" if b"verify_key" not in found else "answered"


def long_head(target: Target) -> str:
    found = raw(target, b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 200_000 + b"\r\n\r\n")
    return f"refused: {found[:30]!r}" if b" 200 " not in found[:20] else "answered"


def raw_path(target: Target) -> str:
    found = raw(target, b"GET /api/v2/../../../etc/passwd HTTP/1.1\r\nHost: a\r\n\r\n")
    return "answered" if b"root:" in found or b" 200 " in found[:20] else f"refused: {found[:30]!r}"


def websocket(target: Target) -> str:
    headers = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"}
    return get(target, "/stream/x/y/", headers={**headers, "Sec-WebSocket-Key": "eA=="})


def guessed_passwords(target: Target) -> str:
    found = [log_in(target, "nobody@brute.example", f"Guess{n}") for n in range(8)]
    assert all(each.startswith("refused") for each in found), found
    return found[-1] if "429" in found[-1] else "answered: no back-off"


def unknown_or_wrong(target: Target) -> str:
    """Whether an answer tells which emails have accounts."""
    known, unknown = (
        log_in(target, email, "Wrong-password-1")
        for email in ("rita@rival.example", "nobody@at-all.example")
    )
    return known if known == unknown else f"answered: {known} or {unknown}"


def heads_of(target: Target, body: bytes) -> str:
    import requests

    answer = requests.post(f"{target.node.url}/heads", data=body, timeout=120)
    return verdict(target, answer.status_code, answer.content)


def heads_of_all_times(target: Target) -> str:
    body = json.loads(ask_for_heads(STRANGER_NODE, target.node.node_key))
    return heads_of(target, json.dumps({**body, "time": 10**400}).encode())


def log_in(target: Target, email: object, password: object) -> str:
    body = json.dumps({"email": email, "password": password}).encode()
    return post(target, body, "/login", json_body=True)


def no_origin(target: Target) -> str:
    import requests

    answer = requests.options(
        f"{target.url}/login",
        headers={"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"},
        timeout=120,
    )
    opened = [name for name in answer.headers if name.lower().startswith("access-control")]
    return f"answered: {opened}" if opened else f"refused ({answer.status_code})"


def framed(target: Target) -> str:
    import requests

    headers = requests.get(f"{target.url}/", timeout=120).headers
    wanted = {"X-Frame-Options", "X-Content-Type-Options", "Content-Security-Policy"}
    missing = [name for name in wanted if name not in headers]
    return f"answered without {missing}" if missing or "Server" in headers else "refused"


def through_undeclared_proxy(target: Target, **headers: str) -> str:
    """A login that claims to come from elsewhere: its answer would hold the account's key."""
    import requests

    account = read_accounts(target.network.home.accounts)["east"]
    body = {"email": account.email, "password": account.password}
    answer = requests.post(f"{target.url}/login", json=body, headers=headers, timeout=120)
    return verdict(target, answer.status_code, answer.content)


def head_only(target: Target, request: str, body: bytes = b"") -> str:
    """An odd request as bytes; 'refused' unless it's answered with 200."""
    found = raw(target, request.replace("\n", "\r\n").encode("latin-1") + body)
    first = found.split(b"\r\n", 1)[0]
    return f"answered: {first!r}" if b" 200 " in first else f"refused: {first!r}"


ODD_REQUESTS = {
    "two lengths": ("POST /api/v2/login HTTP/1.1\nHost: a\nContent-Length: 2\n"
                    "Content-Length: 3\n\n", b"{}x"),
    "a negative length": ("POST /api/v2/login HTTP/1.1\nHost: a\nContent-Length: -1\n\n", b""),
    "a length with a sign": ("POST /api/v2/login HTTP/1.1\nHost: a\nContent-Length: +2\n\n", b"{}"),
    "an unknown transfer coding": (
        "POST /api/v2/login HTTP/1.1\nHost: a\nTransfer-Encoding: xchunked\n\n", b"0\r\n\r\n"),
    "two transfer codings": (
        "POST /api/v2/login HTTP/1.1\nHost: a\nTransfer-Encoding: gzip, chunked\n\n", b"0\r\n\r\n"),
    "a chunk of 2**64 bytes": (
        "POST /api/v2/login HTTP/1.1\nHost: a\nTransfer-Encoding: chunked\n\n",
        b"FFFFFFFFFFFFFFFF\r\nx"),
    "a chunk size that isn't one": (
        "POST /api/v2/login HTTP/1.1\nHost: a\nTransfer-Encoding: chunked\n\n", b"-1\r\nx\r\n"),
    "a space before the colon": ("GET /api/v2/metadata HTTP/1.1\nHost : a\n\n", b""),
    "a folded header": ("GET /api/v2/metadata HTTP/1.1\nHost: a\nX: a\n\tb: c\n \x00\n\n", b""),
    "a zero byte in a header": ("GET /api/v2/metadata HTTP/1.1\nHost: a\x00b\n\n", b""),
    "no host": ("GET /api/v2/metadata HTTP/1.1\n\n", b""),
    "two hosts": ("GET /api/v2/metadata HTTP/1.1\nHost: a\nHost: b\n\n", b""),
    "HTTP/0.9": ("GET /api/v2/metadata\n\n", b""),
    "HTTP/2 without asking": ("PRI * HTTP/2.0\n\nSM\n\n", b""),
    "CONNECT to another host": ("CONNECT 127.0.0.1:22 HTTP/1.1\nHost: a\n\n", b""),
    "an address of another host": ("GET http://evil.example/etc/passwd HTTP/1.1\nHost: a\n\n", b""),
    "a path that isn't UTF-8": ("GET /api/v2/%ff%fe HTTP/1.1\nHost: a\n\n", b""),
    "raw bytes in the path": ("GET /api/v2/\xff\xfe HTTP/1.1\nHost: a\n\n", b""),
    "a double slash": ("GET //api/v2//metadata HTTP/1.1\nHost: a\n\n", b""),
    "a path with a parameter": ("GET /api/v2/metadata;x=1 HTTP/1.1\nHost: a\n\n", b""),
    "an encoded slash": ("GET /api%2fv2%2f..%2f..%2fetc/passwd HTTP/1.1\nHost: a\n\n", b""),
    "a zero byte in the path": ("GET /api/v2/metadata%00.json HTTP/1.1\nHost: a\n\n", b""),
    "HEAD of the metadata": ("HEAD /api/v2/metadata HTTP/1.1\nHost: a\n\n", b""),
    "DELETE of the call route": ("DELETE /api/v2/api_call HTTP/1.1\nHost: a\n\n", b""),
    "PATCH of the login": ("PATCH /api/v2/login HTTP/1.1\nHost: a\n\n", b""),
    "GET of the call route": ("GET /api/v2/api_call HTTP/1.1\nHost: a\n\n", b""),
    "a promise of 17 MiB": (
        "POST /api/v2/api_call HTTP/1.1\nHost: a\nContent-Length: 17825793\n"
        "Expect: 100-continue\n\n", b""),
    "a length of a thousand digits": (
        f"POST /api/v2/api_call HTTP/1.1\nHost: a\nContent-Length: {'9' * 1000}\n\n", b""),
    "a range of the metadata": (
        "POST /api/v2/metadata HTTP/1.1\nHost: a\nRange: bytes=0-0,0-0,0-0\n\n", b""),
    "a method of our own": ("\x1b[2J /api/v2/metadata HTTP/1.1\nHost: a\n\n", b""),
    "500 headers": ("GET /nothing HTTP/1.1\nHost: a\n" + "X: y\n" * 500 + "\n", b""),
}  # fmt: skip
ODD_LOGINS = {
    "halves of characters": b'{"email": "\\ud800", "password": "\\udfff"}',
    "a zero byte in the email": b'{"email": "rita@rival.example\\u0000", "password": "x"}',
    "look-alike letters": '{"email": "rit\u0430@rival.example", "password": "x"}'.encode(),
    "an email twice": b'{"email": "a@b.c", "email": "rita@rival.example", "password": "x"}',
    "a number without end": b'{"email": ' + b"9" * 4000 + b', "password": "x"}',
    "not a number": b'{"email": NaN, "password": Infinity}',
    "a gzip bomb": gzip.compress(bytes(2**20)),
    "UTF-16": '{"email": "a@b.c", "password": "x"}'.encode("utf-16"),
    "a list": b'["rita@rival.example", "x"]',
    "XML": b"<?xml version='1.0'?><!DOCTYPE a [<!ENTITY b SYSTEM 'file:///etc/passwd'>]><a>&b;</a>",
}

STRANGER = SyftSigningKey.generate()
STRANGER_NODE = Ed25519PrivateKey.generate()
