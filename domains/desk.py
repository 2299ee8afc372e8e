"""The owner's desk: what a node knows of data sets and plans, and how decisions are recorded."""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from domains.dataset import PrivateDataset
from domains.folder import DomainSettings, write_private
from domains.participation import Participation, read_model
from policies.accounting import ADJACENCY, epsilon_at_every_partner, plan_epsilon
from policies.admission import PlanRefused, admit
from policies.approvals import verify_approval, verify_submission
from policies.explanation import explain
from policies.ledger import Budget, BudgetExceeded, Ledger, PlanRecord
from policies.owner_policy import PlanFacts
from policies.plan import Plan
from policies.verify import verify


class DeskRefused(Exception):
    """The desk won't do what was asked; the text says why and what to do next."""


class Desk:
    """Plans and decisions of one domain.

    Args:
        settings: the domain's name, keys and pinned peers.
        node_key: the node's verify key, 64 hex characters.
        ledger: this domain's ledger.
        datasets: the loaded data sets by name.
        plans: folder where submitted plans are kept as canonical JSON.
    """

    def __init__(
        self,
        settings: DomainSettings,
        node_key: str,
        ledger: Ledger,
        datasets: Mapping[str, PrivateDataset],
        plans: Path,
    ) -> None:
        self.name = settings.name
        self.ledger = ledger
        self._settings = settings
        self._node_key = node_key
        self._datasets = datasets
        self._plans = plans
        plans.mkdir(mode=0o700, parents=True, exist_ok=True)
        for dataset in datasets.values():
            ledger.open_budget(
                dataset.declaration.population,
                dataset.policy.epsilon,
                dataset.policy.delta,
                dataset.public,
            )

    def card(self) -> dict[str, Any]:
        """Public facts: keys and declarations."""
        return {
            "name": self.name,
            "server_uid": self._settings.server_uid,
            "node_key": self._node_key,
            "owner_key": self._settings.owner_key,
            "datasets": [_public_facts(d) for d in self._datasets.values()],
        }

    def dataset(self, name: str) -> PrivateDataset:
        """Raises DeskRefused if this domain has no data set of that name."""
        if name not in self._datasets:
            raise DeskRefused(
                f"{self.name} has no data set '{name}'. It has: {', '.join(self._datasets)}."
            )
        return self._datasets[name]

    def quote(self, plan: Plan) -> dict[str, Any]:
        """The plan's cost and every rule that would refuse it; records nothing."""
        dataset = self.dataset(plan.dataset)
        budget = self.ledger.budget(dataset.declaration.population)
        return {
            "domain": self.name,
            "epsilon": None if plan.public else plan_epsilon(plan.events(), plan.delta),
            "epsilon_at_every_partner": None
            if plan.public
            else epsilon_at_every_partner(plan.events(), plan.delta, len(plan.roster)),
            "delta": plan.delta,
            "adjacency": ADJACENCY,
            "budget": _json_budget(budget),
            "refusals": self._refusals(plan, dataset),
        }

    def submit(self, plan: Plan, account: str, signature: str) -> dict[str, Any]:
        """Record a plan, refused or pending. Submitting the same plan again changes nothing.

        Args:
            account: verify key of the Syft account that submits, hex.
            signature: by the plan's author, over the plan's hash and this account.
        """
        dataset = self.dataset(plan.dataset)
        if not verify_submission(plan.scientist, plan.hash, account, signature):
            raise DeskRefused("The plan is not signed by the scientist whose key it names.")
        known = self.ledger.status(plan.hash)
        if known != "unknown":
            return {"status": known, "plan_hash": plan.hash, "refusals": [], "new": False}
        write_private(self._plans / f"{plan.hash}.json", plan.to_json())
        self.ledger.submit(
            plan.hash,
            plan.name,
            account,
            dataset.declaration.population,
            plan.events(),
            {
                "dataset": plan.dataset,
                "roster": [entry.name for entry in plan.roster],
                "public": plan.public,
                "delta": plan.delta,
            },
            spare_attempts=plan.spare_attempts,
        )
        refusals = self._refusals(plan, dataset)
        for refusal in refusals:
            self.ledger.refuse(plan.hash, refusal["rule"], refusal["message"])
        status = self.ledger.status(plan.hash)
        return {"status": status, "plan_hash": plan.hash, "refusals": refusals, "new": True}

    def explain(self, plan: Plan) -> str:
        dataset = self.dataset(plan.dataset)
        budget = self.ledger.budget(dataset.declaration.population)
        return explain(plan, budget.held, budget.epsilon)

    def approve(
        self, plan_hash: str, decided_by: str, signature: Any, reason: str, explanation: str
    ) -> str:
        """Record an owner's approval; without a valid signature nothing will run.

        Raises:
            DeskRefused: unknown plan, or the signature isn't this owner's.
            LedgerError: the budget can't bear the plan.
        """
        plan = self._known(plan_hash)
        if self.ledger.status(plan_hash) not in ("pending", "awaiting signature"):
            raise DeskRefused(f"This plan is {self.ledger.status(plan_hash)}; nothing to approve.")
        if signature is None:
            self.ledger.consent(plan_hash, decided_by)
            return self.ledger.status(plan_hash)
        if not isinstance(signature, str) or not verify_approval(
            self._settings.owner_key, plan_hash, self.name, signature
        ):
            raise DeskRefused(
                f"The signature is not by {self.name}'s owner key "
                f"({self._settings.owner_key[:16]}…). Sign with that key: coterie requests approve"
            )
        shown = hashlib.sha256(explanation.encode()).hexdigest()
        self.ledger.approve(
            plan_hash, decided_by, self._settings.owner_key, signature, shown, reason
        )
        write_private(self._plans / f"{plan.hash}.signature", signature)
        return self.ledger.status(plan_hash)

    def deny(self, plan_hash: str, decided_by: str, reason: str) -> str:
        """Record a denial, or withdraw an approval: the next release doesn't happen."""
        self._known(plan_hash)
        if self.ledger.status(plan_hash) == "approved":
            self.ledger.close(plan_hash, f"withdrawn by {decided_by}: {reason}")
        else:
            self.ledger.deny(plan_hash, decided_by, reason)
        return self.ledger.status(plan_hash)

    def plan(self, plan_hash: str, scientist: str | None) -> Plan | None:
        """A submitted plan, or None if there is none (or it is another scientist's)."""
        file = self._plans / f"{plan_hash}.json"
        if len(plan_hash) != 64 or not plan_hash.isalnum() or not file.exists():
            return None
        if scientist is not None and scientist not in {
            r.scientist for r in self.ledger.plans() if r.plan_hash == plan_hash
        }:
            return None
        return Plan.from_json(file.read_text())

    def plans(self, scientist: str | None) -> list[dict[str, Any]]:
        """All plans, or one scientist's, newest first."""
        records = [_json_record(record) for record in self.ledger.plans()][::-1]
        return [r for r in records if scientist in (None, r["scientist"])]

    def show(self, plan_hash: str, scientist: str | None) -> dict[str, Any]:
        plan = self.plan(plan_hash, scientist)
        if plan is None:
            raise DeskRefused(f"{self.name} knows no plan {plan_hash[:64]} of yours.")
        record = next(r for r in self.plans(None) if r["plan_hash"] == plan_hash)
        signature = self._plans / f"{plan_hash}.signature"
        return {
            **record,
            "plan": plan.to_json(),
            "explanation": self.explain(plan),
            "signature": signature.read_text() if signature.exists() else None,
        }

    def progress(self, plan_hash: str) -> dict[str, Any]:
        return {
            "status": self.ledger.status(plan_hash),
            "attempts": [list(a) for a in self.ledger.attempts(plan_hash)],
        }

    def budgets(self) -> list[dict[str, Any]]:
        populations = {d.declaration.population for d in self._datasets.values()}
        return [_json_budget(self.ledger.budget(p)) for p in sorted(populations)]

    def entries(self, after: int, limit: int) -> list[dict[str, Any]]:
        return [asdict(e) for e in self.ledger.entries(after, min(max(limit, 1), 1000))]

    def verdict(self) -> dict[str, Any]:
        """The offline verifier's verdict on this node's own ledger."""
        return asdict(verify(self.ledger.entries(), self._node_key))

    def load_reports(self) -> dict[str, Any]:
        return {d.name: asdict(d.report) for d in self._datasets.values()}

    def recommend(self, user: str, count: int, participation: Participation) -> list[Any]:
        """Recommendations for one of this partner's own users, from the newest released model.

        Raises:
            DeskRefused: no model yet, or no such user.
        """
        for record in self.plans(None):
            plan = self.plan(record["plan_hash"], None)
            model = participation.model_file(record["plan_hash"])
            if plan is None or plan.scores is None or not model.exists():
                continue
            if plan.dataset not in self._datasets:
                continue
            dataset = self.dataset(plan.dataset)
            ids = dataset.declaration.item_ids
            with dataset.enclosure(plan.to_json()) as engine:
                best = engine.recommend(read_model(model), user, count)
            return [[ids[item], round(score, 4)] for item, score in best]
        raise DeskRefused(f"{self.name} has no released model yet. Run a plan first.")

    def _known(self, plan_hash: str) -> Plan:
        plan = self.plan(plan_hash, None)
        if plan is None:
            raise DeskRefused(f"{self.name} knows no plan {plan_hash[:64]}.")
        return plan

    def _refusals(self, plan: Plan, dataset: PrivateDataset) -> list[dict[str, str]]:
        try:
            self._check_roster(plan)
            admit(plan, dataset.declaration.bounds, public=dataset.public)
        except PlanRefused as refused:
            return [{"rule": refused.rule, "message": str(refused)}]
        if plan.catalogue != dataset.declaration.catalogue_hash:
            return [
                {
                    "rule": "catalogue",
                    "message": f"{self.name} has another item catalogue than the plan "
                    f"({dataset.declaration.catalogue_hash[:12]} here).",
                }
            ]
        facts = PlanFacts.of(plan.events(), plan.delta, dataset.declaration.users, plan.public)
        refusals = [asdict(refusal) for refusal in dataset.policy.check(facts)]
        try:
            self.ledger.require_room(dataset.declaration.population, plan.events())
        except BudgetExceeded as exceeded:
            refusals.append({"rule": "budget", "message": str(exceeded)})
        return refusals

    def _check_roster(self, plan: Plan) -> None:
        entries = {entry.name: entry for entry in plan.roster}
        mine = entries.get(self.name)
        expected = (self._settings.server_uid, self._node_key, self._settings.owner_key)
        if mine is None or (mine.server_uid, mine.node_key, mine.owner_key) != expected:
            raise PlanRefused("roster", f"The plan's roster doesn't name {self.name} as it is.")
        for name, entry in entries.items():
            if name == self.name:
                continue
            peer = self._settings.peers.get(name)
            if peer is None or (peer.node_key, peer.owner_key) != (entry.node_key, entry.owner_key):
                raise PlanRefused(
                    "roster",
                    f"{self.name}'s owner has not pinned these keys for '{name}'. Compare them "
                    f"with that partner, then: coterie domain pin {self.name} {name}",
                )


def _public_facts(dataset: PrivateDataset) -> dict[str, Any]:
    declaration, policy = dataset.declaration, dataset.policy
    return {
        "name": declaration.name,
        "description": declaration.description,
        "population": declaration.population,
        "users": declaration.users,
        "items": declaration.items,
        "interactions_per_user": declaration.interactions_per_user,
        "catalogue": declaration.catalogue_hash,
        "epsilon": policy.epsilon,
        "delta": policy.delta,
        "public": policy.public,
    }


def _json_record(record: PlanRecord) -> dict[str, Any]:
    return {**asdict(record), "summary": dict(record.summary)}


def _json_budget(budget: Budget) -> dict[str, Any]:
    return {k: (None if v in (math.inf, -math.inf) else v) for k, v in asdict(budget).items()}
