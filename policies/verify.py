"""The auditor's reading of a ledger, offline: `python -m policies.verify PATH [--key HEX]`.

One module that shares no code with the one that writes ledgers: only json, hashlib, sqlite3, the
signatures of `cryptography`, and dp-accounting called directly. It replays every entry, names the
first bad one and says what is wrong with it, and recomputes epsilon from the mechanisms' events.

What it can't see: a ledger rolled back to an older copy, or rewritten whole under the node's own
key, contradicts nothing inside itself. So without its peers' heads the best verdict there is, is
'consistent, not proven complete'.
"""

import argparse
import hashlib
import json
import math
import re
import sqlite3
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from dp_accounting.dp_event import GaussianDpEvent, PoissonSampledDpEvent
from dp_accounting.rdp import RdpAccountant

UNIT = "add/remove one user with all her interactions, per domain"
FILTER_ORDERS = (3, 4, 5, 7, 10, 16, 28, 48)

# Whatever parsing a hostile entry can raise; each is a finding about that entry.
_UNREADABLE = (KeyError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError)

Mechanism = tuple[float, float]  # (noise multiplier, sampling rate)
Attempt = tuple[str, str, int, int]  # (plan hash, step, release, attempt)


class EntryLike(Protocol):
    """One link of a chain, as `Ledger.entries` gives them."""

    @property
    def index(self) -> int: ...
    @property
    def previous(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def body(self) -> str: ...
    @property
    def hash(self) -> str: ...
    @property
    def signature(self) -> str: ...


@dataclass(frozen=True)
class Verdict:
    """What a replay found.

    Attributes:
        ok: nothing contradicts anything else.
        entries: how many entries were read without fault.
        first_bad: index of the first bad entry; None if ok, or if no single entry is to blame.
        problem: what is wrong; empty if ok.
        epsilon: by population, of everything charged or reserved up to there: the Renyi filter's
            figure at the budget's delta, for `UNIT`.
        text: the whole verdict in words.
    """

    ok: bool
    entries: int
    first_bad: int | None
    problem: str
    epsilon: dict[str, float]
    text: str


def verify(
    ledger: str | Path | Sequence[EntryLike],
    domain_key: str | None = None,
    owner_key: str | None = None,
) -> Verdict:
    """Replay a ledger: an SQLite file, or its entries.

    `domain_key` is the node's public key in hex, from the roster; without it the key that the
    ledger itself names is used, and the verdict says so. With `owner_key`, approvals must be
    signed by it.

    Raises:
        FileNotFoundError: there is no such file.
    """
    state = _State(domain_key, owner_key)
    count = 0
    try:
        tables, entries = _read(ledger)
        for entry in entries:
            state.replay(entry)
            count += 1
        state.finish(tables)
    except _Bad as bad:
        return _verdict(state, count, str(bad), bad.index)
    return _verdict(state, count, "", None)


class _Bad(Exception):
    def __init__(self, problem: str, index: int | None):
        super().__init__(problem)
        self.index = index


@dataclass(frozen=True)
class _Link:
    index: int
    previous: str
    kind: str
    body: str
    hash: str
    signature: str


@dataclass
class _Plan:
    population: str
    allowed: Counter[Mechanism]
    spare: int
    status: str = "pending"
    firsts: Counter[Mechanism] = field(default_factory=Counter)
    repeats: int = 0


@dataclass
class _Budget:
    epsilon: float = 0.0
    delta: float = 0.0
    public: bool = False
    spent: Counter[Mechanism] = field(default_factory=Counter)
    # What was reserved since the last look at epsilon, to name the entry that went over.
    recent: list[tuple[int, Mechanism]] = field(default_factory=list)


@dataclass
class _Try:
    mechanism: Mechanism
    repeat: bool
    state: str = "reserved"
    inputs: str = ""


class _State:
    """Everything the chain says so far; `replay` takes one entry further or raises `_Bad`."""

    def __init__(self, domain_key: str | None, owner_key: str | None):
        self.key, self.pinned, self.owner_key = domain_key, domain_key is not None, owner_key
        self.domain = ""
        self.index, self.head = 0, "0" * 64
        self.budgets: dict[str, _Budget] = {}
        self.plans: dict[str, _Plan] = {}
        self.tries: dict[Attempt, _Try] = {}
        self.latest: dict[tuple[str, str, int], int] = {}
        self.charged: set[tuple[str, str, int]] = set()
        self.open: Counter[str] = Counter()

    def replay(self, entry: EntryLike) -> None:
        self._expect(
            entry.index == self.index + 1,
            f"expected entry {self.index + 1}, found {entry.index}: entries are missing or moved",
            at=self.index + 1,
        )
        self.index = entry.index
        try:
            self._check_link(entry)
            body = json.loads(entry.body, object_pairs_hook=_unique, parse_constant=_no_constant)
            if entry.index == 1:
                self._read_first(entry.kind, body)
            self._check_signature(entry)
            self._read_body(entry.kind, body)
        except _UNREADABLE as error:
            raise _Bad(f"it can't be read ({type(error).__name__}: {error})", self.index) from None
        self.head = entry.hash

    def finish(self, tables: dict[str, list[tuple[Any, ...]]]) -> None:
        self._expect(self.index > 0, "the ledger is empty", at=None)
        for population, budget in self.budgets.items():
            self._check_spend(population, budget)
        for table, rows in tables.items():
            found, expected = Counter(rows), Counter(self._index_rows(table))
            odd = [*(found - expected), *(expected - found)]
            self._expect(
                not odd, f"table {table} doesn't follow from the entries, at {odd[:1]}", at=None
            )

    def epsilon(self, population: str) -> float:
        budget = self.budgets[population]
        return _filter_epsilon(budget.spent, budget.delta)

    def _check_link(self, entry: EntryLike) -> None:
        self._expect(entry.previous == self.head, "it isn't chained to the entry before it")
        text = f"coterie-ledger-entry-v1\n{entry.index}\n{entry.previous}\n{entry.kind}\n"
        digest = hashlib.sha256((text + entry.body).encode()).hexdigest()
        self._expect(digest == entry.hash, "its hash doesn't fit what it says: it was edited")

    def _read_first(self, kind: str, body: dict[str, Any]) -> None:
        self._expect(kind == "ledger", "the first entry doesn't open a ledger")
        self.domain = str(body["domain"])
        self.key = self.key or str(body["node_key"])
        self._expect(
            body["node_key"] == self.key,
            f"it names node key {body['node_key']}, expected {self.key}",
        )

    def _check_signature(self, entry: EntryLike) -> None:
        valid = _signed(self.key or "", entry.signature, f"coterie-ledger-v1:{entry.hash}".encode())
        self._expect(valid, "its signature isn't the node's")

    def _read_body(self, kind: str, body: dict[str, Any]) -> None:
        self._expect(datetime.fromisoformat(body["time"]).tzinfo is not None, "no time zone")
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
        }
        if self.index > 1:
            self._expect(kind in readers, f"unknown kind of entry {kind!r}")
            readers[kind](body)

    def _read_budget(self, body: dict[str, Any]) -> None:
        budget = self.budgets.setdefault(str(body["population"]), _Budget())
        self._check_spend(str(body["population"]), budget)
        budget.epsilon, budget.delta = float(body["epsilon"]), float(body["delta"])
        budget.public = bool(body["public"])
        valid = 0 < budget.epsilon < math.inf and 0 < budget.delta < 1
        self._expect(valid, f"no such budget: {budget.epsilon} at {budget.delta}")

    def _read_submission(self, body: dict[str, Any]) -> None:
        old = self.plans.get(body["plan"])
        self._expect(old is None or old.status == "refused", "the plan was submitted before")
        self._expect(body["population"] in self.budgets, "its population has no budget")
        allowed: Counter[Mechanism] = Counter()
        for event in body["events"]:
            self._expect(int(event["count"]) > 0, "an event with no releases")
            allowed[_mechanism(event)] += int(event["count"])
        plan = _Plan(body["population"], allowed, int(body["spare_attempts"]))
        self._expect(0 <= plan.spare < allowed.total(), "spare attempts but no releases")
        self.plans[body["plan"]] = plan

    def _read_refusal(self, body: dict[str, Any]) -> None:
        unknown = _Plan("", Counter(), 0, status="refused")
        plan = self.plans.setdefault(body["plan"], unknown)
        self._move(plan, "refused", "pending", "awaiting signature", "refused")

    def _read_consent(self, body: dict[str, Any]) -> None:
        self._move(self._plan(body), "awaiting signature", "pending")

    def _read_approval(self, body: dict[str, Any]) -> None:
        owner, message = body["owner_key"], f"coterie-approval-v1\n{body['plan']}\n{self.domain}"
        self._expect(
            re.fullmatch("[0-9a-f]{64}", body["plan"]) is not None
            and _signed(owner, body["signature"], message.encode()),
            "the owner's signature doesn't fit the plan",
        )
        self._expect(
            self.owner_key in (None, owner), f"it is signed by {owner}, not by the domain's owner"
        )
        self._move(self._plan(body), "approved", "pending", "awaiting signature")

    def _read_denial(self, body: dict[str, Any]) -> None:
        self._move(self._plan(body), "denied", "pending", "awaiting signature")

    def _read_closure(self, body: dict[str, Any]) -> None:
        self._expect(not self.open[body["plan"]], "a reservation of the plan is open")
        self._move(self._plan(body), "closed", "pending", "awaiting signature", "approved")

    def _read_reservation(self, body: dict[str, Any]) -> None:
        plan, key = self._plan(body), _attempt(body)
        self._expect(plan.status == "approved", f"reserved while the plan is {plan.status}")
        before = self.latest.get(key[:3], -1)
        self._expect(key[3] > before, "this attempt, or a later one, was reserved before")
        if before >= 0:
            open_ = self.tries[(*key[:3], before)].state == "reserved"
            self._expect(not open_, "an earlier attempt of this release is open")
        repeat, mechanism = key[:3] in self.charged, _mechanism(body["event"])
        self._expect(body["event"]["count"] == 1, "one attempt is one event")
        self._use(plan, mechanism, repeat)
        self.latest[key[:3]] = key[3]
        self.tries[key] = _Try(mechanism, repeat)
        self.open[key[0]] += 1
        budget = self.budgets[plan.population]
        budget.spent[mechanism] += 1
        budget.recent.append((self.index, mechanism))

    def _use(self, plan: _Plan, mechanism: Mechanism, repeat: bool) -> None:
        self._expect(mechanism in plan.allowed, "its mechanism isn't in the approved plan")
        if repeat:
            plan.repeats += 1
            self._expect(plan.repeats <= plan.spare, "more repetitions than spare attempts")
            return
        plan.firsts[mechanism] += 1
        self._expect(
            plan.firsts[mechanism] <= plan.allowed[mechanism]
            and plan.firsts.total() <= plan.allowed.total() - plan.spare,
            "more releases than were approved",
        )

    def _read_charge(self, body: dict[str, Any]) -> None:
        key, one = self._settle(body)
        self._expect(re.fullmatch("[0-9a-f]{64}", body["share"]) is not None, "no share's hash")
        one.state = "charged"
        self.charged.add(key[:3])

    def _read_release(self, body: dict[str, Any]) -> None:
        one = self.tries.get(_attempt(body))
        if one is None or one.state != "charged":
            raise _Bad("it was opened without a charge", self.index)
        self._expect(not one.inputs, "it was opened before")
        self._expect(re.fullmatch("[0-9a-f]{64}", body["inputs"]) is not None, "no inputs' hash")
        one.inputs = body["inputs"]

    def _read_void(self, body: dict[str, Any]) -> None:
        _, one = self._settle(body)
        plan = self._plan(body)
        budget = self.budgets[plan.population]
        self._check_spend(plan.population, budget)
        one.state = "void"
        budget.spent[one.mechanism] -= 1
        if one.repeat:
            plan.repeats -= 1
        else:
            plan.firsts[one.mechanism] -= 1

    def _settle(self, body: dict[str, Any]) -> tuple[Attempt, _Try]:
        key = _attempt(body)
        one = self.tries.get(key)
        if one is None or one.state != "reserved":
            raise _Bad("there is no open reservation for it", self.index)
        self.open[key[0]] -= 1
        return key, one

    def _plan(self, body: dict[str, Any]) -> _Plan:
        self._expect(body["plan"] in self.plans, f"plan {body['plan']} was never submitted")
        return self.plans[body["plan"]]

    def _move(self, plan: _Plan, status: str, *before: str) -> None:
        self._expect(plan.status in before, f"the plan is {plan.status} and can't become {status}")
        plan.status = status

    def _check_spend(self, population: str, budget: _Budget) -> None:
        # Between two looks spending only grows, so one look at the end of each stretch is enough.
        recent, budget.recent = budget.recent, []
        if not recent or budget.public or not self._over(budget, budget.spent):
            return
        spent = budget.spent.copy()
        blame = recent[0][0]
        for index, mechanism in reversed(recent):
            if not self._over(budget, spent):
                break
            blame = index
            spent[mechanism] -= 1
        epsilon = _filter_epsilon(budget.spent, budget.delta)
        raise _Bad(
            f"population {population!r} is over its budget: {epsilon:.3f} of {budget.epsilon:.3f}",
            blame,
        )

    def _over(self, budget: _Budget, spent: Counter[Mechanism]) -> bool:
        return _filter_epsilon(spent, budget.delta) > budget.epsilon * (1 + 1e-9)

    def _index_rows(self, table: str) -> Iterable[tuple[Any, ...]]:
        if table == "ledgerhead":
            return [(self.index, self.head)]
        if table == "ledgerbudget":
            return [(name, b.epsilon, b.delta, int(b.public)) for name, b in self.budgets.items()]
        if table == "ledgerplan":
            return [(name, plan.population, plan.status) for name, plan in self.plans.items()]
        return [(*key, one.state, *one.mechanism) for key, one in self.tries.items()]

    def _expect(self, holds: bool, problem: str, at: int | None = -1) -> None:
        if not holds:
            raise _Bad(problem, self.index if at == -1 else at)


