"""Reading the outer envelope of a signed Syft call by hand, before anything is trusted.

Syft frames its objects with Cap'n Proto, whose C++ reader can crash the process on hostile bytes.
This reader knows one struct (Syft's RecursiveSerde), checks every offset against the bytes that
are there, and never allocates more than it was given.
Source: https://capnproto.org/encoding.html, sections "Serialization Over a Stream", "Pointers".
"""

from dataclasses import dataclass

from nacl.exceptions import BadSignatureError
from nacl.signing import VerifyKey

MAX_MESSAGE_BYTES = 16 * 2**20 + 2**16
"""A message carries at most 16 MiB of payload; 64 KiB is left for its envelope."""

_MAX_SEGMENTS, _MAX_LIST = 512, 4096
_STRUCT, _LIST, _FAR = 0, 1, 2
_BYTES, _POINTERS = 2, 6
_FIELDS = ["credentials", "serialized_message", "signature"]


class BytesRefused(Exception):
    """The bytes are not a message this boundary accepts; nothing of them was interpreted."""


@dataclass(frozen=True)
class Envelope:
    """A signed message whose signature holds: who signed (32 bytes) and what (still opaque)."""

    key: bytes
    message: bytes
    signature: bytes


def open_envelope(blob: bytes) -> Envelope:
    """Parse Syft's `SignedSyftAPICall` and verify its Ed25519 signature (RFC 8032).

    Only the three declared fields are looked at, and none is deserialised.

    Raises:
        BytesRefused: too long, wrong type, fields or signature.
    """
    if len(blob) > MAX_MESSAGE_BYTES:
        raise BytesRefused(f"The message has {len(blob)} bytes; at most {MAX_MESSAGE_BYTES} pass.")
    outer = _Object(blob)
    if (outer.name, outer.version) != ("SignedSyftAPICall", 1):
        raise BytesRefused("Expected a signed Syft call (SignedSyftAPICall, version 1).")
    fields = outer.fields()
    if sorted(fields) != _FIELDS:
        raise BytesRefused("A signed call has exactly the fields " + ", ".join(_FIELDS) + ".")
    credentials = _Object(fields["credentials"])
    key_field = credentials.fields()
    if credentials.name != "SyftVerifyKey" or list(key_field) != ["verify_key"]:
        raise BytesRefused("Expected SyftVerifyKey with the one field verify_key.")
    key = _Object(key_field["verify_key"]).content()
    message = _plain_bytes(fields["serialized_message"])
    signature = _plain_bytes(fields["signature"])
    try:
        VerifyKey(key).verify(message, signature)
    except (BadSignatureError, ValueError, TypeError):
        raise BytesRefused("The signature does not hold for this message and key.") from None
    return Envelope(key, message, signature)


def _plain_bytes(blob: bytes) -> bytes:
    found = _Object(blob)
    if found.name != "bytes":
        raise BytesRefused("Expected bytes.")
    return found.content()


@dataclass(frozen=True)
class _Place:
    """Where a pointer leads: its descriptive word, the segment, and the first word there."""

    tag: int
    segment: int
    word: int


