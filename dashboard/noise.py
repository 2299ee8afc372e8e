"""Noise against signal, before there is a plan: what epsilon, rounds and clip norm come to.

No data is read, not even a mock: the signal here is the largest that the clip norm lets through.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import altair as alt
import pandas as pd
import torch

import coterie as ct
from dashboard.showing import legend
from dashboard.texts import text
from policies.accounting import Event, plan_epsilon

DELTA = 1e-5
SPARE_ATTEMPTS = 2
VECTOR = 16
"""Numbers released for each item of the catalogue, as in examples/movielens_mf.py."""
_FACTORS = (0.35, 0.5, 0.7, 1.0, 1.5, 2.5, 5.0)


@dataclass(frozen=True)
class Choice:
    """What the sliders say, and the declared sizes of the data set.

    Attributes:
        epsilon: of the whole plan at `DELTA`, for `policies.accounting.ADJACENCY`.
        clip_norm: bound on the L2 norm of what one user adds to a round.
        sampling_rate: probability with which a user takes part in a round.
        users: declared at most, over all domains.
        numbers: how many numbers each round releases.
        domains: how many partners there are; one of them, or (N - 1) // 2, may collude.
    """

    epsilon: float
    rounds: int
    clip_norm: float
    sampling_rate: float
    users: int
    numbers: int
    domains: int

    @property
    def shares(self) -> float:
        """Variance that is really added over the accounted one: N / (N - t)."""
        return self.domains / max(1, self.domains - max(1, (self.domains - 1) // 2))


@dataclass(frozen=True)
class Expected:
    """What each round of a choice would release.

    Attributes:
        noise_multiplier: that every plan of this choice gets.
        noise: standard deviation of the noise in one number of the mean over the users of a round.
        shared: one number of that mean, if every user pulls the same way and spreads her
            contribution evenly over all numbers.
        whole: that number, if every user puts her whole contribution into it: the clip norm.
    """

    noise_multiplier: float
    noise: float
    shared: float
    whole: float

    @property
    def ratio(self) -> float:
        """The largest signal that is spread over all numbers, over the noise."""
        return self.shared / self.noise


def expected(choice: Choice) -> Expected:
    """What a choice would release; the same calibration as `ct.calibrate`'s.

    Raises:
        ValueError: no noise multiplier gives this epsilon.
    """
    found = _calibrated(choice.epsilon, choice.rounds, choice.sampling_rate, choice.users)
    return _of(choice, found.noise_multiplier)


def curve(choice: Choice) -> pd.DataFrame:
    """Noise and signal by epsilon around the choice, everything else being equal."""
    chosen = expected(choice)
    rows = []
    for factor in _FACTORS:
        multiplier = chosen.noise_multiplier * factor
        spent = _spent(multiplier, choice.sampling_rate, choice.rounds + SPARE_ATTEMPTS)
        found = _of(choice, multiplier)
        for what, size in (("noise", found.noise), ("shared", found.shared)):
            rows.append(
                {
                    text("quote.epsilon"): round(spent, 3),
                    text("quote.what"): text(f"quote.{what}"),
                    text("quote.size"): size,
                }
            )
    return pd.DataFrame(rows).sort_values(text("quote.epsilon"), ignore_index=True)


def picture(frame: pd.DataFrame, choice: Choice) -> alt.LayerChart:
    """Noise falls with epsilon; where it crosses the signal, a release begins to say something."""
    epsilon, what, size = (text(f"quote.{k}") for k in ("epsilon", "what", "size"))
    lines = (
        alt.Chart(frame)
        .mark_line(point=True)
        .encode(
            x=alt.X(f"{epsilon}:Q", scale=alt.Scale(type="log", nice=False), title=epsilon),
            y=alt.Y(f"{size}:Q", scale=alt.Scale(type="log"), title=size),
            color=alt.Color(f"{what}:N", legend=legend(2, lines=True)),
            strokeDash=alt.StrokeDash(f"{what}:N", legend=legend(2, lines=True)),
            tooltip=[epsilon, what, alt.Tooltip(f"{size}:Q", format=".3g")],
        )
    )
    chosen = alt.Chart(pd.DataFrame({epsilon: [choice.epsilon]}))
    rule = chosen.mark_rule(strokeDash=[4, 4], color="#7b868e").encode(x=f"{epsilon}:Q")
    return (lines + rule).properties(height=380)


def trial_plan(data: ct.DataSet, choice: Choice) -> ct.Plan:
    """A plan of this choice that partners can be asked about: item vectors, trained in rounds."""

    def loss(state, user):  # type: ignore[no-untyped-def]
        hers = state["vectors"][user.items] * user.mask[:, None]
        mine = hers.sum(0) / user.mask.sum().clamp(min=1.0)
        return ((1 - hers @ mine) * user.mask).square().sum()

    step = ct.Gradient(
        "train",
        loss,
        parameters=["vectors"],
        clip_norm=choice.clip_norm,
        releases=choice.rounds,
        sampling_rate=choice.sampling_rate,
    )
    return ct.Plan(
        name="trial",
        purpose="a question from the quote builder; it is never submitted",
        data=data,
        steps=[step],
        state={"vectors": torch.zeros(data.items, VECTOR)},
        epsilon=choice.epsilon,
        delta=DELTA,
        spare_attempts=SPARE_ATTEMPTS,
        two_domains=choice.domains == 2,
    )


def snippet(name: str, choice: Choice) -> str:
    """Python that goes on from this choice in a notebook; it holds no credential."""
    return (
        "import coterie as ct\n"
        "import torch\n\n"
        'fed = ct.connect("accounts.json", key="scientist.pem")\n'
        f"data = fed.data({name!r})\n\n\n"
        "def loss(state, user):  # one user's; the node differentiates and clips it\n"
        '    hers = state["vectors"][user.items] * user.mask[:, None]\n'
        "    mine = hers.sum(0) / user.mask.sum().clamp(min=1.0)\n"
        "    return ((1 - hers @ mine) * user.mask).square().sum()\n\n\n"
        "step = ct.Gradient(\n"
        f'    "train", loss, parameters=["vectors"], clip_norm={choice.clip_norm:g},\n'
        f"    releases={choice.rounds}, sampling_rate={choice.sampling_rate:g},\n"
        ")\n"
        "plan = ct.Plan(\n"
        '    name="item-vectors", purpose="say what the partners get from it", data=data,\n'
        f'    steps=[step], state={{"vectors": 0.01 * torch.randn(data.items, {VECTOR})}},\n'
        f"    epsilon={choice.epsilon:g}, delta={DELTA:g}, spare_attempts={SPARE_ATTEMPTS},\n"
        ")\n"
        "fed.quote(plan)\n"
    )


def _of(choice: Choice, multiplier: float) -> Expected:
    taking_part = max(1.0, choice.sampling_rate * choice.users)
    added = multiplier * choice.clip_norm * math.sqrt(choice.shares)
    return Expected(
        noise_multiplier=multiplier,
        noise=added / taking_part,
        shared=choice.clip_norm / math.sqrt(choice.numbers),
        whole=choice.clip_norm,
    )


@lru_cache(maxsize=256)
def _calibrated(epsilon: float, rounds: int, rate: float, users: int) -> ct.Calibration:
    return ct.calibrate(
        epsilon=epsilon,
        rounds=rounds,
        users=users,
        delta=DELTA,
        users_per_round=max(1, round(rate * users)),
        spare_attempts=SPARE_ATTEMPTS,
    )


@lru_cache(maxsize=1024)
def _spent(multiplier: float, rate: float, releases: int) -> float:
    return plan_epsilon([Event(multiplier, rate, releases)], DELTA)
