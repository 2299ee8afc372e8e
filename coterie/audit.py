"""An empirical audit of a plan: canaries through the real engine, one run, a lower bound.

The auditor is the strongest one that the accounting promises to stop: she chose all users of one
domain, knows the plan, every state and every canary's own contribution, and sees the sum with the
noise of tau - t partners only. What she doesn't know is which canaries took part. No private data
is read; the users are made up.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from domains.engine import private_sum, user_integers
from domains.interactions import Interactions, user_keys
from domains.total import row_positions
from domains.users import UserTensors
from network.program import DataSet, Plan
from network.training import unflatten
from network.updates import after_release, noise_std
from policies.accounting import plan_epsilon
from policies.audit import Guesses, guess, guess_count, lower_bound
from policies.mechanism import add_noise_share, sample_users
from policies.noise import SecureRandom
from policies.plan import Plan as ApprovablePlan
from policies.plan import RosterEntry, Step

DENSE_BYTES = 2**30
_LEAST_NOISE = 1e-6


@dataclass(frozen=True)
class Audit:
    """The result of an audit.

    Attributes:
        bound: the empirical lower bound on epsilon.
        epsilon: the accounted one, of the same releases; None without noise.
        delta: of both.
        confidence: with which the bound holds.
        releases: how many there were.
        guesses: what was guessed of the canaries, and how well.
        scores: float64 [m], what the guesses were made by: 1 looks present, 0 absent.
        took_part: bool [m], the truth.
    """

    bound: float
    epsilon: float | None
    delta: float
    confidence: float
    releases: int
    guesses: Guesses
    scores: NDArray[np.float64]
    took_part: NDArray[np.bool_]

    @property
    def contradicts(self) -> bool:
        """Whether the run rules the accounted epsilon out."""
        return self.epsilon is not None and self.bound > self.epsilon

    @property
    def verdict(self) -> str:
        """What the bound means, in a sentence."""
        if self.epsilon is None:
            return "The plan has no noise: NOT PRIVATE, whatever the bound."
        if self.contradicts:
            return (
                f"The run rules out the accounted epsilon with confidence {self.confidence:g}: "
                "the engine or the accounting is wrong, unless this is the rare false alarm."
            )
        return (
            "The bound doesn't contradict the accounted epsilon. It is a lower bound on one run: "
            "a small one proves nothing."
        )


def audit(plan: Plan, canaries: int = 1000, confidence: float = 0.95, partners: int = 3) -> Audit:
    """Run a plan once on canaries and guess which of them took part.

    Args:
        plan: as its author wrote it; its updates carry the state from release to release.
        canaries: how many users to make up.
        partners: how many domains to assume; all but one of them hold nobody.

    Raises:
        TraceError: the plan can't be traced. ValueError: no canaries, or a bad confidence.
    """
    if canaries < 2:
        raise ValueError(f"{canaries} canaries; an audit needs at least 2, better 1000")
    approved = plan.bind(_roster(partners), "0" * 64)
    people = canary_users(plan.data, canaries, int(approved.hash[:16], 16))
    random = SecureRandom()
    took_part = sample_users(canaries, 0.5, random)
    evidence, state = _Evidence(canaries), dict(plan.state)
    for name, _ in approved.schedule():
        step = approved.step(name)
        given = {spec.name: state[spec.name] for spec in step.state}
        total = _released(approved, step, given, people, took_part, random)
        own = contributions_of_each(step, given, people, canaries)
        evidence.add(step, own, total)
        totals, noise = unflatten(total, step), noise_std(approved, step)
        state = after_release(plan, step, state, totals, noise)
    return _concluded(approved, evidence, took_part, confidence)


def canary_users(data: DataSet, canaries: int, seed: int) -> UserTensors:
    """Made-up users with as many items of their own each as the catalogue allows, at most M.

    With items of their own they are as easy to tell apart as users of this plan can be.
    """
    each = max(1, min(data.interactions, data.items // canaries))
    random = np.random.default_rng(seed)
    if canaries * each <= data.items:
        items = random.permutation(data.items)[: canaries * each]
    else:
        items = random.integers(0, data.items, canaries)
    names = tuple(f"canary-{number}" for number in range(canaries))
    users = Interactions(
        names=names,
        indptr=np.arange(canaries + 1) * each,
        items=items.astype(np.int64),
        values=np.ones(canaries * each, dtype=np.float32),
        targets=random.integers(0, data.items, canaries),
        keys=user_keys(names),
    )
    return UserTensors(users, data.items, data.interactions, seed % 2**64)


def contributions_of_each(
    step: Step, state: Mapping[str, Tensor], people: UserTensors, users: int
) -> Tensor:
    """What each user alone adds to the sum, over its clip norm: float32 [users, P].

    Dense where that takes at most `DENSE_BYTES`, else sparse.
    """
    unit = step.clip_norm * step.scale
    dense = torch.zeros(users, step.width) if 4 * users * step.width <= DENSE_BYTES else None
    indices, values = [], []
    for batch, units, parts in user_integers(step, state, people, np.arange(users)):
        who = torch.from_numpy(batch).unsqueeze(1)
        where, mine = row_positions(step, parts), units / unit
        if dense is not None:
            dense.index_put_((who.expand_as(where), where), mine, accumulate=True)
            continue
        kept = mine != 0
        indices.append(torch.stack([who.expand_as(where)[kept], where[kept]]))
        values.append(mine[kept])
    if dense is not None:
        return dense
    shape = (users, step.width)
    return torch.sparse_coo_tensor(
        torch.cat(indices, 1), torch.cat(values), shape, check_invariants=True
    ).coalesce()


class _Evidence:
    """Linear estimates of who took part, from all releases together.

    A release is y = Q^T s + noise, with Q every canary's own contribution and s who takes part; of
    all linear estimates of s the one below has the least error for s uniform on {0, 1}^m.
    """

    def __init__(self, canaries: int) -> None:
        self._information = np.zeros((canaries, canaries))
        self._matched = np.zeros(canaries)

    def add(self, step: Step, own: Tensor, total: NDArray[np.int64]) -> None:
        """A release, and what every canary would have added to it."""
        rate, canaries = step.sampling_rate, len(self._matched)
        precision = rate / max(step.noise_multiplier, _LEAST_NOISE) ** 2
        released = torch.from_numpy((total / (step.clip_norm * step.scale)).astype(np.float32))
        half = own.T @ torch.full((canaries, 1), rate / 2)
        matched = own @ (released.unsqueeze(1) - half)
        overlap = own @ own.T
        self._matched += precision * matched.flatten().double().numpy()
        self._information += rate * precision * overlap.to_dense().double().numpy()

    def scores(self) -> tuple[NDArray[np.float64], float]:
        """An estimate for each canary, and by how many deviations the two kinds should differ."""
        canaries = len(self._matched)
        covariance = np.linalg.inv(self._information + 4 * np.eye(canaries))
        gained = np.maximum(1 / np.diag(covariance) - 4, 0)
        return 0.5 + covariance @ self._matched, float(np.sqrt(gained.mean()))


def _concluded(
    approved: ApprovablePlan,
    evidence: _Evidence,
    took_part: NDArray[np.bool_],
    confidence: float,
) -> Audit:
    scores, separation = evidence.scores()
    made = guess_count(len(scores), separation, approved.delta, confidence)
    guesses = guess(scores, took_part, made)
    events = [step.event(step.releases) for step in approved.steps]
    return Audit(
        bound=lower_bound(guesses, approved.delta, confidence),
        epsilon=None if approved.public else plan_epsilon(events, approved.delta),
        delta=approved.delta,
        confidence=confidence,
        releases=len(approved.schedule()),
        guesses=guesses,
        scores=scores,
        took_part=took_part,
    )


def _released(
    approved: ApprovablePlan,
    step: Step,
    state: Mapping[str, Tensor],
    people: UserTensors,
    took_part: NDArray[np.bool_],
    random: SecureRandom,
) -> NDArray[np.int64]:
    """One release as the worst coalition sees it: the sum and the accounted noise alone."""
    sampled = sample_users(len(took_part), step.sampling_rate, random)
    total = private_sum(step, state, people, np.flatnonzero(took_part & sampled))
    if step.noise_multiplier == 0:
        return total
    for _ in range(approved.noise_shares):
        total = add_noise_share(
            total,
            step.noise_multiplier,
            step.clip_norm,
            step.scale,
            approved.noise_shares,
            0,
            random,
        )
    return total


def _roster(partners: int) -> list[RosterEntry]:
    if not 2 <= partners <= 1000:
        raise ValueError(f"{partners} partners; expected 2 to 1000")
    keys = [f"{number:064x}" for number in range(1, partners + 1)]
    return [
        RosterEntry(name=f"partner-{k[-4:]}", server_uid=k[:32] + k[-4:], node_key=k, owner_key=k)
        for k in keys
    ]
