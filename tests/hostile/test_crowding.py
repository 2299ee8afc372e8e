"""Attackers in the way of honest members: at the same time, in the same room, under the same ids.

And signatures that a laxer check would take, and answers that would send a caller elsewhere.
"""

import math
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from uuid import UUID

import pytest
import requests
from syft.server.credentials import SyftSigningKey
from syft.types.uid import UID

from network.envelope import open_envelope
from network.streams import read_head, write_call
from tests.hostile.attacks import (
    LAST,
    Attack,
    Target,
    crafted,
    get,
    line_to,
    message,
    packed,
    post,
    raw,
    signed,
)  # fmt: skip
from tests.hostile.odd_requests import log_in
from tests.hostile.test_streams import post as post_stream

pytestmark = pytest.mark.nodes

ORDER = 2**252 + 27742317777372353535851937790883648493
"""Of Ed25519's group (RFC 8032, section 5.1); adding it to S gives the same point."""
IDENTITY = (1).to_bytes(32, "little")
UPLOAD = 16 * 2**20


def malleable(signature: bytes) -> bytes:
    scalar = int.from_bytes(signature[32:], "little") + ORDER
    return signature[:32] + scalar.to_bytes(32, "little")


def another_signature_of_a_call(target: Target) -> str:
    """A taken call again, under a second signature of the same message."""
    blob = packed(message(target))
    assert post(target, signed(blob, target.key)).startswith("answered")
    first = bytes(target.key.signing_key.sign(blob).signature)
    return post(target, signed(blob, target.key, signature=packed(malleable(first))))


def another_signature_of_a_stream(target: Target) -> str:
    whole = write_call(target.key.signing_key, str(target.node.server_uid), "coterie.plans", {})
    return post_stream(target, whole[:36] + malleable(whole[36:100]) + whole[100:], "plans")


def key_of_no_order(target: Target) -> str:
    """The neutral point as key and as R, 0 as S: a lax check takes that for any message."""
    blob = packed(message(target))
    key = crafted("SyftVerifyKey", {"verify_key": packed(target.key.verify_key.verify_key)})
    stranger = key.replace(bytes(target.key.verify_key.verify_key), IDENTITY)
    assert stranger != key
    signature = packed(IDENTITY + bytes(32))
    return post(target, signed(blob, target.key, credentials=stranger, signature=signature))


def in_another_envelope(target: Target) -> str:
    """A taken call once more, its envelope's fields in another order."""
    blob = packed(message(target))
    first = signed(blob, target.key)
    assert post(target, first).startswith("answered")
    envelope = open_envelope(first)
    fields = {
        "signature": packed(envelope.signature),
        "serialized_message": packed(envelope.message),
        "credentials": packed(target.key.verify_key),
    }
    return post(target, crafted("SignedSyftAPICall", fields))


def burnt_id(target: Target) -> str:
    """A rival uses an id first, so that the victim's call of that id would be one too many."""
    call = message(target)
    rival: SyftSigningKey = target.rival._key
    assert post(target, signed(packed(call), rival)).startswith("answered")
    said = post(target, signed(packed(call), target.key))
    return "refused: each signer has ids of its own" if said.startswith("answered") else "answered"


def burnt_id_by_stream(target: Target) -> str:
    uid = str(target.node.server_uid)
    whole = write_call(target.rival._key.signing_key, uid, "coterie.plans", {})
    assert post_stream(target, whole, "plans").startswith("answered")
    head = read_head(whole)
    assert head is not None
    call = message(target, id=UID(value=UUID(bytes=head.id)))
    said = post(target, signed(packed(call), target.key))
    return "refused: each signer has ids of its own" if said.startswith("answered") else "answered"


def at_once(target: Target) -> str:
    """The same call eight times at the same moment: it is carried out once."""
    blob = signed(packed(message(target)), target.key)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: post(target, blob), range(8)))
    answered = sum(each.startswith("answered") for each in found)
    return "refused: seven of eight" if answered == 1 else f"answered: {answered} of them"


