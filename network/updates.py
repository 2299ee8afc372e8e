"""What the author's side does with a released total: it is noised, so this is post-processing."""

import math

from torch import Tensor

from network.clip_norms import AdaptiveClip, unit_name
from network.program import Gradient, Plan, State, Sum
from policies.clipping import Adaptive
from policies.plan import VOTES, Step
from policies.plan import Plan as ApprovablePlan


def noise_std(approved: ApprovablePlan, step: Step) -> float:
    """Standard deviation of the noise in every released number of a step, in the step's units.

    All N domains add a share of variance sigma^2 / (tau - t), so N / (tau - t) times the
    accounted variance is really there; N times under CKKS.
    """
    shares = len(approved.roster) / approved.noise_shares
    return step.noise_multiplier * step.clip_norm * math.sqrt(shares)


def in_own_units(author: Sum | Gradient, state: State, totals: State) -> dict[str, Tensor]:
    """A step's totals as its author means them: those of an adaptive norm times its unit."""
    found = {name: tensor for name, tensor in totals.items() if name != VOTES}
    if isinstance(author.clip_norm, AdaptiveClip):
        found = {name: tensor * state[unit_name(author.name)] for name, tensor in found.items()}
    return found


def after_release(
    plan: Plan, definition: Step, state: State, totals: State, noise: float
) -> dict[str, Tensor]:
    """The public state after a release: the author's update, and an adaptive norm's next unit.

    Args:
        totals: what was released, by name.
        noise: standard deviation of the noise in each of its numbers.
    """
    author = plan.step(definition.name)
    own = in_own_units(author, state, totals)
    units = {
        n: state[n]
        for n in (unit_name(each.name) for each in plan.steps)
        if n in plan.state and n in state
    }
    if isinstance(author.clip_norm, AdaptiveClip):
        name = unit_name(author.name)
        noise *= float(state[name])
        surplus = _surplus(definition, totals[VOTES], plan.data.users)
        units[name] = state[name] * math.exp(-author.clip_norm.rate * surplus)
    found = dict(author.update(state, own, noise)) if author.update is not None else dict(state)
    return found | units


def _surplus(definition: Step, voted: Tensor, users: int) -> float:
    """By how much the part of users within the norm is above the quantile, noised: -1 to 1."""
    assert isinstance(definition.clipping, Adaptive)
    quantile, vote_norm = definition.clipping.quantile, definition.clipping.vote_norm
    ahead = float(voted) / vote_norm * max(quantile, 1 - quantile)
    return max(-1.0, min(1.0, ahead / (users * definition.sampling_rate)))
