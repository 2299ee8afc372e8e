"""The nearest plans that an owner's limits would let through: more noise, or fewer releases."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from policies.offers import least_factor, most_of
from policies.plan import Plan, Step

_DIGITS = 4


@dataclass(frozen=True)
class Offer:
    """A plan that fits, and what it changes.

    Attributes:
        how: 'more noise' or 'fewer releases'.
        plan: the whole plan; its hash differs from the one that was asked for.
        text: the changes, as a phrase.
    """

    how: str
    plan: Plan
    text: str


def nearest_plans(plan: Plan, fits: Callable[[Plan], bool]) -> list[Offer]:
    """What would fit: at most one plan with more noise and one with fewer releases.

    Each is the nearest of its kind, up to the fourth digit of the noise and one release: the same
    factor on every step's noise; the same part of every step's releases.

    Args:
        fits: whether a plan would be let through; more noise or fewer releases never hurt.
    """
    if plan.public:
        return []
    found = (_more_noise(plan, fits), _fewer_releases(plan, fits))
    return [offer for offer in found if offer is not None]


def _more_noise(plan: Plan, fits: Callable[[Plan], bool]) -> Offer | None:
    if min(step.noise_multiplier for step in plan.steps) == 0:
        return None
    factor = least_factor(lambda by: fits(_noisier(plan, by)))
    if factor is None:
        return None
    offered = _noisier(plan, factor)
    return Offer("more noise", offered, _changed(plan, offered, "noise_multiplier"))


def _fewer_releases(plan: Plan, fits: Callable[[Plan], bool]) -> Offer | None:
    most = max(step.releases for step in plan.steps)
    number = most_of(most, lambda n: fits(_shorter(plan, n / most)))
    if number == 0:
        return None
    offered = _shorter(plan, number / most)
    return Offer("fewer releases", offered, _changed(plan, offered, "releases"))


def _noisier(plan: Plan, factor: float) -> Plan:
    return _with_steps(
        plan, lambda s: {"noise_multiplier": _rounded_up(s.noise_multiplier * factor)}
    )


def _shorter(plan: Plan, part: float) -> Plan:
    # Cadences stay possible: a step that follows every k-th release has at most part of its turns.
    return _with_steps(plan, lambda s: {"releases": max(1, math.floor(s.releases * part))})


def _with_steps(plan: Plan, change: Callable[[Step], dict[str, object]]) -> Plan:
    steps = [step.model_copy(update=change(step)) for step in plan.steps]
    kept = {step.name: step.releases for step in steps}
    # A step whose turn no longer comes is left out.
    steps = [s for s in steps if s.after is None or kept[s.after] // (s.every or 1) >= s.releases]
    return plan.model_copy(update={"steps": tuple(steps)})


def _changed(before: Plan, after: Plan, field: str) -> str:
    new = {step.name: step for step in after.steps}
    parts = []
    for step in before.steps:
        was = getattr(step, field)
        now = getattr(new[step.name], field) if step.name in new else 0
        if was != now:
            parts.append(f"{now:g} instead of {was:.5g} in '{step.name}'")
    what = "noise multiplier" if field == "noise_multiplier" else "releases"
    return f"{what} {', '.join(parts)}"


def _rounded_up(noise: float) -> float:
    places = _DIGITS - 1 - math.floor(math.log10(noise))
    return math.ceil(noise * 10.0**places) / 10.0**places