def _filter_epsilon(spent: Counter[Mechanism], delta: float) -> float:
    """A union over the orders, each with its share of delta: Renyi filters side by side."""
    accountant = RdpAccountant(list(FILTER_ORDERS))
    for (noise_multiplier, sampling_rate), count in spent.items():
        if count == 0:
            continue
        if noise_multiplier == 0:
            return math.inf
        event = PoissonSampledDpEvent(sampling_rate, GaussianDpEvent(noise_multiplier))
        accountant.compose(event, count)
    return float(accountant.get_epsilon(delta / len(FILTER_ORDERS)))


def _read(
    ledger: str | Path | Sequence[EntryLike],
) -> tuple[dict[str, list[tuple[Any, ...]]], Iterator[EntryLike]]:
    """The tables that must follow from the entries, if it is a file, and the entries."""
    if not isinstance(ledger, str | Path):
        return {}, iter(ledger)
    path = Path(ledger)
    if not path.is_file():
        raise FileNotFoundError(f"There is no ledger at {path}")
    queries = {
        "ledgerentry": 'SELECT "index", previous, kind, body, hash, signature'
        ' FROM ledgerentry ORDER BY "index"',
        "ledgerhead": 'SELECT "index", hash FROM ledgerhead',
        "ledgerbudget": "SELECT population, epsilon, delta, public FROM ledgerbudget",
        "ledgerplan": "SELECT plan_hash, population, status FROM ledgerplan",
        "ledgerattempt": 'SELECT plan_hash, step, "release", attempt, state, noise_multiplier,'
        " sampling_rate FROM ledgerattempt",
    }
    try:
        connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)
        try:
            # One transaction, so that a node writing meanwhile can't show us two moments.
            connection.execute("BEGIN")
            rows = {table: connection.execute(query).fetchall() for table, query in queries.items()}
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise _Bad(f"not a ledger that SQLite can read: {error}", None) from None
    return rows, (_Link(*row) for row in rows.pop("ledgerentry"))


