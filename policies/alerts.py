"""What an auditor should look at: patterns in a ledger that no single entry shows.

A pure function over entries. An alert is a reason to ask, not a proof: every release it names was
approved and charged, and the budget covers all of them together.
"""

import json
import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Protocol

from policies.accounting import ADJACENCY, Event, RenyiFilter

WINDOW = timedelta(days=30)
"""The past from which a rate is taken, and within which similar plans count as one intention."""

HORIZON = timedelta(days=90)
"""A budget that would be used up within this time, at the present rate, is told."""


class Written(Protocol):
    """One ledger entry, as far as alerts read it."""

    @property
    def index(self) -> int: ...
    @property
    def kind(self) -> str: ...
    @property
    def body(self) -> str: ...


@dataclass(frozen=True)
class Alert:
    """Something to ask about.

    Attributes:
        kind: 'spend rate', 'near-duplicate plans', 'same query repeated', 'cap raised', 'data set
            in two populations', 'partner refused' or 'head not co-signed'.
        population: whose budget it touches.
        message: a sentence.
        entries: the entries it follows from.
    """

    kind: str
    population: str
    message: str
    entries: tuple[int, ...]


@dataclass
class _Submission:
    index: int
    time: datetime
    plan: str
    population: str
    author: str
    data_set: str
    model: str
    queries: dict[str, str]
    roster: tuple[str, ...]
    events: list[Event]


@dataclass
class _Read:
    """What the entries say, indexed by what the alerts need."""

    budgets: dict[str, tuple[float, RenyiFilter, bool]] = field(default_factory=dict)
    raised: list[tuple[int, str, float, float]] = field(default_factory=list)
    plans: dict[str, _Submission] = field(default_factory=dict)
    reserved: dict[tuple[Any, ...], tuple[int, datetime, str, Event]] = field(default_factory=dict)
    charged: dict[tuple[Any, ...], int] = field(default_factory=dict)
    opened: list[tuple[Any, ...]] = field(default_factory=list)
    objections: dict[tuple[str, str], list[int]] = field(default_factory=dict)


def alerts(entries: Iterable[Written], now: datetime) -> list[Alert]:
    """Everything worth asking about in a ledger, as of `now` (with a time zone).

    - *spend rate*: at the rate of the last 30 days a budget is used up within 90.
    - *near-duplicate plans*: within 30 days an author submitted several plans of the same
      computation to one population: a budget per plan may have been split.
    - *same query repeated*: several plans released the same query; averaging k answers leaves
      noise smaller by sqrt(k).
    - *cap raised*: an owner gave a population more than it was opened with.
    - *data set in two populations*: plans on one data set were charged to two budgets.
    - *partner refused*: what a partner's ledger showed in a round contradicts what this one holds.
    """
    read = _read(entries)
    found = [*_spend_rates(read, now), *_duplicates(read), *_averaging(read)]
    return [*found, *_raised(read), *_moved(read), *_objections(read)]


def partners(entries: Iterable[Written]) -> set[str]:
    """The rosters of plans that set something aside; whoever submits a plan may name anyone."""
    read = _read(entries)
    return {name for plan_hash, *_ in read.reserved for name in read.plans[plan_hash].roster}


def unsigned_heads(
    entries: Iterable[Written],
    domain: str,
    signed: Mapping[str, int],
    asked: Collection[str] | None = None,
) -> list[Alert]:
    """*head not co-signed*: totals were opened with a peer that signed no head over them.

    A peer that dropped out of a round signs nothing in it; one that took part, or was never told
    of this ledger's end, is a reason to ask.

    Args:
        domain: whose ledger it is.
        signed: by peer, how many entries are under the newest head of this ledger that it signed.
        asked: the peers that were asked for the heads they hold; of others nothing is known. None:
            all of them.
    """
    read = _read(entries)
    rosters = {plan.plan: plan for plan in read.plans.values()}
    missing: dict[tuple[str, str], list[int]] = defaultdict(list)
    for attempt in read.opened:
        plan, reserved = rosters.get(attempt[0]), read.reserved.get(attempt)
        if plan is None or reserved is None:
            continue
        for peer in plan.roster:
            known = peer != domain and (asked is None or peer in asked)
            if known and signed.get(peer, 0) < reserved[0]:
                missing[peer, plan.population].append(reserved[0])
    return [
        Alert(
            "head not co-signed",
            population,
            f"{len(found)} totals were opened, from entry {min(found)} on, in rounds with {peer}, "
            f"which holds no head over them (its newest has {signed.get(peer, 0)} entries): did it "
            "drop out of those rounds, or does it see another ledger?",
            tuple(sorted(found)),
        )
        for (peer, population), found in sorted(missing.items())
    ]


