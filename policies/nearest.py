"""The nearest plans that an owner's limits would let through: more noise, or fewer releases."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from policies.offers import MOST_NOISE, least_factor, most_of
from policies.plan import LARGEST_NOISE, Plan, Step

_DIGITS = 4
_OF_NOISE = ("noise_multiplier", "ring")
_NAMES = {
    "noise_multiplier": "noise multiplier",
    "ring": "bits of the ring",
    "releases": "releases",
}


@dataclass(frozen=True)
class Offer:
    """A plan that fits, and what it changes.

    Attributes:
        how: 'more noise', 'fewer releases' or 'fewer releases and more noise'.
        plan: the whole plan; its hash differs from the one that was asked for.
        text: the changes, as a phrase.
    """

    how: str
    plan: Plan
    text: str


def nearest_plans(
    plan: Plan, fits: Callable[[Plan], bool], admits: Callable[[Plan], bool] = lambda _: True
) -> list[Offer]:
    """What would fit: at most one plan with more noise and one with fewer releases, or one of both.

    Each is the nearest of its kind, up to the fourth digit of the noise and one release: the same
    factor on every step's noise; the same part of every step's releases.

    Args:
        fits: whether a plan would be let through; more noise or fewer releases never hurt.
        admits: whether the platform would take such a plan at all: noise widens a total.
    """
    if plan.public:
        return []
    found = [_more_noise(plan, plan, fits, admits), _fewer_releases(plan, fits, admits)]
    if not any(found):
        found = [_both(plan, fits, admits)]
    return [offer for offer in found if offer is not None]


def _more_noise(
    plan: Plan, asked: Plan, fits: Callable[[Plan], bool], admits: Callable[[Plan], bool]
) -> Offer | None:
    """`plan` with the least noise that fits, told as a change of what was `asked`."""
    if min(step.noise_multiplier for step in plan.steps) == 0:
        return None
    factor = least_factor(lambda by: fits(_noisier(plan, by)))
    if factor is None:
        return None
    offered = _noisier(plan, factor)
    if not admits(offered):
        offered = _with_steps(offered, lambda _: {"ring": 64})
    how = "more noise" if plan is asked else "fewer releases and more noise"
    fields = _OF_NOISE if plan is asked else ("releases", *_OF_NOISE)
    return Offer(how, offered, _changed(asked, offered, *fields)) if admits(offered) else None


def _fewer_releases(
    plan: Plan, fits: Callable[[Plan], bool], admits: Callable[[Plan], bool]
) -> Offer | None:
    most = max(step.releases for step in plan.steps)
    number = most_of(most, lambda n: fits(_shorter(plan, n / most)))
    if number == 0:
        return None
    offered = _shorter(plan, number / most)
    changed = _changed(plan, offered, "releases")
    return Offer("fewer releases", offered, changed) if admits(offered) else None


def _both(plan: Plan, fits: Callable[[Plan], bool], admits: Callable[[Plan], bool]) -> Offer | None:
    """As many releases as fit with any noise, and the least noise with which they do."""
    most = max(step.releases for step in plan.steps)
    number = most_of(most, lambda n: fits(_noisier(_shorter(plan, n / most), MOST_NOISE)))
    return _more_noise(_shorter(plan, number / most), plan, fits, admits) if number else None


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


def _changed(before: Plan, after: Plan, *fields: str) -> str:
    new = {step.name: step for step in after.steps}
    phrases = []
    for field in fields:
        parts = []
        for step in before.steps:
            was = getattr(step, field)
            now = getattr(new[step.name], field) if step.name in new else 0
            if was != now and (now or field == "releases"):
                parts.append(f"{now:g} instead of {was:.5g} in '{step.name}'")
        if parts:
            phrases.append(f"{_NAMES[field]} {', '.join(parts)}")
    return ", with ".join(phrases)


def _rounded_up(noise: float) -> float:
    places = _DIGITS - 1 - math.floor(math.log10(noise))
    return min(math.ceil(noise * 10.0**places) / 10.0**places, LARGEST_NOISE)
