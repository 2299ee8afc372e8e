"""The rules of a ledger, entry by entry: what may follow what, who signed it, what it costs."""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import rfc8785

from policies.verify.evidence import (
    CLOCK_SKEW,
    HEX64,
    UNREADABLE,
    Bad,
    EntryLike,
    Roots,
    entry_text,
    is_signed,
    strict_json,
    utc,
    whole,
)
from policies.verify.fields import check_fields
from policies.verify.spending import OLD_ORDERS, BudgetState, Mechanism, mechanism_of
from policies.verify.statements import (
    check_approval,
    check_envelope,
    check_rules,
    check_succession,
)

Attempt = tuple[str, str, int, int]  # (plan hash, step, release, attempt)
Row = tuple[Any, ...]


@dataclass
class PlanState:
    population: str
    allowed: Counter[Mechanism]
    spare: int
    row: dict[str, Any]
    partners: int = 1
    status: str = "pending"
    expires: str = ""
    envelope: BudgetState | None = None
    firsts: Counter[Mechanism] = field(default_factory=Counter)
    repeats: int = 0


@dataclass
class Attempted:
    mechanism: Mechanism
    repeat: bool
    population: str
    reserved: str
    index: int = 0  # of its charge or void
    state: str = "reserved"
    share: str = ""
    inputs: str = ""


