"""What a plan says about its sums, as the domains' and the coordinator's common agreement."""

from collections.abc import Mapping

from network.smpc.attempt import Agreement, Context, NoSuchAttempt
from policies.plan import Plan, Step

_NUMBERED = 2**31
"""A ledger counts releases and attempts in signed words of 32 bits."""


def agreement_of(plan: Plan, step: str, release: int, attempt: int, tensor: str = "") -> Agreement:
    """The agreement on one attempt of a plan's step.

    Args:
        tensor: what is revealed, as in `Context`; empty where the step's own total is.

    Raises:
        NoSuchAttempt: the plan has no such step, or no attempt has this number.
        ValueError: the plan's numbers don't fit a sum; see `Agreement`.
    """
    context = Context(plan.hash, step, release, attempt, tensor)
    definition = _step(plan, step)
    if max(release, attempt) >= _NUMBERED:
        raise NoSuchAttempt(f"Releases and attempts are counted from 0 to {_NUMBERED - 1}.")
    length = context.tensor_length
    return Agreement(
        context=context,
        roster=_roster(plan),
        threshold=plan.threshold,
        collusion=plan.collusion,
        length=definition.width if length is None else length,
        bits=definition.ring,
    )


def sharing_of(plan: Plan, step: str, number: int) -> Agreement:
    """The agreement on keeping a step's sum as a tensor; `number` tells sharings apart.

    Raises:
        NoSuchAttempt, ValueError: see `agreement_of`.
    """
    context = Context(plan.hash, step, number, 0)
    return among_all(context, _roster(plan), plan.collusion, _step(plan, step).width)


def comparison_of(plan: Plan, digest: str, length: int, number: int) -> Agreement:
    """The agreement on the `number`-th comparison of kept tensors.

    Args:
        digest: `Comparison.digest`.
        length: of the tensor that is compared.
    """
    context = Context(plan.hash, "compare", number, 0, f"{digest}/{length}")
    return among_all(context, _roster(plan), plan.collusion, length)


def computation_of(plan: Plan, operands: str, length: int, number: int) -> Agreement:
    """The agreement on the `number`-th computation with what the plan's dealer deals.

    Args:
        operands: SHA-256 of what is done with which tensors, hex.
        length: of the last of the parts that are dealt.
    """
    context = Context(plan.hash, "multiply", number, 0, f"{operands}/{length}")
    return among_all(context, _roster(plan), plan.collusion, length)


def among_all(
    context: Context, roster: Mapping[str, str], collusion: int, length: int
) -> Agreement:
    """An agreement that takes every domain of a roster, in the 64-bit ring."""
    return Agreement(context, roster, len(roster), collusion, length, 64)


def _step(plan: Plan, name: str) -> Step:
    try:
        return plan.step(name)
    except KeyError:
        raise NoSuchAttempt(f"The plan has no step '{name}'.") from None


def _roster(plan: Plan) -> dict[str, str]:
    return {entry.name: entry.node_key for entry in plan.roster}
