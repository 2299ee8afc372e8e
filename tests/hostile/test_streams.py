"""Signed octet streams turned against the node: by strangers, and by members beyond their role."""

import json
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import numpy as np
import pytest
import requests
from nacl.signing import SigningKey
from syft.types.uid import UID

from network import streams
from network.capnproto import BytesRefused
from network.client import NodeClient
from network.streams import STREAMS, Refused, read_answer, read_head, write_call
from tests.hostile.attacks import Attack, Target, packed, processor_seconds, signed
from tests.hostile.attacks import message as syft_message
from tests.hostile.attacks import post as post_call
from tests.hostile.members import plan_of

pytestmark = pytest.mark.nodes

STRANGER = SigningKey.generate()
OCTETS = np.zeros(1000, np.uint8)


def post(target: Target, message: bytes, method: str = "progress") -> str:
    answer = requests.post(f"{target.node.url}{STREAMS}/{method}", data=message, timeout=120)
    return verdict(answer.status_code, answer.content)


def verdict(status: int, content: bytes) -> str:
    if status >= 500:
        return f"failed ({status})"
    if status != 200:
        return f"refused ({status}): {content[:200].decode('utf-8', 'replace')}"
    try:
        return f"answered: {str(read_answer(content))[:200]}"
    except Refused as error:
        return f"refused: {error}"


def call(client: NodeClient, method: str = "progress", **arguments: Any) -> bytes:
    return write_call(
        client._key.signing_key, str(client.server_uid), f"coterie.{method}", arguments
    )


def streamed(method: str, **arguments: Any) -> Callable[[Target], str]:
    return lambda t: post(t, call(t.node, method, **arguments), method)


def resaid(target: Target, method: str = "progress", **said: Any) -> str:
    """A stream by a member whose signed head says something else."""
    whole = call(target.node, method, plan_hash=plan_of(target))
    head = read_head(whole)
    assert head is not None
    written = {**json.loads(whole[streams._PREFIX.size : head.begin]), **said}
    return post(target, with_head(target.node, json.dumps(written).encode()), method)


def with_head(client: NodeClient, head: bytes) -> bytes:
    key = client._key.signing_key
    signature = key.sign(streams._TAG + head).signature
    return streams._PREFIX.pack(b"CTS\x01", bytes(key.verify_key), signature, len(head)) + head


def replayed(target: Target) -> str:
    message = call(target.node, plan_hash=plan_of(target))
    assert post(target, message).startswith("answered")
    return post(target, message)


def replayed_as_a_call(target: Target) -> str:
    """The id of a stream that was answered, in a call of Syft's."""
    message = call(target.node, plan_hash=plan_of(target))
    assert post(target, message).startswith("answered")
    head = read_head(message)
    assert head is not None
    again = syft_message(target, id=UID(value=UUID(bytes=head.id)))
    return post_call(target, signed(packed(again), target.key))


def other_octets(target: Target) -> str:
    message = call(target.node, "hold", plan_hash=plan_of(target), state_digest="0" * 64,
                   size=1000, begin=0, part=OCTETS)  # fmt: skip
    return post(target, message[:-1] + b"x", "hold")


def one_byte_at_a_time(target: Target) -> str:
    """A head of the greatest length in 3,000 small chunks; the node stays quick meanwhile."""
    parts = urlsplit(target.node.url)
    prefix = streams._PREFIX.pack(b"CTS\x01", bytes(32), bytes(64), streams.MAX_HEAD_BYTES)
    used = processor_seconds(target)
    with socket.create_connection((str(parts.hostname), parts.port or 80), timeout=120) as line:
        line.sendall(
            f"POST {STREAMS}/progress HTTP/1.1\r\nHost: a\r\n"
            "Transfer-Encoding: chunked\r\n\r\n".encode()
        )
        with suppress(OSError):
            line.sendall(b"%x\r\n%b\r\n" % (len(prefix), prefix) + b"1\r\nx\r\n" * 3000)
        assert json.loads(target.node.call("describe"))
        line.sendall(b"0\r\n\r\n")
        found = line.recv(4096)
    assert processor_seconds(target) - used < 30, "no chunk is looked at again and again"
    return "answered" if b" 200 " in found[:20] else f"refused: {found[:30]!r}"


