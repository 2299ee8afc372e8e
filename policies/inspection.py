"""One graph, derived again node by node on fake tensors: nothing is computed, nothing believed.

Operations and arguments against the allow-list, shapes, dtypes, the range of every integer, memory
and multiply-adds per user. A refusal names its rule.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from policies.cost import work
from policies.graph import DTYPES, USER_TENSORS, Graph, Node, TensorSpec
from policies.operations import ALLOWED, OperationRefused, operation
from policies.ranges import INT64, Integers, Range, argument, bounded, union
from policies.users import Bounds, user_specs

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


class PlanRefused(ValueError):
    """A plan breaks a rule of admission.

    Attributes:
        rule: short name of the rule, for ledgers and tables.
    """

    def __init__(self, rule: str, message: str) -> None:
        super().__init__(message)
        self.rule = rule


@dataclass(frozen=True)
class Limits:
    """How large a plan may be on one node.

    Attributes:
        nodes: operations in one graph.
        plan_nodes: operations in all graphs of a plan.
        constants: numbers written out in one graph.
        parts: results or arguments of one operation.
        user_bytes: all intermediate tensors of one user together.
        work: multiply-adds of the whole plan over the declared number of users.
        state_bytes: public tensors of one step.
        width: integers in one release.
    """

    nodes: int = 5_000
    plan_nodes: int = 20_000
    constants: int = 16_384
    parts: int = 1_024
    user_bytes: int = 512 * 2**20
    work: float = 1e15
    state_bytes: int = 256 * 2**20
    width: int = 2**26


@dataclass(frozen=True)
class Usage:
    """What a graph needs for one user.

    Attributes:
        bytes: of all its intermediate tensors together (an upper bound).
        work: multiply-adds.
        outputs: specs of its outputs.
    """

    bytes: int
    work: float
    outputs: tuple[TensorSpec, ...]


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
        return Usage(self._bytes, self._work, tuple(outputs))

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
        except PlanRefused:
            raise
        except Exception as error:
            raise PlanRefused(
                "shape", f"{node.name} = {node.op} can't be checked: {type(error).__name__}."
            ) from None

    def _visit(self, node: Node) -> None:
        self._check_arguments(node)
        args = [self._value(value) for value in node.args]
        kwargs = {key: self._value(value) for key, value in node.kwargs.items()}
        self._check_meaning(node, args)
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

    def _check_arguments(self, node: Node) -> None:
        if node.op not in ALLOWED:
            raise PlanRefused(
                "operation", f"{node.name}: the operation {node.op!r} isn't on the allow-list."
            )
        unknown = sorted(set(node.kwargs) - _KEYWORDS)
        if unknown:
            raise PlanRefused("operation", f"{node.name}: the argument {unknown[0]!r} isn't used.")
        lists = [value for value in node.args if isinstance(value, list)]
        if len(node.args) > 16 or any(len(value) > self._limits.parts for value in lists):
            raise PlanRefused("size", f"{node.name}: too many arguments.")

    def _check_meaning(self, node: Node, args: list[Any]) -> None:
        name = node.op.split(".")[1] if "." in node.op else node.op
        if node.kwargs.get("check_errors"):
            raise PlanRefused("operation", f"{node.name}: check_errors would depend on the data.")
        if name in ("split", "unbind"):
            self._check_parts(node, args)
        if name in _INDEXED:
            self._check_index(node, name, args)
        if name in ("floor_divide", "remainder") or node.op.endswith("_mode"):
            self._check_divisor(node, args)

    def _check_parts(self, node: Node, args: list[Any]) -> None:
        dim = argument(args, 2 if "split" in node.op else 1, 0)
        each = args[1] if "split" in node.op else 1
        if _is_tensor(args[0]) and type(dim) is int and type(each) is int and args[0].dim():
            size = args[0].shape[dim] if -args[0].dim() <= dim < args[0].dim() else 0
            if size <= max(each, 1) * self._limits.parts:
                return
        raise PlanRefused("size", f"{node.name}: makes more than {self._limits.parts} tensors.")

    def _check_index(self, node: Node, name: str, args: list[Any]) -> None:
        """Every index must be provably inside the dimension it indexes."""
        source = args[0]
        if name == "index_put" and not (len(args) == 4 and args[3] is True):
            raise PlanRefused(
                "operation", f"{node.name}: index_put must accumulate, or equal indices compete."
            )
        if name in ("index", "index_put"):
            for axis, (part, value) in enumerate(zip(node.args[1], args[1], strict=True)):
                if value is not None:
                    self._require_inside(node, part, value, source, axis, negative=True)
            return
        position, dim = _INDEXED[name]
        if name == "embedding" and any(argument(args, i, False) for i in (3, 4)):
            raise PlanRefused("operation", f"{node.name}: sparse or frequency-scaled embedding.")
        dim = args[1] if dim is None else dim
        if len(args) <= position:
            raise PlanRefused("shape", f"{node.name} = {node.op} has too few arguments.")
        self._require_inside(node, node.args[position], args[position], source, dim)

    def _require_inside(
        self, node: Node, part: Any, index: Any, source: Any, dim: Any, negative: bool = False
    ) -> None:
        if not (_is_tensor(index) and _is_tensor(source) and type(dim) is int):
            raise PlanRefused("index", f"{node.name} = {node.op}: an index must be a tensor.")
        if index.dtype != torch.int64:
            raise PlanRefused("index", f"{node.name} = {node.op}: an index must be int64.")
        size = 1 if source.dim() == 0 and dim in (0, -1) else 0
        if -source.dim() <= dim < source.dim():
            size = source.shape[dim]
        low, high = self._ranges.get(part["ref"], INT64)
        if low < (-size if negative else 0) or high >= size:
            raise PlanRefused(
                "index",
                f"{node.name} = {node.op}: {part['ref']} isn't provably in 0..{size - 1}. Index "
                f"with items, target or negatives, or write index.clamp(0, {size - 1}).",
            )

    def _check_divisor(self, node: Node, args: list[Any]) -> None:
        """A crash would tell something of the data: x / 0 is an error, -2^63 / -1 a fatal one."""
        if any(_is_tensor(value) and value.is_floating_point() for value in args[:2]):
            return
        if len(args) > 1 and isinstance(args[1], float):
            return
        low, _ = self._range_of(node.args[1]) if len(node.args) > 1 else INT64
        if low < 1:
            raise PlanRefused(
                "division",
                f"{node.name} = {node.op}: the divisor may be below 1: clamp it to at least 1.",
            )

    def _count(self, node: Node, args: list[Any], result: Any) -> None:
        results = [value for value in _flat(result) if _is_tensor(value)]
        inputs = [value for value in _flat(args) if _is_tensor(value)]
        if node.op != "getitem":
            self._bytes += sum(value.numel() * value.element_size() for value in results)
        self._work += work(node.op, inputs, results)
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


def _is_tensor(value: Any) -> bool:
    return isinstance(value, Tensor)


def _flat(value: Any) -> list[Any]:
    if isinstance(value, list | tuple):
        return [leaf for item in value for leaf in _flat(item)]
    return [value]
