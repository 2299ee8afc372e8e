"""Anyone who reaches the port: bytes, HTTP and logins. None is interpreted, none is let in."""

import gzip
import json
import pickle
import struct
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from syft.serde.recursive import recursive_scheme
from syft.server.credentials import SyftSigningKey

from domains.witness import ask_for_heads
from network.federation import read_accounts
from tests.hostile.attacks import (
    Attack,
    Target,
    alias,
    blob_of,
    crafted,
    get,
    message,
    packed,
    post,
    raw,
    signed,
    verdict,
)  # fmt: skip

pytestmark = pytest.mark.nodes


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
ATTACKS = [
    Attack("empty", "an empty body", lambda t: post(t, b"")),
    Attack("junk", "random bytes", lambda t: post(t, bytes(range(256)) * 8)),
    Attack("truncated", "half a call", lambda t: post(t, good(t)[:300])),
    Attack("trailing", "bytes after a call", lambda t: post(t, good(t) + bytes(8))),
    Attack("reordered", "a call with its halves swapped", halves_swapped),
    Attack("pickle", "a pickle that runs code", lambda t: post(t, pickle.dumps(print))),
    Attack(
        "zero signature",
        "a signature of zeros",
        lambda t: post(t, signed(packed(message(t)), t.key, signature=packed(bytes(64)))),
    ),
    Attack("moved signature", "a signature moved to another message", another_message),
    Attack("other's key", "own signature under another account's key", another_key),
    Attack(
        "stranger",
        "a valid call of a key without account",
        lambda t: post(t, signed(packed(message(t)), STRANGER)),
    ),
    Attack("unsigned", "a call without envelope", lambda t: post(t, packed(message(t)))),
    Attack("planted message", "an undeclared cached message in the envelope", planted_message),
    Attack(
        "alias envelope",
        "a generic alias of os.system as the whole body",
        lambda t: post(t, alias("os.system", "id")),
    ),
    Attack(
        "alias credentials",
        "a generic alias in place of the credentials",
        lambda t: post(t, signed(packed(message(t)), t.key, credentials=alias("os.system"))),
    ),
    Attack(
        "alias signature",
        "a generic alias in place of the signature",
        lambda t: post(t, signed(packed(message(t)), t.key, signature=alias("os._exit", 1))),
    ),
    Attack(
        "wrong version",
        "an envelope of version 99",
        lambda t: post(t, crafted("SignedSyftAPICall", {}, version=99)),
    ),
    Attack(
        "bytes only",
        "a blob named SignedSyftAPICall",
        lambda t: post(t, blob_of("SignedSyftAPICall", b"x")),
    ),
    Attack("segments", "a frame of 2**32 segments", lambda t: post(t, b"\xff" * 64)),
    Attack("amplified", "pointers that lead to one list many times", many_times_the_same),
    Attack("names", "two million fields in an envelope", names_without_end),
    Attack("pointer loop", "a pointer to itself", pointer_to_itself),
    Attack("oversize", "17 MiB with an honest length", lambda t: post(t, bytes(17 * 2**20))),
    Attack("oversize chunked", "20 MiB without a length", chunked_oversize),
    Attack("smuggled", "a second request hidden in the first one's body", smuggled),
    Attack("long head", "200 kB of headers", long_head),
    Attack("traversal", "../ in the path", raw_path),
    Attack(
        "encoded traversal", "%2e%2e/ in the path", lambda t: get(t, "/%2e%2e/%2e%2e/etc/passwd")
    ),
    Attack("register", "Syft's open sign-up", lambda t: post(t, b"{}", "/register")),
    Attack(
        "reset password",
        "Syft's password reset",
        lambda t: post(t, b"{}", "/reset_password", json_body=True),
    ),
    Attack(
        "forgot password",
        "a reset token for the owner",
        lambda t: post(t, b"{}", "/forgot_password", json_body=True),
    ),
    Attack("blob stream", "Syft's stream route", lambda t: get(t, "/stream/0/Li4vLi4v/")),
    Attack(
        "blob upload", "an upload to the stream route", lambda t: get(t, "/stream/0/eA==/", "PUT")
    ),
    Attack("blob file", "the blob route", lambda t: get(t, "/../../blob/x")),
    Attack("capnp metadata", "Syft's binary metadata", lambda t: get(t, "/metadata_capnp")),
    Attack("schema", "the OpenAPI schema", lambda t: get(t, "/../../openapi.json")),
    Attack("trace", "HTTP TRACE", lambda t: get(t, "/metadata", "TRACE")),
    Attack("websocket", "an upgrade to a websocket", websocket),
    Attack("cross origin", "a preflight from another site", no_origin),
    Attack("framed", "the node inside a page of another site", framed),
    Attack(
        "other's list",
        "the method list by a stranger's key",
        lambda t: get(t, f"/api?verify_key={STRANGER.verify_key}&communication_protocol=dev"),
    ),
    Attack(
        "list injection",
        "SQL in the key of a method list",
        lambda t: get(t, "/api?verify_key=' OR 1=1--&communication_protocol=dev"),
    ),
    Attack(
        "list protocol",
        "a protocol that is a path",
        lambda t: get(t, f"/api?verify_key={t.node.verify_key}&communication_protocol=../x"),
    ),
    Attack(
        "login nesting",
        "4,000 brackets as login",
        lambda t: post(t, b"[" * 4000, "/login", json_body=True),
    ),
    Attack("login types", "objects in place of text", lambda t: log_in(t, {"$ne": 1}, ["x"])),
    Attack("login SQL", "SQL in the email", lambda t: log_in(t, "' OR '1'='1' --", "x")),
    Attack(
        "login log",
        "line breaks and a forged log line in the email",
        lambda t: log_in(t, 'a@b.c\r\n{"event": "approved"}', "x"),
    ),
    Attack(
        "long password", "4 kB of password", lambda t: log_in(t, "rita@rival.example", "a" * 4000)
    ),
    Attack("brute force", "eight guesses in a row", guessed_passwords),
    *(
        Attack(f"odd {what}", what, lambda t, r=request, b=body: head_only(t, r, b))
        for what, (request, body) in ODD_REQUESTS.items()
    ),
    *(
        Attack(
            f"login {what}",
            f"{what} as a login",
            lambda t, b=body: post(t, b, "/login", json_body=True),
        )
        for what, body in ODD_LOGINS.items()
    ),
    *(
        Attack(
            f"key by {name}",
            f"a login's answer, with its key, over a line with {name}",
            lambda t, n=name, v=value: through_undeclared_proxy(t, **{n: v}),
        )
        for name, value in (
            ("X-Forwarded-For", "203.0.113.9"),
            ("X-Forwarded-Proto", "https"),
            ("Forwarded", "for=203.0.113.9;proto=https"),
            ("Via", "1.1 proxy"),
        )
    ),
    Attack("heads junk", "brackets as a partner's request", lambda t: heads_of(t, b"[" * 1000)),
    Attack(
        "heads by the stranger's key",
        "a partner's request signed by a stranger",
        lambda t: heads_of(t, ask_for_heads(STRANGER_NODE, t.node.node_key)),
    ),
    Attack("heads at any time", "a partner's request at 10**400 s", heads_of_all_times),
    Attack("heads oversize", "1 MiB as a partner's request", lambda t: heads_of(t, bytes(2**20))),
    Attack("which accounts", "another answer for unknown emails", unknown_or_wrong),
]


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_anyone_on_the_wire_is_refused(
    attack: Attack, target: Target, record_property: Callable[[str, str], None]
) -> None:
    got = attack.run(target)
    record_property("tried", attack.tried)
    record_property("got", got)
    print(f"wire | {attack.tried} | {got}")
    assert got.startswith("refused"), got
