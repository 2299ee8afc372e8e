"""What the demo says at its end: the table, what each domain spent, the plots and the figures.

Everything is read from the runs and the nodes; the verifier reads the ledgers.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from coterie.baselines import Row
from coterie.commands.output import console, print_table
from coterie.home import Home
from coterie.plots import plot_budget, plot_learning_curve
from network.federation import Federation
from network.training import Run
from policies.accounting import ADJACENCY, epsilon_at_every_partner
from policies.plan import Plan as ApprovablePlan
from policies.verify import verify


@dataclass(frozen=True)
class Outcome:
    """What came out of a demo.

    Attributes:
        rows: each model with how well it ranks.
        private: the private run at each epsilon.
        public: the run without noise.
        seconds: what each phase took.
    """

    federation: Federation
    rows: Sequence[Row]
    private: Mapping[float, Run]
    public: Run
    seconds: Mapping[str, float]


def report(outcome: Outcome, home: Home, results: Path, json_file: Path | None) -> None:
    """Print the outcome, and write its plots and, if asked for, its figures.

    Raises:
        RuntimeError: a ledger doesn't verify.
    """
    partners = tuple(outcome.federation.nodes)
    results.mkdir(parents=True, exist_ok=True)
    verdicts = {name: _verify(home, name) for name in partners}
    budgets = {n: c.read("budgets") for n, c in outcome.federation.nodes.items()}
    traffic = traffic_of(next(iter(outcome.private.values())))
    print_table(
        "Leave-one-out, 99 sampled negatives",
        ["model", "HR@10", "NDCG@10", "epsilon per domain"],
        [[r.model, f"{r.hr:.4f}", f"{r.ndcg:.4f}", r.epsilon_text] for r in outcome.rows],
    )
    plans = {epsilon: plan_of(run) for epsilon, run in outcome.private.items()}
    everywhere = {e: everywhere_epsilon(outcome.private[e], plan) for e, plan in plans.items()}
    delta = next(iter(plans.values())).delta
    console.print(
        f"Epsilon at delta {delta:g}. Adjacency and unit: {ADJACENCY}. A person who is a user "
        f"at all {len(partners)} partners: epsilon "
        + ", ".join(f"{value:.3f} (plan at {e:g})" for e, value in everywhere.items()) + ".",
        highlight=False, soft_wrap=True,
    )  # fmt: skip
    print_table(
        "Per domain",
        ["domain", "epsilon spent (filter)", "cap", "bytes in/out per training round",
         "coterie ledger verify"],
        [
            [name, *_private_budget(budgets[name]),
             f"{traffic[name]['to_domain']:,} / {traffic[name]['from_domain']:,}",
             verdicts[name]["short"]]
            for name in partners
        ],
    )  # fmt: skip
    console.print(
        "Consistent is not yet proven complete: only the peers' heads can show that nothing "
        "was cut off or rewritten.", soft_wrap=True,
    )  # fmt: skip
    print_table("Seconds per phase", ["phase", "seconds"], list(outcome.seconds.items()))
    curve, budget = results / "learning-curve.png", results / "budget.png"
    plot_learning_curve(curve, outcome.private, outcome.public, outcome.rows)
    plot_budget(budget, outcome.private, budgets, delta)
    console.print(f"Plots: {curve} and {budget}", highlight=False)
    if json_file is not None:
        figures = {
            "rows": [r.__dict__ for r in outcome.rows],
            "delta": delta,
            "adjacency": ADJACENCY,
            "budgets": budgets,
            "bytes_per_training_round": traffic,
            "seconds": outcome.seconds,
            "verdicts": verdicts,
            "private_runs": [
                {
                    "epsilon": epsilon,
                    "epsilon_at_every_partner": everywhere[epsilon],
                    "plan": run.plan_hash,
                    "releases": [r.__dict__ for r in run.history],
                }
                for epsilon, run in outcome.private.items()
            ],
            "releases_without_noise": [r.__dict__ for r in outcome.public.history],
        }
        json_file.write_text(json.dumps(figures, indent=1, default=_plain))
        console.print(f"Figures: {json_file}", highlight=False)
    if not all(verdict["ok"] for verdict in verdicts.values()):
        raise RuntimeError("a ledger does not verify; see the table above")


def _verify(home: Home, name: str) -> dict[str, Any]:
    folder = home.domain(name)
    key = folder.node_key().public_key().public_bytes_raw().hex()
    verdict = verify(folder.ledger_file, key)
    short = f"consistent, {verdict.entries} entries" if verdict.ok else verdict.problem
    return {"ok": verdict.ok, "short": short, "text": verdict.text}


def traffic_of(run: Run) -> dict[str, dict[str, int]]:
    """Bytes to and from each domain in one training round, the median over the rounds."""
    rounds = [r for r in run.history if r.step == "train"] or run.history
    return {
        name: {
            "to_domain": int(np.median([r.sent[name] for r in rounds])),
            "from_domain": int(np.median([r.received[name] for r in rounds])),
        }
        for name in rounds[0].sent
    }


def plan_of(run: Run) -> ApprovablePlan:
    """The plan as the owners approved it, from the run's folder."""
    return ApprovablePlan.from_json((run.folder / "plan.json").read_text())


def everywhere_epsilon(run: Run, plan: ApprovablePlan) -> float:
    """What the run's releases cost a person who is a user at every partner."""
    counts = Counter(release.step for release in run.history)
    events = [plan.step(name).event(count) for name, count in sorted(counts.items())]
    return epsilon_at_every_partner(events, plan.delta, len(plan.roster))


def _private_budget(budgets: list[dict[str, Any]]) -> tuple[str, str]:
    budget = next(b for b in budgets if not b["public"])
    return f"{budget['spent']:.3f}", f"{budget['epsilon']:.3f}"


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else dict(value)
