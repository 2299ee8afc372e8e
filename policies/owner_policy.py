"""The owner's standing rules: what decides about a plan alone, or prepares her decision.

Read from a TOML file; whatever the file leaves out takes the cautious value given here.

    epsilon = 8.0
    max_releases = 60
    max_epsilon_per_scientist = 3.0
    advisory = ["max_releases"]
    office_hours = { opens = 09:00:00, closes = 17:00:00, zone = "Europe/Berlin" }
"""

import difflib
import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, time
from pathlib import Path
from typing import Annotated, Literal, Self, get_args
from zoneinfo import ZoneInfo

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from policies.accounting import ADJACENCY, Event, plan_epsilon
from policies.ledger.errors import gap
from policies.operations import ALLOWED

Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
DAYS: tuple[Day, ...] = get_args(Day)
Advisable = Literal[
    "max_releases", "min_noise_multiplier", "max_epsilon_per_plan", "max_epsilon_per_scientist",
    "max_epsilon_per_dataset", "max_epsilon_per_period", "allowed_operations", "allowed_models",
]  # fmt: skip
"""Rules that an owner may let advise instead of decide; the others hold whoever says yes."""


_RENEWAL = re.compile("renew|refill|refresh|reset|replenish|quarter", re.IGNORECASE)
"""Settings that owners of other budgets look for."""


class OwnerPolicyError(Exception):
    """The policy file can't be used; the text names the setting and what was expected."""


@dataclass(frozen=True)
class Refusal:
    """One rule a plan breaks: the rule's name in the policy file, and a sentence."""

    rule: str
    message: str


@dataclass(frozen=True)
class PlanFacts:
    """What the rules look at.

    Attributes:
        epsilon: of the plan alone, spare attempts included, at `delta` (`accounting.ADJACENCY`).
        delta: the plan's delta.
        releases: number of releases, spare attempts included.
        noise_multiplier: the smallest of any release.
        users: how many users the domain declares.
        public: the plan asks for results without noise.
        operations: every operation its graphs use, as in `policies.operations`.
        model: `likeness.model_of` the plan.
        dealer: the key of whoever deals the plan's triples.
        comparisons: what compares the plan's tensors.
    """

    epsilon: float
    delta: float
    releases: int
    noise_multiplier: float
    users: int
    public: bool
    operations: frozenset[str] = frozenset()
    model: str = ""
    dealer: str | None = None
    comparisons: str | None = None

    @classmethod
    def of(
        cls,
        events: Iterable[Event],
        delta: float,
        users: int,
        public: bool = False,
        operations: frozenset[str] = frozenset(),
        model: str = "",
        dealer: str | None = None,
        comparisons: str | None = None,
    ) -> Self:
        """The facts of a plan with these events."""
        events = tuple(events)
        return cls(
            epsilon=plan_epsilon(events, delta),
            delta=delta,
            releases=sum(event.count for event in events),
            noise_multiplier=min((event.noise_multiplier for event in events), default=0.0),
            users=users,
            public=public,
            operations=operations,
            model=model,
            dealer=dealer,
            comparisons=comparisons,
        )


