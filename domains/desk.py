"""The owner's desk: what a node knows of data sets and plans, and how decisions are recorded."""

import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from domains.dataset import PrivateDataset
from domains.folder import DomainSettings, Peer, write_private
from domains.participation import Participation, read_model
from policies.accounting import (
    ADJACENCY,
    RenyiFilter,
    epsilon_at_every_partner,
    plan_epsilon,
)
from policies.admission import PlanRefused, admit
from policies.approvals import Approval, validity, verify_submission
from policies.canonical import sha256_hex
from policies.envelopes import Envelope, read_consent, why_not_approved
from policies.explanation import explain
from policies.ledger import Budget, Commitment, Ledger, LedgerError, PlanRecord
from policies.likeness import likeness_of, model_of, operations_of, query_of, roster_of
from policies.limits import Limit, limits_of
from policies.nearest import nearest_plans
from policies.owner_policy import OwnerPolicy, OwnerPolicyError, PlanFacts, Refusal
from policies.plan import Plan, RosterEntry
from policies.verify import verify

_OPEN = ("pending", "awaiting signature", "approved")
_BY_FILE_ONLY = ("second_approvers", "dealers", "office_hours", "public")
"""Rules that bind whoever signs in, too."""
_LONGEST_RULES = 100_000
SHORTEST_PREFIX = 6
"""A plan's hash may be given by its start, from so many characters on."""


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
        peers: the partners pinned at the moment; by default those in `settings`.
    """

    def __init__(
        self,
        settings: DomainSettings,
        node_key: str,
        ledger: Ledger,
        datasets: Mapping[str, PrivateDataset],
        plans: Path,
        peers: Callable[[], Mapping[str, Peer]] | None = None,
    ) -> None:
        self.name = settings.name
        self._peers = peers or (lambda: settings.peers)
        self.ledger = ledger
        self._settings = settings
        self._node_key = node_key
        self._datasets = datasets
        self._plans = plans
        self._envelopes = plans / "envelopes"
        # One decision after the other, so that what a rule saw still holds when it is recorded.
        self._deciding = threading.RLock()
        self._verifying = threading.Lock()
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

    def quote(self, plan: Plan, account: str = "") -> dict[str, Any]:
        """The plan's cost, every rule that would refuse it, and what would fit; records nothing."""
        dataset = self.dataset(plan.dataset)
        budget = self.ledger.budget(dataset.declaration.population)
        refusals, advice, offers = self._judge(plan, dataset, account)
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

    def submit(self, plan: Plan, account: str, signature: str) -> dict[str, Any]:
        """Record a plan: refused, pending, or approved within an envelope.

        Submitting the same plan again changes nothing.

        Args:
            account: verify key of the Syft account that submits, hex.
            signature: by the plan's author, over the plan's hash and this account.
        """
        dataset = self.dataset(plan.dataset)
        if not verify_submission(plan.scientist, plan.hash, account, signature):
            raise DeskRefused("The plan is not signed by the scientist whose key it names.")
        with self._deciding:
            known = self.ledger.status(plan.hash)
            if known != "unknown":
                return {"status": known, "plan_hash": plan.hash, "refusals": [], "new": False}
            refusals, advice, offers = self._judge(plan, dataset, account)
            self._record(plan, account, dataset)
            for refusal in refusals:
                self.ledger.refuse(plan.hash, refusal["rule"], refusal["message"])
            if not refusals and not advice:
                self._approve_within_envelope(plan, dataset)
            status = self.ledger.status(plan.hash)
        return {
            "status": status,
            "plan_hash": plan.hash,
            "refusals": refusals,
            "advice": advice,
            "offers": offers,
            "new": True,
        }

    def _record(self, plan: Plan, account: str, dataset: PrivateDataset) -> None:
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
                "roster_hash": roster_of(plan),
                "public": plan.public,
                "delta": plan.delta,
                "author": plan.scientist,
                "model": model_of(plan),
                "like": likeness_of(plan),
                "queries": {step.name: query_of(step) for step in plan.steps},
            },
            spare_attempts=plan.spare_attempts,
        )

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
        text = explain(plan, budget.held, budget.epsilon, before)
        _, advice, _ = self._judge(plan, dataset, "", offers=False)
        rules = [f"  {each['rule']}: {each['message']}" for each in advice]
        said = ["Your rules leave this to you:", *rules] if rules else ["Your rules: none broken."]
        return "\n".join([*said, f"Model: {model_of(plan)}", "", text])

    def approve(
        self, plan_hash: str, decided_by: str, signature: Any, reason: str, explanation: str
    ) -> str:
        """Record an owner's approval; without a valid signature nothing will run.

        Args:
            signature: the signed approval (`policies.approvals`), by the owner's key or, where two
                persons must agree, a second approver's; None: a yes without signature.
            explanation: what the native request shows.

        Raises:
            DeskRefused: unknown plan, decided already, the office is closed, or the approval isn't
                this owner's, of what this node shows.
            LedgerError: the budget can't bear the plan.
        """
        plan = self._known(plan_hash)
        policy = self.dataset(plan.dataset).policy
        with self._deciding:
            self._require_open(plan_hash)
            self._check_still_right(plan)
            if signature is None:
                self.ledger.consent(plan_hash, decided_by)
                return self.ledger.status(plan_hash)
            keys = (self._settings.owner_key, *policy.second_approvers)
            found = self._read_approval(plan, keys, signature, explanation)
            if reason and reason != found.reason:
                raise DeskRefused("The reason given is not the one that was signed.")
            self._keep_signature(plan_hash, signature)
            owners = self._signature_of(plan_hash, keys[:1])
            seconds = self._signature_of(plan_hash, keys[1:])
            if owners is None or (policy.second_approvers and seconds is None):
                self.ledger.consent(plan_hash, decided_by)
            else:
                consent = read_consent(self._settings.owner_key, self.name, owners)
                assert isinstance(consent, Approval)
                self.ledger.approve(
                    plan_hash, decided_by, keys[0], owners, consent.explanation, consent.reason
                )
            return self.ledger.status(plan_hash)

    def preapprove(self, text: str) -> str:
        """Keep an envelope that the owner signed; plans within it are approved when they come.

        Raises:
            DeskRefused: not an envelope by this owner's key for one of these data sets, expired,
                or two persons must approve.
        """
        found = read_consent(self._settings.owner_key, self.name, text)
        if not isinstance(found, Envelope):
            raise DeskRefused(f"This is no envelope signed by {self.name}'s owner key.")
        if self.dataset(found.data_set).policy.second_approvers:
            raise DeskRefused("second_approvers: two persons approve each plan here, none before.")
        if not found.holds():
            raise DeskRefused(f"The envelope expired at {found.expires}.")
        write_private(self._envelopes / f"{found.hash}.json", text)
        return found.hash

    def envelopes(self) -> list[dict[str, Any]]:
        """The envelopes kept here, with how many plans each approved."""
        found = [self._envelope(text) for text in self._kept_envelopes()]
        return [
            {"envelope": e.hash, "text": e.explain(), "used": len(self._under(e)), **e.model_dump()}
            for e in found
        ]

    def discard(self, envelope_hash: str) -> None:
        """Approve nothing more by this envelope; plans that it approved must be revoked singly."""
        file = self._envelopes / f"{envelope_hash}.json"
        if len(envelope_hash) != 64 or not envelope_hash.isalnum() or not file.exists():
            raise DeskRefused(f"{self.name} keeps no envelope {envelope_hash[:64]}.")
        file.unlink()

    def deny(self, plan_hash: str, decided_by: str, reason: str, explanation: str = "") -> str:
        """Record a denial of an open plan.

        Raises:
            DeskRefused: decided already; an approval is taken back with `revoke`.
        """
        self._known(plan_hash)
        with self._deciding:
            self._require_open(plan_hash)
            self.ledger.deny(plan_hash, decided_by, reason, sha256_hex(explanation.encode()))
            return self.ledger.status(plan_hash)

    def revoke(self, plan_hash: str, decided_by: str, reason: str) -> str:
        """Take an approval back, in the middle of a run too: the next release doesn't happen.

        Raises:
            DeskRefused: the plan isn't approved.
        """
        plan = self._known(plan_hash)
        return self._end(plan, "revoked", decided_by, reason, ("approved",))

    def withdraw(self, plan: Plan, by: str, reason: str) -> str:
        """Its scientist wants the plan no longer: what it held of the budget goes back.

        Raises:
            DeskRefused: the plan is decided against or ended already.
        """
        return self._end(
            plan, "withdrawn", by, reason, ("pending", "awaiting signature", "approved")
        )

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

    def revoke_all(self, scientist: str, decided_by: str, reason: str) -> list[str]:
        """End every open plan that this account submitted; gives their hashes."""
        ended = []
        for record in self.ledger.plans():
            if record.scientist != scientist:
                continue
            plan = self._known(record.plan_hash)
            try:
                statuses = ("pending", "awaiting signature", "approved")
                self._end(plan, "revoked", decided_by, reason, statuses)
            except DeskRefused:
                continue
            ended.append(plan.hash)
        return ended

    def _end(self, plan: Plan, how: str, by: str, reason: str, statuses: Sequence[str]) -> str:
        shown = sha256_hex(self.explain(plan).encode())
        with self._deciding:
            status = self.ledger.status(plan.hash)
            if status not in statuses:
                raise DeskRefused(
                    f"This plan is {status}; only one that is {' or '.join(statuses)} can be {how}."
                )
            self.ledger.close(plan.hash, f"{how} by {by}: {reason}", by, shown)
            return self.ledger.status(plan.hash)

    def _require_open(self, plan_hash: str) -> None:
        record = next((r for r in self.ledger.plans() if r.plan_hash == plan_hash), None)
        if record is None or record.status not in ("pending", "awaiting signature"):
            status = "unknown" if record is None else record.status
            who = f", decided by {record.decided_by}" if record and record.decided_by else ""
            raise DeskRefused(
                f"This plan is {status} already{who}; nothing to decide. To take an approval back: "
                "coterie requests revoke"
            )

    def _check_still_right(self, plan: Plan) -> None:
        """The rules once more, since others may have been approved since it was submitted."""
        dataset = self.dataset(plan.dataset)
        record = next(r for r in self.ledger.plans() if r.plan_hash == plan.hash)
        refusals, _, _ = self._judge(plan, dataset, record.scientist)
        closed = dataset.policy.closed()
        for refusal in [*refusals, *([asdict(closed)] if closed else [])]:
            raise DeskRefused(f"{refusal['rule']}: {refusal['message']}")

    def _read_approval(
        self, plan: Plan, keys: Sequence[str], signature: Any, explanation: str
    ) -> Approval:
        found = next(
            (a for a in (read_consent(k, self.name, signature) for k in keys) if a is not None),
            None,
        )
        if not isinstance(found, Approval) or found.plan != plan.hash:
            raise DeskRefused(
                f"The signature is not by {self.name}'s owner key "
                f"({self._settings.owner_key[:16]}…). Sign with that key: coterie requests approve"
            )
        days = self.dataset(plan.dataset).policy.max_approval_days
        if not found.holds() or found.expires > validity(days)[1]:
            raise DeskRefused(f"An approval must hold for at most {days} days, and still now.")
        shown = {sha256_hex(text.encode()) for text in (explanation, self.explain(plan))}
        if found.explanation not in shown:
            raise DeskRefused(
                "What was signed is not what this node shows now: the plan's place in the budget "
                "has changed, or no explanation was signed. Look again: coterie requests show"
            )
        return found

    def _keep_signature(self, plan_hash: str, signature: str) -> None:
        key = read_consent(self._settings.owner_key, self.name, signature)
        suffix = "signature" if key is not None else "second"
        write_private(self._plans / f"{plan_hash}.{suffix}", signature)

    def _signature_of(self, plan_hash: str, keys: Sequence[str]) -> str | None:
        """What one of these keys signed for the plan, if it still holds."""
        for suffix in ("signature", "second"):
            file = self._plans / f"{plan_hash}.{suffix}"
            text = file.read_text() if file.exists() else None
            for key in keys:
                if text and why_not_approved(self._known(plan_hash), key, self.name, text) is None:
                    return text
        return None

    def _approve_within_envelope(self, plan: Plan, dataset: PrivateDataset) -> None:
        if dataset.policy.second_approvers or dataset.policy.closed() is not None:
            return
        past = self.ledger.commitments(dataset.declaration.population)
        for text in self._kept_envelopes():
            envelope = self._envelope(text)
            if envelope.misses(plan) or not self._has_room(envelope, plan, past):
                continue
            shown = sha256_hex(self.explain(plan).encode())
            by = f"envelope {envelope.hash[:16]} of {envelope.by}"
            write_private(self._plans / f"{plan.hash}.signature", text)
            try:
                self.ledger.approve(
                    plan.hash, by, self._settings.owner_key, text, shown, envelope.reason
                )
            except LedgerError:
                (self._plans / f"{plan.hash}.signature").unlink()
            return

    def _has_room(self, envelope: Envelope, plan: Plan, past: Sequence[Commitment]) -> bool:
        under = self._under(envelope)
        held = tuple((each.events, each.partners) for each in past if each.plan_hash in under)
        accountant = RenyiFilter(envelope.delta)
        limit = Limit("envelope", "", envelope.total_epsilon, accountant, held)
        return len(under) < envelope.plans and limit.fits(plan.events())

    def _under(self, envelope: Envelope) -> set[str]:
        """The plans that this envelope approved, ended or not."""
        own = self._settings.owner_key
        found = set()
        for file in self._plans.glob("*.signature"):
            consent = read_consent(own, self.name, file.read_text())
            if isinstance(consent, Envelope) and consent.hash == envelope.hash:
                found.add(file.stem)
        return found

    def _kept_envelopes(self) -> list[str]:
        texts = [file.read_text() for file in sorted(self._envelopes.glob("*.json"))]
        own = self._settings.owner_key
        return [t for t in texts if isinstance(read_consent(own, self.name, t), Envelope)]

    def _envelope(self, text: str) -> Envelope:
        found = read_consent(self._settings.owner_key, self.name, text)
        assert isinstance(found, Envelope)
        return found

    def _previous(self, plan: Plan) -> Plan | None:
        for record in reversed(self.ledger.plans()):
            signed = (self._plans / f"{record.plan_hash}.signature").exists()
            if record.plan_hash == plan.hash or not signed or record.status == "denied":
                continue
            other = self.plan(record.plan_hash, None)
            if other and (other.scientist, other.dataset) == (plan.scientist, plan.dataset):
                return other
        return None

    def weigh(self, plan_hash: str) -> dict[str, Any]:
        """What an owner weighs of one plan: limits with and without it, rules, partners' word.

        Every epsilon is the filter's, at the limit's delta, for `ADJACENCY`; None: infinite.
        """
        plan = self._known(self.full_hash(plan_hash, None))
        dataset = self.dataset(plan.dataset)
        record = next(r for r in self.ledger.plans() if r.plan_hash == plan.hash)
        # What would fit instead is the scientist's question, and takes a search.
        refusals, advice, _ = self._judge(plan, dataset, record.scientist, offers=False)
        previous = self._previous(plan)
        closed = dataset.policy.closed()
        return {
            "adjacency": ADJACENCY,
            "budget": _json_budget(self.ledger.budget(dataset.declaration.population)),
            "limits": [
                _weighed(limit, plan) for limit in self._limits(plan, dataset, record.scientist)
            ],
            "refusals": refusals,
            "advice": advice,
            "closed": None if closed is None else closed.message,
            "previous": None if previous is None else previous.to_json(),
            "second_approvers": len(dataset.policy.second_approvers),
            "partners": {
                entry.name: self._told(plan, entry)
                for entry in plan.roster
                if entry.name != self.name
            },
        }

    def tell(self, plan: Plan, signatures: Mapping[str, Any]) -> None:
        """Keep what other owners signed for a plan, for this owner to see; what isn't theirs is
        passed over."""
        for entry in plan.roster:
            text = signatures.get(entry.name)
            if isinstance(text, str) and _is_consent(plan, entry, text):
                write_private(self._plans / f"{plan.hash}.{entry.name}.told", text)

    def _told(self, plan: Plan, entry: RosterEntry) -> dict[str, str] | None:
        """What a partner's owner signed for the plan, as far as it was told here."""
        file = self._plans / f"{plan.hash}.{entry.name}.told"
        text = file.read_text() if file.exists() else ""
        consent = read_consent(entry.owner_key, entry.name, text) if text else None
        if consent is None or not _is_consent(plan, entry, text):
            return None
        said = ("by", "reason", "signed", "expires")
        return {name: str(getattr(consent, name)) for name in said}

    def rules(self, data_set: str) -> dict[str, Any]:
        """The policy file of a data set as it lies there, and whether the node applies it.

        `digest`: SHA-256 of the text, hex; give it back to `write_rules`.
        """
        dataset = self.dataset(data_set)
        text = dataset.policy_file.read_bytes().decode()
        try:
            applied, problem = OwnerPolicy.parse(text) == dataset.policy, None
        except OwnerPolicyError as error:
            applied, problem = False, str(error)
        digest = sha256_hex(text.encode())
        return {"text": text, "digest": digest, "applied": applied, "problem": problem}

    def preview_rules(self, data_set: str, text: str) -> list[dict[str, Any]]:
        """What other rules would say of every open plan on a data set, beside what they say now.

        Raises:
            DeskRefused: the text is no policy; says which setting and what was expected.
        """
        dataset = self.dataset(data_set)
        other = replace(dataset, policy=_policy(text))
        found = []
        for record in self.ledger.plans():
            plan = self.plan(record.plan_hash, None) if record.status in _OPEN else None
            if plan is None or plan.dataset != data_set:
                continue
            now, then = (
                [*refused, *advice]
                for refused, advice, _ in (
                    self._judge(plan, each, record.scientist, offers=False)
                    for each in (dataset, other)
                )
            )
            found.append(
                {
                    "plan_hash": plan.hash,
                    "name": plan.name,
                    "status": record.status,
                    "now": now,
                    "then": then,
                }
            )
        return found

    def write_rules(self, data_set: str, text: str, replaces: str) -> str:
        """Replace a data set's policy file; it applies from the node's next start on.

        Args:
            replaces: `digest` of the file that was looked at.

        Returns:
            The new digest.

        Raises:
            DeskRefused: the text is no policy, changes whom the owner trusts, or the file was
                changed in between.
        """
        file, then = self.dataset(data_set).policy_file, _policy(text)
        with self._deciding:
            lying = file.read_bytes()
            if sha256_hex(lying) != replaces:
                raise DeskRefused("The rules were changed meanwhile. Look at them again first.")
            now = _policy(lying.decode())
            for name in _BY_FILE_ONLY:
                if getattr(then, name) != getattr(now, name):
                    raise DeskRefused(
                        f"'{name}' is changed in {file.name} on the node's machine only: a "
                        "password isn't enough to decide whom or what others rely on."
                    )
            write_private(file, text)
        return sha256_hex(text.encode())

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

    def plan(self, plan_hash: str, scientist: str | None) -> Plan | None:
        """A submitted plan, or None if there is none (or it is another scientist's)."""
        file = self._plans / f"{plan_hash}.json"
        if len(plan_hash) != 64 or not plan_hash.isalnum() or not file.exists():
            return None
        if scientist is not None and scientist not in {
            r.scientist for r in self.ledger.plans() if r.plan_hash == plan_hash
        }:
            return None
        return _parsed(file.read_text())

    def plans(self, scientist: str | None) -> list[dict[str, Any]]:
        """All plans, or one scientist's, newest first."""
        records = [_json_record(record) for record in self.ledger.plans()][::-1]
        return [r for r in records if scientist in (None, r["scientist"])]

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
        }

    def progress(self, plan_hash: str) -> dict[str, Any]:
        record = next((r for r in self.ledger.plans() if r.plan_hash == plan_hash), None)
        return {
            "status": self.ledger.status(plan_hash),
            "reason": record.reason if record else "",
            "attempts": [list(a) for a in self.ledger.attempts(plan_hash)],
        }

    def budgets(self) -> list[dict[str, Any]]:
        populations = {d.declaration.population for d in self._datasets.values()}
        return [_json_budget(self.ledger.budget(p)) for p in sorted(populations)]

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

    def _judge(
        self, plan: Plan, dataset: PrivateDataset, account: str, *, offers: bool = True
    ) -> tuple[list[dict[str, str]], list[dict[str, str]], list[dict[str, str]]]:
        """(rules that refuse the plan, rules that leave it to the owner, plans that would fit)."""
        try:
            self._check_roster(plan)
            admit(plan, dataset.declaration.bounds, public=dataset.public)
        except PlanRefused as error:
            return [{"rule": error.rule, "message": str(error)}], [], []
        if plan.catalogue != dataset.declaration.catalogue_hash:
            message = (
                f"{self.name} has another item catalogue than the plan "
                f"({dataset.declaration.catalogue_hash[:12]} here)."
            )
            return [{"rule": "catalogue", "message": message}], [], []
        limits = self._limits(plan, dataset, account)
        broken = self._broken(plan, dataset, limits)
        refused = [each for each in broken if dataset.policy.decides(each)]
        found = []
        if refused and offers:
            found = nearest_plans(plan, lambda other: self._fits(other, dataset, limits))
        return (
            [asdict(_refused(each, plan, [o.text for o in found])) for each in refused],
            [asdict(each) for each in broken if not dataset.policy.decides(each)],
            [{"how": offer.how, "text": offer.text} for offer in found],
        )

    def _limits(self, plan: Plan, dataset: PrivateDataset, account: str) -> list[Limit]:
        population = dataset.declaration.population
        past = [c for c in self.ledger.commitments(population) if c.plan_hash != plan.hash]
        accountant = self.ledger.accountant(population)
        return limits_of(dataset.policy, past, population, account, plan.dataset, accountant)

    def _broken(
        self, plan: Plan, dataset: PrivateDataset, limits: Sequence[Limit]
    ) -> list[Refusal]:
        facts = PlanFacts.of(
            plan.events(),
            plan.delta,
            dataset.declaration.users,
            plan.public,
            operations_of(plan),
            model_of(plan),
            plan.dealer.key if plan.dealer else None,
        )
        over = (limit.check(plan.events(), len(plan.roster)) for limit in limits)
        return [*dataset.policy.check(facts), *(each for each in over if each is not None)]

    def _fits(self, plan: Plan, dataset: PrivateDataset, limits: Sequence[Limit]) -> bool:
        # The filter is quick, and what it refuses needs no privacy loss distribution.
        if not all(
            limit.fits(plan.events())
            for limit in limits
            if dataset.policy.decides(Refusal(limit.rule, ""))
        ):
            return False
        broken = self._broken(plan, dataset, ())
        return not any(dataset.policy.decides(each) for each in broken)

    def why_not_roster(self, plan: Plan) -> str | None:
        """Why a plan's partners aren't, or no longer, those that the owner pinned."""
        try:
            self._check_roster(plan)
        except PlanRefused as error:
            return str(error)
        return None

    def _check_roster(self, plan: Plan) -> None:
        entries = {entry.name: entry for entry in plan.roster}
        mine = entries.get(self.name)
        expected = (self._settings.server_uid, self._node_key, self._settings.owner_key)
        if mine is None or (mine.server_uid, mine.node_key, mine.owner_key) != expected:
            raise PlanRefused("roster", f"The plan's roster doesn't name {self.name} as it is.")
        pinned = self._peers()
        for name, entry in entries.items():
            if name == self.name:
                continue
            peer = pinned.get(name)
            if peer is None or (peer.node_key, peer.owner_key) != (entry.node_key, entry.owner_key):
                raise PlanRefused(
                    "roster",
                    f"{self.name}'s owner has not pinned these keys for '{name}'. Compare them "
                    f"with that partner, then: coterie domain pin {self.name} {name}",
                )


