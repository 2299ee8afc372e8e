"""What changed between two plans, by meaning: names of nodes and the order of independent nodes
don't count."""

import difflib
from collections.abc import Iterator
from typing import Any

from policies.canonical import canonical, sha256_hex
from policies.clipping import Adaptive, PerLayer
from policies.graph import Graph, TensorSpec
from policies.legible import visible
from policies.plan import Plan, Step
from policies.pseudo_code import content, described, expression, listed, short

_PLAN_FIELDS = (
    "name", "purpose", "scientist", "dataset", "population_note", "catalogue", "collusion",
    "threshold", "delta", "spare_attempts", "public", "aggregation", "deadline_s", "two_domains",
    "dealer", "comparisons",
)  # fmt: skip
_COMMUTATIVE = frozenset(
    f"aten.{name}"
    for name in (
        "add.Tensor", "mul.Tensor", "maximum.default", "minimum.default", "eq.Tensor", "ne.Tensor",
        "logical_and.default", "logical_or.default", "logical_xor.default", "bitwise_and.Tensor",
        "bitwise_or.Tensor",
    )
)  # fmt: skip
_STEP_FIELDS = (
    "kind", "clip_norm", "noise_multiplier", "sampling_rate", "releases", "after", "every", "scale",
    "kept",
)  # fmt: skip


def changes(before: Plan, after: Plan) -> list[str]:
    """What differs between two plans in meaning, one line each; empty if nothing does."""
    lines = list(_changed_fields(before, after, _PLAN_FIELDS))
    lines += _changed_roster(before, after)
    old = {step.name: step for step in before.steps}
    new = {step.name: step for step in after.steps}
    lines += [f"step {name}: removed" for name in old if name not in new]
    lines += [f"step {name}: added" for name in new if name not in old]
    shared = [name for name in old if name in new]
    if shared != [name for name in new if name in old]:
        lines.append(f"order of steps: {', '.join(old)} -> {', '.join(new)}")
    for name in shared:
        lines += [f"step {name}: {line}" for line in _changed_step(old[name], new[name])]
    for name in ("memory", "scores"):
        found = _changed_graph(getattr(before, name), getattr(after, name))
        lines += [f"{name} graph: {line}" for line in found]
    return lines


def same_meaning(before: Graph, after: Graph) -> bool:
    """Whether two graphs compute the same by construction, whatever their nodes are called."""
    outputs = [_outputs(graph, either_way=True) for graph in (before, after)]
    return _inputs(before) == _inputs(after) and outputs[0] == outputs[1]


def meaning(graph: Graph) -> tuple[object, ...]:
    """JSON values that two graphs share only if they have the `same_meaning`; those that differ in
    the order of a sum's or product's two parts don't."""
    inputs = sorted(described(spec) for spec in graph.inputs)
    return (inputs, sorted([name, found] for name, found in _outputs(graph).items()))


def _changed_fields(before: Any, after: Any, names: tuple[str, ...]) -> Iterator[str]:
    for name in names:
        old, new = getattr(before, name), getattr(after, name)
        if old != new:
            yield f"{name.replace('_', ' ')}: {_in_a_line(old)} -> {_in_a_line(new)}"


def _in_a_line(value: Any) -> str:
    """The author's line breaks mustn't make lines of the explanation."""
    return visible(str(value)).replace("\n", "\\n")


def _changed_roster(before: Plan, after: Plan) -> list[str]:
    old = {entry.name: entry for entry in before.roster}
    new = {entry.name: entry for entry in after.roster}
    lines = [f"partner {name}: leaves" for name in old if name not in new]
    lines += [f"partner {name}: joins" for name in new if name not in old]
    both = [name for name in old if name in new and old[name] != new[name]]
    return lines + [f"partner {name}: has other keys" for name in both]


def _changed_step(before: Step, after: Step) -> list[str]:
    lines = list(_changed_fields(before, after, _STEP_FIELDS))
    if before.clipping != after.clipping:
        lines.append(f"clipping: {_clipping(before)} -> {_clipping(after)}")
    if before.outputs != after.outputs:
        lines.append(f"what leaves: {listed(before.outputs)} -> {listed(after.outputs)}")
    computed = _changed_graph(before.graph, after.graph)
    if before.source != after.source and not computed:
        lines.append("source: another text for the same graph")
    return lines + computed


