"""The auditor's reading of a ledger, offline: `python -m policies.verify LEDGER [--heads PATH]`.

One module that shares no code with the one that writes ledgers: only json, hashlib, SQL, the
signatures of `cryptography`, and dp-accounting called directly. It replays every entry, names the
first bad one and says what is wrong with it, and recomputes epsilon from the mechanisms' events.

A ledger rolled back to an older copy, or rewritten whole under the node's own key, contradicts
nothing inside itself: without its peers' heads the best verdict there is, is 'consistent, not
proven complete'. With them (`coterie ledger heads` at each peer) it is 'complete', or it is bad.
"""

import argparse
import hashlib
import json
import math
import re
import sqlite3
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from dp_accounting.dp_event import GaussianDpEvent, PoissonSampledDpEvent
from dp_accounting.rdp import RdpAccountant

UNIT = "add/remove one user with all her interactions, per domain"
FILTER_ORDERS = (3, 4, 5, 7, 10, 16, 28, 48)
CLOCK_SKEW = timedelta(minutes=10)
"""By how much two honest clocks may differ."""

# Whatever parsing a hostile entry can raise; each is a finding about that entry.
_UNREADABLE = (KeyError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError)
_HEX64 = re.compile("[0-9a-f]{64}")

Mechanism = tuple[float, float]  # (noise multiplier, sampling rate)
Attempt = tuple[str, str, int, int]  # (plan hash, step, release, attempt)
Row = tuple[Any, ...]
Tables = dict[str, list[Row]]


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
        complete: the peers' heads were given and are all in this ledger.
    """

    ok: bool
    entries: int
    first_bad: int | None
    problem: str
    epsilon: dict[str, float]
    text: str
    complete: bool = False


def verify(
    ledger: str | Path | Sequence[EntryLike],
    domain_key: str | None = None,
    owner_key: str | None = None,
    heads: str | Path | Sequence[Mapping[str, Any]] | None = None,
) -> Verdict:
    """Replay a ledger: an SQLite file, an exported bundle, a database URL, or entries.

    `domain_key` is the node's public key in hex, from the roster; without it the key that the
    ledger itself names is used, and the verdict says so. With `owner_key`, approvals must be
    signed by it. `heads` is a file that a peer exported, a folder of such files, or their JSON.

    Raises:
        FileNotFoundError: there is no such file, or no heads in the folder.
    """
    state = _State(domain_key, owner_key)
    count = 0
    try:
        witnessed = _witnessed(heads)
        found = _read(ledger)
        state.watch(found, witnessed)
        for entry in found.entries:
            state.replay(entry)
            count += 1
        state.finish(found, witnessed)
    except _Bad as bad:
        return _verdict(state, count, str(bad), bad.index)
    return _verdict(state, count, "", None)


def heads_problem(said: Mapping[str, Any], witness_key: str) -> str:
    """What is wrong with the heads that a peer gave as its own; empty if nothing is."""
    try:
        heads = list(_heads_in("its heads", said))
        if said["witness_key"] != witness_key:
            return f"its heads are signed by {said['witness_key']}, expected {witness_key}"
    except (_Bad, *_UNREADABLE) as error:
        return str(error)
    for each in heads:
        if not _cosigned_by_witness(each):
            return f"its co-signature at {each.size} entries isn't its own"
    return ""


def verify_proof(
    proof: str | Path, domain_key: str | None = None, heads: str | Path | None = None
) -> Verdict:
    """Check that one entry is in a ledger, from what `coterie ledger prove` wrote."""
    state = _State(domain_key, None)
    try:
        said = _json_file(Path(proof), "coterie-proof-v1")
        witnessed = _read_heads(Path(heads)) if heads is not None else []
        text, signed = _check_proof(state, said, witnessed)
    except _Bad as bad:
        return Verdict(False, 0, bad.index, str(bad), {}, f"BAD: {bad}")
    return Verdict(True, 1, None, "", {}, text, signed)


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


@dataclass(frozen=True)
class _Cosigned:
    """A head of a ledger under another node's signature; `where` says what it was read from."""

    where: str
    witness: str
    witness_key: str
    node_key: str
    size: int
    root: str
    time: str
    cosignature: str


@dataclass
class _Found:
    """A ledger as read: its entries, and what must follow from them or be under their heads."""

    entries: Iterable[EntryLike]
    tables: Tables = field(default_factory=dict)
    cosigned: list[_Cosigned] = field(default_factory=list)
    bundle: dict[str, Any] | None = None


