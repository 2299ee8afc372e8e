"""The strict reader of Syft's serialised objects; `network.guard` puts it in place of Syft's own.

Syft's reader resolves names in the bytes to attributes of loaded modules and calls them, runs
Cap'n Proto and Arrow in C++ over unchecked bytes, sets undeclared attributes, and allocates what
the bytes ask for. Here a name must be on a list, values are rebuilt by the functions in this
file and by the listed classes' own constructors alone, an object has its declared fields only, and
size, depth and number of objects are bounded. No module, attribute or callable is ever looked up
by a name in the bytes.
"""

import typing
import uuid
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from datetime import date, datetime, time
from enum import Enum
from typing import Any

import numpy as np
import pandas as pd
from nacl.signing import SigningKey, VerifyKey
from pydantic import BaseModel
from syft.types.dicttuple import DictTuple
from syft.types.syft_object_registry import SyftObjectRegistry
from syft.util.experimental_flags import flags

from network.arrays import MAX_ARRAY_BYTES, unpack_array
from network.capnproto import BytesRefused, Frame, Place
from network.reader_names import Names
from network.reader_types import generic, listed_kind, signature, union
from network.tables import read_table

MAX_DEPTH = 96
MAX_BYTES = 80 * 2**20
_MAX_INT_BYTES, _MAX_FLOAT_CHARACTERS = 64, 64
_MOST_ALIKE = 64


def read(blob: bytes | memoryview, names: Names) -> Any:
    """Rebuild the object in `blob`, if it and everything in it is on the list.

    Args:
        names: the canonical names that may occur.

    Raises:
        BytesRefused: for any other bytes; nothing was called but listed constructors.
    """
    if len(blob) > MAX_BYTES:
        raise BytesRefused(f"An object has at most {MAX_BYTES} bytes.")
    return _Reading(names).value(blob)


class _Reading:
    """One message being read: what it may name, and what it may still spend."""

    def __init__(self, names: Names) -> None:
        self.kinds = names.kinds
        self._allowed = names.values
        self._depth = 0
        self._left = names.objects - 1
        self._unpacked = 0

    def value(self, blob: bytes | memoryview) -> Any:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise BytesRefused("The message is nested too deeply.")
        frame = Frame(blob, data=1, pointers=4)
        name = frame.text(frame.pointer(3))
        if name not in self._allowed:
            raise BytesRefused(f"'{name[:60]}' may not be sent here; send plain values and arrays.")
        plain = _PLAIN.get(name)
        if plain is None:
            found = self._record(name, frame)
        else:
            found = plain(self, frame.content(frame.pointer(2)))
        self._depth -= 1
        return found

    def _record(self, name: str, frame: Frame) -> Any:
        version = frame.int32()
        if not SyftObjectRegistry.has_serde_class(name, version):
            raise BytesRefused(f"'{name}' has no version {version}.")
        properties = SyftObjectRegistry.get_serde_properties(name, version)
        if properties[0]:
            raise BytesRefused(f"'{name}' can't be read strictly.")
        declared, left_out, kind = properties[3], properties[4], properties[7]
        names = [frame.text(place) for place in self._parts(frame, 0)]
        parts = self._parts(frame, 1)
        given = [each for each in names if each]
        if len(names) != len(parts) or len(set(given)) != len(given):
            raise BytesRefused("Fields must have one name and one value each.")
        if set(given) - (set(declared or ()) - set(left_out or ())):
            raise BytesRefused(f"'{name}' has undeclared fields.")
        if set(given) < _REQUIRED.get(name, frozenset()):
            raise BytesRefused(f"'{name}' needs all of its fields.")
        fields = {
            each: self.value(frame.content(part))
            for each, part in zip(names, parts, strict=True)
            if each
        }
        return _built(name, kind, fields)

    def items(self, content: memoryview) -> list[Any]:
        frame = Frame(content, data=0, pointers=1)
        return [self.value(frame.content(place)) for place in self._parts(frame, 0)]

    def pairs(self, content: memoryview) -> dict[Any, Any]:
        frame = Frame(content, data=0, pointers=2)
        places, parts = self._parts(frame, 0), self._parts(frame, 1)
        if len(places) != len(parts):
            raise BytesRefused("A mapping has one value for each key.")
        keys = _spread([self.value(frame.data(place)) for place in places])
        return {key: self.value(frame.content(part)) for key, part in zip(keys, parts, strict=True)}

    def array(self, content: memoryview) -> np.ndarray:
        """Syft's tuple of packed bytes, unpacked size and dtype; bytes aren't copied."""
        frame = Frame(content, data=1, pointers=4)
        if frame.text(frame.pointer(3)) != "tuple":
            raise BytesRefused("Arrays hold booleans, integers or floats.")
        outer = Frame(frame.content(frame.pointer(2)), data=0, pointers=1)
        parts = [outer.content(place) for place in outer.items(outer.pointer(0), most=3)]
        if len(parts) != 3:
            raise BytesRefused("An array is sent as its bytes, size and dtype.")
        packed = Frame(parts[0], data=1, pointers=4)
        size, dtype = self.value(parts[1]), self.value(parts[2])
        if packed.text(packed.pointer(3)) != "bytes" or type(size) is not int:
            raise BytesRefused("An array is sent as its bytes, size and dtype.")
        if not isinstance(dtype, str):
            raise BytesRefused("An array is sent as its bytes, size and dtype.")
        self.spend(max(size, 0))
        codec = str(flags.APACHE_ARROW_COMPRESSION.value)
        return unpack_array(packed.content(packed.pointer(2)), size, dtype, codec)

    def _parts(self, frame: Frame, pointer: int) -> list[Place | None]:
        """The parts at one of a frame's pointers, counted before any is read."""
        found = frame.items(frame.pointer(pointer), most=self._left)
        self._left -= len(found)
        return found

    def spend(self, size: int) -> None:
        """Count what compressed parts unpack to, over the whole message."""
        self._unpacked += size
        if self._unpacked > MAX_ARRAY_BYTES:
            raise BytesRefused(f"A message unpacks to at most {MAX_ARRAY_BYTES} bytes of arrays.")


