"""A bounded reader of Cap'n Proto frames, enough for the three structs Syft writes.

Cap'n Proto's C++ reader can crash the process on hostile bytes. Here every offset is checked
against the bytes that are there, and a frame yields no more bytes than it has: pointers that lead
to the same place many times, which would make a small message large, are refused.
Source: https://capnproto.org/encoding.html, sections "Serialization Over a Stream", "Pointers".
"""

from struct import Struct as Layout
from typing import NamedTuple

_MAX_SEGMENTS = 512
_STRUCT, _LIST, _FAR = 0, 1, 2
_BYTES, _POINTERS = 2, 6
_word_at = Layout("<Q").unpack_from
_half_at = Layout("<I").unpack_from


class BytesRefused(Exception):
    """The bytes are not a message this boundary accepts; nothing of them was interpreted."""

    @property
    def public_message(self) -> str:
        """The text, where Syft's client looks for it."""
        return str(self)


class Place(NamedTuple):
    """Where a pointer leads: its descriptive word, the segment, and the first word there."""

    tag: int
    segment: int
    word: int


class Frame:
    """One frame whose root is a struct of `data` words and `pointers` pointers.

    Raises:
        BytesRefused: here and in every method, where the bytes aren't such a frame.
    """

    __slots__ = ("_data", "_left", "_pointers", "_segment", "_segments")

    def __init__(self, blob: bytes | memoryview, data: int, pointers: int) -> None:
        self._segments = _segments(memoryview(blob))
        self._left = len(blob)
        root = self._follow(0, 0)
        if root is None or root.tag & 3 != _STRUCT:
            raise BytesRefused("The message has no root object.")
        if ((root.tag >> 32) & 0xFFFF, root.tag >> 48) != (data, pointers):
            raise BytesRefused("The root object is of another kind than Syft's.")
        self._segment, self._data, self._pointers = root.segment, root.word, root.word + data

    def int32(self) -> int:
        """The lower half of the first data word, signed."""
        value = self._word(self._segment, self._data) & 0xFFFFFFFF
        return value - 2**32 if value >= 2**31 else value

    def pointer(self, index: int) -> Place | None:
        return self._follow(self._segment, self._pointers + index)

    def items(self, place: Place | None, most: int) -> list[Place | None]:
        """The places that a list of at most so many pointers leads to.

        A place takes twenty times the memory of its pointer, so a caller says how many it can use.
        """
        if place is None:
            return []
        tag, segment, word = place
        size, count = (tag >> 32) & 7, tag >> 35
        if tag & 3 != _LIST or size != _POINTERS:
            raise BytesRefused("Expected a list of pointers.")
        if count > most:
            raise BytesRefused("The message has too many parts.")
        self._spend(8 * count)
        return [self._follow(segment, word + index) for index in range(count)]

    def text(self, place: Place | None) -> str:
        try:
            return bytes(self.data(place)).removesuffix(b"\0").decode()
        except UnicodeDecodeError:
            raise BytesRefused("A name is not text.") from None

    def data(self, place: Place | None) -> memoryview:
        """The bytes at a place, without copying them."""
        if place is None:
            return memoryview(b"")
        tag, number, word = place
        size, count = (tag >> 32) & 7, tag >> 35
        segment, begin = self._segments[number], word * 8
        if tag & 3 != _LIST or size != _BYTES or not 0 <= begin <= len(segment) - count:
            raise BytesRefused("Expected bytes that lie inside the message.")
        self._spend(count)
        return segment[begin : begin + count]

    def content(self, place: Place | None) -> memoryview:
        """The bytes of a value, without copying them.

        Syft writes a value as a list of byte strings and cuts it every 512 MB, so that in a message
        of a permitted size there is one.
        """
        parts = self.items(place, most=1)
        return self.data(parts[0]) if parts else memoryview(b"")

    def _spend(self, count: int) -> None:
        self._left -= count
        if self._left < 0:
            raise BytesRefused("The message refers to more bytes than it has.")

    def _follow(self, segment: int, word: int) -> Place | None:
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
        if pad >> 32 >= len(self._segments):
            raise BytesRefused("A pointer leads to a segment that isn't there.")
        return Place(tag, pad >> 32, (pad >> 3) & 0x1FFFFFFF)

    def _word(self, segment: int, word: int) -> int:
        if segment >= len(self._segments):
            raise BytesRefused("A pointer leads to a segment that isn't there.")
        content = self._segments[segment]
        if not 0 <= word * 8 <= len(content) - 8:
            raise BytesRefused("A pointer leads outside the message.")
        found: int = _word_at(content, word * 8)[0]
        return found


def _near(pointer: int, segment: int, word: int) -> Place:
    offset = (pointer & 0xFFFFFFFF) >> 2
    return Place(pointer, segment, word + 1 + (offset - 2**30 if offset >= 2**29 else offset))


def _segments(view: memoryview) -> list[memoryview]:
    """The segments of a stream frame: count - 1, then the sizes in words, padded to 8 bytes."""
    if len(view) < 8:
        raise BytesRefused("The message is too short.")
    count = _half_at(view, 0)[0] + 1
    begin = (4 + 4 * count + 7) // 8 * 8
    if count > _MAX_SEGMENTS or begin > len(view):
        raise BytesRefused("The message has too many segments.")
    found = []
    for index in range(count):
        size = 8 * _half_at(view, 4 + 4 * index)[0]
        if begin + size > len(view):
            raise BytesRefused("The message is cut off.")
        found.append(view[begin : begin + size])
        begin += size
    if begin != len(view):
        raise BytesRefused("The message has bytes after its end.")
    return found
