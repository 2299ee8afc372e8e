"""Signed octet streams: who calls is known before an octet is taken; what was signed is read."""

import json
import socket
import struct
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
import requests
from hypothesis import given, settings
from hypothesis import strategies as st
from nacl.signing import SigningKey
from syft.server.credentials import SyftSigningKey

from network import streams
from network.calls import Calls
from network.capnproto import BytesRefused
from network.client import NodeRefused
from network.smpc.messages import OctetParts
from network.streams import (
    PART_BYTES,
    STREAMS,
    Refused,
    answer_parts,
    read_answer,
    read_head,
    sendable,
    write_answer,
    write_call,
    write_refusal,
)
from tests.network_of_three import Network, counting_plan

KEY = SigningKey.generate()
OCTETS = np.arange(1000, dtype=np.uint8)


def call(**arguments: Any) -> bytes:
    return write_call(KEY, "ab" * 16, "coterie.share", {"plan": "p", "release": 3, **arguments})


def test_a_call_is_read_as_it_was_written() -> None:
    message = call(state=OCTETS)
    head = read_head(message)
    assert head is not None
    assert (head.key, head.path, head.server) == (bytes(KEY.verify_key), "coterie.share", "ab" * 16)
    assert head.arguments == {"plan": "p", "release": 3}
    np.testing.assert_array_equal(head.carried_in(message)["state"], OCTETS)
    bare = call()
    head = read_head(bare)
    assert head is not None
    assert head.carried_in(bare) == {}


def test_nothing_is_known_of_a_call_before_its_head_is_whole() -> None:
    message = call(state=OCTETS)
    whole = read_head(message)
    assert whole is not None
    assert all(read_head(message[:size]) is None for size in range(4, whole.begin, 7))
    assert read_head(message[: whole.begin]) == whole


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 255))
def test_a_changed_byte_is_refused(position: int, flip: int) -> None:
    message = bytearray(call(state=OCTETS))
    message[position % len(message)] ^= flip
    try:
        head = read_head(bytes(message))
    except BytesRefused:
        return
    # With a head that seems longer, a node waits for the rest and closes when none comes.
    if head is not None:
        with pytest.raises(BytesRefused):
            head.carried_in(bytes(message))


@pytest.mark.parametrize("spoil", [lambda m: m[:-1], lambda m: m + b"0"], ids=["short", "long"])
def test_other_octets_than_those_signed_are_refused(spoil: Any) -> None:
    message = spoil(call(state=OCTETS))
    head = read_head(message)
    assert head is not None
    with pytest.raises(BytesRefused, match="signed"):
        head.carried_in(message)


@pytest.mark.parametrize(
    "change",
    [{"octets": PART_BYTES + 1}, {"octets": -1}, {"octets": True}, {"more": 1}, {"id": "zz"},
     {"arguments": {"x": [1]}}, {"arguments": {"state": "x"}}, {"carried_as": ""}, {"issued": "1"}],
    ids=str,
)  # fmt: skip
def test_a_malformed_head_is_refused_though_signed(change: dict) -> None:
    message = call(state=OCTETS)
    whole = read_head(message)
    assert whole is not None
    said = json.loads(message[streams._PREFIX.size : whole.begin])
    head = json.dumps({**said, **change}).encode()
    signature = KEY.sign(streams._TAG + head).signature
    prefix = streams._PREFIX.pack(b"CTS\x01", bytes(KEY.verify_key), signature, len(head))
    with pytest.raises(BytesRefused, match="head"):
        read_head(prefix + head)


def test_a_head_of_any_length_is_refused_before_it_comes() -> None:
    prefix = streams._PREFIX.pack(b"CTS\x01", bytes(32), bytes(64), streams.MAX_HEAD_BYTES + 1)
    with pytest.raises(BytesRefused, match="at most"):
        read_head(prefix)


def test_an_answer_is_text_octets_or_a_no() -> None:
    assert read_answer(write_answer("yes")) == "yes"
    np.testing.assert_array_equal(read_answer(write_answer(OCTETS)), OCTETS)
    scattered = OctetParts((OCTETS[:3], OCTETS[:0], OCTETS[3:]))
    assert write_answer(scattered) == write_answer(OCTETS) == write_answer(scattered.whole())
    with pytest.raises(Refused, match="because"):
        read_answer(write_refusal("because"))
    for junk in (b"", b"X", b"T\xff"):
        with pytest.raises(BytesRefused):
            read_answer(junk)


@pytest.mark.parametrize("size", [0, 1, 2**20 - 1, 2**20, 2**21 + 5])
def test_a_long_answer_goes_in_pieces_that_are_no_copies(size: int) -> None:
    octets = np.arange(size, dtype=np.uint8)
    pieces = sendable(answer_parts(OctetParts((octets[:7], octets[7:]))))
    assert b"".join(pieces) == write_answer(octets)
    assert max(map(len, pieces)) <= 2**20
    assert len(pieces) == 1 or all(np.shares_memory(octets, piece) for piece in pieces[1:])


def test_only_parts_whose_digest_is_known_are_named_one_by_one() -> None:
    assert answer_parts(OctetParts((OCTETS,))).known() == []
    scattered = OctetParts((OCTETS[:3], OCTETS[:0], OCTETS[3:]), {2: b"digest"})
    assert answer_parts(scattered).known() == [(1, None), (3, None), (len(OCTETS) - 3, b"digest")]


