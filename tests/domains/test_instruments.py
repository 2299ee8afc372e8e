"""Broken engines are caught, and a sound one is not accused (error rates: `tests.instruments`).

Clipping is judged by neighbouring data sets, noise by what a node adds to sums that are known.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from domains import coming_noise
from domains.coming_noise import ComingNoise
from domains.engine import private_sum
from domains.interactions import Interactions, user_keys
from domains.noised import noised_sum
from domains.sums import ExactSum
from domains.users import UserTensors
from network.clip_norms import AdaptiveClip
from network.program import (
    DataSet,
    Gradient,
    Plan,
    Sum,
)
from network.updates import noise_std
from policies import clipping, mechanism
from policies.mechanism import truncate
from policies.plan import Plan as ApprovablePlan
from policies.plan import RosterEntry, Step
from tests.domains.participating_domains import left
from tests.instruments import (
    Broken,
    check_fresh,
    check_gaussian_dp,
    check_independence,
    check_no_repeats,
    check_one_user_s_influence,
    check_width,
)

ITEMS, WIDTH, USERS = 9, 5, 8
KINDS = ("sum", "sparse", "dense", "per layer", "adaptive")


# --- Clipping, by neighbouring data sets ---


@cache
def step_of(kind: str) -> tuple[Step, dict[str, Tensor]]:
    def squares(state, user):  # type: ignore[no-untyped-def]
        return (user.mask * (state["v"][user.items].sum(1) - user.values) ** 2).sum()

    def everything(state, user):  # type: ignore[no-untyped-def]
        return squares(state, user) + (user.values.sum() * torch.tanh(state["v"])).sum()

    def two_layers(state, user):  # type: ignore[no-untyped-def]
        return squares(state, user) * state["w"].sum()

    def count(state, user):  # type: ignore[no-untyped-def]
        return {"counts": torch.zeros(ITEMS).scatter_add(0, user.items, user.values)}

    steps: dict[str, Sum | Gradient] = {
        "sum": Sum("s", count, 1.0),
        "per layer": Gradient("s", two_layers, ["v", "w"], {"v": 0.9, "w": 0.2}),
        "adaptive": Gradient("s", squares, ["v"], AdaptiveClip(start=3.0, share=0.3)),
        "sparse": Gradient("s", squares, ["v"]),
        "dense": Gradient("s", everything, ["v"]),
    }
    state = {"v": torch.randn(ITEMS, 3, generator=torch.Generator().manual_seed(0))}
    data = DataSet("d", ITEMS, WIDTH, 100, "0" * 64, False)
    plan = Plan("test", "test", data, [steps[kind]], state | {"w": torch.ones(4)})
    step = plan.bind(ROSTER, "0" * 64).steps[0]
    return step, {spec.name: plan.state[spec.name] for spec in step.state}


ROSTER = [
    RosterEntry(name=n, server_uid=n * 32, node_key=k * 64, owner_key=k * 64)
    for n, k in (("a", "1"), ("b", "2"), ("c", "3"))
]


def population(seed: int) -> UserTensors:
    """Users from silent to very loud, most of whom pull the same way."""
    random = np.random.default_rng(seed)
    lists = [random.choice(ITEMS, random.integers(1, WIDTH + 1), False) for _ in range(USERS)]
    if seed % 2:
        lists = [np.arange(WIDTH) for _ in range(USERS)]
    loud = np.exp(random.normal(0, 3, USERS)) * random.choice([1, 1, 1, -1], USERS)
    names = tuple(f"u{user}-{seed}" for user in range(USERS))
    data = Interactions(
        names=names,
        indptr=np.concatenate([[0], np.cumsum([len(items) for items in lists])]),
        items=np.concatenate(lists).astype(np.int64),
        values=np.repeat(loud, [len(items) for items in lists]).astype(np.float32),
        targets=np.full(USERS, -1),
        keys=user_keys(names),
    )
    return UserTensors(data, ITEMS, WIDTH, seed=1)


def examine(kind: str) -> None:
    step, state = step_of(kind)
    for seed in range(6):
        people = population(seed)

        def total(users: Sequence[int], people: UserTensors = people) -> NDArray[np.int64]:
            return private_sum(step, state, people, np.array(users, dtype=np.int64))

        check_one_user_s_influence(total, USERS, step.clip_norm, step.scale)
        check_independence(total, USERS, seed)


@pytest.mark.parametrize("kind", KINDS)
def test_a_sound_engine_is_not_accused(kind: str) -> None:
    examine(kind)


def flat(contributions: Sequence[Tensor]) -> Tensor:
    return torch.cat([part.reshape(len(part), -1) for part in contributions], dim=1)


def unclipped(contributions: Sequence[Tensor], clip_norm: float) -> Tensor:
    return flat(contributions)


def by_the_loudest(contributions: Sequence[Tensor], clip_norm: float) -> Tensor:
    rows = flat(contributions)
    return rows * min(1.0, 0.999 * clip_norm / max(float(rows.norm(dim=1).max()), 1e-9))


def by_the_average(contributions: Sequence[Tensor], clip_norm: float) -> Tensor:
    rows = flat(contributions)
    return rows * min(1.0, 0.999 * clip_norm / max(float(rows.norm(dim=1).mean()), 1e-9))


def by_the_sum(contributions: Sequence[Tensor], clip_norm: float) -> Tensor:
    rows = flat(contributions)
    return rows * min(1.0, 0.999 * clip_norm / max(float(rows.sum(0).norm()), 1e-9))


BROKEN = [(unclipped, False)] + [
    (clip, checked)
    for clip in (by_the_loudest, by_the_average, by_the_sum)
    for checked in (False, True)
]
"""With and without the check of the integers, which by itself stops a missing clip."""


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("clip", "checked"), BROKEN)
def test_an_engine_that_clips_wrongly_is_caught(
    kind: str,
    clip: Callable[[Sequence[Tensor], float], Tensor],
    checked: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(clipping, "clip", clip)
    if not checked:
        monkeypatch.setattr(clipping, "quantise", lambda rows, _, scale: truncate(rows, scale))
    with pytest.raises(Broken):
        examine(kind)


def test_no_clipping_and_coupled_clipping_move_the_sum_too_far(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    blind(monkeypatch, "check_independence")
    for clip in (unclipped, by_the_loudest):
        monkeypatch.setattr(clipping, "clip", clip)
        monkeypatch.setattr(clipping, "quantise", lambda rows, _, scale: truncate(rows, scale))
        with pytest.raises(Broken, match="clip norms"):
            examine("sum")


# --- Noise, by sums that are known ---

NUMBERS = 2000
ROUNDS = 3


@dataclass
class Nodes:
    """Three nodes' own code for a noised sum; only their engines' processes are left out."""

    plan: ApprovablePlan
    people: UserTensors

    def noised(self, present: NDArray[np.bool_]) -> NDArray[np.int64]:
        def engine_of_process(
            step: str, state: Mapping[str, NDArray], selected: NDArray[np.bool_]
        ) -> ExactSum:
            return left(self.sum(selected & present))

        step = self.plan.steps[0]
        run: Any = SimpleNamespace(
            plan=self.plan,
            dataset=SimpleNamespace(public=False, users=NUMBERS),
            enclosure=lambda: SimpleNamespace(private_sum=engine_of_process),
        )
        return noised_sum(run, step, {}, ComingNoise(self.plan, step))()

    def sum(self, present: NDArray[np.bool_]) -> NDArray[np.int64]:
        return private_sum(self.plan.steps[0], {}, self.people, np.flatnonzero(present))


@pytest.fixture(scope="module")
def nodes() -> Nodes:
    """Users with an item of their own each: every number of the sum is one user's."""

    def count(state, user):  # type: ignore[no-untyped-def]
        return {"counts": torch.zeros(NUMBERS).scatter_add(0, user.items, 7 * user.mask)}

    data = DataSet("d", NUMBERS, 1, NUMBERS, "0" * 64, False)
    names = tuple(f"u{number}" for number in range(NUMBERS))
    own = Interactions(
        names=names,
        indptr=np.arange(NUMBERS + 1),
        items=np.arange(NUMBERS),
        values=np.ones(NUMBERS, dtype=np.float32),
        targets=np.full(NUMBERS, -1),
        keys=user_keys(names),
    )
    people = UserTensors(own, NUMBERS, 1, seed=1)
    plan = Plan("test", "test", data, [Sum("s", count, 1.0)], epsilon=6.0)
    return Nodes(plan.bind(ROSTER, "0" * 64), people)