@dataclass
class _Plan:
    population: str
    allowed: Counter[Mechanism]
    spare: int
    row: dict[str, Any]
    status: str = "pending"
    expires: str = ""
    firsts: Counter[Mechanism] = field(default_factory=Counter)
    repeats: int = 0


@dataclass
class _Budget:
    epsilon: float = 0.0
    delta: float = 0.0
    public: bool = False
    spent: Counter[Mechanism] = field(default_factory=Counter)
    # Renyi divergence of `spent` at each order, kept up with every entry.
    renyi: list[float] = field(default_factory=lambda: [0.0] * len(FILTER_ORDERS))

    def add(self, mechanism: Mechanism, count: int) -> None:
        self.spent[mechanism] += count
        if mechanism[0] > 0:
            one = _renyi(*mechanism)
            self.renyi = [total + count * each for total, each in zip(self.renyi, one, strict=True)]

    def over(self) -> bool:
        if self.public:
            return False
        if any(count for (noise, _), count in self.spent.items() if noise == 0):
            return True
        return _from_renyi(self.renyi, self.delta) > self.epsilon * (1 + 1e-9)


@dataclass
class _Try:
    mechanism: Mechanism
    repeat: bool
    population: str
    reserved: str
    state: str = "reserved"
    share: str = ""
    inputs: str = ""


