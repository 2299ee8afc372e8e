"""What an owner is shown before deciding: who asks, what is computed, what leaves and how often,
what it costs, and what changed since the plan that she approved last.

The source is the author's word; the graph, printed as pseudo-code, is what runs. Two plans are
compared by meaning: names of nodes and the order of independent nodes don't count.
"""

import difflib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from policies.accounting import ADJACENCY, epsilon_at_every_partner, plan_epsilon
from policies.canonical import canonical, sha256_hex
from policies.clipping import Adaptive, PerLayer
from policies.graph import Constant, Graph, Node, TensorSpec
from policies.legible import visible
from policies.plan import Plan, Step
from policies.trust import trusted

_SHOWN_NUMBERS = 24
_INFIX = {
    "add": "+", "sub": "-", "mul": "*", "div": "/", "mm": "@", "mv": "@", "bmm": "@", "dot": "@",
    "eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">=", "logical_and": "and",
    "logical_or": "or", "floor_divide": "//", "bitwise_and": "&", "bitwise_or": "|",
}  # fmt: skip


@dataclass(frozen=True)
class Standing:
    """How a population's budget stands before a plan; every epsilon is the filter's, at `delta`.

    Attributes:
        held: what is spent or promised.
        cap: the owner's cap.
        everywhere: what is held, for a person who is a user at every partner.
    """

    held: float
    cap: float
    delta: float
    everywhere: float


def explain(plan: Plan, budget: Standing | None = None, since: Plan | None = None) -> str:
    """The explanation of a plan as text; its SHA-256 goes into the decision.

    Args:
        budget: of the data set's population, before this plan; None: none is shown.
        since: the plan that was approved last, to say what changed.
    """
    lines = [
        f"Plan {plan.name}  {plan.hash}",
        *_quoted("Purpose, in the scientist's words:", plan.purpose),
        *_quoted("Population, in the scientist's words:", plan.population_note),
        f"Scientist: {plan.scientist}",
        f"Data set: {plan.dataset}   Partners: {', '.join(e.name for e in plan.roster)}",
        *trusted(plan),
        "",
        "What leaves, noised and summed over all partners, and nothing else:",
        *[f"  - {line}" for line in _releases(plan)],
        f"  - up to {plan.spare_attempts} repeats of a release whose attempt failed, each charged",
        "",
        *_cost(plan, budget),
        "",
    ]
    if since is not None:
        lines += [f"What changed since {since.name} {since.hash[:16]}:"]
        lines += [f"  {line}" for line in changes(since, plan) or ["nothing"]] + [""]
    return "\n".join([*lines, *_computations(plan), *_sources(plan)])


def pseudo_code(graph: Graph) -> list[str]:
    """The graph, one line per operation, with the shape of each result."""
    shapes = _shapes(graph)
    lines = [f"input {_described(spec)}" for spec in graph.inputs]
    lines += [_constant(constant) for constant in graph.constants]
    for node in graph.nodes:
        lines.append(f"{node.name} = {_expression(node)}    # {shapes[node.name]}")
    return [*lines, *(f"return {name} = {ref}" for name, ref in graph.outputs)]


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
    return _inputs(before) == _inputs(after) and _outputs(before) == _outputs(after)


def meaning(graph: Graph) -> tuple[object, ...]:
    """JSON values that two graphs share exactly if `same_meaning` holds."""
    inputs = sorted(_described(spec) for spec in graph.inputs)
    return (inputs, sorted([name, found] for name, found in _outputs(graph).items()))


# --- Comparing ---

_PLAN_FIELDS = (
    "name", "purpose", "scientist", "dataset", "population_note", "catalogue", "collusion",
    "threshold", "delta", "spare_attempts", "public", "aggregation", "deadline_s", "two_domains",
    "dealer", "comparisons",
)  # fmt: skip
_STEP_FIELDS = (
    "kind", "clip_norm", "noise_multiplier", "sampling_rate", "releases", "after", "every", "scale",
    "kept",
)  # fmt: skip


