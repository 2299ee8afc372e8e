"""The strict reader of Syft's serialised objects; installed, it replaces Syft's own everywhere.

Syft's reader resolves names in the bytes to attributes of loaded modules and calls them, runs
Cap'n Proto and Arrow in C++ over unchecked bytes, sets undeclared attributes, and allocates what
the bytes ask for. Here a name must be on a list, values are rebuilt by the functions in this
file and by the listed classes' own constructors alone, an object has its declared fields only, and
size, depth and number of objects are bounded. No module, attribute or callable is ever looked up
by a name in the bytes.
"""

import typing
import uuid
from collections import OrderedDict
from collections.abc import Callable, Mapping
from datetime import date, datetime, time
from enum import Enum
from inspect import Signature
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import syft.serde.recursive as syft_reader
from nacl.signing import SigningKey, VerifyKey
from pydantic import BaseModel
from syft.types.dicttuple import DictTuple
from syft.types.syft_object_registry import SyftObjectRegistry
from syft.util.experimental_flags import flags

from network.arrays import MAX_ARRAY_BYTES, unpack_array
from network.capnproto import BytesRefused, Frame
from network.reader_names import ANSWERS, Names

MAX_DEPTH = 96
MAX_OBJECTS = 400_000
MAX_BYTES = 80 * 2**20
_MAX_INT_BYTES, _MAX_FLOAT_CHARACTERS = 64, 64
_MAX_ROWS, _MAX_COLUMNS = 10_000_000, 1_000


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


def install_strict_reader(names: Names = ANSWERS) -> None:
    """Make Syft's own reads in this process strict as well; the last list given counts."""

    def read_strictly(blob: bytes) -> Any:
        return read(blob, names)

    syft_reader.rs_bytes2object = read_strictly
    syft_reader.rs_proto2object = _refuse_open_frame


def _refuse_open_frame(_: Any) -> Any:
    raise BytesRefused("Only whole messages are read.")


class _Reading:
    """One message being read: what it may name, and what it may still spend."""

    def __init__(self, names: Names) -> None:
        self._allowed, self._kinds = names.values, names.kinds
        self._depth = 0
        self._objects = 0
        self._unpacked = 0

    def value(self, blob: bytes | memoryview) -> Any:
        self._depth += 1
        self._objects += 1
        if self._depth > MAX_DEPTH or self._objects > MAX_OBJECTS:
            raise BytesRefused("The message is nested too deeply or has too many parts.")
        frame = Frame(blob, data=1, pointers=4)
        name = frame.text(frame.pointer(3))
        if name not in self._allowed:
            raise BytesRefused(f"'{name[:60]}' may not be sent here; send plain values and arrays.")
        plain = _PLAIN.get(name)
        if plain is None:
            found = self._record(name, frame)
        else:
            found = plain(self, frame.joined(frame.pointer(2)))
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
        names = [frame.text(place) for place in frame.items(frame.pointer(0))]
        parts = frame.items(frame.pointer(1))
        given = [each for each in names if each]
        if len(names) != len(parts) or len(set(given)) != len(given):
            raise BytesRefused("Fields must have one name and one value each.")
        if set(given) - (set(declared or ()) - set(left_out or ())):
            raise BytesRefused(f"'{name}' has undeclared fields.")
        if set(given) < _REQUIRED.get(name, frozenset()):
            raise BytesRefused(f"'{name}' needs all of its fields.")
        fields = {
            each: self.value(frame.joined(part))
            for each, part in zip(names, parts, strict=True)
            if each
        }
        return _built(name, kind, fields)

    def items(self, content: memoryview) -> list[Any]:
        frame = Frame(content, data=0, pointers=1)
        return [self.value(frame.joined(place)) for place in frame.items(frame.pointer(0))]

    def pairs(self, content: memoryview) -> dict[Any, Any]:
        frame = Frame(content, data=0, pointers=2)
        keys, values = frame.items(frame.pointer(0)), frame.items(frame.pointer(1))
        if len(keys) != len(values):
            raise BytesRefused("A mapping has one value for each key.")
        try:
            return {
                self.value(frame.data(key)): self.value(frame.joined(value))
                for key, value in zip(keys, values, strict=True)
            }
        except TypeError:
            raise BytesRefused("A mapping's key must be a plain value.") from None

    def array(self, content: memoryview) -> np.ndarray:
        """Syft's tuple of packed bytes, unpacked size and dtype; bytes aren't copied."""
        frame = Frame(content, data=1, pointers=4)
        if frame.text(frame.pointer(3)) != "tuple":
            raise BytesRefused("Arrays hold booleans, integers or floats.")
        outer = Frame(frame.joined(frame.pointer(2)), data=0, pointers=1)
        parts = [outer.joined(place) for place in outer.items(outer.pointer(0))]
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
        return unpack_array(packed.joined(packed.pointer(2)), size, dtype, codec)

    def spend(self, size: int) -> None:
        """Count what compressed parts unpack to, over the whole message."""
        self._unpacked += size
        if self._unpacked > MAX_ARRAY_BYTES:
            raise BytesRefused(f"A message unpacks to at most {MAX_ARRAY_BYTES} bytes of arrays.")

    def kind(self, content: memoryview) -> type:
        """A class that is itself on the list, as `NAME:VERSION`."""
        name, _, version = _text(content).partition(":")
        if name not in self._kinds or not version.isdecimal() or len(version) > 4:
            raise BytesRefused(f"The type '{name[:60]}' may not be named in a message.")
        if not SyftObjectRegistry.has_serde_class(name, int(version)):
            raise BytesRefused("That type may not be named in a message.")
        found: type = SyftObjectRegistry.get_serde_properties(name, int(version))[7]
        return found

    def alias(self, content: memoryview) -> Any:
        """A `typing` generic out of a closed table, by subscription."""
        parts = self.value(content)
        if not isinstance(parts, dict):
            raise BytesRefused("A generic type is sent as its name and arguments.")
        generic, arguments = _GENERICS.get(str(parts.get("path"))), parts.get("__args__")
        if generic is None or not isinstance(arguments, tuple) or not 0 < len(arguments) <= 64:
            raise BytesRefused("That type may not be named in a message.")
        try:
            if generic is typing.Optional:
                return typing.Optional[arguments[0]]  # noqa: UP045
            if generic is typing.Callable and len(arguments) > 1:
                return typing.Callable[list(arguments[:-1]), arguments[-1]]
            return generic[arguments]
        except (TypeError, ValueError):
            raise BytesRefused("That type may not be named in a message.") from None

    def union(self, content: memoryview) -> Any:
        arguments = self.value(content)
        if not isinstance(arguments, tuple) or not 0 < len(arguments) <= 64:
            raise BytesRefused("A union is sent as a tuple of types.")
        try:
            return typing.Union[arguments]  # noqa: UP007
        except TypeError:
            raise BytesRefused("A union is sent as a tuple of types.") from None

    def signature(self, content: memoryview) -> Signature:
        parts = self.value(content)
        if not isinstance(parts, dict) or set(parts) != {"parameters", "return_annotation"}:
            raise BytesRefused("A signature has parameters and a return annotation.")
        try:
            return Signature(**parts)
        except (TypeError, ValueError, AttributeError):
            raise BytesRefused("A signature's parameters don't fit together.") from None

    def table(self, content: memoryview) -> pd.DataFrame:
        """A data frame of plain columns; its extent is checked before pages are unpacked."""
        try:
            return self._plain_table(pq.ParquetFile(pa.BufferReader(bytes(content))))
        except (pa.ArrowException, OSError, ValueError, TypeError, KeyError, MemoryError):
            raise BytesRefused("The data frame can't be read.") from None

    def _plain_table(self, file: pq.ParquetFile) -> pd.DataFrame:
        facts = file.metadata
        if not (0 <= facts.num_rows <= _MAX_ROWS and facts.num_columns <= _MAX_COLUMNS):
            raise BytesRefused("The data frame has too many rows or columns.")
        groups = [facts.row_group(index) for index in range(facts.num_row_groups)]
        self.spend(sum(max(group.total_byte_size, 0) for group in groups))
        schema = file.schema_arrow
        if not all(_is_plain_column(field.type) for field in schema):
            raise BytesRefused("A data frame has columns of numbers, text, booleans or times.")
        plain: pd.DataFrame = file.read(use_threads=False).to_pandas(
            use_threads=False, ignore_metadata=True
        )
        return plain


