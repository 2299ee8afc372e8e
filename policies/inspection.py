"""One graph, derived again node by node on fake tensors: nothing is computed, nothing believed.

Operations and arguments against the allow-list, shapes, dtypes, the range of every integer, memory
and multiply-adds per user. A refusal names its rule.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from policies.arguments import Call, check_call, check_written
from policies.cost import spreads, work
from policies.graph import DTYPES, USER_TENSORS, Graph, Node, TensorSpec
from policies.operations import OperationRefused, operation
from policies.ranges import INT64, Integers, Range, bounded, union
from policies.refusals import Limits, PlanRefused
from policies.users import Bounds, user_specs

__all__ = ["Limits", "PlanRefused", "Usage", "inspect", "shown"]


@dataclass(frozen=True)
class Usage:
    """What a graph needs for one user.

    Attributes:
        bytes: of all its intermediate tensors together (an upper bound).
        work: multiply-adds.
        outputs: specs of its outputs.
        shapes: of what each node gives, by name.
    """

    bytes: int
    work: float
    outputs: tuple[TensorSpec, ...]
    shapes: Mapping[str, list[torch.Size]]


def inspect(
    graph: Graph, bounds: Bounds, limits: Limits | None = None, memory: int | None = None
) -> Usage:
    """Derive shapes, dtypes, index ranges and cost of every node without computing anything.

    Args:
        memory: length of a user's private memory, if the graph may read one.

    Raises:
        PlanRefused: an operation, argument, shape, index or size that isn't allowed.
    """
    return _Inspection(graph, bounds, limits or Limits(), memory).run()


class _Inspection:
    """One pass over a graph on fake tensors, with the range of every integer tensor."""

    def __init__(
        self, graph: Graph, bounds: Bounds, limits: Limits, memory: int | None = None
    ) -> None:
        self._graph = graph
        self._limits = limits
        self._specs = user_specs(bounds, memory)
        self._indices: Range = (0, bounds.items - 1)
        self._tensors: dict[str, Any] = {}
        self._ranges: dict[str, Range] = {}
        self._public = {spec.name for spec in graph.state}
        self._public |= {constant.spec.name for constant in graph.constants}
        self._bytes = 0
        self._work = 0.0

    def run(self) -> Usage:
        self._check_size()
        self._check_names()
        with FakeTensorMode(allow_non_fake_inputs=True):
            self._define_inputs()
            for node in self._graph.nodes:
                self._visit_safely(node)
        self._check_used()
        outputs = [_spec(name, self._tensors[ref]) for name, ref in self._graph.outputs]
        shapes = {node.name: shapes_of(self._tensors[node.name]) for node in self._graph.nodes}
        return Usage(self._bytes, self._work, tuple(outputs), shapes)

    def _check_size(self) -> None:
        graph, limits = self._graph, self._limits
        constants = sum(constant.spec.count for constant in graph.constants)
        if len(graph.nodes) > limits.nodes:
            raise PlanRefused("size", f"{len(graph.nodes)} operations, at most {limits.nodes}.")
        if constants > limits.constants:
            raise PlanRefused(
                "constants",
                f"{constants} constant numbers, at most {limits.constants}: pass large tensors as "
                "state.",
            )

    def _check_names(self) -> None:
        """A name that says nothing can't mislead, and equal graphs have equal text."""
        graph = self._graph
        written = [constant.spec.name for constant in graph.constants]
        if written != [f"c{index}" for index in range(len(written))]:
            raise PlanRefused("names", "constants must be named c0, c1, ... in their order.")
        if any(node.name != f"n{index}" for index, node in enumerate(graph.nodes)):
            raise PlanRefused("names", "operations must be named n0, n1, ... in their order.")

    def _check_used(self) -> None:
        """No decoys: everything that is written matters for what leaves."""
        graph = self._graph
        used = {ref for _, ref in graph.outputs}
        used.update(name for node in graph.nodes for name in node.references())
        for name in [spec.name for spec in graph.inputs] + list(self._tensors):
            if name not in used:
                raise PlanRefused("unused", f"{name} is used by nothing: leave it out.")

    def _define_inputs(self) -> None:
        for spec in self._graph.inputs:
            if spec.name in USER_TENSORS and self._specs.get(spec.name) != spec:
                raise PlanRefused(
                    "inputs",
                    f"the input {spec.name!r} has shape {list(spec.shape)} and dtype {spec.dtype}, "
                    "which no user of this data set has.",
                )
            self._tensors[spec.name] = spec.empty()
            if spec.name in ("items", "target", "negatives"):
                self._ranges[spec.name] = self._indices
        for constant in self._graph.constants:
            self._tensors[constant.spec.name] = constant.spec.empty()
            if constant.spec.dtype == "int64":
                numbers = [int(value) for value in constant.data]
                self._ranges[constant.spec.name] = (min(numbers), max(numbers))

    def _visit_safely(self, node: Node) -> None:
        """A check that can't be made is a refusal: hostile arguments may fit no check at all."""
        try:
            self._visit(node)
        except PlanRefused as refused:
            refused.node = node.name
            raise
        except Exception as error:
            raise PlanRefused(
                "shape", f"{node.name} = {node.op} can't be checked: {type(error).__name__}."
            ) from None

    def _visit(self, node: Node) -> None:
        check_written(node, self._limits)
        args = [self._value(value) for value in node.args]
        kwargs = {key: self._value(value) for key, value in node.kwargs.items()}
        check_call(Call(node, args, self._ranges, self._range_of), self._limits)
        try:
            result = operation(node.op)(*args, **kwargs)
        except OperationRefused as refused:
            raise PlanRefused("operation", f"{node.name}: {refused}") from None
        except Exception as error:
            raise PlanRefused(
                "shape", f"{node.name} = {node.op} doesn't fit its arguments: {str(error)[:200]}"
            ) from None
        self._count(node, args, result)
        self._tensors[node.name] = result
        if isinstance(result, Tensor):
            _spec("result", result, f"{node.name} = {node.op}")
        self._ranges[node.name] = self._range(node, args, result)

    def _value(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._value(item) for item in value]
        if not isinstance(value, dict):
            return value
        [(tag, content)] = value.items()
        if tag == "ref":
            return self._tensors[content]
        return DTYPES[content] if tag == "dtype" else float(content)

    def _count(self, node: Node, args: list[Any], result: Any) -> None:
        results, inputs = _tensors_in(result), _tensors_in(args)
        if node.op != "getitem":
            self._bytes += _bytes(results)
        self._work += work(node.op, inputs, results)
        if self._public.issuperset(node.references()):
            self._public.add(node.name)
        elif spreads(node.op):
            public = [name for name in node.references() if name in self._public]
            self._bytes += _bytes(_tensors_in([self._tensors[name] for name in public]))
        if self._bytes > self._limits.user_bytes:
            raise PlanRefused(
                "memory",
                f"one user needs over {self._limits.user_bytes >> 20} MiB (reached at "
                f"{node.name} = {node.op}): make the intermediate tensors smaller.",
            )

    def _range(self, node: Node, args: list[Any], result: Any) -> Range:
        """Bounds of an integer result (interval arithmetic); all of int64 where it isn't known."""
        if isinstance(result, Tensor):
            if result.dtype == torch.bool:
                return (0, 1)
            if result.dtype != torch.int64:
                return INT64
        ranges = [self._range_of(value) for value in node.args]
        return bounded(node.op, Integers(args, node.kwargs, ranges, result))

    def _range_of(self, value: Any) -> Range:
        """Range of an argument; a float tensor's or anything unknown is all of int64."""
        if type(value) is int:
            return (value, value)
        if isinstance(value, list):
            return union([self._range_of(item) for item in value]) if value else INT64
        if isinstance(value, dict) and "ref" in value:
            tensor = self._tensors[value["ref"]]
            if isinstance(tensor, Tensor) and tensor.dtype == torch.bool:
                return (0, 1)
            return self._ranges.get(value["ref"], INT64)
        return INT64


def _spec(name: str, tensor: Any, where: str = "an output") -> TensorSpec:
    try:
        return TensorSpec.of(name, tensor)
    except (ValueError, AttributeError):
        dtype = getattr(tensor, "dtype", type(tensor).__name__)
        shape = list(getattr(tensor, "shape", []))
        raise PlanRefused(
            "dtype",
            f"{where} is {dtype}{shape}; graphs have {', '.join(DTYPES)} tensors of at least one "
            "element.",
        ) from None


def shown(specs: Iterable[TensorSpec]) -> str:
    """Specs as an error says them."""
    return ", ".join(f"{spec.name} {spec.dtype}{list(spec.shape)}" for spec in specs) or "nothing"


def shapes_of(result: Any) -> list[torch.Size]:
    """The shape of every tensor that an operation gives."""
    return [tensor.shape for tensor in _tensors_in(result)]


def _tensors_in(value: Any) -> list[Tensor]:
    if isinstance(value, list | tuple):
        return [tensor for item in value for tensor in _tensors_in(item)]
    return [value] if isinstance(value, Tensor) else []


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