@lru_cache(maxsize=8)
def _parsed(text: str) -> Plan:
    """A kept plan; every call of a round asks for the same one."""
    return Plan.from_json(text)


def _refused(refusal: Refusal, plan: Plan, offers: Sequence[str]) -> Refusal:
    lines = [refusal.message]
    if refusal.rule == "max_epsilon_per_plan":
        bound = epsilon_at_every_partner(plan.events(), plan.delta, len(plan.roster))
        lines.append(f"A person who is a user at every partner: epsilon {bound:.3f}.")
    if offers:
        lines.append(f"A plan that fits: {'; or '.join(offers)}")
    elif "Short by" in refusal.message:
        lines.append("No plan like this fits: the owner would have to raise the limit.")
    return Refusal(refusal.rule, "\n".join(lines))


def _weighed(limit: Limit, plan: Plan) -> dict[str, Any]:
    found = limit.weigh(plan.events())
    before, after = (None if math.isinf(each) else each for each in found)
    return {"rule": limit.rule, "who": limit.who, "cap": limit.cap,
            "delta": limit.accountant.delta, "before": before, "after": after}  # fmt: skip


def _is_consent(plan: Plan, entry: RosterEntry, text: str) -> bool:
    return why_not_approved(plan, entry.owner_key, entry.name, text) is None


def _policy(text: str) -> OwnerPolicy:
    if len(text) > _LONGEST_RULES:
        raise DeskRefused(f"Rules are at most {_LONGEST_RULES} characters long.")
    try:
        return OwnerPolicy.parse(text)
    except OwnerPolicyError as error:
        raise DeskRefused(str(error)) from None


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


def _json_record(record: PlanRecord) -> dict[str, Any]:
    return {**asdict(record), "summary": dict(record.summary)}


def _json_budget(budget: Budget) -> dict[str, Any]:
    return {k: (None if v in (math.inf, -math.inf) else v) for k, v in asdict(budget).items()}