def _is_plain_column(kind: pa.DataType) -> bool:
    is_a = pa.types
    return (
        is_a.is_integer(kind)
        or is_a.is_floating(kind)
        or is_a.is_boolean(kind)
        or is_a.is_string(kind)
        or is_a.is_large_string(kind)
        or is_a.is_timestamp(kind)
        or is_a.is_null(kind)
    )


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
        try:
            return kind(reading.items(content))
        except TypeError:
            raise BytesRefused("A set holds plain values.") from None

    return collected


def _key(kind: type) -> Callable[["_Reading", memoryview], Any]:
    def key(_: _Reading, content: memoryview) -> Any:
        if len(content) != 32:
            raise BytesRefused("A key has 32 bytes.")
        return kind(bytes(content))

    return key


def _kind(reading: _Reading, content: memoryview) -> type:
    return reading.kind(content)


def _alias(reading: _Reading, content: memoryview) -> Any:
    return reading.alias(content)


_GENERICS: Mapping[str, Any] = {
    "typing.Optional": typing.Optional,
    "typing.Union": typing.Union,
    "typing.List": typing.List,  # noqa: UP006
    "typing.Dict": typing.Dict,  # noqa: UP006
    "typing.Tuple": typing.Tuple,  # noqa: UP006
    "typing.Set": typing.Set,  # noqa: UP006
    "typing.Type": typing.Type,  # noqa: UP006
    "typing.Literal": typing.Literal,
    "typing.Callable": typing.Callable,
}

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
    "set": _collected(set),
    "frozenset": _collected(frozenset),
    "dict": lambda reading, content: reading.pairs(content),
    "dicttuple": lambda reading, content: DictTuple(reading.pairs(content)),
    "OrderedDict": lambda reading, content: OrderedDict(reading.pairs(content)),
    "numpy_ndarray": lambda reading, content: reading.array(content),
    **{f"numpy_{name}": _scalar(name) for name in _SCALARS},
    "datetime_datetime": _parsed(datetime.fromisoformat, str),
    "datetime_date": _parsed(date.fromisoformat, str),
    "datetime_time": _parsed(time.fromisoformat, str),
    "pandas_timestamp": _parsed(pd.Timestamp, int),
    "pandas_dataframe": lambda reading, content: reading.table(content),
    "nacl_verify_key": _key(VerifyKey),
    "nacl_signing_key": _key(SigningKey),
    "pydantic_emailstr": lambda _, content: _text(content),
    "inspect_Signature": lambda reading, content: reading.signature(content),
    "Any": lambda _, content: Any,
    "Any_typing._AnyMeta": lambda _, content: Any,
    "Any_typing._SpecialForm": lambda _, content: Any,
    "Union": lambda _, content: typing.Union,
    "UnionType": lambda reading, content: reading.union(content),
    "_GenericAlias": _alias,
    "_UnionGenericAlias": _alias,
    **dict.fromkeys(_KINDS, _kind),
}
