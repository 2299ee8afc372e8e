"""A ledger, or all ledgers of a network, as a page that an auditor can print and file."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from coterie.auditor import Overview
from policies.accounting import ADJACENCY, Event, epsilon_at_every_partner, plan_epsilon
from policies.alerts import Alert, alerts, unsigned_heads
from policies.ledger import Entry, Ledger, PlanRecord
from policies.verify import Verdict

_DECISIONS = (
    "budget", "refusal", "consent", "approval", "denial", "closure", "rules", "owner",
)  # fmt: skip


@dataclass(frozen=True)
class _PlanCost:
    """A plan and what it costs; `cost` is None where it lists no releases."""

    record: PlanRecord
    charged: int
    delta: float
    partners: int
    cost: float | None
    everywhere: float | None


def report(ledger: Ledger, bundle: Mapping[str, Any], verdict: Verdict) -> str:
    """One HTML page without scripts or outside resources: budgets, alerts, plans, decisions,
    co-signers.

    Every epsilon stands with its delta, adjacency and unit.
    """
    budgets = ledger.budgets()
    deltas = {budget.population: budget.delta for budget in budgets}
    return _template("ledger.html").render(
        bundle=bundle,
        verdict=verdict,
        unit=ADJACENCY,
        budgets=budgets,
        alerts=_alerts(bundle),
        plans=[_cost(ledger, record, deltas) for record in ledger.plans()],
        decisions=[
            {"index": index, "kind": kind, "body": _Body(json.loads(body))}
            for index, _, kind, body, _, _ in bundle["entries"]
            if kind in _DECISIONS
        ],
    )


def network_report(found: Overview, auditor: str, time: str) -> str:
    """An auditor's view of all domains as one such page.

    Args:
        auditor: who verified.
        time: when, UTC.
    """
    return _template("network.html").render(found=found, auditor=auditor, time=time)


def _alerts(bundle: Mapping[str, Any]) -> list[Alert]:
    """What there was to ask about when the bundle was written."""
    entries = [Entry(*each) for each in bundle["entries"]]
    signed = {each["witness"]: each["size"] for each in bundle["cosignatures"]}  # oldest first
    found = alerts(entries, datetime.fromisoformat(bundle["exported"]))
    return [*found, *unsigned_heads(entries, bundle["domain"], signed)]


def _template(name: str) -> Template:
    environment = Environment(
        loader=PackageLoader("coterie"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    environment.filters["figure"] = _figure
    return environment.get_template(name)


class _Body(dict[str, Any]):
    """An entry's fields; those that its kind doesn't have are None."""

    def __missing__(self, key: str) -> None:
        return None


def _cost(ledger: Ledger, record: PlanRecord, deltas: Mapping[str, float]) -> _PlanCost:
    states = [state for *_, state in ledger.attempts(record.plan_hash)]
    delta = float(record.summary.get("delta") or deltas.get(record.population, 0.0))
    partners = max(1, len(record.summary.get("roster", ())))
    known = bool(record.events) and 0 < delta < 1
    return _PlanCost(
        record=record,
        charged=states.count("charged"),
        delta=delta,
        partners=partners,
        cost=_epsilon(record.events, delta, 1) if known else None,
        everywhere=_epsilon(record.events, delta, partners) if known else None,
    )


@lru_cache(maxsize=1024)
def _epsilon(events: tuple[Event, ...], delta: float, partners: int) -> float:
    if partners == 1:
        return plan_epsilon(events, delta)
    return epsilon_at_every_partner(events, delta, partners)


def _figure(epsilon: float | None) -> str:
    return "unbounded" if epsilon is None or math.isinf(epsilon) else f"{epsilon:.3f}"
