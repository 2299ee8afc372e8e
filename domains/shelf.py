"""What a desk knows: data sets, plans as they were submitted, what owners are shown of them."""

import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any

from domains.dataset import PrivateDataset
from domains.folder import DomainSettings, Peer
from domains.judge import Judge
from domains.rule_files import RuleFiles
from policies.explanation import Standing, explain
from policies.ledger import Budget, Ledger, PlanRecord
from policies.likeness import model_of
from policies.plan import Plan

SHORTEST_PREFIX = 6
"""A plan's hash may be given by its start, from so many characters on."""


class DeskRefused(Exception):
    """The desk won't do what was asked; the text says why and what to do next."""


class Shelf:
    """Data sets and plans of one domain.

    Args:
        settings: the domain's name, keys and pinned peers.
        node_key: the node's verify key, 64 hex characters.
        ledger: this domain's ledger.
        datasets: the loaded data sets by name.
        plans: folder where submitted plans are kept as canonical JSON.
        peers: the partners pinned at the moment; by default those in `settings`.
        hubs: the node keys of the hubs that list this domain; by default those in `settings`.
    """

    def __init__(
        self,
        settings: DomainSettings,
        node_key: str,
        ledger: Ledger,
        datasets: Mapping[str, PrivateDataset],
        plans: Path,
        peers: Callable[[], Mapping[str, Peer]] | None = None,
        hubs: Callable[[], Collection[str]] | None = None,
    ) -> None:
        self.name = settings.name
        self._peers = peers or (lambda: settings.peers)
        self.ledger = ledger
        self._settings = settings
        self._node_key = node_key
        self._datasets = dict(datasets)
        self._plans = plans
        self._judge = Judge(
            settings, node_key, ledger, self._peers, hubs or (lambda: settings.hubs)
        )
        self._envelopes = plans / "envelopes"
        # One decision after the other, so that what a rule saw still holds when it is recorded.
        self._deciding = threading.RLock()
        self._verifying = threading.Lock()
        self._scientists: dict[str, str] = {}
        self._verdict: tuple[tuple[int, str], dict[str, Any]] | None = None
        self._began = time.monotonic()
        for folder in (plans, self._envelopes):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for dataset in datasets.values():
            ledger.open_budget(
                dataset.declaration.population,
                dataset.policy.epsilon,
                dataset.policy.delta,
                dataset.public,
            )
        self._rule_files = RuleFiles(
            self.name, settings.owner_key, ledger, self._datasets, plans / "rules"
        )
        self._rule_files.notice()

    def dataset(self, name: str) -> PrivateDataset:
        """Raises DeskRefused if this domain has no data set of that name."""
        if name not in self._datasets:
            raise DeskRefused(
                f"{self.name} has no data set '{name}'. It has: {', '.join(self._datasets)}."
            )
        return self._datasets[name]

    def explain(self, plan: Plan, since: str | None = "previous") -> str:
        """What the owner is shown: the plan, what her rules say, and what changed.

        Args:
            since: hash of the plan to compare with; "previous": the last one that was approved
                here for the same data set and author, if any; None: compare with none.
        """
        dataset = self.dataset(plan.dataset)
        budget = self.ledger.budget(dataset.declaration.population)
        before = self._previous(plan) if since == "previous" else None
        if since not in (None, "previous"):
            before = self._known(str(since))
        # PyTorch derives the shapes that are shown: only once they were found to be harmless.
        refused = self._judge.why_not_admitted(plan, dataset)
        if refused is not None:
            return f"Plan {plan.hash} isn't admitted here.\n{refused[0]}: {refused[1]}"
        text = explain(plan, self._standing(budget), before)
        _, advice, _ = self._judge.judge(plan, dataset, "", offers=False)
        rules = [f"  {each['rule']}: {each['message']}" for each in advice]
        said = ["Your rules leave this to you:", *rules] if rules else ["Your rules: none broken."]
        return "\n".join([*said, f"Model: {model_of(plan)}", "", text])

    def _standing(self, budget: Budget) -> Standing:
        accountant = self.ledger.accountant(budget.population)
        held = [(each.events, each.partners) for each in self.ledger.commitments(budget.population)]
        return Standing(budget.held, budget.epsilon, budget.delta, accountant.everywhere(held))

    def _previous(self, plan: Plan) -> Plan | None:
        for record in reversed(self.ledger.plans()):
            signed = (self._plans / f"{record.plan_hash}.signature").exists()
            if record.plan_hash == plan.hash or not signed or record.status == "denied":
                continue
            other = self.plan(record.plan_hash, None)
            if other and (other.scientist, other.dataset) == (plan.scientist, plan.dataset):
                return other
        return None

    def plan(self, plan_hash: str, scientist: str | None) -> Plan | None:
        """A submitted plan, or None if there is none (or it is another scientist's)."""
        file = self._plans / f"{plan_hash}.json"
        if len(plan_hash) != 64 or not plan_hash.isalnum() or not file.exists():
            return None
        if scientist is not None and self._scientist_of(plan_hash) != scientist:
            return None
        return _parsed(file.read_text())

    def _scientist_of(self, plan_hash: str) -> str | None:
        """Who submitted a plan; that never changes, and every call of a round asks."""
        found = self._scientists.get(plan_hash) or self.ledger.scientist(plan_hash)
        if found:
            self._scientists[plan_hash] = found
        return found

    def plans(self, scientist: str | None) -> list[dict[str, Any]]:
        """All plans, or one scientist's, newest first."""
        records = [_json_record(record) for record in self.ledger.plans()][::-1]
        return [r for r in records if scientist in (None, r["scientist"])]

    def full_hash(self, start: str, scientist: str | None) -> str:
        """The one plan, of all or of a scientist, whose hash starts so.

        Raises:
            DeskRefused: too short, or none or several do.
        """
        if len(start) < SHORTEST_PREFIX:
            raise DeskRefused(f"Give at least {SHORTEST_PREFIX} characters of the plan's hash.")
        found = [r["plan_hash"] for r in self.plans(scientist) if r["plan_hash"].startswith(start)]
        if len(found) != 1:
            what = "knows no plan" if not found else f"knows {len(found)} plans"
            raise DeskRefused(f"{self.name} {what} of yours that starts with '{start[:64]}'.")
        return str(found[0])

    def _known(self, plan_hash: str) -> Plan:
        plan = self.plan(plan_hash, None)
        if plan is None:
            raise DeskRefused(f"{self.name} knows no plan {plan_hash[:64]}.")
        return plan


@lru_cache(maxsize=8)
def _parsed(text: str) -> Plan:
    """A kept plan; every call of a round asks for the same one."""
    return Plan.from_json(text)


def _json_record(record: PlanRecord) -> dict[str, Any]:
    return {**asdict(record), "summary": dict(record.summary)}
