"""A scientist's runs on the machine that shows these pages, read from what each run wrote.

Only runs of plans that the nodes say are hers are read: a dashboard serves whoever signs in.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from dashboard.texts import text
from network.training import Progress

_HASH = 16
"""Characters of the plan's hash that name a run's folder."""


@dataclass(frozen=True)
class Record:
    """What a run wrote down so far.

    Attributes:
        history: every release, oldest first.
        model: file of the newest released state.
    """

    plan_hash: str
    name: str
    history: tuple[Progress, ...]
    finished: bool
    folder: Path
    model: Path

    @property
    def label(self) -> str:
        return f"{self.name} {self.plan_hash[:12]}"

    @property
    def total(self) -> int:
        """How many releases the plan has."""
        return self.history[-1].total if self.history else 0


def read_record(runs: Path, plan_hash: str, name: str) -> Record | None:
    """The run of this plan, or None: it wrote nothing yet, or ran elsewhere."""
    if not re.fullmatch("[0-9a-f]{64}", plan_hash):
        return None
    folder = runs / plan_hash[:_HASH]
    try:
        kept = json.loads((folder / "journal.json").read_text())
        if kept["plan_hash"] != plan_hash:
            return None
        history = tuple(Progress(**line) for line in kept["history"])
        model = folder / Path(kept["state"]).name
        return Record(plan_hash, name, history, bool(kept["finished"]), folder, model)
    except (OSError, ValueError, TypeError, KeyError):
        return None


def read_records(runs: Path | None, plans: Iterable[Mapping[str, Any]]) -> list[Record]:
    """The runs of these plans that this machine has."""
    if runs is None:
        return []
    found = (read_record(runs, plan["plan_hash"], plan["name"]) for plan in plans)
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


def phases(record: Record) -> pd.DataFrame:
    """One row for each release and phase: seconds."""
    rows = [
        {text("run.release"): each.index, text("run.phase"): phase, text("run.seconds"): seconds}
        for each in record.history
        for phase, seconds in each.seconds.items()
    ]
    return pd.DataFrame(rows)
