"""What a node checks before a plan may even be shown to its owner. It trusts nothing it is sent.

Everything is derived again from the graph and the owner's declaration: operations against the
allow-list, shapes and dtypes of every node (on fake tensors, nothing is computed), the range of
every index, memory and compute per user, outputs, the number of integers and bits that leave,
and that the noise is wide enough to count as Gaussian. A refusal names its rule.
"""

from policies.graph import DTYPES, Graph, TensorSpec
from policies.inspection import Usage, inspect, shown
from policies.legible import why_misleading
from policies.mapping import check_mapped
from policies.plan import Plan, Step
from policies.protection import (
    check_ciphertexts,
    check_comparisons,
    check_dealer,
    check_kept,
    check_key_holders,
    check_noise,
    check_ring,
    check_roster,
)
from policies.refusals import Limits, PlanRefused
from policies.users import Bounds

__all__ = ["Limits", "PlanRefused", "Usage", "admit", "inspect"]


def admit(plan: Plan, bounds: Bounds, public: bool, limits: Limits | None = None) -> None:
    """Check a plan against a data set's declaration; returns if it may be shown to the owner.

    Args:
        plan: as parsed by `Plan.from_json`.
        bounds: the data set's declared sizes, users among them.
        public: whether this owner declared the data set public.
        limits: the node's resources.

    Raises:
        PlanRefused: names the rule, what was found and what would pass.
    """
    limits = limits or Limits()
    if bounds.users is None:
        raise ValueError("Admission needs the declared bound on users.")
    _check_public(plan, public)
    check_roster(plan)
    check_dealer(plan)
    check_key_holders(plan)
    check_comparisons(plan)
    _check_text(plan)
    _check_size(plan, limits)
    length, per_user = _check_memory(plan, bounds, limits)
    work = per_user * bounds.users
    memory_state = set(plan.memory.state) if plan.memory is not None else set()
    for step in plan.steps:
        usage = _check_step(step, bounds, limits, length, memory_state)
        # Differentiating costs about twice the forward pass again.
        forward = 3 * usage.work if step.kind == "gradient" else usage.work
        remembered = per_user if "memory" in step.graph.user else 0.0
        work += (forward + remembered) * bounds.users * step.releases
        check_noise(plan, step)
        check_ring(plan, step, bounds.users)
        if plan.aggregation == "ckks":
            check_ciphertexts(plan, step)
        if step.kept is not None:
            check_kept(plan, step, bounds.users)
    if work > limits.work:
        raise PlanRefused(
            "compute",
            f"The plan needs about {work:.1e} multiply-adds, at most {limits.work:.1e}: "
            "use fewer releases or a smaller model.",
        )


def _check_public(plan: Plan, public: bool) -> None:
    if plan.public and not public:
        raise PlanRefused(
            "public",
            "The plan says that the data set is public; its owner hasn't declared that. "
            "Submit a plan with noise.",
        )


def _check_text(plan: Plan) -> None:
    """What an owner reads must be what is written."""
    texts = {"purpose": plan.purpose, "population note": plan.population_note}
    texts |= {f"source of step {step.name!r}": step.source for step in plan.steps}
    for what, text in texts.items():
        found = why_misleading(text)
        if found is not None:
            raise PlanRefused("text", f"The {what} has {found}: remove it.")


def _check_size(plan: Plan, limits: Limits) -> None:
    graphs = [step.graph for step in plan.steps]
    graphs += [graph for graph in (plan.memory, plan.scores) if graph is not None]
    total = sum(len(graph.nodes) for graph in graphs)
    if total > limits.plan_nodes:
        raise PlanRefused("size", f"{total} operations in the plan, at most {limits.plan_nodes}.")
    releases = sum(step.releases for step in plan.steps) + plan.spare_attempts
    if releases > limits.releases:
        raise PlanRefused(
            "size", f"{releases} releases and spare attempts, at most {limits.releases}."
        )


