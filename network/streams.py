"""Signed octet streams: calls that carry bulk numbers, on the node's port beside the Syft API.

Syft packs an array three times over and signs it with a hash of its own; a million ring elements
cost more to pack than to mask. Here a call names the same service method as through Syft, with the
same rights, and carries its numbers as they are:

    magic (4) | key (32) | signature (64) | length of the head (u32, little-endian) | head | octets

The head is JSON: server, path, arguments (text and integers), id, time of signing, and the number
and BLAKE3 digest of the octets. The signature (Ed25519, RFC 8032) covers a tag and the head, so a
node knows who calls, and that she may, before it takes the first octet; and it looks at no octet
before all of them have the digest that was signed. An answer is one byte for its kind, then text or
octets; the whole of it is sealed (`network.answers`).
"""

import json
import re
import secrets
import struct
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from blake3 import blake3
from nacl.exceptions import BadSignatureError
from nacl.signing import SigningKey, VerifyKey
from numpy.typing import NDArray

from network.capnproto import BytesRefused
from network.parts import Parts
from network.smpc.messages import PART_BYTES, Digested, OctetParts

STREAMS = "/coterie/v1"
"""Under this path, followed by the method's name."""

MAX_HEAD_BYTES = 2**21
"""What 64 domains' ledgers show one of them (`network.heads`), with its shares beside."""

_MAGIC = b"CTS\x01"
_TAG = b"coterie-stream-v1\x00"
_PREFIX = struct.Struct("<4s32s64sI")
MAX_STREAM_BYTES = _PREFIX.size + MAX_HEAD_BYTES + PART_BYTES
MAX_OCTETS_BYTES = 1 + PART_BYTES
"""The longest answer to a step of a sum."""
_FIELDS = {"server", "path", "arguments", "id", "issued", "octets", "digest", "carried_as"}
_TEXT, _OCTETS, _REFUSAL = b"T", b"O", b"R"
_PIECE_BYTES = 2**20


class Refused(Exception):
    """The node's answer is no; the text is its own reason."""


@dataclass(frozen=True)
class StreamCall:
    """A call whose signature holds.

    Attributes:
        key: who signed it, 32 bytes.
        server: the uid of the node it is meant for, as text.
        arguments: text and integers by name.
        id: 16 random bytes. issued: seconds since 1970.
        octets: how many follow, and
        digest: their BLAKE3.
        carried_as: the argument that they are; empty if there are none.
        begin: where they begin in the message.
    """

    key: bytes
    server: str
    path: str
    arguments: Mapping[str, str | int]
    id: bytes
    issued: int
    octets: int
    digest: bytes
    carried_as: str
    begin: int

    def carried_in(
        self, message: bytes | bytearray, digest: bytes | None = None
    ) -> dict[str, Digested]:
        """The octets of the whole message by their argument's name: uint8 [n], not a copy.

        Args:
            digest: their BLAKE3, if it was computed before.

        Raises:
            BytesRefused: they aren't those that were signed.
        """
        octets = Digested.of(memoryview(message)[self.begin :], digest)
        if octets.size != self.octets or octets.digest != self.digest:
            raise BytesRefused("The octets aren't those that were signed.")
        return {self.carried_as: octets} if self.carried_as else {}


def write_call(
    key: SigningKey,
    server: str,
    path: str,
    arguments: Mapping[str, str | int | NDArray[np.uint8]],
) -> bytes:
    """A signed call; see `call_parts`."""
    return b"".join(call_parts(key, server, path, arguments))


def call_parts(
    key: SigningKey,
    server: str,
    path: str,
    arguments: Mapping[str, str | int | NDArray[np.uint8]],
) -> Parts:
    """A signed call, of which octets are no copy.

    Args:
        arguments: text and integers, and one array at most: uint8 [n], n at most `PART_BYTES`.

    Raises:
        ValueError: another kind or number of arguments.
    """
    told = {name: value for name, value in arguments.items() if isinstance(value, str | int)}
    arrays = {name: value for name, value in arguments.items() if isinstance(value, np.ndarray)}
    if len(told) + len(arrays) != len(arguments) or len(arrays) > 1:
        raise ValueError("a stream carries text, integers and one array of octets")
    carried_as, octets = next(iter(arrays.items()), ("", np.empty(0, dtype=np.uint8)))
    carried = np.ascontiguousarray(octets).data
    digest = octets.digest if isinstance(octets, Digested) else None
    said = {
        "server": server,
        "path": path,
        "arguments": told,
        "carried_as": carried_as,
        "id": secrets.token_hex(16),
        "issued": int(time.time()),
        "octets": len(carried),
        "digest": (digest or blake3(carried).digest()).hex(),
    }
    head = json.dumps(said).encode()
    signature = key.sign(_TAG + head).signature
    prefix = _PREFIX.pack(_MAGIC, bytes(key.verify_key), signature, len(head))
    return Parts((prefix + head, carried), {} if digest is None else {1: digest})


def read_head(begun: bytes | bytearray) -> StreamCall | None:
    """The call that a message begins with, or None while its head isn't complete.

    Raises:
        BytesRefused: another beginning, a head that is too long or malformed, or a signature that
            doesn't hold.
    """
    if not _MAGIC.startswith(begun[:4]):
        raise BytesRefused("Expected a Coterie stream.")
    if len(begun) < _PREFIX.size:
        return None
    _, key, signature, length = _PREFIX.unpack_from(begun)
    if length > MAX_HEAD_BYTES:
        raise BytesRefused(f"A stream's head has at most {MAX_HEAD_BYTES} bytes.")
    begin = _PREFIX.size + length
    if len(begun) < begin:
        return None
    head = bytes(begun[_PREFIX.size : begin])
    try:
        VerifyKey(key).verify(_TAG + head, signature)
    except (BadSignatureError, ValueError, TypeError):
        raise BytesRefused("The signature does not hold for this head and key.") from None
    return _call_of(head, key, begin)