def measure(nodes: Nodes) -> None:
    """Run rounds in which the first node's users come and go, and look at all noise in them."""
    step, random = nodes.plan.steps[0], np.random.default_rng(0)
    sigma = noise_std(nodes.plan, step) * step.scale
    per_node: list[NDArray[np.int64]] = []
    totals: list[NDArray[np.int64]] = []
    present, absent = [], []
    unit = int(nodes.sum(np.ones(NUMBERS, dtype=bool)).min())
    for _ in range(ROUNDS):
        coins = random.random(NUMBERS) < 0.5
        nobody = np.zeros(NUMBERS, dtype=bool)
        noises = [nodes.noised(coins if number == 0 else nobody) for number in range(len(ROSTER))]
        # A coalition of t = 1, the last node, knows its own noise and takes it away.
        seen = (noises[0] + noises[1]) / unit
        present.append(seen[coins])
        absent.append(seen[~coins])
        noises[0] = noises[0] - nodes.sum(coins)
        per_node += noises
        totals.append(np.sum(noises, axis=0))
    check_width(np.concatenate(totals), sigma)
    check_fresh(per_node)
    for noise in per_node:
        check_no_repeats(noise)
    check_gaussian_dp(np.concatenate(present), np.concatenate(absent), _mu(step, unit))