def guesses_at_once(target: Target) -> str:
    """Eight passwords at the same moment: no more are looked at than one after the other.

    These are five, one more after a second, and one more two seconds later.
    """
    began = time.monotonic()
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda n: log_in(target, "crowd@at.example", f"Guess{n}"), range(8)))
    looked_at = sum("429" not in each for each in found)
    most = 5 + int(math.log2(time.monotonic() - began + 1))
    return f"refused: {looked_at} looked at" if looked_at <= most else f"answered: {looked_at}"


def slow_uploads(target: Target) -> str:
    """Bodies of 16 MiB that never end, as many as one address has room for and one more."""
    head = b"POST /api/v2/api_call HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % UPLOAD
    most = bytes(UPLOAD - 1)
    with ExitStack() as open_lines:
        for _ in range(17):
            line = open_lines.enter_context(line_to(target))
            try:
                line.sendall(head + most)
            except OSError:
                break  # the one too many is turned away
        honest = "node_key" in target.node.call("describe")
        streamed = write_call(
            target.key.signing_key, str(target.node.server_uid), "coterie.plans", {}
        )
        honest &= post_stream(target, streamed, "plans").startswith("answered")
    return "refused: small calls and streams go on" if honest else "answered: nobody else is"


def long_reader(target: Target) -> str:
    """Somebody reads the node's databases without end, as a back-up program might."""
    folder = target.network.home.domain("east")
    with ExitStack() as open_files:
        for file in (folder.ledger_file, folder.syft / "calls.db", folder.syft / "syft.db"):
            line = open_files.enter_context(closing(sqlite3.connect(file)))
            line.execute("BEGIN")
            line.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()
        said = post(target, signed(packed(message(target)), target.key))
    return "refused: it waits for no reader" if said.startswith("answered") else "answered"


def sent_elsewhere(path: str) -> Callable[[Target], str]:
    """A path with a slash too many, under another host's name: the answer names no host."""

    def run(target: Target) -> str:
        request = f"GET {path} HTTP/1.1\r\nHost: evil.example\r\n\r\n".encode()
        found = raw(target, request, LAST).lower()
        return "answered: " + str(found[:200]) if b"evil.example" in found else "refused: no host"

    return run


def packed_answer(target: Target) -> str:
    """An answer whose length would tell what is in it (BREACH), if it were compressed."""
    told = {"Accept-Encoding": "gzip, deflate, br, zstd"}
    answer = requests.get(f"{target.url}/metadata", headers=told, timeout=120)
    kind = answer.headers.get("Content-Encoding")
    return "refused: sent as it is" if kind is None else f"answered: {kind}"


ATTACKS = [
    Attack("call's S", "a taken call under S plus the order", another_signature_of_a_call),
    Attack("stream's S", "a stream under S plus the order", another_signature_of_a_stream),
    Attack("neutral key", "the neutral point as key and signature", key_of_no_order),
    Attack("envelope", "a taken call in another envelope", in_another_envelope),
    Attack("burnt id", "a rival's call under the victim's id first", burnt_id),
    Attack("burnt by stream", "a rival's stream under the victim's id first", burnt_id_by_stream),
    Attack("at once", "the same call eight times at once", at_once),
    Attack("guesses at once", "eight passwords at once", guesses_at_once),
    Attack("slow uploads", "17 bodies of 16 MiB that never end", slow_uploads),
    Attack("long reader", "a reader of the node's databases without end", long_reader),
    *(
        Attack(f"sent by {path}", "a redirect to another host", sent_elsewhere(path))
        for path in ("/healthz/", "/api/v2", "/api/v2/metadata/", "//evil.example/healthz/")
    ),
    Attack("packed", "an answer that is compressed", packed_answer),
    Attack(
        "method by header",
        "POST said in a header of a GET",
        lambda t: get(t, "/login", headers={"X-HTTP-Method-Override": "POST"}),
    ),
]


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_nobody_stands_in_the_way_of_honest_members(
    attack: Attack, target: Target, record_property: Callable[[str, str], None]
) -> None:
    got = attack.run(target)
    record_property("tried", attack.tried)
    record_property("got", got)
    print(f"crowd | {attack.tried} | {got}")
    assert got.startswith("refused"), got