class _State:
    """Everything the chain says so far; `replay` takes one entry further or raises `_Bad`."""

    def __init__(self, domain_key: str | None, owner_key: str | None):
        self.key, self.pinned, self.owner_key = domain_key, domain_key is not None, owner_key
        self.domain = ""
        self.index, self.head = 0, "0" * 64
        self.time = datetime.min.replace(tzinfo=UTC)
        self.budgets: dict[str, _Budget] = {}
        self.plans: dict[str, _Plan] = {}
        self.tries: dict[Attempt, _Try] = {}
        self.latest: dict[tuple[str, str, int], int] = {}
        self.charged: set[tuple[str, str, int]] = set()
        self.open: Counter[str] = Counter()
        self.mentions: list[Row] = []
        self.watched: dict[int, tuple[str, datetime]] = {}
        self.covered: dict[str, int] = {}
        self._sizes: set[int] = set()
        self._tree = _Roots()

    def watch(self, found: _Found, witnessed: Sequence[_Cosigned]) -> None:
        """Note at which sizes the root will be needed."""
        self._sizes = {each.size for each in (*found.cosigned, *witnessed)}
        if found.bundle is not None:
            self._sizes.add(int(found.bundle["size"]))

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
            self._check_time(body)
            self._read_body(entry.kind, body)
        except _UNREADABLE as error:
            raise _Bad(f"it can't be read ({type(error).__name__}: {error})", self.index) from None
        about = body.get("plan") or body.get("population") or ""
        self.mentions.append((self.index, entry.kind, about, body["time"]))
        self.head = entry.hash
        self._tree.append(bytes.fromhex(entry.hash))
        if self.index in self._sizes:
            self.watched[self.index] = self._tree.root(), self.time

    def finish(self, found: _Found, witnessed: Sequence[_Cosigned]) -> None:
        self._expect(self.index > 0, "the ledger is empty", at=None)
        own = [replace(each, node_key=self.key or "") for each in found.cosigned]
        try:
            if found.bundle is not None:
                self._check_bundle(found.bundle)
            for table, rows in found.tables.items():
                self._check_table(table, rows)
            self._check_cosigned(own)
            self._check_cosigned([each for each in witnessed if each.node_key == self.key])
        except _UNREADABLE as error:
            raise _Bad(f"it can't be read ({type(error).__name__}: {error})", None) from None
        for each in witnessed:
            if each.node_key == self.key:
                name = f"{each.witness} ({each.witness_key[:16]})"
                self.covered[name] = max(each.size, self.covered.get(name, 0))

    def epsilon(self, population: str) -> float:
        budget = self.budgets[population]
        return _filter_epsilon(budget.spent, budget.delta)

    # One entry

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
        valid = _signed(self.key or "", entry.signature, f"coterie-ledger-v1:{entry.hash}")
        self._expect(valid, "its signature isn't the node's")

    def _check_time(self, body: dict[str, Any]) -> None:
        time = datetime.fromisoformat(body["time"])
        self._expect(time.tzinfo is not None, "no time zone")
        self._expect(time >= self.time, "it is dated before the entry before it")
        self._expect(time <= datetime.now(UTC) + CLOCK_SKEW, "it is dated in the future")
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
        }
        if self.index > 1:
            self._expect(kind in readers, f"unknown kind of entry {kind!r}")
            readers[kind](body)

    def _read_budget(self, body: dict[str, Any]) -> None:
        budget = self.budgets.setdefault(str(body["population"]), _Budget())
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
        row = _plan_row(
            body["time"], **{key: body[key] for key in ("name", "scientist", "summary")}
        )
        plan = _Plan(body["population"], allowed, int(body["spare_attempts"]), row)
        self._expect(0 <= plan.spare < allowed.total(), "spare attempts but no releases")
        self.plans[body["plan"]] = plan

    def _read_refusal(self, body: dict[str, Any]) -> None:
        unknown = _Plan("", Counter(), 0, _plan_row(body["time"]), status="refused")
        plan = self.plans.setdefault(body["plan"], unknown)
        reason = f"{body['rule']}: {body['reason']}"
        self._move(body, plan, "", reason, "refused", "pending", "awaiting signature", "refused")

    def _read_consent(self, body: dict[str, Any]) -> None:
        self._move(body, self._plan(body), body["by"], "", "awaiting signature", "pending")

    def _read_approval(self, body: dict[str, Any]) -> None:
        owner = body["owner_key"]
        said = _statement(owner, body["signature"])
        if said is None:
            raise _Bad("the owner's signature doesn't fit the plan", self.index)
        self._expect(
            _HEX64.fullmatch(body["plan"]) is not None
            and said["domain"] == self.domain
            and (said["kind"] == "envelope" or said["plan"] == body["plan"]),
            "the owner's signature doesn't fit the plan",
        )
        self._expect(said["expires"] > body["time"], f"the approval had expired {said['expires']}")
        if said["kind"] == "envelope":
            self._check_envelope(self._plan(body), said)
        else:
            same = said["explanation"] in ("", body["explanation"])
            self._expect(same, "the owner was shown something else than the entry says")
        self._plan(body).expires = said["expires"]
        self._expect(
            self.owner_key in (None, owner), f"it is signed by {owner}, not by the domain's owner"
        )
        self._decide(body, "approved")

    def _check_envelope(self, plan: _Plan, said: dict[str, Any]) -> None:
        """What the submission tells of the plan must lie within what was approved in advance."""
        summary = plan.row["summary"]
        within = (
            summary["dataset"] == said["data_set"]
            and summary["author"] in said["scientists"]
            and summary["roster_hash"] == said["roster"]
            and summary["model"] in said["models"]
            and said["like"] in (None, summary["like"])
            and float(summary["delta"]) <= said["delta"]
            and plan.allowed.total() <= said["releases"]
            and min(noise for noise, _ in plan.allowed) >= said["noise_multiplier"]
        )
        self._expect(within, "the plan isn't within the envelope that its owner signed")

    def _read_denial(self, body: dict[str, Any]) -> None:
        self._decide(body, "denied")

    def _read_closure(self, body: dict[str, Any]) -> None:
        self._expect(not self.open[body["plan"]], "a reservation of the plan is open")
        plan, before = self._plan(body), ("pending", "awaiting signature", "approved")
        by = body.get("by") or plan.row["decided_by"]
        self._move(body, plan, by, body["reason"], "closed", *before)

    def _decide(self, body: dict[str, Any], status: str) -> None:
        plan, before = self._plan(body), ("pending", "awaiting signature")
        self._move(body, plan, body["by"], body["reason"], status, *before)

    def _read_reservation(self, body: dict[str, Any]) -> None:
        plan, key = self._plan(body), _attempt(body)
        self._expect(plan.status == "approved", f"reserved while the plan is {plan.status}")
        self._expect(body["time"] < plan.expires, f"the approval had expired {plan.expires}")
        before = self.latest.get(key[:3], -1)
        self._expect(key[3] > before, "this attempt, or a later one, was reserved before")
        if before >= 0:
            open_ = self.tries[(*key[:3], before)].state == "reserved"
            self._expect(not open_, "an earlier attempt of this release is open")
        repeat, mechanism = key[:3] in self.charged, _mechanism(body["event"])
        self._expect(body["event"]["count"] == 1, "one attempt is one event")
        self._use(plan, mechanism, repeat)
        self.latest[key[:3]] = key[3]
        self.tries[key] = _Try(mechanism, repeat, plan.population, body["time"])
        self.open[key[0]] += 1
        self._spend(plan.population, mechanism)

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

    def _spend(self, population: str, mechanism: Mechanism) -> None:
        budget = self.budgets[population]
        budget.add(mechanism, 1)
        if budget.over():
            spent = self.epsilon(population)
            raise _Bad(
                f"population {population!r} is over its budget: {spent:.3f} of"
                f" {budget.epsilon:.3f}",
                self.index,
            )

    def _read_charge(self, body: dict[str, Any]) -> None:
        key, one = self._settle(body)
        self._expect(_HEX64.fullmatch(body["share"]) is not None, "no share's hash")
        one.state, one.share = "charged", body["share"]
        self.charged.add(key[:3])

    def _read_release(self, body: dict[str, Any]) -> None:
        one = self.tries.get(_attempt(body))
        if one is None or one.state != "charged":
            raise _Bad("its inputs were opened without a charge before", self.index)
        self._expect(not one.inputs, "it was opened before")
        self._expect(_HEX64.fullmatch(body["inputs"]) is not None, "no inputs' hash")
        one.inputs = body["inputs"]

    def _read_void(self, body: dict[str, Any]) -> None:
        _, one = self._settle(body)
        plan = self._plan(body)
        one.state = "void"
        self.budgets[plan.population].add(one.mechanism, -1)
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

    def _move(
        self, body: dict[str, Any], plan: _Plan, by: str, reason: str, status: str, *before: str
    ) -> None:
        self._expect(plan.status in before, f"the plan is {plan.status} and can't become {status}")
        plan.status = status
        plan.row |= {"decided": body["time"], "decided_by": by, "reason": reason}

    # What stands beside the entries

    def _check_table(self, table: str, rows: Iterable[Row]) -> None:
        if table == "guards":
            missing = sorted(set(_GUARDS) - {name for name, _ in rows})
            surplus = sorted({name for name, _ in rows} - set(_GUARDS))
            changed = sorted(n for n, sql in rows if n in _GUARDS and _GUARDS[n] != sql)
            odd: list[Any] = [*missing, *surplus, *changed]
            self._expect(not odd, f"its guards against rewriting were changed: {odd[:1]}", at=None)
            return
        if table == "ledgerpeerhead":
            self._check_peer_heads(rows)
            return
        if table == "ledgerplan":
            rows = [(*r[:5], _plain(json.loads(r[5])), r[6], _plain(json.loads(r[7])), *r[8:])
                    for r in rows]  # fmt: skip
        found, expected = Counter(rows), Counter(self._index_rows(table))
        odd = [*(found - expected), *(expected - found)]
        self._expect(
            not odd, f"table {table} doesn't follow from the entries, at {odd[:1]}", at=None
        )

    def _index_rows(self, table: str) -> Iterable[Row]:
        if table == "ledgerhead":
            return [(1, self.index, self.head)]
        if table == "ledgermention":
            return self.mentions
        if table == "ledgerbudget":
            return [(name, b.epsilon, b.delta, int(b.public)) for name, b in self.budgets.items()]
        if table == "ledgerplan":
            return [_plan_tuple(name, plan) for name, plan in self.plans.items()]
        if table == "ledgeruse":
            uses = Counter(
                (one.population, key[0], *one.mechanism, int(one.repeat))
                for key, one in self.tries.items()
                if one.state != "void"
            )
            return [(*key, count) for key, count in uses.items()]
        return [_try_tuple(key, one) for key, one in self.tries.items()]

    def _check_peer_heads(self, rows: Iterable[Row]) -> None:
        for node_key, size, domain, root, signature, time, cosignature in rows:
            head, said = _headed(domain, size, root), _cosigned(node_key, size, root, time)
            good = _signed(node_key, signature, head) and _signed(self.key or "", cosignature, said)
            self._expect(
                good, f"the head of {domain} at {size} entries that it keeps was changed", at=None
            )

    def _check_bundle(self, bundle: dict[str, Any]) -> None:
        size = bundle["size"]
        self._expect(
            size == self.index,
            f"the bundle says it has {size} entries, it has {self.index}",
            at=min(self.index, size) + 1,
        )
        told = bundle["root"], bundle["domain"], bundle["node_key"]
        self._expect(
            told == (self.watched[size][0], self.domain, self.key),
            "the bundle's head isn't that of its entries",
            at=None,
        )
        self._expect(
            _signed(self.key or "", bundle["signature"], _bundled(bundle)),
            "the bundle isn't signed by the node: its date or co-signatures were changed",
            at=None,
        )
        exported = datetime.fromisoformat(bundle["exported"])
        self._expect(
            self.time <= exported + CLOCK_SKEW and exported <= datetime.now(UTC) + CLOCK_SKEW,
            f"the bundle is dated {exported}, which its entries or the clock contradict",
            at=None,
        )

    def _check_cosigned(self, heads: Iterable[_Cosigned]) -> None:
        """Every co-signed head is one of this chain's, and its time fits the entries' times."""
        good = 0
        for each in sorted(heads, key=lambda each: each.size):
            said = _cosigned(each.node_key, each.size, each.root, each.time)
            self._expect(
                each.node_key == self.key and _signed(each.witness_key, each.cosignature, said),
                f"{each.where}: the co-signature at {each.size} entries isn't {each.witness}'s",
                at=None,
            )
            self._expect(
                each.size <= self.index,
                f"{each.witness} co-signed {each.size} entries, here are {self.index}: the ledger"
                " was cut off or rolled back to an older copy",
                at=self.index + 1,
            )
            root, last = self.watched[each.size]
            self._expect(
                root == each.root,
                f"{each.witness} co-signed other entries up to {each.size}: one from {good + 1} on"
                " was rewritten, or this is a fork",
                at=good + 1,
            )
            self._expect(
                last <= datetime.fromisoformat(each.time) + CLOCK_SKEW,
                f"it is dated after {each.witness} had co-signed it ({each.time})",
                at=each.size,
            )
            good = each.size

    def _expect(self, holds: bool, problem: str, at: int | None = -1) -> None:
        if not holds:
            raise _Bad(problem, self.index if at == -1 else at)


