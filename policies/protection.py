"""What a plan must say for its sums to be secret and its noise to be what is accounted.

Who takes part and how many may collude, noise wide enough to count as Gaussian, and totals that
stay in the ring.
"""

import math
from collections.abc import Collection

from policies import sensitivity
from policies.clipping import Adaptive, parts_of
from policies.homomorphic import MAX_CIPHERTEXTS, MAX_DOMAINS, layout_of
from policies.mechanism import EXACT_SUM, MAX_UNITS, noise_share_sigma
from policies.noise import MAX_SIGMA
from policies.plan import Plan, Step
from policies.refusals import PlanRefused

_MINIMUM_NOISE = 8.0
"""Integer units: narrower shares don't add up to a Gaussian (Kairouz, Liu and Steinke 2021)."""
_WRAP_BITS = 64
_LARGEST_SCALE = 2**40


def check_roster(plan: Plan) -> None:
    """Distinct domains, and few enough who may collude for the threshold."""
    size, t, tau = len(plan.roster), plan.collusion, plan.threshold
    for what in ("name", "server_uid", "node_key", "owner_key"):
        if len({getattr(entry, what) for entry in plan.roster}) != size:
            raise PlanRefused("roster", f"Two domains of the roster have the same {what}.")
    if (size == 2) != plan.two_domains or size > 64:
        raise PlanRefused(
            "roster",
            f"The roster has {size} domains and two_domains is {plan.two_domains}; expected 3 to "
            "64, or 2 with two_domains=True: each of two can subtract its own part from the total.",
        )
    if t < 1:
        raise PlanRefused("threshold", f"collusion is {t}; at least 1 partner may collude.")
    if tau > size or tau - t < 1:
        raise PlanRefused(
            "threshold", f"threshold is {tau}; expected more than {t} and at most {size}."
        )
    if 2 * tau <= size + t:
        raise PlanRefused(
            "threshold",
            f"threshold is {tau}; with {size} domains of which {t} may collude it must be at "
            f"least {(size + t) // 2 + 1} (2 tau > N + t).",
        )


def check_key_holders(plan: Plan, others: Collection[str] = ()) -> None:
    """Under CKKS the domains hold the key in turn, so none of them may be whom it is kept from.

    Args:
        others: as in `check_dealer`.

    Raises:
        PlanRefused: one is the scientist or a hub.
    """
    if plan.aggregation == "ckks" and _keys(plan) & {plan.scientist, *others}:
        raise PlanRefused(
            "roster",
            "Under CKKS the domains of the roster hold the key in turn, so the scientist and a hub "
            "mustn't be among them: leave that domain out, or use aggregation 'smpc'.",
        )


def check_dealer(plan: Plan, others: Collection[str] = ()) -> None:
    """Whoever deals triples must be nobody who takes part, by name and by keys.

    Args:
        others: keys of whom else a node knows to take part: hubs, the account that submits.

    Raises:
        PlanRefused: it is; or there is nothing to deal for.
    """
    if plan.dealer is None:
        return
    if all(step.kept is None for step in plan.steps):
        raise PlanRefused("tensors", "The plan names a dealer, but keeps no tensors to multiply.")
    names = {entry.name for entry in plan.roster}
    if plan.dealer.key in {*_keys(plan), plan.scientist, *others} or plan.dealer.name in names:
        raise PlanRefused(
            "tensors",
            f"The dealer '{plan.dealer.name}' is a domain of the roster, the scientist or a hub; "
            "it must be a party of its own.",
        )


def _keys(plan: Plan) -> set[str]:
    """Of the roster's nodes and owners."""
    return {key for entry in plan.roster for key in (entry.node_key, entry.owner_key)}


def check_comparisons(plan: Plan) -> None:
    """SPU's ABY3 is for three parties, of which one may be curious."""
    if plan.comparisons is None:
        return
    if all(step.kept is None for step in plan.steps):
        raise PlanRefused("tensors", "The plan has comparisons, but keeps no tensors to compare.")
    if len(plan.roster) != 3 or plan.collusion != 1:
        raise PlanRefused(
            "tensors",
            "Comparisons by SPU take exactly three domains, of which one may collude; this plan "
            f"has {len(plan.roster)}, of which {plan.collusion} may.",
        )


def check_kept(plan: Plan, step: Step, users: int) -> None:
    """What the bounds of `policies.sensitivity` rest on."""
    assert step.kept is not None
    whole = len(plan.roster)
    wrong = [
        (plan.aggregation != "smpc", "aggregation must be 'smpc'"),
        (plan.threshold != whole, f"threshold must be {whole}: a tensor is shared among all"),
        (step.ring != 64, "the ring must have 64 bits"),
        (step.sampling_rate != 1, "sampling_rate must be 1: a user may be in several tensors"),
        (isinstance(step.clipping, Adaptive), "the clip norm can't be adaptive"),
        (step.kept.users < users, f"its bound on users must be at least {users}, as declared here"),
    ]
    for broken, what in wrong:
        if broken:
            raise PlanRefused("tensors", f"Step {step.name!r} is kept as a tensor, so {what}.")
    try:
        flat = sensitivity.of_step(plan, step)
        sensitivity.outputs_of(flat, step)
        sensitivity.noise_share(flat, plan, step)
    except sensitivity.TensorRefused as error:
        raise PlanRefused("tensors", f"Step {step.name!r}: {error}") from None


