"""How much epsilon is left under each of the owner's limits, given what plans used before.

The population's budget, and the parts of it that one scientist, one data set or one period may use:
all are a Renyi filter's figure, so that they hold for plans chosen after seeing results.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from policies.accounting import Event, RenyiFilter
from policies.approvals import moment
from policies.ledger import Commitment
from policies.ledger.errors import shortfall
from policies.owner_policy import OwnerPolicy, Refusal


@dataclass(frozen=True)
class Limit:
    """A cap on epsilon and what is held of it.

    Attributes:
        rule: the policy file's setting.
        who: whose the cap is, for the sentence.
        cap: epsilon at the filter's delta.
        accountant: the filter that decides.
        held: what counts towards it: the events of each plan, and its number of partners.
    """

    rule: str
    who: str
    cap: float
    accountant: RenyiFilter
    held: tuple[tuple[tuple[Event, ...], int], ...]

    @property
    def remaining(self) -> float:
        """Epsilon that is left; negative if the cap was lowered."""
        return self.cap - self.accountant.epsilon(self._events)

    def weigh(self, events: Iterable[Event]) -> tuple[float, float]:
        """Epsilon of what is held, without these events and with them."""
        held = self._events
        return self.accountant.epsilon(held), self.accountant.epsilon([*held, *events])

    def fits(self, events: Iterable[Event]) -> bool:
        """Whether these events fit beside what is held."""
        return self.accountant.epsilon([*self._events, *events]) <= self.cap

    def check(self, events: Sequence[Event], partners: int = 1) -> Refusal | None:
        """The refusal of these events at so many partners, as a scientist is shown it; or None.

        "Requested" is by how much what is held would grow.
        """
        if self.fits(events):
            return None
        before, after = self.weigh(events)
        everywhere = self.accountant.everywhere
        lines = shortfall(
            after - before if math.isfinite(after) else math.inf,
            self.cap - before,
            self.accountant.delta,
            (everywhere(self.held), everywhere([*self.held, (events, partners)])),
        )
        title = f"{self.who} may cost epsilon {self.cap:.3f} together."
        return Refusal(self.rule, "\n".join([title, *lines]))

    @property
    def _events(self) -> list[Event]:
        return [event for events, _ in self.held for event in events]


def limits_of(
    policy: OwnerPolicy,
    past: Sequence[Commitment],
    population: str,
    scientist: str,
    data_set: str,
    accountant: RenyiFilter,
    now: datetime | None = None,
    author: str = "",
) -> list[Limit]:
    """Every limit that a new plan of this scientist on this data set meets; none if it is public.

    A scientist is whoever has the account or the author's key: plans of either count together.

    `accountant` is the filter of the population's budget, whose orders are fixed: the guarantee.
    Each narrower limit is a rule beside it, with a filter chosen for its cap; where the owner
    changes that cap, its orders change too, and the guarantee doesn't.

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
            [p for p in past if p.scientist == scientist or (author and p.author == author)],
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
        Limit(
            rule,
            who,
            cap,
            accountant if rule == "budget" else RenyiFilter.of_cap(cap, policy.delta),
            tuple((plan.events, plan.partners) for plan in plans),
        )
        for rule, who, cap, plans in asked
        if cap is not None
    ]