def _changed_fields(before: Any, after: Any, names: tuple[str, ...]) -> Iterator[str]:
    for name in names:
        old, new = getattr(before, name), getattr(after, name)
        if old != new:
            yield f"{name.replace('_', ' ')}: {visible(str(old))} -> {visible(str(new))}"


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
        lines.append(f"what leaves: {_listed(before.outputs)} -> {_listed(after.outputs)}")
    computed = _changed_graph(before.graph, after.graph)
    if before.source != after.source and not computed:
        lines.append("source: another text for the same graph")
    return lines + computed


def _clipping(step: Step) -> str:
    return f"{step.clipping.kind}{_divided(step).replace('; of it', ':')}"


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


def _outputs(graph: Graph) -> dict[str, str]:
    meanings = _meanings(graph)
    return {name: meanings[ref] for name, ref in graph.outputs}


def _meanings(graph: Graph) -> dict[str, str]:
    """A hash for every tensor of what it is made of, independent of names and order of nodes."""
    found = {spec.name: _hash(["input", spec.name]) for spec in graph.inputs}
    for constant in graph.constants:
        shape, dtype = list(constant.spec.shape), constant.spec.dtype
        found[constant.spec.name] = _hash(["constant", shape, dtype, list(constant.data)])
    for node in graph.nodes:
        parts = [node.op, _resolved(node.args, found), _resolved(node.kwargs, found)]
        found[node.name] = _hash(["node", *parts])
    return found


def _flow(graph: Graph) -> list[str]:
    """One line per operation in the order of the data's flow, arguments by what made them.

    Depth first from the outputs, so that the order in which independent nodes are written doesn't
    matter, and an inserted node changes only the lines beside it.
    """
    nodes = {node.name: node for node in graph.nodes}
    labels = {spec.name: spec.name for spec in graph.inputs}
    labels |= {constant.spec.name: _content(constant) for constant in graph.constants}
    labels |= {name: _short(node.op) for name, node in nodes.items()}
    lines = [f"input {_described(spec)}" for spec in sorted(graph.inputs, key=lambda s: s.name)]
    done = set[str]()
    for output, ref in sorted(graph.outputs):
        pending = [(ref, False)]
        while pending:
            name, ready = pending.pop()
            if name not in nodes or (name in done and not ready):
                continue
            if ready:
                lines.append(_expression(nodes[name], labels))
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


# --- Showing ---


def _kept(step: Step) -> str:
    return (
        f"{step.name}: {_listed(step.outputs)} stay shared among the partners, whom the scientist "
        f"lets compute with them; {step.releases} results may be revealed, each with noise of "
        f"standard deviation {step.noise_multiplier:.4g} times the most that one user can move it, "
        f"which each node proves by itself; she moves these by at most {step.clip_norm:g} "
        f"(clip norm, L2 over all of them); {len(step.graph.nodes)} operations"
    )


def _revealed(plan: Plan) -> list[str]:
    """Which step's releases pay for a result isn't fixed by the plan."""
    kept = [step for step in plan.steps if step.kept is not None]
    if not kept:
        return []
    results = sum(step.releases for step in kept)
    least = min(step.noise_multiplier for step in kept)
    return [
        f"any result computed of the shared tensors {', '.join(step.name for step in kept)} may be "
        f"revealed, and paid for by a release of any of these steps, with that step's noise: at "
        f"most {results} results in all, with noise multipliers of at least {least:.4g}"
    ]


def _releases(plan: Plan) -> list[str]:
    lines = []
    for step in plan.steps:
        if step.kept is not None:
            lines.append(_kept(step))
            continue
        units = int(step.clip_norm * step.scale)
        lines.append(
            f"{step.name}: {_listed(step.released)}; {step.releases} times"
            + (f", one after every {step.every} of {step.after}" if step.after else "")
            + f"; {step.width} numbers; one user moves the sum by at most {step.clip_norm:g} "
            f"(clip norm, L2 over all of them; {units} integer units{_divided(step)}); noise of "
            f"standard deviation {step.noise_multiplier * step.clip_norm:.4g} on every number "
            f"(noise multiplier {step.noise_multiplier:.4g}); sampling rate "
            f"{step.sampling_rate:g}; {len(step.graph.nodes)} operations"
        )
    return [*lines, *_revealed(plan)]


