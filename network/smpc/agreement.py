"""What a plan says about its sums, as the domains' and the coordinator's common agreement."""

from network.smpc.messages import Agreement, Context
from policies.plan import Plan


def agreement_of(plan: Plan, step: str, release: int, attempt: int) -> Agreement:
    """The agreement on one attempt of a plan's step.

    Raises:
        KeyError: the plan has no such step.
        ValueError: the plan's numbers don't fit a sum; see `Agreement`.
    """
    definition = plan.step(step)
    return Agreement(
        context=Context(plan.hash, step, release, attempt),
        roster={entry.name: entry.node_key for entry in plan.roster},
        threshold=plan.threshold,
        collusion=plan.collusion,
        length=definition.width,
        bits=definition.ring,
    )