HEADS = {
    "20,000 brackets": b"[" * 20000,
    "no text": b"\xff" * 64,
    "a number that isn't one": b'{"id": 1e400}',
    "a list": b"[]",
    "nothing": b"",
}
ATTACKS = [
    Attack("empty", "an empty stream", lambda t: post(t, b"")),
    Attack("junk", "another beginning", lambda t: post(t, bytes(range(256)))),
    Attack("truncated", "half a head", lambda t: post(t, call(t.node)[:150])),
    Attack(
        "stranger",
        "a stream of a key without account",
        lambda t: post(t, write_call(STRANGER, str(t.node.server_uid), "coterie.progress", {})),
    ),
    Attack(
        "another server",
        "a stream for another server",
        lambda t: post(t, write_call(t.key.signing_key, "ab" * 16, "coterie.progress", {})),
    ),
    Attack(
        "zero signature",
        "a signature of zeros",
        lambda t: post(t, (m := call(t.node))[:36] + bytes(64) + m[100:]),
    ),
    Attack(
        "another key",
        "another member's key before her own signature",
        lambda t: post(
            t, (m := call(t.node))[:4] + bytes(t.rival._key.signing_key.verify_key) + m[36:]
        ),
    ),
    Attack(
        "another method",
        "a stream sent to another method's address",
        lambda t: post(t, call(t.node, "plans"), "progress"),
    ),
    Attack("replayed", "a stream twice", replayed),
    Attack("replayed as a call", "a stream's id in a Syft call", replayed_as_a_call),
    Attack("expired", "a stream signed an hour ago", lambda t: resaid(t, issued=0)),
    Attack("ahead", "a stream signed in the year 2100", lambda t: resaid(t, issued=4102444800)),
    Attack("huge time", "a time of 4,000 digits", lambda t: resaid(t, issued=10**4000)),
    Attack("other octets", "other octets than those signed", other_octets),
    Attack("one byte at a time", "a head in 3,000 chunks of one byte", one_byte_at_a_time),
    Attack("owner's method", "a method of the owner's", streamed("recommend", user="x", count=1)),
    Attack("not a method", "an attribute as a method", streamed("__class__")),
    Attack("not served", "a method that is no path", streamed("approve", plan_hash="x")),
    Attack(
        "Syft's path",
        "a path of Syft's through the stream",
        lambda t: resaid(t, path="user.get_all"),
    ),
    Attack("own context", "a context of her own", streamed("progress", context="root")),
    Attack("own self", "a self of her own", streamed("progress", self="root")),
    Attack(
        "own context as octets",
        "octets as the context",
        lambda t: post(t, call(t.node, "progress", plan_hash="x", context=OCTETS), "progress"),
    ),
    Attack(
        "protocol",
        "a Syft protocol of her own",
        streamed("progress", plan_hash="x", communication_protocol="../x"),
    ),
    Attack("no arguments", "a method without its arguments", streamed("share")),
    Attack("other arguments", "arguments that a method lacks", streamed("progress", no_such="x")),
    Attack(
        "integers for text",
        "an integer as the plan's hash",
        lambda t: resaid(t, arguments={"plan_hash": 10**4000}),
    ),
    Attack(
        "text for integers",
        "text as the numbers of a round",
        lambda t: post(
            t,
            call(t.node, "advertise", plan_hash=plan_of(t), step="count", release="x", attempt="y"),
            "advertise",
        ),
    ),
    Attack(
        "rival's plan",
        "progress of another scientist's plan",
        lambda t: post(t, call(t.rival, plan_hash=plan_of(t))),
    ),
    Attack(
        "auditor",
        "a scientist's stream by an auditor",
        lambda t: post(t, call(t.auditor, plan_hash=plan_of(t))),
    ),
    *(
        Attack(f"head {what}", f"{what} as head", lambda t, h=head: post(t, with_head(t.node, h)))
        for what, head in HEADS.items()
    ),
    Attack("more octets", "a head that announces 2**60 octets", lambda t: resaid(t, octets=2**60)),
    Attack("fewer octets", "a negative number of octets", lambda t: resaid(t, octets=-1)),
    Attack("id", "an id that is a path", lambda t: resaid(t, id="../../etc/passwd")),
    Attack(
        "log",
        "line breaks in the server's name",
        lambda t: resaid(t, server='x\n{"event": "approved"}'),
    ),
    Attack(
        "address",
        "a path in the method's address",
        lambda t: post(t, call(t.node), "../api/v2/login"),
    ),
    Attack(
        "oversize",
        "17 MiB after the head",
        lambda t: post(t, call(t.node, plan_hash="x") + bytes(17 * 2**20)),
    ),
]  # fmt: skip


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_streams_give_nothing_beyond_a_role(
    attack: Attack, target: Target, record_property: Callable[[str, str], None]
) -> None:
    got = attack.run(target)
    record_property("tried", attack.tried)
    record_property("got", got)
    print(f"stream | {attack.tried} | {got}")
    assert got.startswith("refused"), got


def test_an_honest_stream_still_works(target: Target) -> None:
    answer = target.node.stream("progress", plan_hash=plan_of(target))
    assert json.loads(answer)["status"] == "pending"
    with pytest.raises(BytesRefused):
        read_head(b"CTS\x02" + bytes(200))