def _call_of(head: bytes, key: bytes, begin: int) -> StreamCall:
    try:
        said = json.loads(head)
        if b"\\u" in head:  # it can spell halves of characters, which no answer could repeat
            json.dumps(said, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        raise BytesRefused("The stream's head isn't JSON.") from None
    if not isinstance(said, dict) or set(said) != _FIELDS:
        raise BytesRefused("A stream's head has exactly the fields " + ", ".join(sorted(_FIELDS)))
    arguments = said["arguments"]
    well_formed = (
        all(isinstance(said[name], str) for name in ("server", "path", "carried_as"))
        and isinstance(arguments, dict)
        and all(type(value) in (str, int) for value in arguments.values())
        and _is_hex(said["id"], 16)
        and _is_hex(said["digest"], 32)
        and type(said["issued"]) is int
        and type(said["octets"]) is int
        and said["carried_as"] not in arguments
        and bool(said["carried_as"]) >= bool(said["octets"])
        and 0 <= said["octets"] <= PART_BYTES
    )
    if not well_formed:
        raise BytesRefused(
            f"A stream's head is malformed: text and integers, at most {PART_BYTES} octets."
        )
    return StreamCall(
        key=key,
        server=said["server"],
        path=said["path"],
        arguments=arguments,
        id=bytes.fromhex(said["id"]),
        issued=said["issued"],
        octets=said["octets"],
        digest=bytes.fromhex(said["digest"]),
        carried_as=said["carried_as"],
        begin=begin,
    )


def write_answer(value: object) -> bytes:
    """What a service method answered, text or octets: uint8 [n], or `OctetParts`.

    Raises:
        TypeError: it is neither.
    """
    return b"".join(answer_parts(value).pieces)


def answer_parts(value: object) -> Parts:
    """`write_answer` in parts, of which octets are no copy.

    Raises:
        TypeError: see `write_answer`.
    """
    if isinstance(value, str):
        return Parts((_TEXT, value.encode()))
    if isinstance(value, np.ndarray) and value.dtype == np.uint8 and value.ndim == 1:
        value = OctetParts((value,))
    if not isinstance(value, OctetParts):
        raise TypeError("a stream answers text or octets")
    pieces: list[bytes | memoryview] = [_OCTETS]
    pieces += [np.ascontiguousarray(part).data for part in value.parts]
    return Parts(tuple(pieces), {1 + place: digest for place, digest in value.digests.items()})


def sendable(parts: Parts) -> list[bytes | memoryview]:
    """Parts as they are sent, one after the other: short answers in one piece, long ones in pieces
    of at most 1 MiB, which a server copies at little cost.
    """
    if len(parts) <= _PIECE_BYTES:
        return [b"".join(parts.pieces)]
    return [
        piece[begin : begin + _PIECE_BYTES]
        for piece in parts.pieces
        for begin in range(0, len(piece), _PIECE_BYTES)
    ]


def write_refusal(reason: str) -> bytes:
    """The reason for a no."""
    return b"".join(refusal_parts(reason).pieces)


def refusal_parts(reason: str) -> Parts:
    """`write_refusal` in two parts."""
    return Parts((_REFUSAL, reason.encode()))


def read_answer(content: bytes) -> Any:
    """What `write_answer` wrote: text, or uint8 [n] (not a copy).

    Raises:
        Refused: the node's own no.
        BytesRefused: not such an answer.
    """
    kind = content[:1]
    if kind == _OCTETS:
        return np.frombuffer(content, dtype=np.uint8, offset=1)
    try:
        text = content[1:].decode()
    except UnicodeDecodeError:
        raise BytesRefused("The answer isn't text.") from None
    if kind == _REFUSAL:
        raise Refused(text)
    if kind != _TEXT:
        raise BytesRefused("The answer is of an unknown kind.")
    return text


class Sink(Protocol):
    """What octets are written to."""

    def write(self, part: bytes, /) -> object: ...

    def sealed(self, parts: Sequence[tuple[int, bytes]], /) -> None:
        """The node signed what was written; size and BLAKE3 of its parts, if it named them."""


class ComingOctets:
    """An answer whose octets are written to a file as they come; anything else is held.

    Args:
        file: open for writing.
    """

    def __init__(self, file: Sink) -> None:
        self._file, self._written = file, 0
        self._begun = bytearray()

    def take(self, part: bytes) -> None:
        """The next part of the answer."""
        if not self._begun and part[:1] == _OCTETS:
            self._begun += _OCTETS
            part = part[1:]
        if self._begun[:1] == _OCTETS:
            self._file.write(part)
            self._written += len(part)
        else:
            self._begun += part

    def octets(self) -> int:
        """How many came.

        Raises:
            Refused: the node's own no.
            BytesRefused: something else than octets came.
        """
        if self._begun != _OCTETS:
            read_answer(bytes(self._begun))
            raise BytesRefused("The answer isn't octets.")
        return self._written


def _is_hex(value: object, size: int) -> bool:
    return isinstance(value, str) and re.fullmatch(f"[0-9a-f]{{{2 * size}}}", value) is not None