class _Object:
    """One RecursiveSerde struct: data word 0 is the version; four pointers follow."""

    def __init__(self, blob: bytes) -> None:
        self._segments = _segments(blob)
        root = self._follow(0, 0)
        if root is None or root.tag & 3 != _STRUCT:
            raise BytesRefused("The message has no root object.")
        data, pointers = (root.tag >> 32) & 0xFFFF, root.tag >> 48
        if (data, pointers) != (1, 4):
            raise BytesRefused("The root object is of another kind than Syft's.")
        self._segment, self._pointers = root.segment, root.word + data
        self.version = self._word(root.segment, root.word) & 0xFFFFFFFF
        self.name = self._text(self._follow(self._segment, self._pointers + 3))

    def fields(self) -> dict[str, bytes]:
        """The fields' undecoded bytes by name."""
        names = [self._text(p) for p in self._list(self._follow(self._segment, self._pointers))]
        parts = self._list(self._follow(self._segment, self._pointers + 1))
        if len(names) != len(parts) or len(set(names)) != len(names):
            raise BytesRefused("Fields must have one name and one value each.")
        return {name: self._joined(part) for name, part in zip(names, parts, strict=True)}

    def content(self) -> bytes:
        """The bytes of an object that Syft writes as one blob."""
        return self._joined(self._follow(self._segment, self._pointers + 2))

    def _joined(self, place: _Place | None) -> bytes:
        return b"".join(self._bytes(part) for part in self._list(place))

    def _list(self, place: _Place | None) -> list[_Place | None]:
        if place is None:
            return []
        size, count = (place.tag >> 32) & 7, place.tag >> 35
        if place.tag & 3 != _LIST or size != _POINTERS or count > _MAX_LIST:
            raise BytesRefused("Expected a short list of pointers.")
        return [self._follow(place.segment, place.word + index) for index in range(count)]

    def _text(self, place: _Place | None) -> str:
        try:
            return self._bytes(place).removesuffix(b"\0").decode()
        except UnicodeDecodeError:
            raise BytesRefused("A name is not text.") from None

    def _bytes(self, place: _Place | None) -> bytes:
        if place is None:
            return b""
        size, count = (place.tag >> 32) & 7, place.tag >> 35
        segment, begin = self._segments[place.segment], place.word * 8
        if place.tag & 3 != _LIST or size != _BYTES or not 0 <= begin <= len(segment) - count:
            raise BytesRefused("Expected bytes that lie inside the message.")
        return bytes(segment[begin : begin + count])

    def _follow(self, segment: int, word: int) -> _Place | None:
        pointer = self._word(segment, word)
        if pointer == 0:
            return None
        if pointer & 3 != _FAR:
            return _near(pointer, segment, word)
        pad_segment, pad_word = pointer >> 32, (pointer >> 3) & 0x1FFFFFFF
        pad = self._word(pad_segment, pad_word)
        if not pointer & 4:
            if pad & 3 == _FAR:
                raise BytesRefused("A far pointer leads to another one.")
            return _near(pad, pad_segment, pad_word)
        if pad & 7 != _FAR:
            raise BytesRefused("A double far pointer needs a plain far pointer as landing pad.")
        tag = self._word(pad_segment, pad_word + 1)
        return _Place(tag, self._known(pad >> 32), (pad >> 3) & 0x1FFFFFFF)

    def _known(self, segment: int) -> int:
        if segment >= len(self._segments):
            raise BytesRefused("A pointer leads to a segment that isn't there.")
        return segment

    def _word(self, segment: int, word: int) -> int:
        content = self._segments[self._known(segment)]
        if not 0 <= word * 8 <= len(content) - 8:
            raise BytesRefused("A pointer leads outside the message.")
        return int.from_bytes(content[word * 8 : word * 8 + 8], "little")


def _near(pointer: int, segment: int, word: int) -> _Place:
    offset = (pointer & 0xFFFFFFFF) >> 2
    return _Place(pointer, segment, word + 1 + (offset - 2**30 if offset >= 2**29 else offset))


def _segments(blob: bytes) -> list[memoryview]:
    """The segments of a stream frame: count - 1, then the sizes in words, padded to 8 bytes."""
    view = memoryview(blob)
    if len(view) < 8:
        raise BytesRefused("The message is too short.")
    count = int.from_bytes(view[:4], "little") + 1
    begin = (4 + 4 * count + 7) // 8 * 8
    if count > _MAX_SEGMENTS or begin > len(view):
        raise BytesRefused("The message has too many segments.")
    found = []
    for index in range(count):
        size = 8 * int.from_bytes(view[4 + 4 * index : 8 + 4 * index], "little")
        if begin + size > len(view):
            raise BytesRefused("The message is cut off.")
        found.append(view[begin : begin + size])
        begin += size
    if begin != len(view):
        raise BytesRefused("The message has bytes after its end.")
    return found
