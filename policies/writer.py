"""A captured FX graph, written down in the one canonical form."""

from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule
from torch.fx import Node as FxNode

from policies.expansion import RENAMED, TRANSPARENT
from policies.graph import Constant, Graph, Node, TensorSpec, reference
from policies.operations import ALLOWED
from policies.remedies import TraceError, refusal
from policies.untraceable import LINE

_IGNORED_KEYWORDS = {"device", "layout", "pin_memory", "memory_format", "non_blocking"}
_SLICES = {"aten.slice.Tensor": 1, "aten.slice_scatter.default": 2}


class Writer:
    """Writes a captured FX graph in canonical form."""

    def __init__(
        self,
        captured: GraphModule,
        inputs: list[TensorSpec],
        names: list[str],
        constants: list[Tensor],
    ) -> None:
        self._captured = captured
        self._inputs = inputs
        self._names = names
        self._values = constants
        self._constants: list[Constant] = []
        self._nodes: list[Node] = []
        self._line = ""
        self.lines: dict[str, str] = {}
        """Of each operation that was written: the author's line."""
        self._written: dict[FxNode, str] = {}

    def graph(self) -> Graph:
        nodes = list(self._captured.graph.nodes)
        placeholders = [node for node in nodes if node.op == "placeholder"]
        used = self._used(nodes)
        given = list(zip(self._inputs, placeholders, strict=False))
        inputs = [spec for spec, node in given if node in used]
        for spec, node in given:
            self._written[node] = spec.name
        for value, node in zip(self._values, placeholders[len(given) :], strict=True):
            if node in used:
                self._written[node] = self._constant(value)
        for node in nodes:
            if node in used and node.op == "call_function":
                self._write(node)
        [returned] = nodes[-1].args
        outputs = tuple(
            (name, self._written[node]) for name, node in zip(self._names, returned, strict=True)
        )
        try:
            return Graph(
                inputs=tuple(inputs),
                constants=tuple(self._constants),
                nodes=tuple(self._nodes),
                outputs=outputs,
            )
        except ValueError as error:
            raise TraceError(f"The function can't be written as a graph: {error}") from None

    def _used(self, nodes: list[FxNode]) -> set[FxNode]:
        for node in nodes:
            if str(node.target).startswith("aten.copy_."):
                raise TraceError(
                    f"{node.meta.get(LINE) or 'Your function'}: it writes into one of its inputs, "
                    "or into a tensor from outside of it; both are read-only. clone() it first."
                )
        used = {nodes[-1]}
        for node in reversed(nodes):
            if node in used:
                # A copy into a fresh tensor keeps nothing of what was there.
                used.update([node.args[1]] if _is_copy(node) else node.all_input_nodes)
        return used

    def _write(self, node: FxNode) -> None:
        name, self._line = str(node.target), node.meta.get(LINE, "")
        if name in TRANSPARENT:
            self._written[node] = self._written[node.all_input_nodes[0]]
        elif _is_copy(node):
            self._written[node] = self._copied(node)
        else:
            self._written[node] = self._operation(node, name)

    def _copied(self, node: FxNode) -> str:
        """y[...] = x on a fresh y: x in the shape and dtype of what it replaces."""
        place, source = (part.meta["val"] for part in node.args[:2])
        written = self._written[node.args[1]]
        if source.dtype != place.dtype:
            written = self._append(
                "aten._to_copy.default", [reference(written)], {"dtype": place.dtype}
            )
        if source.shape != place.shape:
            written = self._append(
                "aten.expand.default", [reference(written), list(place.shape)], {}
            )
        return written

    def _operation(self, node: FxNode, name: str) -> str:
        op = RENAMED.get(name, name)
        if getattr(node.target, "__name__", "") == "getitem":
            op = "getitem"
        if op not in ALLOWED:
            raise TraceError(f"{self._line or 'Your function'}: {refusal(node.target, name)}.")
        args = list(node.args)
        if op in _SLICES:
            args = _bounded_slice(node, _SLICES[op])
        keywords = {k: v for k, v in node.kwargs.items() if k not in _IGNORED_KEYWORDS}
        return self._append(op, args, keywords)

    def _append(self, op: str, args: list[Any], keywords: dict[str, Any]) -> str:
        written = f"n{len(self._nodes)}"
        self.lines[written] = self._line
        self._nodes.append(
            Node(
                name=written,
                op=op,
                args=tuple(self._argument(value) for value in args),
                kwargs={key: self._argument(value) for key, value in sorted(keywords.items())},
            )
        )
        return written

    def _constant(self, tensor: Tensor) -> str:
        name = f"c{len(self._constants)}"
        spec = TensorSpec.of(name, tensor)
        self._constants.append(Constant(spec=spec, data=tuple(tensor.flatten().tolist())))
        return name

    def _argument(self, value: Any) -> Any:
        if isinstance(value, FxNode):
            return reference(self._written[value])
        if isinstance(value, list | tuple):
            return [self._argument(item) for item in value]
        if isinstance(value, torch.dtype):
            return {"dtype": str(value).removeprefix("torch.")}
        return value


def _is_copy(node: FxNode) -> bool:
    return str(node.target) == "aten.copy.default"


def _bounded_slice(node: FxNode, place: int) -> list[Any]:
    """`x[1:]` ends at 2^63 - 1; the size of the dimension says the same and JSON can write it.

    Args:
        place: of the dimension among the arguments; begin, end and step follow.
    """
    source: Any = node.args[0]
    dimension: Any = node.args[place] if len(node.args) > place else 0
    size = source.meta["val"].shape[dimension]
    given: list[Any] = list(node.args[place + 1 :])
    defaults: list[Any] = [None, None, 1]
    start, end, step = given + defaults[len(given) :]
    ends = [value if value is None else min(int(value), size) for value in (start, end)]
    return [*node.args[:place], dimension, *ends, step]
