"""A graph as an owner reads it: one line of code for each operation."""

import json
from typing import Any

from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from policies.canonical import canonical, sha256_hex
from policies.graph import Constant, Graph, Node, TensorSpec

_SHOWN_NUMBERS = 24
_INFIX = {
    "add": "+", "sub": "-", "mul": "*", "div": "/", "mm": "@", "mv": "@", "bmm": "@", "dot": "@",
    "eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">=", "logical_and": "and",
    "logical_or": "or", "floor_divide": "//", "bitwise_and": "&", "bitwise_or": "|",
}  # fmt: skip


def pseudo_code(graph: Graph) -> list[str]:
    """The graph, one line per operation, with the shape of each result."""
    shapes = _shapes(graph)
    lines = [f"input {described(spec)}" for spec in graph.inputs]
    lines += [_constant(constant) for constant in graph.constants]
    for node in graph.nodes:
        lines.append(f"{node.name} = {expression(node)}    # {shapes[node.name]}")
    return [*lines, *(f"return {name} = {ref}" for name, ref in graph.outputs)]


def _shapes(graph: Graph) -> dict[str, str]:
    """What every node gives, derived without computing anything."""
    everything = Graph(
        inputs=graph.inputs,
        constants=graph.constants,
        nodes=graph.nodes,
        outputs=tuple((node.name, node.name) for node in graph.nodes) or graph.outputs,
    )
    with FakeTensorMode(allow_non_fake_inputs=True):
        found = everything.run({spec.name: spec.empty() for spec in graph.inputs})
    return {name: _shape(value) for name, value in found.items()}


def _shape(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}"
    return f"{len(value)} tensors"


def expression(node: Node, labels: dict[str, str] | None = None) -> str:
    name = short(node.op)
    args = [_written(value, labels) for value in node.args]
    if name in _INFIX and len(args) == 2 and not node.kwargs:
        return f"{args[0]} {_INFIX[name]} {args[1]}"
    if name == "getitem" and len(args) == 2:
        return f"{args[0]}[{args[1]}]"
    args += [f"{key}={_written(value, labels)}" for key, value in node.kwargs.items()]
    return f"{name}({', '.join(args)})"


def short(op: str) -> str:
    return op.removeprefix("aten.").split(".")[0].strip("_")


def _written(value: Any, labels: dict[str, str] | None) -> str:
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_written(item, labels) for item in value) + "]"
    if isinstance(value, dict):
        [(tag, content)] = value.items()
        return labels[content] if tag == "ref" and labels is not None else str(content)
    return json.dumps(value)


def _constant(constant: Constant) -> str:
    return f"{constant.spec.name} = {content(constant)}"


def content(constant: Constant) -> str:
    """A constant's numbers; of a long one the first, and a hash of all."""
    shown = " ".join(str(value) for value in constant.data[:_SHOWN_NUMBERS])
    rest = len(constant.data) - _SHOWN_NUMBERS
    if rest > 0:
        shown += f" ... and {rest} more, SHA-256 {sha256_hex(canonical(list(constant.data)))[:16]}"
    return f"constant {constant.spec.dtype}{list(constant.spec.shape)} {shown}"


def described(spec: TensorSpec) -> str:
    return f"{spec.name} {spec.dtype}{list(spec.shape)}"


def listed(specs: tuple[TensorSpec, ...]) -> str:
    return ", ".join(f"{spec.name} {list(spec.shape)}" for spec in specs)