class _Rules(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class OfficeHours(_Rules):
    """When approvals are taken, by hand or by an envelope: somebody is there to notice.

    Attributes:
        days: of the week.
        opens, closes: local times; `closes` must be later.
        zone: of these times, as in the IANA list.
    """

    days: Annotated[tuple[Day, ...], Field(strict=False, min_length=1)] = DAYS[:5]
    opens: time = time(9)
    closes: time = time(17)
    zone: str = "UTC"

    @field_validator("zone")
    @classmethod
    def _is_known(cls, zone: str) -> str:
        try:
            ZoneInfo(zone)
        except (KeyError, ValueError, OSError):
            raise ValueError("not a time zone; write one such as 'Europe/Berlin'") from None
        return zone

    @model_validator(mode="after")
    def _close_after_opening(self) -> Self:
        if self.closes <= self.opens:
            raise ValueError(f"closes ({self.closes}) must be later than opens ({self.opens})")
        return self

    def open_at(self, now: datetime) -> bool:
        """Whether the office is open."""
        local = now.astimezone(ZoneInfo(self.zone))
        opened = self.opens <= local.time().replace(tzinfo=None) < self.closes
        return DAYS[local.weekday()] in self.days and opened

    def __str__(self) -> str:
        return f"{', '.join(self.days)} from {self.opens:%H:%M} to {self.closes:%H:%M} {self.zone}"


Positive = Annotated[float, Field(gt=0)]
Days = Annotated[int, Field(ge=1, le=36_500)]
Hex64 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class OwnerPolicy(_Rules):
    """One owner's rules, for every population of the domain.

    Attributes:
        epsilon: budget of a population, over all plans and for good.
        delta: the budget's delta; a plan may ask for the same or less.
        max_epsilon_per_plan: most that a single plan may cost; None is the whole budget.
        max_epsilon_per_scientist: most that the plans of one account, or of one author's key, may
            cost together.
        max_epsilon_per_dataset: most that all plans on this data set may cost, where several
            share a population.
        max_epsilon_per_period: most that the plans open or decided in the last `period_days` may
            cost. It slows spending down; it never renews the budget.
        min_users: fewest users a domain must declare for its sums to be asked at all.
        max_releases: most results one plan may reveal, spare attempts included.
        min_noise_multiplier: least noise in any single release.
        allowed_operations: the only ones graphs may use, with or without overload ('aten.mul').
        allowed_models: the only computations, as `coterie requests show` names them.
        second_approvers: public keys of which one must sign beside the owner's.
        dealers: public keys of those whom the owner trusts to deal the triples of secret products.
        comparisons: by what tensors may be compared, of "spu"; none if left out.
        office_hours: when approvals are taken.
        max_approval_days: how long an approval may hold.
        advisory: rules that warn the owner instead of refusing.
        public: the population's data is public; plans without noise are allowed.
    """

    epsilon: Positive = 1.0
    delta: Annotated[float, Field(gt=0, lt=1)] = 1e-5
    max_epsilon_per_plan: Positive | None = None
    max_epsilon_per_scientist: Positive | None = None
    max_epsilon_per_dataset: Positive | None = None
    max_epsilon_per_period: Positive | None = None
    period_days: Days = 90
    min_users: Annotated[int, Field(ge=1)] = 100
    max_releases: Annotated[int, Field(ge=1)] = 1000
    min_noise_multiplier: Annotated[float, Field(ge=0)] = 0.5
    allowed_operations: Annotated[tuple[str, ...], Field(strict=False)] | None = None
    allowed_models: Annotated[tuple[Hex64, ...], Field(strict=False)] | None = None
    second_approvers: Annotated[tuple[Hex64, ...], Field(strict=False)] = ()
    dealers: Annotated[tuple[Hex64, ...], Field(strict=False)] = ()
    comparisons: Annotated[tuple[Literal["spu"], ...], Field(strict=False)] = ()
    office_hours: OfficeHours | None = None
    max_approval_days: Days = 365
    advisory: Annotated[tuple[Advisable, ...], Field(strict=False)] = ()
    public: bool = False

    @field_validator("allowed_operations")
    @classmethod
    def _are_operations(cls, named: tuple[str, ...] | None) -> tuple[str, ...] | None:
        known = {*ALLOWED, *map(_family, ALLOWED)}
        for operation in named or ():
            if operation not in known:
                raise ValueError(f"there is no operation {operation!r}{_nearest(operation, known)}")
        return named

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """The policy in a TOML file.

        Raises:
            OwnerPolicyError: no such file, not TOML, an unknown setting or a value out of range.
        """
        try:
            return cls.parse(Path(path).read_text(encoding="utf-8"), str(path))
        except OSError as error:
            raise OwnerPolicyError(f"Can't read the policy {path}: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise OwnerPolicyError(f"{path} isn't TOML: {error}") from error

    @classmethod
    def parse(cls, text: str, where: str = "policy.toml") -> Self:
        """The policy in the text of a TOML file that is called `where` in errors.

        Raises:
            OwnerPolicyError: not TOML, an unknown setting or a value out of range.
        """
        try:
            # Some editors write a mark before the first letter, which TOML doesn't know.
            return cls.model_validate(tomllib.loads(text.removeprefix("\ufeff")))
        except (tomllib.TOMLDecodeError, RecursionError) as error:
            raise OwnerPolicyError(f"{where} isn't TOML: {error}") from error
        except ValidationError as error:
            raise OwnerPolicyError(f"{where}: {_first_problem(error)}") from error

    def check(self, plan: PlanFacts) -> list[Refusal]:
        """Every rule the plan breaks by itself; what was spent before is `policies.limits`."""
        return [*self._check_cost(plan), *self._check_noise(plan), *self._check_content(plan)]

    def decides(self, refusal: Refusal) -> bool:
        """Whether the rule refuses alone; else it warns the owner."""
        return refusal.rule not in self.advisory

    def closed(self, now: datetime | None = None) -> Refusal | None:
        """The rule that takes no approval now, if the office is closed."""
        if self.office_hours is None or self.office_hours.open_at(now or datetime.now(UTC)):
            return None
        return Refusal("office_hours", f"Approvals are taken {self.office_hours}; not now")

    def _check_cost(self, plan: PlanFacts) -> Iterable[Refusal]:
        if plan.delta > self.delta:
            yield Refusal("delta", f"The plan's delta is {plan.delta:g}; at most {self.delta:g}")
        if plan.releases > self.max_releases:
            yield Refusal(
                "max_releases",
                f"The plan may reveal {plan.releases} results; at most {self.max_releases}."
                " Ask for fewer rounds, evaluations or spare attempts",
            )
        limit = self.max_epsilon_per_plan or self.epsilon
        if plan.epsilon > limit and not self.public:
            costs = (
                f"The plan costs epsilon {plan.epsilon:.3f} at delta {plan.delta:g} ({ADJACENCY});"
                f" at most {limit:.3f}. Ask for more noise or fewer releases"
            )
            yield Refusal("max_epsilon_per_plan", "\n".join([costs, *gap(plan.epsilon, limit)]))

    def _check_noise(self, plan: PlanFacts) -> Iterable[Refusal]:
        if self.public:
            return
        if plan.public:
            yield Refusal("public", "The plan asks for no noise, but the data isn't public")
        elif plan.noise_multiplier < self.min_noise_multiplier:
            yield Refusal(
                "min_noise_multiplier",
                f"A release has noise multiplier {plan.noise_multiplier:g}; at least"
                f" {self.min_noise_multiplier:g}",
            )
        if plan.users < self.min_users:
            yield Refusal(
                "min_users",
                f"The domain declares {plan.users} users; at least {self.min_users} are needed",
            )

    def _check_content(self, plan: PlanFacts) -> Iterable[Refusal]:
        if self.allowed_operations is not None:
            allowed = {*self.allowed_operations, "getitem"}
            odd = sorted(op for op in plan.operations if not {op, _family(op)} & allowed)
            if odd:
                yield Refusal(
                    "allowed_operations",
                    f"The plan uses {', '.join(odd[:5])}, which this owner doesn't list. Allowed:"
                    f" {', '.join(self.allowed_operations) or 'none'}",
                )
        if self.allowed_models is not None and plan.model not in self.allowed_models:
            yield Refusal(
                "allowed_models",
                f"The plan computes model {plan.model[:16]}, which is not one of the"
                f" {len(self.allowed_models)} that this owner lists",
            )
        if plan.dealer is not None and plan.dealer not in self.dealers:
            yield Refusal(
                "dealers",
                f"The plan's triples are dealt by {plan.dealer[:16]}, whom this owner doesn't list."
                " With the scientist or the hub a dealer could read totals without noise",
            )
        if plan.comparisons is not None and plan.comparisons not in self.comparisons:
            yield Refusal(
                "comparisons",
                f"The plan's tensors are compared by {plan.comparisons}, which this owner doesn't "
                "list. Two partners who collude there could read them without noise",
            )


def _first_problem(error: ValidationError) -> str:
    first = error.errors()[0]
    setting = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        inner = first["loc"][0] == "office_hours"
        known = OfficeHours.model_fields if inner else OwnerPolicy.model_fields
        unknown = str(first["loc"][-1])
        if _RENEWAL.search(unknown):
            return (
                f"setting {setting!r}: a budget is spent for good, and no setting renews it. Data "
                "that was itself replaced, by other people's, has a budget of its own under a new "
                "population: docs/data-lifecycle.md. To slow spending down, set "
                "'max_epsilon_per_period'"
            )
        return (
            f"unknown setting {setting!r}{_nearest(unknown, known)}. Known are {', '.join(known)}"
        )
    return f"setting {setting!r}: {first['msg']}, got {first['input']!r}"


def _nearest(name: str, known: Iterable[str]) -> str:
    found = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.5)
    return f"; the nearest is {found[0]!r}" if found else ""


def _family(operation: str) -> str:
    """'aten.mul' of 'aten.mul.Tensor'."""
    return operation.rpartition(".")[0] or operation
