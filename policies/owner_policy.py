"""The owner's standing rules: what a plan must keep to before anyone looks at it.

Read from a TOML file; whatever the file leaves out takes the cautious value given here.

    epsilon = 8.0
    max_releases = 60
"""

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from policies.accounting import ADJACENCY, Event, plan_epsilon


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
    """

    epsilon: float
    delta: float
    releases: int
    noise_multiplier: float
    users: int
    public: bool

    @classmethod
    def of(
        cls,
        events: Iterable[Event],
        delta: float,
        users: int,
        public: bool = False,
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
        )


class OwnerPolicy(BaseModel):
    """One owner's rules, for every population of the domain.

    Attributes:
        epsilon: budget of a population, over all plans and for good.
        delta: the budget's delta; a plan may ask for the same or less.
        max_epsilon_per_plan: most that a single plan may cost; None is the whole budget.
        min_users: fewest users a domain must declare for its sums to be asked at all.
        max_releases: most results one plan may reveal, spare attempts included.
        min_noise_multiplier: least noise in any single release.
        public: the population's data is public; plans without noise are allowed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    epsilon: Annotated[float, Field(gt=0)] = 1.0
    delta: Annotated[float, Field(gt=0, lt=1)] = 1e-5
    max_epsilon_per_plan: Annotated[float, Field(gt=0)] | None = None
    min_users: Annotated[int, Field(ge=1)] = 100
    max_releases: Annotated[int, Field(ge=1)] = 1000
    min_noise_multiplier: Annotated[float, Field(ge=0)] = 0.5
    public: bool = False

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """The policy in a TOML file.

        Raises:
            OwnerPolicyError: no such file, not TOML, an unknown setting or a value out of range.
        """
        try:
            return cls.model_validate(tomllib.loads(Path(path).read_text(encoding="utf-8")))
        except OSError as error:
            raise OwnerPolicyError(f"Can't read the policy {path}: {error.strerror}") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise OwnerPolicyError(f"{path} isn't TOML: {error}") from error
        except ValidationError as error:
            raise OwnerPolicyError(f"{path}: {_first_problem(error)}") from error

    def check(self, plan: PlanFacts) -> list[Refusal]:
        """Every rule the plan breaks; an empty list lets it through to the owner."""
        return [*self._check_cost(plan), *self._check_noise(plan)]

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
            yield Refusal(
                "max_epsilon_per_plan",
                f"The plan costs epsilon {plan.epsilon:.3f} at delta {plan.delta:g} ({ADJACENCY});"
                f" at most {limit:.3f}. Ask for more noise or fewer releases",
            )

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


def _first_problem(error: ValidationError) -> str:
    first = error.errors()[0]
    setting = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        known = ", ".join(OwnerPolicy.model_fields)
        return f"unknown setting {setting!r}; known are {known}"
    return f"setting {setting!r}: {first['msg']}, got {first['input']!r}"
