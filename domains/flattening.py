"""A graph mapped over users, written out once as the plain list of operators that it comes to.

`vmap` and `grad` find out anew at each call what to run, which takes longer than running it on a
small batch. Here they find out once, on fake tensors without numbers. So which operators run, and
in which order, can't hang on anybody's data.
"""

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, cast

import torch
from torch import Tensor, fx
from torch.fx import Node
from torch.fx.experimental.proxy_tensor import make_fx

from policies.graph import Graph, GraphFailed

_RAISES = torch.ops.aten._linalg_check_errors.default
"""Raises if one user's matrix is singular, and so would tell of her by the time that a release
takes. Without it her numbers aren't finite, and count as nothing."""

_ALL = torch.ops.aten.all.dim
_EQUALS = torch.ops.aten.eq.Scalar
_LARGEST = torch.ops.aten.amax.default

Operators = Callable[..., list[Tensor]]
Mapped = Callable[[Mapping[str, Tensor]], dict[str, Tensor]]


def mapped(
    graph: Graph, users: Collection[str], differentiated: Collection[str] | None = None
) -> Mapped:
    """The graph for each user of a batch alone.

    What is returned takes the graph's inputs by name and gives tensors [B, ...] by name. It raises
    GraphFailed, which never quotes a value, if an operator fails or the graph can't be mapped.

    Args:
        users: names of the inputs that have a user in each place of their first dimension, B.
        differentiated: None for the graph's outputs; else the inputs by which the output "loss" is
            differentiated, and whose gradients are given.
    """
    text = graph.model_dump_json()
    chosen = None if differentiated is None else tuple(differentiated)
    outputs = chosen if chosen is not None else [name for name, _ in graph.outputs]

    def run(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        inputs = tuple((n, n in users, t.shape, t.dtype) for n, t in values.items())
        try:
            operators = _written_out(_Map(text, inputs, chosen, graph))
            with torch.inference_mode():  # spares each operator the preparations to differentiate
                found = operators(*values.values())
        except Exception as error:
            # An operator's message may quote private values, its type can't.
            raise GraphFailed(f"An operation failed with {type(error).__name__}.") from None
        return dict(zip(outputs, found, strict=True))

    return run


@dataclass(frozen=True)
class _Map:
    """What a list of operators hangs on.

    Attributes:
        inputs: name, whether it is the users', shape and dtype of each.
    """

    text: str
    inputs: tuple[tuple[str, bool, torch.Size, torch.dtype], ...]
    differentiated: tuple[str, ...] | None
    graph: Graph = field(compare=False)


@lru_cache(maxsize=32)
def _written_out(of: _Map) -> Operators:
    names = [name for name, *_ in of.inputs]

    def contribution(*tensors: Tensor) -> list[Tensor]:
        values = dict(zip(names, tensors, strict=True))
        if of.differentiated is None:
            return list(of.graph.run(values).values())
        chosen = {name: values[name] for name in of.differentiated}
        found = torch.func.grad(lambda part: of.graph.run({**values, **part})["loss"])(chosen)
        return list(found.values())

    dims = tuple(0 if its_users else None for _, its_users, *_ in of.inputs)
    over_users = torch.func.vmap(contribution, in_dims=dims)
    example = [torch.empty(shape, dtype=dtype) for *_, shape, dtype in of.inputs]
    written = make_fx(over_users, tracing_mode="fake", _allow_non_fake_inputs=True)(*example)
    for node in list(written.graph.nodes):
        if node.target is _RAISES:
            written.graph.erase_node(node)
        elif node.target is _ALL and _asks_for_minus_infinity(node.args[0]):
            _ask_the_largest(written.graph, node)
    written.graph.eliminate_dead_code()
    written.recompile()
    operators: Operators = written.forward
    return operators


def _asks_for_minus_infinity(node: Any) -> bool:
    """Whether it is x == -inf, of an x that isn't empty."""
    if node.target is not _EQUALS or node.args[1] != -math.inf:
        return False
    return bool(node.args[0].meta["val"].numel())


def _ask_the_largest(graph: fx.Graph, everywhere: Node) -> None:
    """all(x == -inf) as max(x) == -inf, the same also of NaN, and much quicker.

    Every attention asks so of each row of its scores, and `all` is slow over rows of truth values.
    """
    asked, dim, *keepdim = cast(tuple[Node, int, bool], everywhere.args)
    with graph.inserting_before(everywhere):
        largest = graph.call_function(_LARGEST, (asked.args[0], [dim], *keepdim))
        found = graph.call_function(_EQUALS, (largest, -math.inf))
    everywhere.replace_all_uses_with(found)