class Replay:
    """Everything the chain says so far; `replay` takes one entry further or raises `Bad`."""

    def __init__(self, domain_key: str | None, owner_key: str | None):
        self.key, self.pinned = domain_key, domain_key is not None
        self.owner_key = self.last_owner = owner_key
        self.domain = ""
        self.index, self.head = 0, "0" * 64
        self.time = datetime.min.replace(tzinfo=UTC)
        self.budgets: dict[str, BudgetState] = {}
        self.plans: dict[str, PlanState] = {}
        self.tries: dict[Attempt, Attempted] = {}
        self.latest: dict[tuple[str, str, int], int] = {}
        self.charged: set[tuple[str, str, int]] = set()
        self.open: Counter[str] = Counter()
        self.signed: Counter[str] = Counter()
        self.envelopes: dict[str, BudgetState] = {}
        self.owners: set[str] = set()
        self.peers: Collection[str] | None = None
        self.mentions: list[Row] = []
        self.watched: dict[int, tuple[str, datetime]] = {}
        self.witnesses: set[str] = set()
        self.covered: dict[str, int] = {}
        self.sizes: set[int] = set()
        self._tree = Roots()

    def foresee(self, entries: Iterable[EntryLike]) -> None:
        """Until the owner's key is replaced, what she signed is by the key that will be."""
        first = next((entry for entry in entries if entry.kind == "owner"), None)
        if first is not None:
            with suppress(*UNREADABLE):
                self.owner_key = str(json.loads(first.body)["replaces"])

    def replay(self, entry: EntryLike) -> None:
        self.expect(
            type(entry.index) is int and entry.index == self.index + 1,
            f"expected entry {self.index + 1}, found {entry.index!r}: entries are missing or moved",
            at=self.index + 1,
        )
        self.index = entry.index
        try:
            self._check_link(entry)
            body = strict_json(entry.body)
            if entry.index == 1:
                self._read_first(entry.kind, body)
            self._check_signature(entry)
            check_fields(entry.kind, body, self.expect)
            self._check_time(body)
            self._read_body(entry.kind, body)
        except UNREADABLE as error:
            raise Bad(f"it can't be read ({type(error).__name__}: {error})", self.index) from None
        about = body.get("plan") or body.get("population") or ""
        self.mentions.append((self.index, entry.kind, about, body["time"]))
        self.head = entry.hash
        self._tree.append(bytes.fromhex(entry.hash))
        if self.index in self.sizes:
            self.watched[self.index] = self._tree.root(), self.time

    def _check_link(self, entry: EntryLike) -> None:
        self.expect(entry.previous == self.head, "it isn't chained to the entry before it")
        digest = hashlib.sha256(entry_text(entry).encode()).hexdigest()
        self.expect(digest == entry.hash, "its hash doesn't fit what it says: it was edited")

    def _read_first(self, kind: str, body: dict[str, Any]) -> None:
        self.expect(kind == "ledger", "the first entry doesn't open a ledger")
        self.domain = str(body["domain"])
        self.key = self.key or str(body["node_key"])
        self.expect(
            body["node_key"] == self.key,
            f"it names node key {body['node_key']}, expected {self.key}",
        )

    def _check_signature(self, entry: EntryLike) -> None:
        valid = is_signed(self.key or "", entry.signature, f"coterie-ledger-v1:{entry.hash}")
        self.expect(valid, "its signature isn't the node's")

    def _check_time(self, body: dict[str, Any]) -> None:
        time = utc(body["time"])
        self.expect(time >= self.time, "it is dated before the entry before it")
        self.expect(time <= datetime.now(UTC) + CLOCK_SKEW, "it is dated in the future")
        self.time = time

    def _read_body(self, kind: str, body: dict[str, Any]) -> None:
        readers = {
            "budget": self._read_budget,
            "submission": self._read_submission,
            "refusal": self._read_refusal,
            "consent": self._read_consent,
            "approval": self._read_approval,
            "denial": self._read_denial,
            "reservation": self._read_reservation,
            "charge": self._read_charge,
            "release": self._read_release,
            "void": self._read_void,
            "closure": self._read_closure,
            "objection": self._plan,
            "owner": self._read_owner,
            "rules": self._read_rules,
        }
        if self.index > 1:
            self.expect(kind in readers, "a ledger is opened only once")
            readers[kind](body)

    def _read_budget(self, body: dict[str, Any]) -> None:
        name = body["population"]
        plain = name.isascii() and name.isprintable()
        self.expect(plain, f"population {name!a} isn't plain ASCII: it may look like another")
        budget = self.budgets.setdefault(name, BudgetState())
        budget.epsilon, budget.delta = float(body["epsilon"]), float(body["delta"])
        budget.public = bool(body["public"])
        valid = 0 < budget.epsilon < math.inf and 0 < budget.delta < 1
        self.expect(valid, f"no such budget: {budget.epsilon} at {budget.delta}")
        before = budget.orders, budget.shares
        budget.fix(*filter_of(body))
        self.expect(
            not budget.used or before == (budget.orders, budget.shares),
            f"it changes the orders of population {name!r} after something was reserved",
        )

    def _read_submission(self, body: dict[str, Any]) -> None:
        old = self.plans.get(body["plan"])
        self.expect(old is None or old.status == "refused", "the plan was submitted before")
        self.expect(body["population"] in self.budgets, "its population has no budget")
        allowed: Counter[Mechanism] = Counter()
        for event in body["events"]:
            self.expect(whole(event["count"]) > 0, "an event with no releases")
            allowed[mechanism_of(event)] += event["count"]
        row = plan_row(body["time"], **{key: body[key] for key in ("name", "scientist", "summary")})
        partners = max(1, len(body["summary"].get("roster", ())))
        spare = int(body["spare_attempts"])
        plan = PlanState(body["population"], allowed, spare, row, partners)
        self.expect(0 <= plan.spare < allowed.total(), "spare attempts but no releases")
        self.plans[body["plan"]] = plan

    def _read_refusal(self, body: dict[str, Any]) -> None:
        unknown = PlanState("", Counter(), 0, plan_row(body["time"]), status="refused")
        plan = self.plans.setdefault(body["plan"], unknown)
        reason = f"{body['rule']}: {body['reason']}"
        self._move(body, plan, "", reason, "refused", "pending", "awaiting signature", "refused")

    def _read_consent(self, body: dict[str, Any]) -> None:
        plan, reason = self._plan(body), body.get("reason", "")
        self._move(body, plan, body["by"], reason, "awaiting signature", "pending")

    def _read_approval(self, body: dict[str, Any]) -> None:
        said, until = check_approval(body, self.domain, self.time, self.expect)
        plan = self._plan(body)
        if said["kind"] == "envelope":
            check_envelope(plan.row["summary"], plan.allowed, said, self.expect)
            self.signed[body["signature"]] += 1
            self.expect(
                self.signed[body["signature"]] <= said["plans"],
                f"its envelope approves {said['plans']} plans, and this is one more",
            )
            plan.envelope = self.envelopes.setdefault(
                body["signature"], BudgetState(said["total_epsilon"], said["delta"])
            )
        plan.expires = until
        self._expect_owner(body["owner_key"])
        self._decide(body, "approved")

    def _expect_owner(self, key: str) -> None:
        self.owners.add(key)
        self.expect(
            self.owner_key in (None, key), f"it is signed by {key}, not by the domain's owner"
        )

    def _read_owner(self, body: dict[str, Any]) -> None:
        check_succession(body, self.domain, self.expect)
        old = body["replaces"]
        self.expect(
            self.owner_key in (None, old), f"it replaces {old}, which isn't the owner's key"
        )
        self.owner_key = body["owner_key"]

    def _read_denial(self, body: dict[str, Any]) -> None:
        self._decide(body, "denied")

    def _read_closure(self, body: dict[str, Any]) -> None:
        self.expect(not self.open[body["plan"]], "a reservation of the plan is open")
        plan, before = self._plan(body), ("pending", "awaiting signature", "approved")
        by = body.get("by") or plan.row["decided_by"]
        self._move(body, plan, by, body["reason"], "closed", *before)

    def _read_rules(self, body: dict[str, Any]) -> None:
        self.expect(body["population"] in self.budgets, "its population has no budget")
        if check_rules(body, self.domain, self.time, self.expect):
            self.signed[body["signature"]] += 1
            self.expect(self.signed[body["signature"]] == 1, "its signature was used before")
            self._expect_owner(body["owner_key"])

    def _decide(self, body: dict[str, Any], status: str) -> None:
        plan, before = self._plan(body), ("pending", "awaiting signature")
        self._move(body, plan, body["by"], body["reason"], status, *before)

    def _read_reservation(self, body: dict[str, Any]) -> None:
        plan, key = self._plan(body), attempt_of(body)
        self.expect(plan.status == "approved", f"reserved while the plan is {plan.status}")
        self.expect(body["time"] < plan.expires, f"the approval had expired {plan.expires}")
        self.expect(key[2] >= 0, "releases are counted from 0")
        before = self.latest.get(key[:3], -1)
        self.expect(key[3] > before, "this attempt, or a later one, was reserved before")
        if before >= 0:
            open_ = self.tries[(*key[:3], before)].state == "reserved"
            self.expect(not open_, "an earlier attempt of this release is open")
        repeat, mechanism = key[:3] in self.charged, mechanism_of(body["event"])
        self.expect(body["event"]["count"] == 1, "one attempt is one event")
        self._use(plan, mechanism, repeat)
        self.latest[key[:3]] = key[3]
        self.tries[key] = Attempted(mechanism, repeat, plan.population, body["time"])
        self.open[key[0]] += 1
        self._spend(plan, mechanism)

    def _use(self, plan: PlanState, mechanism: Mechanism, repeat: bool) -> None:
        self.expect(mechanism in plan.allowed, "its mechanism isn't in the approved plan")
        if repeat:
            plan.repeats += 1
            self.expect(plan.repeats <= plan.spare, "more repetitions than spare attempts")
            return
        plan.firsts[mechanism] += 1
        self.expect(
            plan.firsts[mechanism] <= plan.allowed[mechanism]
            and plan.firsts.total() <= plan.allowed.total() - plan.spare,
            "more releases than were approved",
        )

    def _spend(self, plan: PlanState, mechanism: Mechanism) -> None:
        if plan.envelope is not None:
            plan.envelope.add(mechanism, plan.partners, 1)
            self.expect(not plan.envelope.over(), "plans under its envelope are over their limit")
        budget = self.budgets[plan.population]
        budget.add(mechanism, plan.partners, 1)
        if budget.over():
            spent = budget.figure()
            raise Bad(
                f"population {plan.population!r} is over its budget: {spent:.3f} of"
                f" {budget.epsilon:.3f}",
                self.index,
            )

    def _read_charge(self, body: dict[str, Any]) -> None:
        key, one = self._settle(body)
        self.expect(HEX64.fullmatch(body["share"]) is not None, "no share's hash")
        one.state, one.share = "charged", body["share"]
        one.index = self.index
        self.charged.add(key[:3])

    def _read_release(self, body: dict[str, Any]) -> None:
        one = self.tries.get(attempt_of(body))
        if one is None or one.state != "charged":
            raise Bad("its inputs were opened without a charge before", self.index)
        self.expect(not one.inputs, "it was opened before")
        self.expect(HEX64.fullmatch(body["inputs"]) is not None, "no inputs' hash")
        one.inputs = body["inputs"]
        if "opened" in body:
            said = rfc8785.dumps(body["opened"])
            own = hashlib.sha256(bytes.fromhex(body["opened"][self.domain])).hexdigest()
            fits = hashlib.sha256(said).hexdigest() == one.inputs
            self.expect(fits, "its inputs' hash isn't of what it says was opened")
            self.expect(own == one.share, "it opened another share than was charged")

    def _read_void(self, body: dict[str, Any]) -> None:
        _, one = self._settle(body)
        plan = self._plan(body)
        one.state, one.index = "void", self.index
        self.budgets[plan.population].add(one.mechanism, plan.partners, -1)
        if plan.envelope is not None:
            plan.envelope.add(one.mechanism, plan.partners, -1)
        if one.repeat:
            plan.repeats -= 1
        else:
            plan.firsts[one.mechanism] -= 1

    def _settle(self, body: dict[str, Any]) -> tuple[Attempt, Attempted]:
        key = attempt_of(body)
        one = self.tries.get(key)
        if one is None or one.state != "reserved":
            raise Bad("there is no open reservation for it", self.index)
        self.open[key[0]] -= 1
        return key, one

    def _plan(self, body: dict[str, Any]) -> PlanState:
        self.expect(body["plan"] in self.plans, f"plan {body['plan']} was never submitted")
        return self.plans[body["plan"]]

    def _move(
        self, body: dict[str, Any], plan: PlanState, by: str, reason: str, status: str, *before: str
    ) -> None:
        self.expect(plan.status in before, f"the plan is {plan.status} and can't become {status}")
        plan.status = status
        plan.row |= {"decided": body["time"], "decided_by": by, "reason": reason}

    def expect(self, holds: bool, problem: str, at: int | None = -1) -> None:
        if not holds:
            raise Bad(problem, self.index if at == -1 else at)


def attempt_of(body: dict[str, Any]) -> Attempt:
    return body["plan"], body["step"], body["release"], body["attempt"]


def filter_of(body: dict[str, Any]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The orders and shares of delta that a budget entry fixes. Raises ValueError."""
    if "orders" not in body and "shares" not in body:
        return OLD_ORDERS, (1 / len(OLD_ORDERS),) * len(OLD_ORDERS)
    listed = body["orders"], body["shares"]
    if not all(type(each) in (int, float) for part in listed for each in part):
        raise ValueError("orders and shares of delta are numbers")
    return tuple(map(float, listed[0])), tuple(map(float, listed[1]))


def plan_row(time: str, **known: Any) -> dict[str, Any]:
    empty = {"name": "", "scientist": "", "summary": {}, "decided": "", "decided_by": ""}
    return {**empty, "reason": "", "submitted": time, **known}
