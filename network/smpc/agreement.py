"""What a plan says about its sums, as the domains' and the coordinator's common agreement."""

from network.smpc.messages import Agreement, Context
from policies.plan import Plan


def agreement_of(plan: Plan, step: str, release: int, attempt: int, tensor: str = "") -> Agreement:
    """The agreement on one attempt of a plan's step.

    Args:
        tensor: what is revealed, as in `Context`; empty where the step's own total is.

    Raises:
        KeyError: the plan has no such step.
        ValueError: the plan's numbers don't fit a sum; see `Agreement`.
    """
    definition = plan.step(step)
    context = Context(plan.hash, step, release, attempt, tensor)
    length = context.tensor_length
    return Agreement(
        context=context,
        roster={entry.name: entry.node_key for entry in plan.roster},
        threshold=plan.threshold,
        collusion=plan.collusion,
        length=definition.width if length is None else length,
        bits=definition.ring,
    )


def sharing_of(plan: Plan, step: str, number: int) -> Agreement:
    """The agreement on keeping a step's sum as a tensor; `number` tells sharings apart.

    Raises:
        KeyError, ValueError: see `agreement_of`.
    """
    return _among_all(plan, Context(plan.hash, step, number, 0), plan.step(step).width)


def product_of(plan: Plan, operands: str, length: int, number: int) -> Agreement:
    """The agreement on the `number`-th product of kept tensors.

    Args:
        operands: SHA-256 of what is multiplied, hex.
        length: of the product.
    """
    tensor = f"{operands}/{length}"
    return _among_all(plan, Context(plan.hash, "multiply", number, 0, tensor), length)


def _among_all(plan: Plan, context: Context, length: int) -> Agreement:
    return Agreement(
        context=context,
        roster={entry.name: entry.node_key for entry in plan.roster},
        threshold=len(plan.roster),
        collusion=plan.collusion,
        length=length,
        bits=64,
    )