def _built(name: str, kind: Any, fields: Mapping[str, Any]) -> Any:
    """An instance as Syft builds it, for a class on the list."""
    if name in ("UID", "LineageID"):
        return _uid(kind, fields)
    try:
        if issubclass(kind, Enum):
            return kind(fields["value"])
        if issubclass(kind, BaseModel):
            return kind(**fields)
        built = kind.__new__(kind)
        for field, value in fields.items():
            setattr(built, field, value)
        return built
    except BytesRefused:
        raise
    except Exception:
        raise BytesRefused(f"The fields of a '{name}' don't fit it.") from None


def _uid(kind: Any, fields: Mapping[str, Any]) -> Any:
    value = fields.get("value")
    if type(value) is not bytes or len(value) != 16:
        raise BytesRefused("An id has 16 bytes.")
    built = kind.__new__(kind)
    for field, each in {**fields, "value": uuid.UUID(bytes=value)}.items():
        setattr(built, field, each)
    return built


def _spread(keys: list[Any]) -> list[Any]:
    """The keys as they are, unless so many of them share a hash that Python compares for minutes.

    An integer's hash is its remainder, so whoever sends integers, ids or tuples chooses it.
    """
    try:
        alike = Counter(map(hash, keys))
    except TypeError:
        raise BytesRefused("A key, or what is in a set, must be a plain value.") from None
    if alike and len(keys) - len(alike) > _MOST_ALIKE and max(alike.values()) > _MOST_ALIKE:
        raise BytesRefused("The message has too many keys of one hash.")
    return keys


def _text(content: memoryview) -> str:
    try:
        return str(content, "utf-8")
    except UnicodeDecodeError:
        raise BytesRefused("Text must be UTF-8.") from None


def _int(content: memoryview) -> int:
    if len(content) > _MAX_INT_BYTES:
        raise BytesRefused(f"An integer has at most {_MAX_INT_BYTES} bytes.")
    return int.from_bytes(content, "big", signed=True)


def _float(content: memoryview) -> float:
    if len(content) > _MAX_FLOAT_CHARACTERS:
        raise BytesRefused("A number is sent as a hexadecimal float.")
    try:
        return float.fromhex(_text(content))
    except (ValueError, OverflowError):
        raise BytesRefused("A number is sent as a hexadecimal float.") from None