class _Roots:
    """Merkle roots of a growing list (RFC 6962, section 2.1)."""

    def __init__(self) -> None:
        self._peaks: list[tuple[int, bytes]] = []  # complete subtrees, largest first

    def append(self, leaf: bytes) -> None:
        size, found = 1, hashlib.sha256(b"\x00" + leaf).digest()
        while self._peaks and self._peaks[-1][0] == size:
            found = _node(self._peaks.pop()[1], found)
            size *= 2
        self._peaks.append((size, found))

    def root(self) -> str:
        found = self._peaks[-1][1]
        for _, left in reversed(self._peaks[:-1]):
            found = _node(left, found)
        return found.hex()


def _node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


def _root_of_path(leaf: bytes, index: int, size: int, path: Sequence[bytes]) -> str:
    """The root that an audit path leads to: RFC 9162, section 2.1.3.2. Empty if it can't be one."""
    fn, sn, found = index, size - 1, hashlib.sha256(b"\x00" + leaf).digest()
    for each in path:
        if sn == 0:
            return ""
        if fn & 1 or fn == sn:
            found = _node(each, found)
            while fn and not fn & 1:
                fn, sn = fn >> 1, sn >> 1
        else:
            found = _node(found, each)
        fn, sn = fn >> 1, sn >> 1
    return found.hex() if sn == 0 else ""


