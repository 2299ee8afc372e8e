"""The pictures of a run: what it learned, what it cost, and what an audit found."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from coterie.audit import Audit
from coterie.baselines import Row
from network.training import Run
from policies.audit import p_value


def plot_learning_curve(
    path: Path, private: Mapping[float, Run], public: Run, rows: Sequence[Row]
) -> None:
    """Released (noised) HR@10 by training round, with the offline rows as lines."""
    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    curves = [(run, f"Coterie, epsilon {e:g}: released, noised") for e, run in private.items()]
    for run, label in [*curves, (public, "no noise: NOT PRIVATE")]:
        points = _metric_by_round(run, "HR@10")
        axes.plot(*zip(*points, strict=True), marker="o", label=label)
    for row, style in zip((r for r in rows if "Coterie" not in r.model), _styles(), strict=False):
        axes.axhline(row.hr, **style, label=row.model.partition(" (")[0])
    axes.set_xlabel("training round")
    axes.set_ylabel("HR@10 (leave-one-out, 99 negatives)")
    axes.set_ylim(0, 1)
    axes.legend(fontsize=8, ncols=2)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def plot_budget(
    path: Path,
    private: Mapping[float, Run],
    budgets: Mapping[str, Sequence[Mapping[str, Any]]],
    delta: float,
) -> None:
    """Epsilon of each plan by release, and each domain's budget spent against its cap."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.2), layout="constrained")
    for epsilon, run in private.items():
        spent = [r.epsilon for r in run.history]
        left.step([r.index for r in run.history], spent, where="post", label=f"plan at {epsilon:g}")
    left.legend(fontsize=8)
    left.set_xlabel("release")
    left.set_ylabel(f"epsilon so far (PLD, delta {delta:g})")
    left.set_ylim(bottom=0)
    names = sorted(budgets)
    mine = {n: next(b for b in budgets[n] if not b["public"]) for n in names}
    right.barh(names, [mine[n]["epsilon"] for n in names], color="#dddddd", label="cap")
    right.barh(names, [mine[n]["spent"] for n in names], color="#3b6ea5", label="spent")
    right.set_xlabel(f"epsilon (Renyi filter, delta {delta:g})")
    right.legend(fontsize=8)
    figure.suptitle("Add/remove one user with all her interactions, per domain", fontsize=9)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def plot_audit(path: Path, audit: Audit) -> None:
    """How well canaries that took part can be told from others; which epsilons that excludes."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.2), layout="constrained")
    bins = np.linspace(audit.scores.min(), audit.scores.max(), 40)
    for took_part, label, color in ((True, "took part", "#3b6ea5"), (False, "absent", "#c0504d")):
        chosen = audit.scores[audit.took_part == took_part]
        left.hist(chosen, bins, alpha=0.6, label=label, color=color)
    left.set_xlabel("score from the releases")
    left.set_ylabel("canaries")
    left.legend(fontsize=8)
    largest = 1.2 * max(audit.bound, audit.epsilon or 0.0, 1.0)
    grid = np.linspace(0, largest, 200)
    right.plot(grid, [p_value(audit.guesses, epsilon, audit.delta) for epsilon in grid])
    right.axhline(1 - audit.confidence, color="#888888", linestyle=":", linewidth=1)
    right.axvline(audit.bound, color="#c0504d", label=f"lower bound {audit.bound:.2f}")
    if audit.epsilon is not None:
        right.axvline(audit.epsilon, color="#4f8a4f", label=f"accounted {audit.epsilon:.2f}")
    right.set_xlabel(f"epsilon (delta {audit.delta:g})")
    right.set_ylabel("chance of so many right guesses, at most")
    right.legend(fontsize=8)
    figure.suptitle("One run: a lower bound, no proof of privacy", fontsize=9)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _metric_by_round(run: Run, metric: str) -> list[tuple[int, float]]:
    points, rounds = [], 0
    for release in run.history:
        if metric in release.metrics:
            points.append((rounds, release.metrics[metric]))
        else:
            rounds += release.step == "train"
    return points


def _styles() -> list[dict[str, Any]]:
    return [
        {"color": color, "linestyle": style, "linewidth": 1}
        for style in (":", "--")
        for color in ("#888888", "#c0504d", "#4f8a4f", "#8064a2", "#333333")
    ]
