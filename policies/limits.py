"""How much epsilon is left under each of the owner's limits, given what plans used before.

The population's budget, and the parts of it that one scientist, one data set or one period may use:
all are the Renyi filter's figure, so that they hold for plans chosen after seeing results.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal

from policies.accounting import ADJACENCY, Event, RenyiFilter
from policies.approvals import moment
from policies.ledger import Commitment
from policies.owner_policy import OwnerPolicy, Refusal


@dataclass(frozen=True)
class Limit:
    """A cap on epsilon and what is held of it.

    Attributes:
        rule: the policy file's setting.
        who: whose the cap is, for the sentence.
        cap: epsilon at `delta`.
        held: events that count towards it.
    """

    rule: str
    who: str
    cap: float
    delta: float
    held: tuple[Event, ...]

    @property
    def remaining(self) -> float:
        """Epsilon that is left; negative if the cap was lowered."""
        return self.cap - RenyiFilter(self.delta).epsilon(self.held)

    def fits(self, events: Iterable[Event]) -> bool:
        """Whether these events fit beside what is held."""
        return RenyiFilter(self.delta).epsilon([*self.held, *events]) <= self.cap

    def check(self, events: Sequence[Event]) -> Refusal | None:
        """The refusal of these events, in the four lines that a scientist is shown; or None.

        "Requested" is by how much what is held would grow.
        """
        if self.fits(events):
            return None
        before = RenyiFilter(self.delta).epsilon(self.held)
        requested = RenyiFilter(self.delta).epsilon([*self.held, *events]) - before
        up, down = _rounded(requested, ROUND_CEILING), _rounded(self.remaining, ROUND_FLOOR)
        short = "infinite" if math.isinf(requested) else str(Decimal(up) - Decimal(down))
        return Refusal(
            self.rule,
            f"{self.who} may cost epsilon {self.cap:.3f} together.\n"
            f"Requested  epsilon {up}\nRemaining  epsilon {down}\nShort by   epsilon {short}\n"
            f"All at delta {self.delta:g}; unit: {ADJACENCY}.",
        )


def limits_of(
    policy: OwnerPolicy,
    past: Sequence[Commitment],
    population: str,
    scientist: str,
    data_set: str,
    now: datetime | None = None,
) -> list[Limit]:
    """Every limit that a new plan of this scientist on this data set meets; none if it is public.

    A plan counts towards the period if it is open or was decided or ended within it, with all it
    used: that is at least what was released within the period.
    """
    if policy.public:
        return []
    start = moment((now or datetime.now(UTC)) - timedelta(days=policy.period_days))
    asked = (
        ("budget", f"All plans on population '{population}'", policy.epsilon, past),
        (
            "max_epsilon_per_scientist",
            "All plans of this scientist",
            policy.max_epsilon_per_scientist,
            [plan for plan in past if plan.scientist == scientist],
        ),
        (
            "max_epsilon_per_dataset",
            f"All plans on data set '{data_set}'",
            policy.max_epsilon_per_dataset,
            [plan for plan in past if plan.data_set in (data_set, "")],
        ),
        (
            "max_epsilon_per_period",
            f"All plans of {policy.period_days} days",
            policy.max_epsilon_per_period,
            [plan for plan in past if plan.open or plan.decided >= start],
        ),
    )
    return [
        Limit(rule, who, cap, policy.delta, tuple(e for plan in plans for e in plan.events))
        for rule, who, cap, plans in asked
        if cap is not None
    ]


def _rounded(value: float, rounding: str) -> str:
    if math.isinf(value):
        return "infinite" if value > 0 else "none"
    return str(Decimal(value).quantize(Decimal("0.001"), rounding))