def _check_proof(
    state: _State, said: dict[str, Any], witnessed: Sequence[_Cosigned]
) -> tuple[str, bool]:
    try:
        head, entry = said["head"], said["entry"]
        index, size, root = int(entry["index"]), int(head["size"]), str(head["root"])
        key = state.key or str(said["node_key"])
        text = f"coterie-ledger-entry-v1\n{index}\n{entry['previous']}\n{entry['kind']}\n"
        leaf = hashlib.sha256((text + entry["body"]).encode()).digest()
        path = [bytes.fromhex(each) for each in entry["path"]]
        in_range = 1 <= index <= size
        found = _root_of_path(leaf, index - 1, size, path) if in_range else ""
        signed = _signed(key, head["signature"], _headed(head["domain"], size, root))
    except _UNREADABLE as error:
        raise _Bad(f"the proof can't be read ({type(error).__name__}: {error})", None) from None
    if not signed:
        raise _Bad("the proof's head isn't signed by the node", None)
    if found != root:
        raise _Bad("the entry isn't under the proof's head: it was changed or never there", index)
    names = []
    for each in witnessed:
        if each.node_key != key or each.size != size:
            continue
        message = _cosigned(each.node_key, each.size, each.root, each.time)
        if not _signed(each.witness_key, each.cosignature, message):
            raise _Bad(f"{each.where}: the co-signature isn't {each.witness}'s", None)
        if each.root != root:
            raise _Bad(f"{each.witness} co-signed another ledger of {size} entries: a fork", None)
        names.append(f"{each.witness} ({each.witness_key[:16]})")
    by = f"co-signed by {', '.join(names)}" if names else "not co-signed by a given peer"
    lines = [f"Entry {index} is in the ledger of {head['domain']!r} at {size} entries; {by}."]
    lines.append(f"{entry['kind']}: {entry['body']}")
    if not state.pinned:
        lines.append(
            f"The node's key was taken from the proof ({key}): compare it with the roster."
        )
    return "\n".join(lines), bool(names)


