"""What an owner is shown before deciding: who asks, what leaves and how often, what it costs."""

from collections.abc import Sequence

from policies.accounting import ADJACENCY, epsilon_at_every_partner, plan_epsilon
from policies.plan import Plan, Step


def explain(plan: Plan, spent: float, cap: float) -> str:
    """The explanation of a plan as text; its SHA-256 goes into the decision.

    Args:
        spent: epsilon that the data set's population has used or promised before this plan.
        cap: the population's cap on epsilon.
    """
    return "\n".join(
        [
            f"Plan {plan.name}  {plan.hash}",
            f"Purpose: {plan.purpose}",
            f"Scientist: {plan.scientist}",
            f"Data set: {plan.dataset}   Partners: {', '.join(e.name for e in plan.roster)}",
            f"A coalition of up to {plan.collusion} of {len(plan.roster)} partners, the hub and "
            "the scientist sees no less noise than accounted.",
            "",
            "What leaves, noised and summed over all partners, and nothing else:",
            *[f"  - {line}" for line in _releases(plan)],
            f"  - up to {plan.spare_attempts} repeats of a release whose attempt failed",
            "",
            *_cost(plan, spent, cap),
            "",
            *_sources(plan.steps),
        ]
    )


def _releases(plan: Plan) -> list[str]:
    lines = []
    for step in plan.steps:
        tensors = ", ".join(f"{o.name} {list(o.shape)}" for o in step.outputs)
        lines.append(
            f"{step.name}: {tensors}; {step.releases} times; clip norm {step.clip_norm:g}; "
            f"noise multiplier {step.noise_multiplier:.4g}; sampling rate {step.sampling_rate:g}; "
            f"{len(step.graph.nodes)} operations"
        )
    return lines


def _cost(plan: Plan, spent: float, cap: float) -> list[str]:
    if plan.public:
        return ["Cost: none is accounted, because the data set is declared public. NOT PRIVATE."]
    events = plan.events()
    everywhere = epsilon_at_every_partner(events, plan.delta, len(plan.roster))
    return [
        f"Cost: epsilon {plan_epsilon(events, plan.delta):.3f} at delta {plan.delta:g} for the "
        "whole plan, repeats included.",
        f"  Adjacency and unit: {ADJACENCY}.",
        f"  A person who is a user at all {len(plan.roster)} partners: epsilon {everywhere:.3f}.",
        f"Budget: {spent:.3f} of {cap:.3f} spent or promised before this plan.",
    ]


def _sources(steps: Sequence[Step]) -> list[str]:
    lines = []
    for step in steps:
        lines += [f"Source of {step.name} (for reading; only the graph runs):", step.source, ""]
    return lines