def _mu(step: Step, unit: int) -> float:
    return unit / (step.noise_multiplier * step.clip_norm * step.scale)


def test_a_node_s_noise_is_as_accounted(nodes: Nodes) -> None:
    measure(nodes)


@contextmanager
def narrower(monkeypatch: pytest.MonkeyPatch, factor: float) -> Iterator[None]:
    sound = mechanism.noise_share_sigma
    with monkeypatch.context() as patched:
        patched.setattr(mechanism, "noise_share_sigma", lambda *args: factor * sound(*args))
        yield


@pytest.mark.parametrize("factor", [0.5, 0.5**0.5, 2.0])
def test_noise_of_another_width_is_caught(
    nodes: Nodes, factor: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    with narrower(monkeypatch, factor), pytest.raises(Broken, match="as wide as accounted"):
        measure(nodes)


@pytest.mark.parametrize("factor", [0.5, 0.5**0.5])
def test_the_gaussian_dp_audit_alone_catches_half_the_noise(
    nodes: Nodes, factor: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    blind(monkeypatch, "check_width", "check_fresh", "check_no_repeats")
    with narrower(monkeypatch, factor), pytest.raises(Broken, match="mu of at least"):
        measure(nodes)


@pytest.mark.parametrize("missing", [0, 1, 2])
def test_a_missing_share_is_caught(
    nodes: Nodes, missing: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound, calls = coming_noise.noise_share, iter(range(10**6))

    def forgets(size: int, *args: Any) -> NDArray[np.int64]:
        forgotten = next(calls) % 3 == missing
        return np.zeros(size, dtype=np.int64) if forgotten else sound(size, *args)

    monkeypatch.setattr(coming_noise, "noise_share", forgets)
    blind(monkeypatch, "check_fresh", "check_no_repeats")
    with pytest.raises(Broken, match="as wide as accounted"):
        measure(nodes)


@pytest.mark.parametrize("every", [1, 3, 6], ids=["always", "each round", "every second round"])
def test_reused_noise_is_caught(nodes: Nodes, every: int, monkeypatch: pytest.MonkeyPatch) -> None:
    sound, calls = mechanism.discrete_gaussian, iter(range(10**6))
    kept: dict[int, NDArray[np.int64]] = {}

    def reuses(sigma: float, size: int, random: Any) -> NDArray[np.int64]:
        number = next(calls) % every
        if number not in kept:
            kept[number] = sound(sigma, size, random)
        return kept[number]

    monkeypatch.setattr(mechanism, "discrete_gaussian", reuses)
    blind(monkeypatch, "check_width")
    with pytest.raises(Broken, match="correlation"):
        measure(nodes)


@pytest.mark.parametrize("part", [2, 10])
def test_noise_that_repeats_itself_is_caught(
    nodes: Nodes, part: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound = mechanism.discrete_gaussian

    def repeats(sigma: float, size: int, random: Any) -> NDArray[np.int64]:
        return np.resize(sound(sigma, size // part, random), size)

    monkeypatch.setattr(mechanism, "discrete_gaussian", repeats)
    blind(monkeypatch, "check_width", "check_fresh")
    with pytest.raises(Broken, match="repeats itself"):
        measure(nodes)


def blind(monkeypatch: pytest.MonkeyPatch, *instruments: str) -> None:
    """Leave these instruments out, to see that another one finds it."""
    for name in instruments:
        monkeypatch.setitem(globals(), name, lambda *_: None)
