"""What an owner is shown before deciding: who asks, what is computed, what leaves and how often,
what it costs, and what changed since the plan that she approved last.

The source is the author's word; the graph, printed as pseudo-code, is what runs.
"""

from dataclasses import dataclass

from policies.accounting import ADJACENCY, epsilon_at_every_partner, plan_epsilon
from policies.changes import changes, divided
from policies.legible import visible
from policies.plan import Plan, Step
from policies.pseudo_code import listed, pseudo_code
from policies.trust import trusted


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


def _kept(step: Step) -> str:
    return (
        f"{step.name}: {listed(step.outputs)} stay shared among the partners, whom the scientist "
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
            f"{step.name}: {listed(step.released)}; {step.releases} times"
            + (f", one after every {step.every} of {step.after}" if step.after else "")
            + f"; {step.width} numbers; one user moves the sum by at most {step.clip_norm:g} "
            f"(clip norm, L2 over all of them; {units} integer units{divided(step)}); noise of "
            f"standard deviation {step.noise_multiplier * step.clip_norm:.4g} on every number "
            f"(noise multiplier {step.noise_multiplier:.4g}); sampling rate "
            f"{step.sampling_rate:g}; {len(step.graph.nodes)} operations"
        )
    return [*lines, *_revealed(plan)]


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