# Accounting


@lru_cache(maxsize=4096)
def _renyi(noise: float, rate: float) -> tuple[float, ...]:
    """Renyi divergence of one release at every order (Mironov, Talwar and Zhang 2019, 3.3)."""
    if rate == 1:
        return tuple(order / (2 * noise**2) for order in FILTER_ORDERS)
    return tuple(_log_moment(noise, rate, order) / (order - 1) for order in FILTER_ORDERS)


def _log_moment(noise: float, rate: float, order: int) -> float:
    terms = [
        math.log(math.comb(order, i))
        + i * math.log(rate)
        + (order - i) * math.log1p(-rate)
        + i * (i - 1) / (2 * noise**2)
        for i in range(order + 1)
    ]
    top = max(terms)
    return top + math.log(math.fsum(math.exp(term - top) for term in terms))


def _from_renyi(renyi: Sequence[float], delta: float) -> float:
    """Each order with its share of delta (Canonne, Kamath and Steinke 2020, Prop. 12)."""
    if not any(total > 0 for total in renyi):
        return 0.0
    share = delta / len(FILTER_ORDERS)
    return max(
        0.0,
        min(
            total + math.log1p(-1 / order) - math.log(share * order) / (order - 1)
            for order, total in zip(FILTER_ORDERS, renyi, strict=True)
        ),
    )


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


# Reading


_QUERIES = {
    "ledgerentry": 'SELECT "index", previous, kind, body, hash, signature FROM ledgerentry'
    ' ORDER BY "index"',
    "ledgerhead": 'SELECT id, "index", hash FROM ledgerhead',
    "ledgermention": 'SELECT "index", kind, about, time FROM ledgermention',
    "ledgerbudget": "SELECT population, epsilon, delta, public FROM ledgerbudget",
    "ledgerplan": "SELECT plan_hash, name, scientist, population, status, events, spare_attempts,"
    " summary, submitted, decided, decided_by, reason FROM ledgerplan",
    "ledgerattempt": 'SELECT plan_hash, step, "release", attempt, population, state,'
    " noise_multiplier, sampling_rate, repeat, share, inputs, reserved FROM ledgerattempt",
    "ledgeruse": "SELECT population, plan_hash, noise_multiplier, sampling_rate, repeat, count"
    " FROM ledgeruse WHERE count <> 0",
    "ledgerpeerhead": "SELECT node_key, size, domain, root, signature, time, cosignature"
    " FROM ledgerpeerhead",
    "ledgercosignature": "SELECT witness, node_key, size, root, time, signature"
    " FROM ledgercosignature",
}
_GUARDS = {
    f"{table}_no_{change[:6].lower()}": f"CREATE TRIGGER {table}_no_{change[:6].lower()} BEFORE"
    f" {change} ON {table} BEGIN SELECT RAISE(ABORT, '{table} only grows'); END"
    for table, change in (
        ("ledgerentry", "UPDATE"),
        ("ledgerentry", "DELETE"),
        ("ledgercosignature", "UPDATE"),
        ("ledgercosignature", "DELETE"),
        ("ledgerpeerhead", "UPDATE OF node_key, size, domain, root, signature, time, cosignature"),
        ("ledgerpeerhead", "DELETE"),
    )
}


def _read(ledger: str | Path | Sequence[EntryLike]) -> _Found:
    if not isinstance(ledger, str | Path):
        return _Found(iter(ledger))
    if re.match(r"[a-z0-9+]+://", str(ledger)):
        return _of_tables(_read_url(str(ledger)))
    path = Path(ledger)
    if not path.is_file():
        raise FileNotFoundError(f"There is no ledger at {path}")
    with path.open("rb") as file:
        if file.read(1) == b"{":
            return _read_bundle(path)
    return _of_tables(_read_sqlite(path))


def _read_sqlite(path: Path) -> Tables:
    guards = "SELECT name, sql FROM sqlite_master WHERE type = 'trigger'"
    views = "SELECT count(*) FROM sqlite_master WHERE type = 'view'"
    try:
        connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)
        try:
            # One transaction, so that a node writing meanwhile can't show us two moments.
            connection.execute("BEGIN")
            if connection.execute(views).fetchone() != (0,):
                raise _Bad("it has a view: a table may have been put behind another", None)
            queries = {**_QUERIES, "guards": guards}
            return {table: connection.execute(query).fetchall() for table, query in queries.items()}
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise _Bad(f"not a ledger that SQLite can read: {error}", None) from None


