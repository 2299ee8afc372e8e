"""The types that a list of methods names, rebuilt from closed tables.

A node's answer to "which methods are there" holds their signatures. Text has no place in them:
`typing` compiles text that stands for a type, and Syft's client lets pydantic evaluate it, or looks
it up as a path of attributes, as soon as the method is called.
"""

import typing
from collections.abc import Mapping
from inspect import Parameter, Signature
from typing import Any

from syft.types.syft_object_registry import SyftObjectRegistry

from network.capnproto import BytesRefused

_MOST_ARGUMENTS = 64
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


def listed_kind(text: str, kinds: frozenset[str]) -> type:
    """A class that is itself on the list, as `NAME:VERSION`."""
    name, _, version = text.partition(":")
    if name not in kinds or not version.isdecimal() or len(version) > 4:
        raise BytesRefused(f"The type '{name[:60]}' may not be named in a message.")
    if not SyftObjectRegistry.has_serde_class(name, int(version)):
        raise _refused()
    found: type = SyftObjectRegistry.get_serde_properties(name, int(version))[7]
    return found


def generic(parts: Any) -> Any:
    """A `typing` generic out of the table, by subscription."""
    if not isinstance(parts, dict):
        raise BytesRefused("A generic type is sent as its name and arguments.")
    kind, arguments = _GENERICS.get(str(parts.get("path"))), parts.get("__args__")
    if kind is None or not isinstance(arguments, tuple) or not _are_few(arguments):
        raise _refused()
    if kind is typing.Literal:
        if not all(isinstance(each, str | int | bool | None) for each in arguments):
            raise _refused()
    elif not all(map(is_type, arguments)):
        raise _refused()
    try:
        if kind is typing.Optional:
            return typing.Optional[arguments[0]]  # noqa: UP045
        if kind is typing.Callable and len(arguments) > 1:
            return typing.Callable[list(arguments[:-1]), arguments[-1]]
        return kind[arguments]
    except (TypeError, ValueError):
        raise _refused() from None


def union(arguments: Any) -> Any:
    """A union of types."""
    if (
        not isinstance(arguments, tuple)
        or not _are_few(arguments)
        or not all(map(is_type, arguments))
    ):
        raise BytesRefused("A union is sent as a tuple of types.")
    try:
        return typing.Union[arguments]  # noqa: UP007
    except TypeError:
        raise BytesRefused("A union is sent as a tuple of types.") from None


def signature(parts: Any) -> Signature:
    """A method's signature, each type in it a type."""
    if not isinstance(parts, dict) or set(parts) != {"parameters", "return_annotation"}:
        raise BytesRefused("A signature has parameters and a return annotation.")
    parameters = parts["parameters"]
    if not isinstance(parameters, list | tuple):
        raise BytesRefused("A signature's parameters are a list.")
    if not all(isinstance(each, Parameter) for each in parameters):
        raise BytesRefused("A signature's parameters are parameters.")
    named = [getattr(each, "_annotation", Parameter.empty) for each in parameters]
    if not all(map(is_type, [*named, parts["return_annotation"]])):
        raise _refused()
    try:
        return Signature(**parts)
    except (TypeError, ValueError, AttributeError):
        raise BytesRefused("A signature's parameters don't fit together.") from None


def is_type(found: Any) -> bool:
    """Whether it stands for a type by itself, with nothing in it to evaluate."""
    if found is None or found is Any or found is typing.Union:
        return True
    return isinstance(found, type) or typing.get_origin(found) is not None


def _are_few(arguments: tuple[Any, ...]) -> bool:
    return 0 < len(arguments) <= _MOST_ARGUMENTS


def _refused() -> BytesRefused:
    return BytesRefused("That type may not be named in a message.")