def _read(entries: Iterable[Written]) -> _Read:
    read = _Read()
    for entry in entries:
        body = json.loads(entry.body)
        time = datetime.fromisoformat(body["time"])
        if entry.kind == "budget":
            found = body["epsilon"], RenyiFilter.recorded(body), body["public"]
            before = read.budgets.get(body["population"], found)[0]
            if before < body["epsilon"]:
                read.raised.append((entry.index, body["population"], before, body["epsilon"]))
            read.budgets[body["population"]] = found
        elif entry.kind == "submission":
            read.plans[body["plan"]] = _submission(entry.index, time, body)
        elif entry.kind == "reservation" and body["plan"] in read.plans:
            population = read.plans[body["plan"]].population
            event = _event(body["event"])
            read.reserved[_attempt(body)] = (entry.index, time, population, event)
        elif entry.kind == "void":
            read.reserved.pop(_attempt(body), None)
        elif entry.kind == "charge":
            read.charged[_attempt(body)] = entry.index
        elif entry.kind == "release":
            read.opened.append(_attempt(body))
        elif entry.kind == "objection":
            read.objections.setdefault((body["plan"], body["reason"]), []).append(entry.index)
    return read


def _submission(index: int, time: datetime, body: dict[str, Any]) -> _Submission:
    summary = body["summary"]
    return _Submission(
        index=index,
        time=time,
        plan=body["plan"],
        population=body["population"],
        author=summary.get("author") or body["scientist"],
        data_set=str(summary.get("dataset", "")),
        model=summary.get("model", ""),
        queries=dict(summary.get("queries", {})),
        roster=tuple(summary.get("roster", ())),
        events=[_event(event) for event in body["events"]],
    )


def _spend_rates(read: _Read, now: datetime) -> Iterable[Alert]:
    for population, (cap, accountant, public) in sorted(read.budgets.items()):
        uses = [use for use in read.reserved.values() if use[2] == population]
        recent = [use for use in uses if use[1] >= now - WINDOW]
        if public or not recent:
            continue
        days = _lasts(accountant, [u[3] for u in uses], [u[3] for u in recent], cap)
        if days is None:
            continue
        spent = accountant.epsilon(use[3] for use in uses)
        before = accountant.epsilon(use[3] for use in uses if use[1] < now - WINDOW)
        plans = [([use[3]], len(read.plans[key[0]].roster) or 1)
                 for key, use in read.reserved.items() if use[2] == population]  # fmt: skip
        yield Alert(
            "spend rate",
            population,
            f"Epsilon {spent - before:.3f} of {cap:.3f} was spent in 30 days and "
            f"{cap - spent:.3f} is left at delta {accountant.delta:g} ({ADJACENCY}; for a person "
            f"who is a user at every partner, {accountant.everywhere(plans):.3f} is spent): at "
            f"this rate it lasts {days} days",
            tuple(use[0] for use in recent),
        )


def _lasts(
    accountant: RenyiFilter, used: Sequence[Event], recent: Sequence[Event], cap: float
) -> int | None:
    """In how many days the budget is used up, if within the horizon: divergences, not epsilons,
    grow at a rate, here that of the last 30 days (over less, every first day would be a crisis)."""
    total, latest = accountant.total(used), accountant.total(recent)

    def fits(days: int) -> bool:
        return accountant.epsilon_of(total + days / WINDOW.days * latest) <= cap

    if fits(HORIZON.days):
        return None
    return max((days for days in range(HORIZON.days) if fits(days)), default=0)