def _read_url(url: str) -> Tables:
    import sqlalchemy

    try:
        engine = sqlalchemy.create_engine(url)
        if engine.dialect.name == "sqlite":
            return _read_sqlite(Path(engine.url.database or ""))
        with engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection:
            rows = {t: list(connection.exec_driver_sql(q).all()) for t, q in _QUERIES.items()}
        engine.dispose()
    except (sqlalchemy.exc.SQLAlchemyError, ImportError) as error:
        raise _Bad(f"not a ledger that can be read ({type(error).__name__})", None) from None
    return {t: [tuple(int(v) if v is True or v is False else v for v in row) for row in found]
            for t, found in rows.items()}  # fmt: skip


def _of_tables(tables: Tables) -> _Found:
    entries = iter(_Link(*row) for row in tables.pop("ledgerentry"))
    rows = tables.pop("ledgercosignature")
    cosigned = [_own_cosigned("the table of co-signatures", *row) for row in rows]
    return _Found(entries, tables, cosigned)


def _own_cosigned(where: str, witness: str, key: str, *rest: Any) -> _Cosigned:
    return _Cosigned(where, witness, key, "", *rest)


def _read_bundle(path: Path) -> _Found:
    bundle = _json_file(path, "coterie-ledger-v1")
    try:
        entries = [_Link(*entry) for entry in bundle.pop("entries")]
        names = ("witness", "node_key", "size", "root", "time", "signature")
        cosigned = [_own_cosigned("the bundle", *(c[n] for n in names))
                    for c in bundle["cosignatures"]]  # fmt: skip
        int(bundle["size"])
    except _UNREADABLE as error:
        raise _Bad(f"the bundle can't be read ({type(error).__name__}: {error})", None) from None
    return _Found(entries, {}, cosigned, bundle)


def _read_heads(path: Path) -> list[_Cosigned]:
    files = sorted(path.glob("*.json")) if path.is_dir() else [path]
    if not files or not files[0].is_file():
        raise FileNotFoundError(f"There are no peers' heads at {path}")
    return [
        each
        for file in files
        for each in _heads_in(str(file), _json_file(file, "coterie-heads-v1"))
    ]


def _witnessed(heads: str | Path | Sequence[Mapping[str, Any]] | None) -> list[_Cosigned]:
    if heads is None:
        return []
    if isinstance(heads, str | Path):
        return _read_heads(Path(heads))
    return [each for said in heads for each in _heads_in("a peer's heads", said)]


def _heads_in(where: str, said: Mapping[str, Any]) -> Iterator[_Cosigned]:
    try:
        for head in said["heads"]:
            names = ("node_key", "size", "root", "time", "cosignature")
            found = _Cosigned(
                where, said["witness"], said["witness_key"], **{n: head[n] for n in names}
            )
            if not _signed(found.node_key, head["signature"],
                           _headed(head["domain"], found.size, found.root)):  # fmt: skip
                raise _Bad(f"{where}: a head of {head['domain']} isn't signed by its node", None)
            yield found
    except _UNREADABLE as error:
        raise _Bad(f"{where} can't be read ({type(error).__name__}: {error})", None) from None


def _cosigned_by_witness(each: _Cosigned) -> bool:
    said = _cosigned(each.node_key, each.size, each.root, each.time)
    return _signed(each.witness_key, each.cosignature, said)


def _json_file(path: Path, format_: str) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}")
    try:
        said = json.loads(path.read_text(), object_pairs_hook=_unique, parse_constant=_no_constant)
        if said["format"] != format_:
            raise ValueError(f"its format is {said['format']!r}, expected {format_!r}")
    except _UNREADABLE as error:
        raise _Bad(f"{path} can't be read ({type(error).__name__}: {error})", None) from None
    return dict(said)


def _plan_row(time: str, **known: Any) -> dict[str, Any]:
    empty = {"name": "", "scientist": "", "summary": {}, "decided": "", "decided_by": ""}
    return {**empty, "reason": "", "submitted": time, **known}


def _plan_tuple(name: str, plan: _Plan) -> Row:
    row = plan.row
    events = [
        {"noise_multiplier": noise, "sampling_rate": rate, "count": count}
        for (noise, rate), count in sorted(plan.allowed.items())
    ]
    return (
        name, row["name"], row["scientist"], plan.population, plan.status, _plain(events),
        plan.spare, _plain(row["summary"]), row["submitted"], row["decided"], row["decided_by"],
        row["reason"],
    )  # fmt: skip


