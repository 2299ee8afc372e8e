"""Messages in named parts: a digest that is known isn't computed again, and none is believed."""

import asyncio
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st
from nacl.signing import SigningKey

from network.answers import ASKED, NONCE, SEAL, Seal, _sealed_text
from network.capnproto import BytesRefused
from network.parts import Content, Parts, PartsRefused, named, read_names
from network.smpc.messages import Digested
from network.streams import call_parts, read_head, write_call

KEY = SigningKey.generate()
NODE = SigningKey.generate()
STATE = np.arange(1000, dtype=np.uint8)


def in_pieces(content: bytes, cuts: list[int]) -> list[bytes]:
    ends = sorted(cut % (len(content) + 1) for cut in cuts)
    edges = zip([0, *ends], [*ends, len(content)], strict=True)
    return [content[begin:end] for begin, end in edges]


@given(st.lists(st.binary(min_size=1, max_size=50), min_size=1, max_size=5), st.lists(st.integers(0, 250), max_size=8))  # fmt: skip  # noqa: E501
def test_parts_are_digested_alike_however_they_come(parts: list[bytes], cuts: list[int]) -> None:
    content = Content([(len(part), None) for part in parts])
    for piece in in_pieces(b"".join(parts), cuts):
        content.update(piece)
    digests = [blake3(part).digest() for part in parts]
    assert content.digests == digests
    sizes = ",".join(str(len(part)) for part in parts).encode()
    assert content.signed() == (blake3(b"".join(digests)).digest(), sizes)
    begin = 0
    for part, digest in zip(parts, digests, strict=True):
        assert content.digest_of(begin, len(part)) == digest
        assert content.digest_of(begin, len(part) + 1) is None
        begin += len(part)


def test_content_without_named_parts_is_one() -> None:
    content = Content()
    content.update(b"all")
    content.update(b" of it")
    assert content.signed() == (blake3(b"all of it").digest(),)
    assert content.digest_of(0, 9) is None


def test_what_is_longer_or_shorter_than_its_parts_is_refused() -> None:
    content = Content([(3, None), (2, None)])
    content.update(b"abcd")
    with pytest.raises(PartsRefused, match="shorter"):
        content.signed()
    with pytest.raises(PartsRefused, match="longer"):
        content.update(b"ef")


@pytest.mark.parametrize("sizes", ["0", "1,", "-1", "1,0", "1;2", "x", "9" * 11, "1" + ",1" * 8])
def test_parts_that_none_has_are_refused(sizes: str) -> None:
    with pytest.raises(PartsRefused):
        read_names(sizes)


def test_named_parts_are_read_again() -> None:
    parts = [(1, None), (2**24, None)]
    assert read_names(named(parts)) == parts
    assert read_names("") == []


def test_what_is_made_of_digested_octets_has_no_digest() -> None:
    octets = Digested.of(STATE.tobytes())
    assert octets.digest == blake3(STATE).digest()
    assert octets[:5].digest is None
    assert (octets + 1).digest is None  # type: ignore[attr-defined]


def test_a_call_names_its_octets_only_where_their_digest_is_known() -> None:
    def call(state: Any) -> Parts:
        return call_parts(KEY, "ab" * 16, "coterie.share", {"state": state})

    assert call(STATE).known() == []
    digested = call(Digested.of(STATE.tobytes()))
    (_, nothing), (size, digest) = digested.known()
    assert (nothing, size, digest) == (None, STATE.size, blake3(STATE).digest())
    message = b"".join(digested)
    head = read_head(message)
    assert head is not None
    assert (head.octets, head.digest) == (size, digest)
    np.testing.assert_array_equal(head.carried_in(message)["state"], STATE)


def test_a_digest_that_was_taken_before_must_be_the_signed_one() -> None:
    message = write_call(KEY, "ab" * 16, "coterie.share", {"state": STATE})
    head = read_head(message)
    assert head is not None
    assert head.carried_in(message, head.digest)["state"].digest == head.digest
    with pytest.raises(BytesRefused, match="signed"):
        head.carried_in(message, blake3(b"other octets").digest())


def answered(nonce: str, body: bytes, declared: int | None = None, taken: bool = True) -> Any:
    """What a sealed app says to one request, and what it knows of the request's parts.

    Args:
        taken: whether the app takes the body before it answers.
    """
    sent: list[Mapping[str, Any]] = []
    known: dict[str, Any] = {}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if taken:
            await receive()
        known["asked"] = scope.get(ASKED)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"yes"})

    async def receive() -> Mapping[str, Any]:
        return {"type": "http.request", "body": body}

    async def send(message: Mapping[str, Any]) -> None:
        sent.append(message)

    length = str(len(body) if declared is None else declared).encode()
    scope = {
        "type": "http", "method": "POST", "raw_path": b"/x", "query_string": b"",
        "headers": [(NONCE.lower().encode(), nonce.encode()), (b"content-length", length)],
    }  # fmt: skip
    asyncio.run(Seal(app, NODE)(scope, receive, send))
    headers = dict(sent[0]["headers"])
    return headers.get(SEAL.lower().encode()), known["asked"]


def test_an_answer_is_sealed_for_the_parts_that_the_request_named() -> None:
    nonce = f"{'a' * 64};2,3"
    seal, asked = answered(nonce, b"abcde")
    assert asked.digest_of(2, 3) == blake3(b"cde").digest()
    heard = blake3(blake3(b"ab").digest() + blake3(b"cde").digest()).digest()
    text = _sealed_text(nonce, "POST", b"/x", heard, blake3(b"yes").digest())
    NODE.verify_key.verify(text, bytes.fromhex(seal.decode()))


@pytest.mark.parametrize(
    ("nonce", "body", "taken"),
    [
        ("a" * 64 + ";2,4", b"abcde", True),
        ("a" * 64 + ";2,2", b"abcde", True),
        ("a" * 64 + ";0,5", b"abcde", True),
        ("a" * 64 + ";2;3", b"abcde", True),
        ("a" * 63 + ";2,3", b"abcde", True),
        ("a" * 64 + ";2,3", b"abcde", False),
    ],
)
def test_no_answer_is_sealed_for_parts_that_did_not_come(
    nonce: str, body: bytes, taken: bool
) -> None:
    assert answered(nonce, body, taken=taken)[0] is None
