"""A graph made ready to run many times: what doesn't hang on the user is taken out of it.

Two rewritings, both of which leave every result the same:

- nodes that read public state alone are computed once, not once a batch;
- where a state tensor that is differentiated serves only to gather rows by integer ids
  (`embedding`, `index_select`, `index`), the gathered rows become inputs. A user's gradient is then
  a few rows, not a whole table: what the dense gradient would hold elsewhere is exactly zero.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from policies.graph import Graph, Node, TensorSpec

_GATHERS = ("aten.embedding.default", "aten.index_select.default", "aten.index.Tensor")


@dataclass(frozen=True)
class Gather:
    """One place where a graph takes rows of a table.

    Attributes:
        node: the graph's node that does it.
        table: name of the state tensor [N, ...].
        index: name of the graph's tensor of ids.
        padding: an id whose row has no gradient, or None.
    """

    node: str
    table: str
    index: str
    padding: int | None


@dataclass(frozen=True)
class Gathering:
    """A graph whose tables are fed by rows.

    Attributes:
        graph: reads the inputs `rows` in place of the tables.
        ids: user tensors -> the ids, under the same names as the rows.
        rows: an input's name for each gather.
    """

    graph: Graph
    ids: Graph
    rows: Mapping[str, Gather]

    @property
    def tables(self) -> set[str]:
        """Names of the state tensors that the graph no longer reads."""
        return {gather.table for gather in self.rows.values()}


def hoist(graph: Graph, state: Mapping[str, Tensor]) -> tuple[Graph, dict[str, Tensor]]:
    """Compute the nodes that read only these state tensors and constants.

    Returns:
        The rest of the graph, and its further inputs by name.
    """
    public = set(state) | {constant.spec.name for constant in graph.constants}
    early = [node for node in graph.nodes if _is_early(node, public)]
    late = [node for node in graph.nodes if node.name not in public]
    read = {ref for node in late for ref in node.references()} | {ref for _, ref in graph.outputs}
    frontier = [node.name for node in early if node.name in read]
    if not frontier:
        return graph, {}
    names = _fresh_names(graph, "public", frontier)
    values = _part(graph, early, names).run(dict(state))
    if not all(isinstance(value, Tensor) for value in values.values()):
        return graph, {}
    # Written-out operators were chosen for contiguous inputs.
    values = {name: value.contiguous() for name, value in values.items()}
    specs = tuple(TensorSpec.of(name, value) for name, value in values.items())
    return _replaced(graph, late, specs, {node: name for name, node in names.items()}), values


def _is_early(node: Node, public: set[str]) -> bool:
    """Whether a node reads public values alone; remembers its name among them if so."""
    early = public.issuperset(node.references())
    if early:
        public.add(node.name)
    return early


def gather_rows(
    graph: Graph, differentiated: Collection[str], example: Mapping[str, Tensor]
) -> Gathering | None:
    """Feed every differentiated table that the graph only gathers from by its rows.

    A table that is also read as a whole, or whose ids hang on what is differentiated, stays as it
    is; None if all do.

    Args:
        example: the graph's inputs for one user, any user, from which the ids' shapes are taken.
    """
    specs = {spec.name: spec for spec in graph.state}
    tables = {name for name in differentiated if _only_gathered(graph, specs[name], differentiated)}
    gathers = {n.name: _gather(n) for n in graph.nodes if tables & set(n.references())}
    if not gathers:
        return None
    names = _fresh_names(graph, "rows", gathers)
    rows = {name: gathers[node] for name, node in names.items()}
    ids = _part(graph, graph.nodes, {name: gather.index for name, gather in rows.items()})
    found = ids.run(dict(example))
    if any(tensor.dtype != torch.int64 for tensor in found.values()):
        return None
    inputs = tuple(
        TensorSpec(
            name=name,
            shape=(*found[name].shape, *specs[gather.table].shape[1:]),
            dtype=specs[gather.table].dtype,
        )
        for name, gather in rows.items()
    )
    late = [node for node in graph.nodes if node.name not in gathers]
    renamed = {node: name for name, node in names.items()}
    return Gathering(_replaced(graph, late, inputs, renamed), ids, rows)


def _only_gathered(graph: Graph, table: TensorSpec, differentiated: Collection[str]) -> bool:
    if not table.shape or table.name in {ref for _, ref in graph.outputs}:
        return False
    readers = [node for node in graph.nodes if table.name in node.references()]
    if not readers or not all(_is_gather(node, table.name) for node in readers):
        return False
    read = _ancestors(graph, [_gather(node).index for node in readers])
    return not read & set(differentiated)


def _is_gather(node: Node, table: str) -> bool:
    """Whether a node is table[ids] with integer ids that aren't the table."""
    if node.op not in _GATHERS or node.args[0] != {"ref": table} or len(node.references()) != 2:
        return False
    if node.op == "aten.embedding.default":
        # scale_grad_by_freq would divide a row's gradient by how often its id occurs.
        return len(node.args) <= 3 and not node.kwargs
    if node.kwargs:
        return False
    if node.op == "aten.index_select.default":
        return len(node.args) == 3 and node.args[1] == 0
    return len(node.args) == 2 and isinstance(node.args[1], list) and len(node.args[1]) == 1