def _try_tuple(key: Attempt, one: _Try) -> Row:
    paid = (one.population, one.state, *one.mechanism, int(one.repeat))
    return (*key, *paid, one.share, one.inputs, one.reserved)


def _plain(value: Any) -> str:
    """JSON with every number as a float, so that 4 and 4.0 are the same."""
    return json.dumps(json.loads(json.dumps(value), parse_int=float), sort_keys=True)


# Words and signatures


def _headed(domain: str, size: int, root: str) -> str:
    return f"coterie-head-v1\n{size}\n{root}\n{domain}"


def _cosigned(node_key: str, size: int, root: str, time: str) -> str:
    return f"coterie-cosignature-v1\n{node_key}\n{size}\n{root}\n{time}"


def _bundled(bundle: dict[str, Any]) -> str:
    beside = json.dumps(bundle["cosignatures"], sort_keys=True).encode()
    digest = hashlib.sha256(beside).hexdigest()
    return f"coterie-bundle-v1\n{bundle['size']}\n{bundle['root']}\n{bundle['exported']}\n{digest}"


def _verdict(state: _State, count: int, problem: str, first_bad: int | None) -> Verdict:
    epsilon = {name: state.epsilon(name) for name, budget in state.budgets.items() if budget.delta}
    lines = _headlines(state, count, problem, first_bad)
    for name, spent in epsilon.items():
        budget = state.budgets[name]
        cap = "declared public, no limit" if budget.public else f"of {budget.epsilon:.3f}"
        lines.append(f"Population {name!r}: epsilon {spent:.3f} ({cap}) at delta {budget.delta:g}")
    lines.append(f"Epsilon holds for plans chosen adaptively; unit: {UNIT}.")
    if not state.pinned:
        lines.append("The node's key was taken from the ledger itself: compare it with the roster.")
    complete = not problem and bool(state.covered)
    return Verdict(not problem, count, first_bad, problem, epsilon, "\n".join(lines), complete)


def _headlines(state: _State, count: int, problem: str, first_bad: int | None) -> list[str]:
    if problem:
        where = f"entry {first_bad}: " if first_bad is not None else ""
        return [f"BAD: {where}{problem} ({count} entries were read without fault)"]
    what = f"({count} entries, head {state.head})"
    if not state.covered:
        return [
            f"Ledger of {state.domain!r}: consistent, not proven complete {what}."
            " Only the peers' heads can show that nothing was cut off or rewritten."
        ]
    newest = max(state.covered.values())
    lines = [f"Ledger of {state.domain!r}: complete {what}."]
    lines += [f"Co-signed up to entry {size} by {name}." for name, size in state.covered.items()]
    if newest < count:
        lines.append(f"Entries {newest + 1} to {count} came after: only this node signed them yet.")
    return lines


def _statement(key: str, text: str) -> dict[str, Any] | None:
    """What an owner signed, an approval or an envelope; None if it isn't `key`'s."""
    try:
        outer = json.loads(text, object_pairs_hook=_unique)
        signed = _signed(key, outer["signature"], f"coterie-approval-v2\n{outer['said']}")
        said = json.loads(outer["said"], object_pairs_hook=_unique)
    except _UNREADABLE:
        return None
    return said if signed and isinstance(said, dict) else None


def _signed(key: str, signature: str, message: str) -> bool:
    try:
        _public(key).verify(bytes.fromhex(signature), message.encode())
    except (ValueError, TypeError, AttributeError, InvalidSignature):
        return False
    return True


@lru_cache(maxsize=64)
def _public(key: str) -> Ed25519PublicKey:
    return Ed25519PublicKey.from_public_bytes(bytes.fromhex(key))


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
    parser.add_argument("ledger", help="SQLite file, exported bundle, or database URL")
    parser.add_argument("--key", help="the node's public key from the roster, 64 hex digits")
    parser.add_argument("--owner-key", help="the owner's public key from the roster")
    parser.add_argument("--heads", type=Path, help="a peer's exported heads, or a folder of them")
    chosen = parser.parse_args(arguments)
    try:
        verdict = verify(chosen.ledger, chosen.key, chosen.owner_key, chosen.heads)
    except FileNotFoundError as error:
        print(error, file=sys.stderr)
        return 2
    print(verdict.text)
    return 0 if verdict.ok else 1


if __name__ == "__main__":
    raise SystemExit(_main())
