"""The arguments with which an operation of the allow-list is as safe as its reason says.

Indices inside what they index, whole divisors of at least one, and shapes for which PyTorch's own
mapping over users keeps them apart.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from policies.graph import Node
from policies.operations import ALLOWED
from policies.ranges import INT64, Range, argument
from policies.refusals import Limits, PlanRefused

_KEYWORDS = frozenset(
    [
        "dtype",
        "alpha",
        "beta",
        "check_errors",
        "upper",
        "left",
        "unitriangular",
        "correction",
        "keepdim",
        "rounding_mode",
        "approximate",
    ]
)

# Position of the index among the arguments, and its dimension (None: the second argument).
_INDEXED: dict[str, tuple[int, int | None]] = {
    "index": (1, None),
    "index_put": (1, None),
    "gather": (2, None),
    "index_select": (2, None),
    "embedding": (1, 0),
    "scatter_add": (2, None),
    "scatter": (2, None),
    "index_add": (2, None),
}

_PRODUCTS = frozenset(["mm", "mv", "dot", "bmm", "addmm", "addmv", "baddbmm"])


@dataclass(frozen=True)
class Call:
    """A node with what is known of its arguments.

    Attributes:
        args: as the operator gets them, tensors without numbers.
        ranges: between what the integers of each named tensor lie.
        range_of: the same of any argument as the node writes it.
    """

    node: Node
    args: list[Any]
    ranges: Mapping[str, Range]
    range_of: Callable[[Any], Range]

    @property
    def name(self) -> str:
        return self.node.op.split(".")[1] if "." in self.node.op else self.node.op

    def refuse(self, rule: str, why: str) -> PlanRefused:
        return PlanRefused(rule, f"{self.node.name} = {self.node.op}: {why}")


def check_written(node: Node, limits: Limits) -> None:
    """What can be said of a node before its arguments are known."""
    if node.op not in ALLOWED:
        raise PlanRefused(
            "operation", f"{node.name}: the operation {node.op!r} isn't on the allow-list."
        )
    unknown = sorted(set(node.kwargs) - _KEYWORDS)
    if unknown:
        raise PlanRefused("operation", f"{node.name}: the argument {unknown[0]!r} isn't used.")
    lists = [value for value in node.args if isinstance(value, list)]
    if len(node.args) > 16 or any(len(value) > limits.parts for value in lists):
        raise PlanRefused("size", f"{node.name}: too many arguments.")


def check_call(call: Call, limits: Limits) -> None:
    """Whether the operation is safe with these arguments; raises PlanRefused."""
    name, node = call.name, call.node
    if node.kwargs.get("check_errors"):
        raise PlanRefused("operation", f"{node.name}: check_errors would depend on the data.")
    if name == "getitem":
        _check_pick(call)
    if name in ("split", "unbind"):
        _check_parts(call, limits)
    if name in _PRODUCTS and len({each.dtype for each in _tensors(call)}) > 1:
        raise call.refuse("dtype", "its factors have different dtypes: convert them to one.")
    if name in _INDEXED:
        _check_index(call)
    if name == "_linalg_solve_ex":
        _check_system(call)
    if name in ("floor_divide", "remainder") or node.op.endswith("_mode"):
        _check_divisor(call)


def _tensors(call: Call) -> list[Tensor]:
    return [value for value in call.args if isinstance(value, Tensor)]


def _check_pick(call: Call) -> None:
    """From a list of results, by a written number: of a tensor it would be an unchecked index."""
    good = len(call.args) == 2 and isinstance(call.args[0], list | tuple)
    if not good or type(call.args[1]) is not int:
        raise call.refuse("operation", "it picks one of several results, by a written number.")


def _check_parts(call: Call, limits: Limits) -> None:
    args, split = call.args, "split" in call.node.op
    dim = argument(args, 2 if split else 1, 0)
    each = args[1] if split else 1
    if isinstance(args[0], Tensor) and type(dim) is int and type(each) is int and args[0].dim():
        size = args[0].shape[dim] if -args[0].dim() <= dim < args[0].dim() else 0
        if size <= max(each, 1) * limits.parts:
            return
    raise PlanRefused("size", f"{call.node.name}: makes more than {limits.parts} tensors.")


def _check_index(call: Call) -> None:
    """Every index must be provably inside the dimension it indexes."""
    node, args, source = call.node, call.args, call.args[0]
    if call.name == "index_put" and not (len(args) == 4 and args[3] is True):
        raise call.refuse("operation", "it must accumulate, or equal indices compete.")
    if call.name in ("index", "index_put"):
        if not any(isinstance(value, Tensor) for value in args[1]):
            # PyTorch's mapping of it reads past the end of the list.
            raise call.refuse("index", "there is no index in it.")
        for axis, (part, value) in enumerate(zip(node.args[1], args[1], strict=True)):
            if value is not None:
                _require_inside(call, part, value, source, axis, negative=True)
        return
    position, dim = _INDEXED[call.name]
    if call.name == "embedding" and any(argument(args, i, False) for i in (3, 4)):
        raise PlanRefused("operation", f"{node.name}: sparse or frequency-scaled embedding.")
    dim = args[1] if dim is None else dim
    if len(args) <= position:
        raise PlanRefused("shape", f"{node.name} = {node.op} has too few arguments.")
    _require_inside(call, node.args[position], args[position], source, dim)
    if call.name == "index_select" and args[position].dim() != 1:
        raise call.refuse("index", "the index must be a vector: mapped over users it mixes them.")


def _require_inside(
    call: Call, part: Any, index: Any, source: Any, dim: Any, negative: bool = False
) -> None:
    if not (isinstance(index, Tensor) and isinstance(source, Tensor) and type(dim) is int):
        raise call.refuse("index", "an index must be a tensor.")
    if index.dtype != torch.int64:
        raise call.refuse("index", "an index must be int64.")
    size = 1 if source.dim() == 0 and dim in (0, -1) else 0
    if -source.dim() <= dim < source.dim():
        size = source.shape[dim]
    low, high = call.ranges.get(part["ref"], INT64)
    if low < (-size if negative else 0) or high >= size:
        raise call.refuse(
            "index",
            f"{part['ref']} isn't provably in 0..{size - 1}. Index with items, target or "
            f"negatives, or write index.clamp(0, {size - 1}).",
        )


def _check_system(call: Call) -> None:
    """Where matrices and right sides have other batches, PyTorch's mapping of the solution takes
    the users for one of them, and solves one user's system with another's right side."""
    matrix, right = call.args[:2]
    vector = matrix.dim() == 2 and right.dim() == 1
    alike = matrix.dim() == right.dim() and matrix.shape[:-2] == right.shape[:-2]
    if not (vector or alike):
        raise call.refuse(
            "mapping",
            f"a system of shape {list(matrix.shape)} with right sides of shape "
            f"{list(right.shape)}: expand both to the same leading sizes, or users mix.",
        )


def _check_divisor(call: Call) -> None:
    """A crash would tell something of the data: x / 0 is an error, -2^63 / -1 a fatal one."""
    args = call.args
    if any(isinstance(value, Tensor) and value.is_floating_point() for value in args[:2]):
        return
    if len(args) > 1 and isinstance(args[1], float):
        return
    low, _ = call.range_of(call.node.args[1]) if len(call.node.args) > 1 else INT64
    if low < 1:
        raise call.refuse("division", "the divisor may be below 1: clamp it to at least 1.")
