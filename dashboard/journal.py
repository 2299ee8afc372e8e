"""A scientist's runs on the machine that shows these pages, read from what each run wrote.

Only runs of plans that most of their domains say are hers are read: a dashboard serves whoever
signs in.
"""

import json
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import pandas as pd

from dashboard.plans import Plans, claims, known
from dashboard.texts import text
from network.training import Progress, epsilon_everywhere
from policies.plan import Plan

_PHASES = ("advertise", "confirm", "reveal", "share", "unmask")
_HASH = 16
"""Characters of the plan's hash that name a run's folder."""


@dataclass(frozen=True)
class Record:
    """What a run wrote down so far.

    Attributes:
        approved: the plan, at whose delta every epsilon in the history is.
        history: every release, oldest first.
        model: file of the newest released state.
    """

    plan_hash: str
    name: str
    approved: Plan
    history: tuple[Progress, ...]
    finished: bool
    folder: Path
    model: Path

    @property
    def label(self) -> str:
        return f"{self.name} {self.plan_hash[:12]}"

    @property
    def delta(self) -> float:
        return self.approved.delta

    @property
    def everywhere(self) -> float | None:
        """Epsilon so far for a person who is a user at every partner; None without noise."""
        return epsilon_everywhere(self.approved, self.history)

    @property
    def total(self) -> int:
        """How many releases the plan has."""
        return self.history[-1].total if self.history else 0


def read_record(
    runs: Path | None, plan: Mapping[str, Any], claimed: Collection[str]
) -> Record | None:
    """The run of this plan, or None: it wrote nothing yet, ran elsewhere, or is another's.

    Args:
        runs: folder of this machine's runs; None: it has none.
        plan: what a node says of it.
        claimed: the domains that say that the plan is hers; most of those that took part must,
            so that a node alone, which may lie, shows nobody another's run.
    """
    plan_hash = str(plan["plan_hash"])
    if runs is None:
        return None
    if not re.fullmatch("[0-9a-f]{64}", plan_hash):
        return None
    folder = runs / plan_hash[:_HASH]
    try:
        kept = json.loads((folder / "journal.json").read_text())
        if kept["plan_hash"] != plan_hash:
            return None
        history = tuple(Progress(**line) for line in kept["history"])
        part = {domain for each in history for domain in each.sent}
        if 2 * len(part & set(claimed)) <= len(part):
            return None
        model = folder / Path(kept["state"]).name
        name, approved = str(plan["name"]), _plan((folder / "plan.json").read_text())
        return Record(plan_hash, name, approved, history, bool(kept["finished"]), folder, model)
    except (OSError, ValueError, TypeError, KeyError):
        return None


@lru_cache(maxsize=64)  # pages look at it every few seconds
def _plan(written: str) -> Plan:
    return Plan.from_json(written)


def read_records(runs: Path | None, plans: Plans) -> list[Record]:
    """The runs on this machine of plans that are hers by the domains' word, newest first."""
    found = (read_record(runs, plan, claims(plans, h)) for h, plan in known(plans).items())
    return [record for record in found if record is not None]


def rounds(record: Record) -> pd.DataFrame:
    """One row for each release: epsilon so far, seconds, bytes and metrics."""
    return pd.DataFrame([_round(each) for each in record.history])


def _round(each: Progress) -> dict[str, Any]:
    return {
        text("run.release"): each.index,
        text("run.step"): f"{each.step} {each.release}",
        text("run.attempt"): each.attempt,
        text("run.epsilon"): each.epsilon,
        text("run.seconds"): round(sum(each.seconds.values()), 2),
        text("run.left_out"): ", ".join(each.left_out),
        text("run.sent"): sum(each.sent.values()),
        text("run.received"): sum(each.received.values()),
        **{name: round(float(value), 4) for name, value in each.metrics.items()},
    }


def metrics(records: Iterable[Record]) -> pd.DataFrame:
    """One row for each metric of each release of each run."""
    rows = [
        {
            text("run.run"): record.label,
            text("run.release"): each.index,
            text("run.epsilon"): each.epsilon,
            text("run.metric"): name,
            text("run.value"): float(value),
        }
        for record in records
        for each in record.history
        for name, value in each.metrics.items()
    ]
    return pd.DataFrame(rows)


def traffic(record: Record) -> pd.DataFrame:
    """One row for each release and domain: megabytes sent and received."""
    rows = [
        {
            text("run.release"): each.index,
            text("run.domain"): domain,
            text("run.megabytes"): round((each.sent[domain] + each.received[domain]) / 1e6, 4),
        }
        for each in record.history
        for domain in sorted(each.sent)
    ]
    return pd.DataFrame(rows)


def _phase(name: str) -> str:
    return text(f"phases.{name}") if name in _PHASES else name


def phases(record: Record) -> pd.DataFrame:
    """One row for each release and phase: seconds."""
    rows = [
        {
            text("run.release"): each.index,
            text("run.phase"): _phase(phase),
            text("run.seconds"): seconds,
        }
        for each in record.history
        for phase, seconds in each.seconds.items()
    ]
    return pd.DataFrame(rows)
