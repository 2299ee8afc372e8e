"""Public states on their way to nodes: in parts, if they are too long for one message."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import safetensors.numpy
from blake3 import blake3
from numpy.typing import NDArray
from torch import Tensor

from network.smpc.messages import PART_BYTES
from policies.plan import Plan

Ask = Callable[..., Any]
"""(method, arguments) -> one node's answer, within one run."""


def saved(state: Mapping[str, Tensor]) -> bytes:
    """A state as safetensors."""
    return safetensors.numpy.save({n: t.detach().contiguous().numpy() for n, t in state.items()})


def send_in_parts(ask: Ask, state: NDArray[np.uint8], digest: str) -> None:
    """Have a node hold a state of any length, named by its BLAKE3 in hex."""
    for begin in range(0, state.size, PART_BYTES):
        part = state[begin : begin + PART_BYTES]
        ask("hold", state_digest=digest, size=state.size, begin=begin, part=part)


def model_of(plan: Plan, state: Mapping[str, Tensor]) -> NDArray[np.uint8]:
    """What nodes compute memories and scores from, as safetensors; of other plans, nothing."""
    graphs = [graph for graph in (plan.memory, plan.scores) if graph is not None]
    read = {spec.name: state[spec.name] for graph in graphs for spec in graph.state}
    return np.frombuffer(saved(read), dtype=np.uint8)


def end_run(ask: Ask, model: NDArray[np.uint8]) -> None:
    """Have a node end its part of a run with `model_of` the last state."""
    if model.size <= PART_BYTES:
        ask("finish", state=model)
        return
    digest = blake3(model.data).hexdigest()
    send_in_parts(ask, model, digest)
    ask("finish", state=model[:0], state_digest=digest)
