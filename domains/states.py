"""A run's public state as a node takes it: bounded, part by part, and read as data alone."""

import json
import os
import struct
from typing import IO

import numpy as np
from blake3 import blake3

from domains.frames import Stored
from domains.refusals import RoundRefused
from network.smpc.messages import Digested
from policies.plan import Plan, Step

_STATE_HEADER = 2**20
MAX_STATE_BYTES = 2**29 + _STATE_HEADER
_MOST_AXES = 32
_DTYPES = {
    name: np.dtype(dtype)
    for name, dtype in (("F32", "<f4"), ("F64", "<f8"), ("I64", "<i8"), ("BOOL", "?"))
}
"""What graphs read, by safetensors' names."""

Octets = bytes | memoryview | Digested


class State:
    """A public state as it comes, part by part.

    Args:
        digest: BLAKE3 of the whole, hex, as it was named; empty: it is as it turns out.
        size: of the whole, in bytes.
        file: where it is written, in the place of what is there.
    """

    def __init__(self, digest: str, size: int, file: IO[bytes]) -> None:
        self.digest, self.size, self.held = digest, size, 0
        self.file = file
        self.file.truncate(size)
        self._hash = blake3()

    @property
    def complete(self) -> bool:
        """Whether all parts have come."""
        return self.held == self.size

    def take(self, part: Octets) -> None:
        """The next part.

        Raises:
            RoundRefused: it goes beyond the end, or the whole doesn't have the digest.
        """
        if self.held + max(len(part), 1) > self.size:
            raise RoundRefused("The part goes beyond the state's end.")
        known = part.digest if isinstance(part, Digested) and len(part) == self.size else None
        octets = part.data if isinstance(part, Digested) else part
        _write_at(self.file.fileno(), octets, self.held)
        if known is None:
            self._hash.update(octets)
        self.held += len(part)
        if not self.complete:
            return
        found = (known or self._hash.digest()).hex()
        if self.digest and found != self.digest:
            raise RoundRefused("The state isn't the one that its digest names.")
        self.digest = found


def _write_at(file: int, part: bytes | memoryview, begin: int) -> None:
    left = memoryview(part)
    while left:
        written = os.pwrite(file, left, begin)
        left, begin = left[written:], begin + written


def state_limit(step: Step) -> int:
    """Most bytes that a state of the step's tensors may take as safetensors."""
    sizes = (spec.count * _itemsize(spec.dtype) for spec in step.state)
    return min(sum(sizes) + _STATE_HEADER, MAX_STATE_BYTES)


def model_limit(plan: Plan) -> int:
    """Most bytes of a state that a plan's memory and scores are computed from."""
    graphs = [graph for graph in (plan.memory, plan.scores) if graph is not None]
    read = {spec.name: spec for graph in graphs for spec in graph.state}
    sizes = (spec.count * _itemsize(spec.dtype) for spec in read.values())
    return min(sum(sizes) + _STATE_HEADER, MAX_STATE_BYTES)


def _itemsize(dtype: str) -> int:
    return 1 if dtype == "bool" else np.dtype(dtype).itemsize


def read_state(step: Step, state: IO[bytes]) -> dict[str, Stored]:
    """Parse a step's public state and check it against the approved names, shapes and dtypes.

    Args:
        state: a file of safetensors; the tensors stay in it.

    Raises:
        RoundRefused: too large, not safetensors, or another state than the step's.
    """
    limit, size = state_limit(step), os.fstat(state.fileno()).st_size
    if size > limit:
        raise RoundRefused(f"The state has {size} bytes; at most {limit} pass.")
    tensors = load_state(state)
    found = {(name, t.shape, str(t.dtype)) for name, t in tensors.items()}
    expected = {(spec.name, tuple(spec.shape), spec.dtype) for spec in step.state}
    if found != expected:
        raise RoundRefused(
            f"Step '{step.name}' takes the state {sorted(expected)}, got {sorted(found)}."
        )
    for name, tensor in tensors.items():
        # Admission counts on it: 200 as a truth value, made a whole number, would be an index.
        if tensor.dtype == bool and any(max(piece) > 1 for piece in tensor.pieces()):
            raise RoundRefused(f"The state '{name}' has truth values other than 0 and 1.")
    return tensors


def load_state(state: IO[bytes]) -> dict[str, Stored]:
    """The tensors of a file of safetensors; they stay in it.

    Raises:
        RoundRefused: it isn't one, or has other dtypes than states have.
    """
    try:
        return _tensors_in(state)
    except (KeyError, TypeError, ValueError, RecursionError, struct.error) as error:
        raise RoundRefused(f"The state is not safetensors ({type(error).__name__}).") from None


def _tensors_in(file: IO[bytes]) -> dict[str, Stored]:
    """The format: length of the header (u64), a JSON header, and the tensors without gaps."""
    size = os.fstat(file.fileno()).st_size
    (length,) = struct.unpack("<Q", os.pread(file.fileno(), 8, 0))
    if length > min(size, _STATE_HEADER):
        raise ValueError("the header is longer than the file, or than headers are")
    header = json.loads(os.pread(file.fileno(), length, 8))
    header.pop("__metadata__", None)
    tensors, end = {}, 8 + length
    for name, told in sorted(header.items(), key=lambda entry: entry[1]["data_offsets"]):
        shape = told["shape"]
        if len(shape) > _MOST_AXES or any(type(n) is not int or n < 0 for n in shape):
            raise ValueError("a shape is a few whole numbers")
        tensors[name] = Stored(file, end, _DTYPES[told["dtype"]], tuple(shape))
        offsets = end - 8 - length, end - 8 - length + tensors[name].nbytes
        if tuple(told["data_offsets"]) != offsets:
            raise ValueError("the tensors don't lie one after the other")
        end += tensors[name].nbytes
    if end != size:
        raise ValueError("the file doesn't end with its tensors")
    return tensors