def test_syft_s_own_api_answers_the_same_octets() -> None:
    gate: Any = SimpleNamespace(_node_key=SyftSigningKey.generate())
    scattered = OctetParts((OCTETS[:3], OCTETS[3:]))
    np.testing.assert_array_equal(Calls._signed(gate, scattered).message.data, OCTETS)


@pytest.mark.nodes
def test_a_node_takes_a_stream_once_and_only_from_its_members(network: Network) -> None:
    node = network.federation.nodes["east"]
    key, server = node._key.signing_key, str(node.server_uid)
    plan_hash = network.submit_and_approve(
        counting_plan(network.federation.data("interactions"), "streamed", 0.5)
    )
    assert json.loads(node.stream("progress", plan_hash=plan_hash))["status"] == "approved"

    def post(message: bytes, method: str = "progress") -> requests.Response:
        return requests.post(f"{node.url}{STREAMS}/{method}", data=message, timeout=120)

    message = write_call(key, server, "coterie.progress", {"plan_hash": plan_hash})
    assert post(message).content[:1] == b"T"
    assert b"answered before" in post(message).content
    stranger = write_call(KEY, server, "coterie.progress", {"plan_hash": plan_hash})
    assert post(stranger).status_code == 401
    assert post(b"junk").status_code == 400
    assert post(message[:50]).status_code == 400
    assert post(write_call(key, server, "coterie.plans", {})).status_code == 400
    elsewhere = write_call(key, "ab" * 16, "coterie.progress", {"plan_hash": plan_hash})
    assert b"another server" in post(elsewhere).content
    with pytest.raises(NodeRefused, match="recommend"):
        node.stream("recommend", user="east-3", count=1)


@pytest.mark.nodes
def test_no_octet_is_taken_for_a_call_that_isnt_allowed(network: Network) -> None:
    """A head alone is enough for a no: the octets it announces never have to come."""
    node = network.federation.nodes["east"]
    arguments = {"user": "east-3", "count": OCTETS}
    message = write_call(
        node._key.signing_key, str(node.server_uid), "coterie.recommend", arguments
    )
    begun = message[: -OCTETS.size + 1]
    answer = requests.post(f"{node.url}{STREAMS}/recommend", data=begun, timeout=120)
    assert answer.status_code == 403


@pytest.mark.nodes
def test_nothing_is_taken_beyond_what_a_head_announced(network: Network) -> None:
    """More than 16 MiB isn't announced; and whoever announces less may not send more."""
    node = network.federation.nodes["east"]
    message = write_call(
        node._key.signing_key, str(node.server_uid), "coterie.progress", {"plan_hash": "0" * 64}
    )
    answer = requests.post(f"{node.url}{STREAMS}/progress", data=message + b"x", timeout=120)
    assert (answer.status_code, answer.text) == (
        400, "The octets aren't those that were signed."
    )  # fmt: skip
    head = f"POST {STREAMS}/progress HTTP/1.1\r\nHost: a\r\nContent-Length: "
    address = urlsplit(node.url)
    with socket.create_connection((str(address.hostname), address.port or 80), 30) as line:
        line.sendall(f"{head}{streams.MAX_STREAM_BYTES + 1}\r\n\r\n".encode())
        assert line.recv(100).startswith(b"HTTP/1.1 413")


@pytest.mark.nodes
def test_a_state_comes_in_parts_and_is_held(network: Network) -> None:
    from blake3 import blake3

    node = network.federation.nodes["north"]
    plan = counting_plan(network.federation.data("interactions"), "in parts", 0.5)
    plan_hash = network.submit_and_approve(plan)
    approvals = {
        name: json.loads(each.call("plan", plan_hash=plan_hash))["signature"]
        for name, each in network.federation.nodes.items()
    }
    node.call("open", plan_hash=plan_hash, approvals=json.dumps(approvals))
    state = np.frombuffer(struct.pack("<500I", *range(500)), dtype=np.uint8)
    known = {"plan_hash": plan_hash, "state_digest": blake3(state.data).hexdigest(), "size": 2000}
    assert json.loads(node.stream("hold", **known, begin=0, part=state[:1200])) == {"held": 1200}
    with pytest.raises(NodeRefused, match="in order"):
        node.stream("hold", **known, begin=1300, part=state[1300:])
    with pytest.raises(NodeRefused, match="beyond"):
        node.stream("hold", **known, begin=1200, part=state)
    assert json.loads(node.stream("hold", **known, begin=1200, part=state[1200:])) == {"held": 2000}
    attempt = {"plan_hash": plan_hash, "step": "count", "release": 0, "attempt": 0}
    assert json.loads(node.stream("advertise", **attempt))["state"] == known["state_digest"]
    node.stream("hold", **known, begin=0, part=state[:1])
    with pytest.raises(NodeRefused, match="digest"):
        node.stream("hold", **known, begin=1, part=np.zeros(1999, dtype=np.uint8))
    with pytest.raises(NodeRefused, match="at most"):
        node.stream("hold", **{**known, "size": 2**40}, begin=0, part=state)