def _clipping(step: Step) -> str:
    return f"{step.clipping.kind}{divided(step).replace('; of it', ':')}"


def _changed_graph(before: Graph | None, after: Graph | None) -> list[str]:
    if before is None or after is None:
        return [] if before is after else ["added" if before is None else "removed"]
    if same_meaning(before, after):
        return []
    old, new = _flow(before), _flow(after)
    found = [line for line in difflib.ndiff(old, new) if line[0] in "+-"]
    # The same operations with another wiring: show the flow itself.
    return found or ["the same operations, connected in another way"]


def _inputs(graph: Graph) -> set[TensorSpec]:
    return set(graph.inputs)


def _outputs(graph: Graph, either_way: bool = False) -> dict[str, str]:
    meanings = _meanings(graph, either_way)
    return {name: meanings[ref] for name, ref in graph.outputs}


def _meanings(graph: Graph, either_way: bool) -> dict[str, str]:
    """A hash for every tensor of what it is made of, independent of names and order of nodes.

    Args:
        either_way: x + y and y + x are the same, as they are to the last bit.
    """
    found = {spec.name: _hash(["input", spec.name]) for spec in graph.inputs}
    for constant in graph.constants:
        shape, dtype = list(constant.spec.shape), constant.spec.dtype
        found[constant.spec.name] = _hash(["constant", shape, dtype, list(constant.data)])
    for node in graph.nodes:
        args = _resolved(node.args, found)
        if either_way and node.op in _COMMUTATIVE and len(args) == 2 and not node.kwargs:
            args = sorted(args, key=canonical)
        parts = [node.op, args, _resolved(node.kwargs, found)]
        found[node.name] = _hash(["node", *parts])
    return found


def _flow(graph: Graph) -> list[str]:
    """One line per operation in the order of the data's flow, arguments by what made them.

    Depth first from the outputs, so that the order in which independent nodes are written doesn't
    matter, and an inserted node changes only the lines beside it.
    """
    nodes = {node.name: node for node in graph.nodes}
    labels = {spec.name: spec.name for spec in graph.inputs}
    labels |= {constant.spec.name: content(constant) for constant in graph.constants}
    labels |= {name: short(node.op) for name, node in nodes.items()}
    lines = [f"input {described(spec)}" for spec in sorted(graph.inputs, key=lambda s: s.name)]
    done = set[str]()
    for output, ref in sorted(graph.outputs):
        pending = [(ref, False)]
        while pending:
            name, ready = pending.pop()
            if name not in nodes or (name in done and not ready):
                continue
            if ready:
                lines.append(expression(nodes[name], labels))
                continue
            done.add(name)
            pending.append((name, True))
            pending += [(part, False) for part in reversed(nodes[name].references())]
        lines.append(f"return {output} = {labels[ref]}")
    return lines


def _resolved(value: Any, meanings: dict[str, str]) -> Any:
    if isinstance(value, list | tuple):
        return [_resolved(item, meanings) for item in value]
    if isinstance(value, dict):
        if set(value) == {"ref"}:
            return {"ref": meanings[value["ref"]]}
        return {key: _resolved(item, meanings) for key, item in value.items()}
    return value


def _hash(parts: list[Any]) -> str:
    return sha256_hex(canonical(parts))


def divided(step: Step) -> str:
    """How the clip norm is divided; nothing where it isn't."""
    if isinstance(step.clipping, PerLayer):
        pairs = zip(step.outputs, step.clipping.norms, strict=True)
        return "; of it " + ", ".join(f"{spec.name} {norm:g}" for spec, norm in pairs)
    if isinstance(step.clipping, Adaptive):
        return (
            f"; of it {step.clipping.norm:g} for the outputs and {step.clipping.vote_norm:g} for "
            "her vote, released with them, whether hers were within it: the author moves the unit "
            f"in which they are clipped until {step.clipping.quantile:.0%} of users are"
        )
    return ""