def check_noise(plan: Plan, step: Step) -> None:
    """Noise unless the data is public, and every share wide enough to count as Gaussian."""
    if step.noise_multiplier == 0:
        if plan.public:
            return
        raise PlanRefused("noise", f"Step {step.name!r} has no noise and the data isn't public.")
    share = _noise_share(plan, step)
    if share > MAX_SIGMA:
        raise PlanRefused(
            "noise",
            f"Step {step.name!r}: one domain's noise is {share:.2g} integer units wide, at most "
            f"{MAX_SIGMA:.2g} can be drawn: use a smaller scale.",
        )
    if share < _MINIMUM_NOISE:
        factor = _MINIMUM_NOISE / share if share else math.inf
        needed = 2 ** math.ceil(math.log2(step.scale * factor)) if factor < _LARGEST_SCALE else 0
        advice = (
            f"scale {needed}" if 0 < needed <= _LARGEST_SCALE else "a larger clip norm or noise"
        )
        raise PlanRefused(
            "noise",
            f"Step {step.name!r}: one domain's noise is {share:.2g} integer units wide, at least "
            f"{_MINIMUM_NOISE:g} are needed: use {advice}.",
        )


def check_ring(plan: Plan, step: Step, users: int) -> None:
    """A domain's sum must be exact, the revealed one in the ring but with probability 2^-64."""
    largest = largest_total(plan, step, users)
    if largest >= 2.0 ** (step.ring - 1):
        raise PlanRefused(
            "ring",
            f"Step {step.name!r}: the total may reach {largest:.1e}, beyond 2^{step.ring - 1}: "
            "use a smaller scale" + (" or the 64-bit ring." if step.ring == 32 else "."),
        )
    if not 1 <= step.clip_norm * step.scale <= MAX_UNITS:
        raise PlanRefused(
            "ring",
            f"Step {step.name!r}: clip_norm * scale is {step.clip_norm * step.scale:g}, "
            f"expected 1 to {MAX_UNITS}.",
        )
    if users * step.clip_norm * step.scale >= EXACT_SUM:
        raise PlanRefused(
            "ring",
            f"Step {step.name!r}: the sum of {users:,} users may pass 2^53, beyond which it isn't "
            "exact: use a smaller scale.",
        )
    finest = min(parts_of(step.clipping, step.clip_norm))
    if finest * step.scale < 1:
        raise PlanRefused(
            "ring",
            f"Step {step.name!r}: a clip norm of {finest:g} is less than one integer unit, so "
            "nothing would ever be released of that part: use a larger scale.",
        )


def check_ciphertexts(plan: Plan, step: Step) -> None:
    """Under CKKS: the sum must decrypt to the exact integers, and pass in one message."""
    layout = layout_of(len(plan.roster), step.ring)
    if layout is None:
        raise PlanRefused(
            "ckks",
            f"{len(plan.roster)} domains can't be summed exactly under CKKS, at most "
            f"{MAX_DOMAINS}: use aggregation 'smpc'.",
        )
    needed = layout.ciphertexts(step.width)
    if needed > MAX_CIPHERTEXTS:
        most = MAX_CIPHERTEXTS * step.width // needed
        raise PlanRefused(
            "ckks",
            f"Step {step.name!r}: {step.width} numbers in the {step.ring}-bit ring take {needed} "
            f"ciphertexts, at most {MAX_CIPHERTEXTS}: release about {most} numbers at once"
            + (", use a smaller scale" if step.ring == 64 else "")
            + ", or aggregation 'smpc'.",
        )


def largest_total(plan: Plan, step: Step, users: int) -> float:
    """What no coordinate of a release exceeds, in integer units, but with probability 2^-64.

    |sum| <= domains * users * clip_norm * scale, and the noise of standard deviation s exceeds
    k s with probability below 2 exp(-k^2 / 2) in each of `width` coordinates.

    Args:
        users: declared maximum of users at one domain.
    """
    domains = len(plan.roster)
    signal = domains * users * math.floor(step.clip_norm * step.scale)
    spread = math.sqrt(domains) * (_noise_share(plan, step) if step.noise_multiplier else 0.0)
    k = math.sqrt(2 * (_WRAP_BITS * math.log(2) + math.log(2 * step.width)))
    return signal + k * spread


def _noise_share(plan: Plan, step: Step) -> float:
    return noise_share_sigma(
        step.noise_multiplier, step.clip_norm, step.scale, plan.noise_shares, 0
    )