def _verdict(state: _State, count: int, problem: str, first_bad: int | None) -> Verdict:
    epsilon = {name: state.epsilon(name) for name, budget in state.budgets.items() if budget.delta}
    lines = [_headline(state, count, problem, first_bad)]
    for name, spent in epsilon.items():
        budget = state.budgets[name]
        cap = "declared public, no limit" if budget.public else f"of {budget.epsilon:.3f}"
        lines.append(f"Population {name!r}: epsilon {spent:.3f} ({cap}) at delta {budget.delta:g}")
    lines.append(f"Epsilon holds for plans chosen adaptively; unit: {UNIT}.")
    if not state.pinned:
        lines.append("The node's key was taken from the ledger itself: compare it with the roster.")
    return Verdict(not problem, count, first_bad, problem, epsilon, "\n".join(lines))


def _headline(state: _State, count: int, problem: str, first_bad: int | None) -> str:
    if problem:
        where = f"entry {first_bad}: " if first_bad is not None else ""
        return f"BAD: {where}{problem} ({count} entries before it are consistent)"
    return (
        f"Ledger of {state.domain!r}: consistent, not proven complete ({count} entries, head"
        f" {state.head}). Only the peers' heads can show that nothing was cut off or rewritten."
    )


def _signed(key: str, signature: str, message: bytes) -> bool:
    try:
        public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(key))
        public.verify(bytes.fromhex(signature), message)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _attempt(body: dict[str, Any]) -> Attempt:
    return str(body["plan"]), str(body["step"]), int(body["release"]), int(body["attempt"])


def _mechanism(event: dict[str, Any]) -> Mechanism:
    noise, rate = float(event["noise_multiplier"]), float(event["sampling_rate"])
    if not (0 <= noise < math.inf and 0 < rate <= 1):
        raise ValueError(f"no such mechanism: noise multiplier {noise}, sampling rate {rate}")
    return noise, rate


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({key for key, _ in pairs}) != len(pairs):
        raise ValueError("a key stands twice")
    return dict(pairs)


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} isn't a number")


def _main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="policies.verify", description="Verify a ledger offline.")
    parser.add_argument("path", type=Path, help="the ledger's SQLite file")
    parser.add_argument("--key", help="the node's public key from the roster, 64 hex digits")
    parser.add_argument("--owner-key", help="the owner's public key from the roster")
    chosen = parser.parse_args(arguments)
    try:
        verdict = verify(chosen.path, chosen.key, chosen.owner_key)
    except FileNotFoundError as error:
        print(error, file=sys.stderr)
        return 2
    print(verdict.text)
    return 0 if verdict.ok else 1


if __name__ == "__main__":
    raise SystemExit(_main())