def _scalar(dtype: str) -> Callable[["_Reading", memoryview], Any]:
    kind = np.dtype(dtype)

    def scalar(_: _Reading, content: memoryview) -> Any:
        if len(content) != kind.itemsize:
            raise BytesRefused(f"A {dtype} has {kind.itemsize} bytes.")
        return np.frombuffer(content, dtype=kind)[0]

    return scalar


def _parsed(parse: Callable[[Any], Any], of: type) -> Callable[["_Reading", memoryview], Any]:
    def parsed(reading: _Reading, content: memoryview) -> Any:
        value = reading.value(content)
        try:
            if isinstance(value, of):
                return parse(value)
        except (ValueError, OverflowError):
            pass
        raise BytesRefused("A time is sent in ISO 8601.")

    return parsed


def _collected(kind: Callable[[list[Any]], Any]) -> Callable[["_Reading", memoryview], Any]:
    def collected(reading: _Reading, content: memoryview) -> Any:
        return kind(reading.items(content))

    return collected


def _key(kind: type) -> Callable[["_Reading", memoryview], Any]:
    def key(_: _Reading, content: memoryview) -> Any:
        if len(content) != 32:
            raise BytesRefused("A key has 32 bytes.")
        return kind(bytes(content))

    return key


def _kind(reading: _Reading, content: memoryview) -> type:
    return listed_kind(_text(content), reading.kinds)


def _alias(reading: _Reading, content: memoryview) -> Any:
    return generic(reading.value(content))


def _table(reading: _Reading, content: memoryview) -> pd.DataFrame:
    return read_table(content, reading.spend)


_REQUIRED: Mapping[str, frozenset[str]] = {
    "SyftAPICall": frozenset({"id", "server_uid", "path", "args", "kwargs", "blocking"})
}
"""Syft would make up what is left out: an id, by which a repeated call would pass as a new one."""

_KINDS = (
    "type", "ABCMeta", "EnumMeta", "EnumMeta_enum.EnumMeta", "EnumMeta_enum.EnumType",
    "pydantic_model_metaclass", "partial_model_metaclass", "_SpecialForm", "_SpecialGenericAlias",
    "GenericAlias", "inspect_empty", "empty_type", "dicttuple_meta",
)  # fmt: skip
_SCALARS = (
    "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16",
    "float32", "float64", "single", "double",
)  # fmt: skip
_PLAIN: Mapping[str, Callable[[_Reading, memoryview], Any]] = {
    "NoneType": lambda _, content: None,
    "bool": lambda _, content: bytes(content) != b"0",
    "int": lambda _, content: _int(content),
    "float": lambda _, content: _float(content),
    "str": lambda _, content: _text(content),
    "bytes": lambda _, content: bytes(content),
    "list": _collected(list),
    "tuple": _collected(tuple),
    "set": _collected(lambda items: set(_spread(items))),
    "frozenset": _collected(lambda items: frozenset(_spread(items))),
    "dict": lambda reading, content: reading.pairs(content),
    "dicttuple": lambda reading, content: DictTuple(reading.pairs(content)),
    "OrderedDict": lambda reading, content: OrderedDict(reading.pairs(content)),
    "numpy_ndarray": lambda reading, content: reading.array(content),
    **{f"numpy_{name}": _scalar(name) for name in _SCALARS},
    "datetime_datetime": _parsed(datetime.fromisoformat, str),
    "datetime_date": _parsed(date.fromisoformat, str),
    "datetime_time": _parsed(time.fromisoformat, str),
    "pandas_timestamp": _parsed(pd.Timestamp, int),
    "pandas_dataframe": _table,
    "nacl_verify_key": _key(VerifyKey),
    "nacl_signing_key": _key(SigningKey),
    "pydantic_emailstr": lambda _, content: _text(content),
    "inspect_Signature": lambda reading, content: signature(reading.value(content)),
    "Any": lambda _, content: Any,
    "Any_typing._AnyMeta": lambda _, content: Any,
    "Any_typing._SpecialForm": lambda _, content: Any,
    "Union": lambda _, content: typing.Union,
    "UnionType": lambda reading, content: union(reading.value(content)),
    "_GenericAlias": _alias,
    "_UnionGenericAlias": _alias,
    **dict.fromkeys(_KINDS, _kind),
}
