"""What a desk answers to scientists, owners and auditors; nothing here decides."""

import math
import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from domains.dataset import PrivateDataset
from domains.participation import Participation
from domains.shelf import DeskRefused, Shelf
from domains.states import load_state
from domains.told import keep_told, told_by, told_json
from policies.accounting import ADJACENCY, epsilon_at_every_partner, plan_epsilon
from policies.ledger import Budget, EntryFilter
from policies.likeness import model_of
from policies.limits import Limit
from policies.plan import Plan
from policies.verify import verify

_DECIDED = ("denied", "refused", "closed")


class Answers(Shelf):
    """Part of `Desk`: questions."""

    def card(self) -> dict[str, Any]:
        """Public facts: keys and declarations."""
        return {
            "name": self.name,
            "server_uid": self._settings.server_uid,
            "node_key": self._node_key,
            "owner_key": self._settings.owner_key,
            "datasets": [_public_facts(d) for d in self._datasets.values()],
        }

    def quote(self, plan: Plan, account: str = "") -> dict[str, Any]:
        """The plan's cost, every rule that would refuse it, and what would fit; records nothing."""
        dataset = self.dataset(plan.dataset)
        budget = self.ledger.budget(dataset.declaration.population)
        refusals, advice, offers = self._judge.judge(plan, dataset, account)
        return {
            "domain": self.name,
            "epsilon": None if plan.public else plan_epsilon(plan.events(), plan.delta),
            "epsilon_at_every_partner": None
            if plan.public
            else epsilon_at_every_partner(plan.events(), plan.delta, len(plan.roster)),
            "delta": plan.delta,
            "adjacency": ADJACENCY,
            "budget": _json_budget(budget),
            "refusals": refusals,
            "advice": advice,
            "offers": offers,
        }

    def show(self, plan_hash: str, scientist: str | None) -> dict[str, Any]:
        plan_hash = self.full_hash(plan_hash, scientist)
        plan = self._known(plan_hash)
        record = next(r for r in self.plans(None) if r["plan_hash"] == plan_hash)
        signature = self._plans / f"{plan_hash}.signature"
        return {
            **record,
            "plan": plan.to_json(),
            "explanation": self.explain(plan),
            "model": model_of(plan),
            "signature": signature.read_text() if signature.exists() else None,
            "decision": self._decision(plan_hash) if record["status"] in _DECIDED else None,
        }

    def _decision(self, plan_hash: str) -> dict[str, Any]:
        """Proof of the entry that ended a plan, for its scientist to pass on to the partners."""
        wanted = EntryFilter(kinds=("denial", "refusal", "closure"), plan=plan_hash)
        (newest,) = self.ledger.overview.page(wanted, limit=1).entries
        return self.ledger.prove(newest.index)

    def weigh(self, plan_hash: str) -> dict[str, Any]:
        """What an owner weighs of one plan: limits with and without it, rules, partners' word.

        Every epsilon is the filter's, at the limit's delta, for `ADJACENCY`; None: infinite.
        """
        plan = self._known(self.full_hash(plan_hash, None))
        dataset = self.dataset(plan.dataset)
        record = self.ledger.plan(plan.hash)
        assert record is not None
        # What would fit instead is the scientist's question, and takes a search.
        refusals, advice, _ = self._judge.judge(plan, dataset, record.scientist, offers=False)
        limits = self._judge.limits(plan, dataset, record.scientist)
        previous = self._previous(plan)
        closed = dataset.policy.closed()
        return {
            "adjacency": ADJACENCY,
            "budget": _json_budget(self.ledger.budget(dataset.declaration.population)),
            "limits": [_weighed(limit, plan) for limit in limits],
            "refusals": refusals,
            "advice": advice,
            "closed": None if closed is None else closed.message,
            "previous": None if previous is None else previous.to_json(),
            "second_approvers": len(dataset.policy.second_approvers),
            "partners": {
                entry.name: told_json(told_by(self._plans, plan, entry))
                for entry in plan.roster
                if entry.name != self.name
            },
        }

    def tell(self, plan: Plan, decisions: Mapping[str, Any]) -> None:
        """Keep what other owners decided about a plan, for this owner to see (`domains.told`)."""
        keep_told(self._plans, plan, decisions)

    def why_not_roster(self, plan: Plan) -> str | None:
        """Why a plan's partners aren't, or no longer, those that the owner pinned."""
        return self._judge.why_not_roster(plan)

    def progress(self, plan_hash: str) -> dict[str, Any]:
        record = self.ledger.plan(plan_hash)
        return {
            "status": record.status if record else "unknown",
            "reason": record.reason if record else "",
            "attempts": [list(a) for a in self.ledger.attempts(plan_hash)],
        }

    def budgets(self) -> list[dict[str, Any]]:
        populations = {d.declaration.population for d in self._datasets.values()}
        return [_json_budget(self.ledger.budget(p)) for p in sorted(populations)]

    def status(self) -> dict[str, Any]:
        """For the owner: how long the node is up, its partners, the last heads they co-signed."""
        last = {c["witness"]: c for c in self.ledger.heads.kept()}
        return {
            "up_minutes": int((time.monotonic() - self._began) // 60),
            "data_sets": sorted(self._datasets),
            "peers": {
                name: {
                    "node_key": peer.node_key,
                    "cosigned": last[name]["size"] if name in last else None,
                    "cosigned_at": last[name]["time"] if name in last else None,
                }
                for name, peer in sorted(self._peers().items())
            },
        }

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
            with model.open("rb") as state, dataset.enclosure(plan.to_json()) as engine:
                best = engine.recommend(load_state(state), user, count)
            return [[ids[item], round(score, 4)] for item, score in best]
        raise DeskRefused(f"{self.name} has no released model yet. Run a plan first.")

    def entries(self, after: int, limit: int) -> list[dict[str, Any]]:
        return [asdict(e) for e in self.ledger.entries(after, min(max(limit, 1), 1000))]

    def ledger_entry(self, index: int) -> dict[str, Any]:
        """Proof of one entry, under the first head that a peer co-signed over it, if any did."""
        witnesses = self.ledger.overview.witnesses(index)
        size = witnesses[0]["size"] if witnesses else None
        return {"proof": self.ledger.prove(index, size), "witnesses": witnesses}

    def ledger_heads(self) -> dict[str, Any]:
        """This ledger's head, co-signatures under its heads, and the peers' heads held here."""
        heads = self.ledger.heads
        return {"head": heads.head().model_dump(), "held": heads.export(), "kept": heads.kept()}

    def verdict(self) -> dict[str, Any]:
        """The offline verifier's verdict on this node's own ledger, replayed once per head."""
        head = self.ledger.head()
        with self._verifying:
            if self._verdict is None or self._verdict[0] != head:
                entries = [e for e in self.ledger.entries() if e.index <= head[0]]
                self._verdict = head, asdict(verify(entries, self._node_key))
            return self._verdict[1]


def _weighed(limit: Limit, plan: Plan) -> dict[str, Any]:
    more = plan.events(), len(plan.roster)
    everywhere = limit.accountant.everywhere
    found = {
        "cap": limit.cap,
        **dict(zip(("before", "after"), limit.weigh(more[0]), strict=True)),
        "everywhere_before": everywhere(limit.held),
        "everywhere_after": everywhere([*limit.held, more]),
    }
    finite = {name: None if math.isinf(each) else each for name, each in found.items()}
    return {"rule": limit.rule, "who": limit.who, "delta": limit.accountant.delta, **finite}


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
        "columns": list(declaration.columns),
        "values": [declaration.value_min, declaration.value_max],
        "epsilon": policy.epsilon,
        "delta": policy.delta,
        "public": policy.public,
    }


def _json_budget(budget: Budget) -> dict[str, Any]:
    return {k: (None if v in (math.inf, -math.inf) else v) for k, v in asdict(budget).items()}
