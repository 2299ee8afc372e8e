"""Anyone who reaches the port: bytes, HTTP and logins. None is interpreted, none is let in."""

import pickle
from collections.abc import Callable

import pytest

from domains.witness import ask_for_heads
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
    signed,
)  # fmt: skip
from tests.hostile.odd_requests import (
    ODD_LOGINS,
    ODD_REQUESTS,
    STRANGER,
    STRANGER_NODE,
    another_key,
    another_message,
    chunked_oversize,
    framed,
    good,
    guessed_passwords,
    halves_swapped,
    head_only,
    heads_of,
    heads_of_all_times,
    log_in,
    long_head,
    many_times_the_same,
    names_without_end,
    no_origin,
    planted_message,
    pointer_to_itself,
    raw_path,
    smuggled,
    through_undeclared_proxy,
    unknown_or_wrong,
    websocket,
)

pytestmark = pytest.mark.nodes


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