def _duplicates(read: _Read) -> Iterable[Alert]:
    groups: dict[tuple[str, str, str], list[_Submission]] = defaultdict(list)
    for plan in read.plans.values():
        if plan.model:
            groups[plan.population, plan.author, plan.model].append(plan)
    for (population, author, _), plans in groups.items():
        for close in _within(plans):
            yield Alert(
                "near-duplicate plans",
                population,
                f"Scientist {author[:16]} submitted {len(close)} plans of the same computation "
                f"within {WINDOW.days} days ({', '.join(plan.plan[:12] for plan in close)}): is a "
                "limit per plan being split?",
                tuple(plan.index for plan in close),
            )


def _within(plans: Sequence[_Submission]) -> Iterable[list[_Submission]]:
    """Runs of two or more plans, each within the window of the one before it."""
    run: list[_Submission] = []
    for plan in sorted(plans, key=lambda each: each.index):
        if run and plan.time - run[-1].time > WINDOW:
            if len(run) > 1:
                yield run
            run = []
        run.append(plan)
    if len(run) > 1:
        yield run


def _averaging(read: _Read) -> Iterable[Alert]:
    released: dict[tuple[str, str], list[tuple[str, int, float]]] = defaultdict(list)
    for attempt, index in read.charged.items():
        plan = read.plans.get(attempt[0])
        query = plan.queries.get(attempt[1], "") if plan else ""
        if plan and query and attempt in read.reserved:
            noise = read.reserved[attempt][3].noise_multiplier
            released[plan.population, query].append((plan.plan, index, noise))
    for (population, query), found in released.items():
        plans = sorted({plan for plan, _, _ in found})
        if len(plans) < 2 or any(noise == 0 for *_, noise in found):
            continue
        left = math.sqrt(1 / sum(noise**-2 for *_, noise in found))
        yield Alert(
            "same query repeated",
            population,
            f"Query {query[:12]} was released {len(found)} times by {len(plans)} plans "
            f"({', '.join(plan[:12] for plan in plans)}): averaged, where the state was the same, "
            f"they carry noise multiplier {left:.3f} instead of {min(n for *_, n in found):.3f}",
            tuple(index for _, index, _ in found),
        )


def _raised(read: _Read) -> Iterable[Alert]:
    for index, population, before, after in read.raised:
        delta = read.budgets[population][1].delta
        yield Alert(
            "cap raised",
            population,
            f"The cap was raised from epsilon {before:.3f} to {after:.3f} at delta {delta:g} "
            f"({ADJACENCY}; more for a person who is a user at every partner): why?",
            (index,),
        )


def _moved(read: _Read) -> Iterable[Alert]:
    first: dict[str, _Submission] = {}
    for plan in read.plans.values():
        before = first.setdefault(plan.data_set, plan)
        if plan.data_set and plan.population != before.population:
            yield Alert(
                "data set in two populations",
                plan.population,
                f"Plan {plan.plan[:12]} on data set {plan.data_set!r} is charged to "
                f"{plan.population!r}, plan {before.plan[:12]} on it to {before.population!r}: are "
                "these other people, or does one population have two budgets?",
                (before.index, plan.index),
            )


def _objections(read: _Read) -> Iterable[Alert]:
    for (plan, reason), entries in read.objections.items():
        population = read.plans[plan].population if plan in read.plans else ""
        message = f"A round of plan {plan[:12]} was refused: {reason}"
        yield Alert("partner refused", population, message, tuple(entries))


def _event(body: dict[str, Any]) -> Event:
    return Event(float(body["noise_multiplier"]), float(body["sampling_rate"]), body["count"])


def _attempt(body: dict[str, Any]) -> tuple[Any, ...]:
    return body["plan"], body["step"], body["release"], body["attempt"]