def _gather(node: Node) -> Gather:
    table, index = node.references()
    padding = None
    if node.op == "aten.embedding.default" and len(node.args) > 2 and node.args[2] >= 0:
        padding = node.args[2]
    return Gather(node.name, table, index, padding)


def _fresh_names(graph: Graph, word: str, nodes: Iterable[str]) -> dict[str, str]:
    """New input names, none of which the graph has, for these nodes."""
    taken = {spec.name for spec in graph.inputs} | {node.name for node in graph.nodes}
    taken |= {constant.spec.name for constant in graph.constants}
    while any(name.startswith(word) for name in taken):
        word += "_"
    return {f"{word}.{position}": node for position, node in enumerate(nodes)}


def _part(graph: Graph, nodes: Iterable[Node], outputs: Mapping[str, str]) -> Graph:
    """The graph of these nodes alone, as far as the outputs (name -> tensor) need them."""
    needed = _ancestors(graph, list(outputs.values()))
    return Graph(
        inputs=tuple(spec for spec in graph.inputs if spec.name in needed),
        constants=tuple(c for c in graph.constants if c.spec.name in needed),
        nodes=tuple(node for node in nodes if node.name in needed),
        outputs=tuple(outputs.items()),
    )


def _ancestors(graph: Graph, names: Collection[str]) -> set[str]:
    needed = set(names)
    for node in reversed(graph.nodes):
        if node.name in needed:
            needed.update(node.references())
    return needed


def _replaced(
    graph: Graph, nodes: Iterable[Node], inputs: tuple[TensorSpec, ...], names: Mapping[str, str]
) -> Graph:
    """The graph with these nodes, further inputs, and references renamed; only what is read."""
    renamed = tuple(
        Node(
            name=node.name,
            op=node.op,
            args=tuple(_renamed(value, names) for value in node.args),
            kwargs={key: _renamed(value, names) for key, value in node.kwargs.items()},
        )
        for node in nodes
    )
    outputs = tuple((name, names.get(ref, ref)) for name, ref in graph.outputs)
    read = {ref for node in renamed for ref in node.references()} | {ref for _, ref in outputs}
    return Graph(
        inputs=tuple(spec for spec in (*graph.inputs, *inputs) if spec.name in read),
        constants=tuple(c for c in graph.constants if c.spec.name in read),
        nodes=renamed,
        outputs=outputs,
    )


def _renamed(value: Any, names: Mapping[str, str]) -> Any:
    if isinstance(value, list):
        return [_renamed(item, names) for item in value]
    if isinstance(value, dict) and "ref" in value:
        return {"ref": names.get(value["ref"], value["ref"])}
    return value
