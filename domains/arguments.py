"""What callers pass to a service method as text or octets, read strictly."""

import json
import re
from typing import Any

import numpy as np

from domains.refusals import RoundRefused
from network.smpc.messages import Digested


def json_list(text: str) -> list[Any]:
    try:
        value = json.loads(text)
    except (ValueError, TypeError, RecursionError):
        raise RoundRefused("Expected a JSON list.") from None
    if not isinstance(value, list) or len(value) > 64 * 64:
        raise RoundRefused("Expected a JSON list of at most 4,096 messages.")
    return value


def json_object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, TypeError, RecursionError):
        raise RoundRefused("Expected a JSON object.") from None
    if not isinstance(value, dict) or len(value) > 64:
        raise RoundRefused("Expected a JSON object by domain, of at most 64.")
    return value


def listed(value: Any) -> list[Any]:
    if not isinstance(value, list) or len(value) > 64:
        raise RoundRefused("Expected a list of at most 64.")
    return value


def sizes_of(held: str) -> dict[str, list[int]]:
    found = {name: listed(sizes) for name, sizes in json_object(held).items()}
    if any(type(size) is not int for sizes in found.values() for size in sizes):
        raise RoundRefused("Sizes of ledger heads are integers.")
    return found


def attempt_in(text: str) -> tuple[str, int, int, str] | tuple[()]:
    """Step, release, attempt and tensor, as `coterie.advertise` takes them; empty: none."""
    if not text:
        return ()
    found = json_object(text)
    kinds = {"step": str, "release": int, "attempt": int, "tensor": str}
    if {name: type(value) for name, value in found.items()} != kinds:
        raise RoundRefused("An attempt is named by a step, a release, an attempt and a tensor.")
    return found["step"], found["release"], found["attempt"], found["tensor"]


def digest_of(text: str) -> bytes:
    if not isinstance(text, str) or not re.fullmatch("[0-9a-f]{64}", text):
        raise RoundRefused("A digest has 64 lower-case hex digits.")
    return bytes.fromhex(text)


def octets_of(array: np.ndarray) -> memoryview | Digested:
    """An argument's octets as they came, not copied; with their digest, if they have one."""
    if not isinstance(array, np.ndarray) or array.dtype != np.uint8 or array.ndim != 1:
        raise RoundRefused("Expected a one-dimensional uint8 array (of safetensors, if a state).")
    return array if isinstance(array, Digested) else np.ascontiguousarray(array).data


def bytes_of(array: np.ndarray) -> bytes:
    return bytes(octets_of(array))
