"""A run's public state as a node takes it: bounded, part by part, and read as data alone."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from domains.refusals import RoundRefused
from policies.plan import Plan, Step

MAX_STATE_BYTES = 2**29
_STATE_HEADER = 2**20


@dataclass
class State:
    """A public state as it comes, part by part."""

    digest: str
    content: bytearray | bytes
    held: int = 0

    @property
    def complete(self) -> bool:
        return self.held == len(self.content)


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


def read_state(step: Step, state: bytes) -> dict[str, NDArray]:
    """Parse a step's public state and check it against the approved names, shapes and dtypes.

    Raises:
        RoundRefused: too large, not safetensors, or another state than the step's.
    """
    limit = state_limit(step)
    if len(state) > limit:
        raise RoundRefused(f"The state has {len(state)} bytes; at most {limit} pass.")
    tensors = load_state(state)
    found = {(name, tuple(t.shape), str(t.dtype)) for name, t in tensors.items()}
    expected = {(spec.name, tuple(spec.shape), spec.dtype) for spec in step.state}
    if found != expected:
        raise RoundRefused(
            f"Step '{step.name}' takes the state {sorted(expected)}, got {sorted(found)}."
        )
    for name, tensor in tensors.items():
        # Admission counts on it: 200 as a truth value, made a whole number, would be an index.
        if tensor.dtype == bool and tensor.size and tensor.view(np.uint8).max() > 1:
            raise RoundRefused(f"The state '{name}' has truth values other than 0 and 1.")
    return tensors


def read_model(path: Path) -> dict[str, NDArray]:
    """The state a finished run left for `recommend`."""
    return load_state(path.read_bytes())


def load_state(state: bytes) -> dict[str, NDArray]:
    try:
        return safetensors.numpy.load(state)
    except Exception as error:
        raise RoundRefused(f"The state is not safetensors ({type(error).__name__}).") from None