def _check_step(
    step: Step,
    bounds: Bounds,
    limits: Limits,
    memory: int | None,
    memory_state: set[TensorSpec],
) -> Usage:
    where = f"Step {step.name!r}"
    if step.graph.state != step.state:
        raise PlanRefused("state", f"{where}: the graph reads another state than the step lists.")
    state_bytes = sum(_bytes(spec) for spec in step.state)
    if state_bytes > limits.state_bytes:
        raise PlanRefused(
            "state", f"{where}: the state has {state_bytes} bytes, at most {limits.state_bytes}."
        )
    if step.width > limits.width:
        raise PlanRefused(
            "outputs", f"{where}: {step.width} numbers leave, at most {limits.width}."
        )
    usage = _inspected(where, step.graph, bounds, limits, memory)
    if "memory" in step.graph.user and not memory_state <= set(step.state):
        raise PlanRefused(
            "memory",
            f"{where} reads the memory, which is computed from the step's state, but the memory "
            "graph reads other state tensors: let the step read them too.",
        )
    _check_outputs(step, usage)
    trained = step.outputs if step.kind == "gradient" else None
    check_mapped(where, step.graph, bounds, trained, memory, usage)
    return usage


def _check_outputs(step: Step, usage: Usage) -> None:
    where = f"Step {step.name!r}"
    if step.kind == "sum":
        if usage.outputs != step.outputs:
            raise PlanRefused(
                "outputs",
                f"{where}: the graph gives {shown(usage.outputs)}, "
                f"the step announces {shown(step.outputs)}.",
            )
    else:
        if usage.outputs != (TensorSpec(name="loss", shape=(), dtype="float32"),):
            raise PlanRefused(
                "outputs", f"{where}: expected one scalar loss, got {shown(usage.outputs)}."
            )
        unknown = [spec.name for spec in step.outputs if spec not in step.state]
        if unknown:
            raise PlanRefused(
                "outputs", f"{where}: {unknown[0]!r} isn't a state tensor of this step."
            )
    other = [spec.name for spec in step.outputs if spec.dtype != "float32"]
    if other:
        raise PlanRefused(
            "outputs", f"{where}: {other[0]!r} must be float32, as all outputs: model.float()."
        )


def _check_memory(plan: Plan, bounds: Bounds, limits: Limits) -> tuple[int | None, float]:
    """The length of a user's memory, and the multiply-adds of computing one."""
    length, work = None, 0.0
    if plan.memory is not None:
        kept = [spec.count for spec in plan.memory.inputs if spec.name == "memory"]
        length = kept[0] if kept else None
        usage = _inspected("The memory graph", plan.memory, bounds, limits, length)
        work = usage.work
        length = _memory_length(usage.outputs, length)
        _check_memories(length, bounds, limits)
        check_mapped("The memory graph", plan.memory, bounds, None, length, usage)
    if plan.scores is not None:
        usage = _inspected("The scores graph", plan.scores, bounds, limits, length)
        expected = TensorSpec(name="scores", shape=(bounds.items,), dtype="float32")
        if usage.outputs != (expected,) or plan.scores.user != ("memory",):
            raise PlanRefused(
                "scores",
                f"The scores graph reads {', '.join(plan.scores.user) or 'nothing'} of a user and "
                f"gives {shown(usage.outputs)}; expected: reads memory, gives "
                f"{shown([expected])}.",
            )
    return length, work


def _check_memories(length: int, bounds: Bounds, limits: Limits) -> None:
    needed = 4 * length * (bounds.users or 1)
    if needed > limits.memory_bytes:
        raise PlanRefused(
            "memory",
            f"The memories of {bounds.users} users with {length} numbers each take "
            f"{needed / 2**20:.0f} MiB, at most {limits.memory_bytes >> 20}: keep fewer numbers.",
        )


def _memory_length(outputs: tuple[TensorSpec, ...], kept: int | None) -> int:
    """The length of the one vector a memory graph gives, which the kept one must have too."""
    fits = len(outputs) == 1 and outputs[0].name == "memory" and len(outputs[0].shape) == 1
    if not fits or outputs[0].dtype != "float32":
        raise PlanRefused(
            "memory", f"The memory graph gives {shown(outputs)}, expected one vector 'memory'."
        )
    if kept not in (None, outputs[0].count):
        raise PlanRefused(
            "memory",
            f"The memory graph reads a memory of {kept} numbers and gives {outputs[0].count}.",
        )
    return outputs[0].count


def _inspected(
    where: str, graph: Graph, bounds: Bounds, limits: Limits, memory: int | None = None
) -> Usage:
    try:
        return inspect(graph, bounds, limits, memory)
    except PlanRefused as refused:
        raise PlanRefused(refused.rule, f"{where}: {refused}") from None


def _bytes(spec: TensorSpec) -> int:
    return spec.count * DTYPES[spec.dtype].itemsize