def _divided(step: Step) -> str:
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


def _cost(plan: Plan, budget: Standing | None) -> list[str]:
    if plan.public:
        return ["Cost: none is accounted, because the data set is declared public. NOT PRIVATE."]
    events = plan.events()
    everywhere = epsilon_at_every_partner(events, plan.delta, len(plan.roster))
    lines = [
        f"Cost: epsilon {plan_epsilon(events, plan.delta):.3f} at delta {plan.delta:g} for the "
        "whole plan, repeats included.",
        f"  Adjacency and unit: {ADJACENCY}.",
        f"  A person who is a user at all {len(plan.roster)} partners: epsilon {everywhere:.3f}.",
    ]
    if budget is not None:
        lines += [
            f"Budget: epsilon {budget.held:.3f} of {budget.cap:.3f} at delta {budget.delta:g} "
            "spent or promised before this plan.",
            f"  Adjacency and unit: {ADJACENCY}.",
            f"  A person who is a user at every partner: epsilon {budget.everywhere:.3f} of it.",
        ]
    return lines


def _computations(plan: Plan) -> list[str]:
    lines = []
    for step in plan.steps:
        what = "summed" if step.kind == "sum" else "differentiated by the node, then summed"
        lines.append(f"What {step.name} computes for each user alone ({what}):")
        lines += [f"  {line}" for line in pseudo_code(step.graph)] + [""]
    for name, graph in (("memory", plan.memory), ("scores", plan.scores)):
        if graph is not None:
            lines.append(f"What is kept on the node and never leaves it ({name}):")
            lines += [f"  {line}" for line in pseudo_code(graph)] + [""]
    return lines


def _sources(plan: Plan) -> list[str]:
    lines = []
    for step in plan.steps:
        what = f"Source of {step.name}, as its author gives it (only the graph runs):"
        lines += [*_quoted(what, step.source or "(none)"), ""]
    return lines


def _quoted(what: str, text: str) -> list[str]:
    """The author's words, marked on every line, so that none can pass for a line of this text."""
    return [what, *(f"  | {line}" for line in visible(text).split("\n"))] if text else []


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


def _expression(node: Node, labels: dict[str, str] | None = None) -> str:
    name = _short(node.op)
    args = [_written(value, labels) for value in node.args]
    if name in _INFIX and len(args) == 2 and not node.kwargs:
        return f"{args[0]} {_INFIX[name]} {args[1]}"
    if name == "getitem" and len(args) == 2:
        return f"{args[0]}[{args[1]}]"
    args += [f"{key}={_written(value, labels)}" for key, value in node.kwargs.items()]
    return f"{name}({', '.join(args)})"


def _short(op: str) -> str:
    return op.removeprefix("aten.").split(".")[0].strip("_")


def _written(value: Any, labels: dict[str, str] | None) -> str:
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_written(item, labels) for item in value) + "]"
    if isinstance(value, dict):
        [(tag, content)] = value.items()
        return labels[content] if tag == "ref" and labels is not None else str(content)
    return json.dumps(value)


def _constant(constant: Constant) -> str:
    return f"{constant.spec.name} = {_content(constant)}"


def _content(constant: Constant) -> str:
    """A constant's numbers; of a long one the first, and a hash of all."""
    shown = " ".join(str(value) for value in constant.data[:_SHOWN_NUMBERS])
    rest = len(constant.data) - _SHOWN_NUMBERS
    if rest > 0:
        shown += f" ... and {rest} more, SHA-256 {_hash(list(constant.data))[:16]}"
    return f"constant {constant.spec.dtype}{list(constant.spec.shape)} {shown}"


def _described(spec: TensorSpec) -> str:
    return f"{spec.name} {spec.dtype}{list(spec.shape)}"


def _listed(specs: tuple[TensorSpec, ...]) -> str:
    return ", ".join(f"{spec.name} {list(spec.shape)}" for spec in specs)
