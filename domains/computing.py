"""The steps of a computation with a dealer as a node is asked for them, from JSON and words to the
same.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from domains.tensors import KeptTensors
from network.smpc.dealing import Dealt, Said, Words, pack
from network.smpc.messages import MalformedMessage
from network.smpc.sharing import TensorKey
from network.smpc.tensors import Secret, tuples

_NONE = np.zeros(0, np.uint64)


def compute(
    tensors: KeptTensors, phase: str, said: Mapping[str, Any], octets: bytes
) -> NDArray[np.uint8]:
    """One step of `network.smpc.dealing.Computation`.

    Args:
        phase: "begin", "take", "opening", "hear", "check" or "end".
        said: what the step is told. octets: words, little-endian.

    Raises:
        MalformedMessage: no such step, or it isn't told this.
        TensorRefused, SharingRefused: see `KeptTensors` and `Computation`.
    """
    step = _STEPS.get(phase)
    if step is None or len(octets) % 8:
        raise MalformedMessage(f"a computation has the steps {', '.join(_STEPS)}, and 64-bit words")
    try:
        answer, words = step(tensors, said, np.frombuffer(octets, "<u8"))
    except (KeyError, TypeError, AttributeError):
        raise MalformedMessage(f"this isn't what '{phase}' is told") from None
    return pack(answer, words)


def _begin(tensors: KeptTensors, said: Mapping[str, Any], _: Words) -> tuple[Any, Words]:
    return tensors.begin(Secret.from_dict(tuples(said))).to_dict(), _NONE


def _take(tensors: KeptTensors, said: Mapping[str, Any], words: Words) -> tuple[Any, Words]:
    keys = [TensorKey.from_dict(key) for key in said["keys"]]
    corrections = words.reshape(2, -1, 2) if words.size % 4 == 0 else words
    dealt = Dealt.from_dict(said["dealt"])
    return tensors.computation.take(keys, dealt, corrections).to_dict(), _NONE


def _opening(tensors: KeptTensors, said: Mapping[str, Any], _: Words) -> tuple[Any, Words]:
    ours, words = tensors.computation.opening([Said.from_dict(coin) for coin in said["coins"]])
    return ours.to_dict(), words


def _hear(tensors: KeptTensors, said: Mapping[str, Any], words: Words) -> tuple[Any, Words]:
    tensors.computation.hear(Said.from_dict(said["said"]), words)
    return {}, _NONE


def _check(tensors: KeptTensors, _: Mapping[str, Any], __: Words) -> tuple[Any, Words]:
    ours, words = tensors.computation.check()
    return ours.to_dict(), words


def _end(tensors: KeptTensors, _: Mapping[str, Any], __: Words) -> tuple[Any, Words]:
    name = tensors.end()
    return {"name": name, "proven": tensors.tensor(name).proven.to_json()}, _NONE


_STEPS: Mapping[str, Callable[[KeptTensors, Mapping[str, Any], Words], tuple[Any, Words]]] = {
    "begin": _begin,
    "take": _take,
    "opening": _opening,
    "hear": _hear,
    "check": _check,
    "end": _end,
}
