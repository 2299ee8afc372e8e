"""Running an approved plan release by release; `network.journal` keeps what it takes to go on.

A release that all domains revealed before the scientist's process died is fetched again under its
old attempt number; it is never computed or charged twice.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from network.attempts import Attempt, Beside
from network.client import NodeClient, NodeRefused, NodeUnreachable
from network.journal import Progress, Run, RunInterrupted, load_run, save_run
from network.lines import Lines
from network.program import Plan
from network.rounds import Release, RoundAborted, attempt_of, carried_through, was_begun
from network.states import end_run, model_of, saved
from network.updates import after_release, in_own_units, noise_std
from policies.accounting import epsilon_at_every_partner, plan_epsilon, running_epsilon
from policies.plan import Plan as ApprovablePlan
from policies.plan import Step

__all__ = [
    "NotApproved",
    "Progress",
    "Run",
    "RunInterrupted",
    "epsilon_everywhere",
    "load_run",
    "open_run",
    "train",
    "unflatten",
    "unflatten_values",
]


class NotApproved(Exception):
    """An owner has not approved the plan, so nothing ran.

    Attributes:
        denials: what each domain that stands in the way says, by name.
    """

    def __init__(self, standing: Mapping[str, Mapping[str, Any]]) -> None:
        self.denials = {
            name: f"{name} {plan['status']}" + (f": {plan['reason']}" if plan.get("reason") else "")
            for name, plan in standing.items()
            if plan["status"] not in ("approved", "closed")
        }
        super().__init__("The plan can't run. " + "; ".join(self.denials.values()) + ".")


_AHEAD = 2**32
"""No attempt's number: one more than was charged."""


def train(
    nodes: Mapping[str, NodeClient],
    plan: Plan,
    approved: ApprovablePlan,
    folder: Path,
    on_progress: Callable[[Progress], None],
) -> Run:
    """See `Federation.train`."""
    approvals = open_run(nodes, approved)
    run = load_run(folder, approved, plan)
    try:
        with Lines() as lines, ThreadPoolExecutor(1) as pool:
            releases = _Releases(nodes, plan, approved, approvals, run, lines, pool)
            for index, (step, release) in enumerate(approved.schedule(), start=1):
                if index > len(run.history):
                    releases.make(index, step, release)
                    on_progress(run.history[-1])
        if not run.finished:
            _finish(nodes, approved, run)
    except RoundAborted as aborted:
        raise RunInterrupted(_interruption(aborted, run, approved)) from None
    except (NodeUnreachable, NodeRefused) as error:
        raise RunInterrupted(f"{error}\nGo on with: coterie run resume {folder}") from None
    return run


def open_run(nodes: Mapping[str, NodeClient], approved: ApprovablePlan) -> str:
    """Collect every owner's signature and hand all of them to every node; gives them as JSON."""
    standing = {name: node.read("plan", plan_hash=approved.hash) for name, node in nodes.items()}
    if any(plan["status"] not in ("approved", "closed") for plan in standing.values()):
        raise NotApproved(standing)
    approvals = json.dumps({name: plan["signature"] for name, plan in standing.items()})
    for name, node in nodes.items():
        if standing[name]["status"] == "approved":
            node.call("open", plan_hash=approved.hash, approvals=approvals)
    return approvals


class _Releases:
    """Makes a run's releases, one after the other, on lines that stay open.

    A domain begins the next attempt once it has revealed its input: it draws that one's noise while
    the total is opened and kept. It gives the last one up only when it is asked for its shares.

    Args:
        pool: of one thread, for what needn't be waited for while the domains work.
    """

    def __init__(
        self,
        nodes: Mapping[str, NodeClient],
        plan: Plan,
        approved: ApprovablePlan,
        approvals: str,
        run: Run,
        lines: Lines,
        pool: ThreadPoolExecutor,
    ) -> None:
        self._nodes, self._lines, self._pool = nodes, lines, pool
        self._approvals = approvals
        self._plan, self._approved, self._run = plan, approved, run
        self._charged: dict[str, dict[str, Any]] | None = None
        self._begun: Attempt | None = None
        self._saved: bytes | None = None

    def make(self, index: int, step: str, release: int) -> None:
        """Make one release and journal it.

        Raises:
            RoundAborted, RunInterrupted: see `Federation.train`.
        """
        definition, author, run = self._approved.step(step), self._plan.step(step), self._run
        before = {name: asdict(node.traffic) for name, node in self._nodes.items()}
        payload = self._packed(definition)
        if self._charged is None:
            self._charged = progress_of(self._nodes, self._approved, self._lines)
        charged, written = self._charged, list[Future[object]]()

        def refused() -> None:
            charged_attempts(progress_of(self._nodes, self._approved), step)

        # Sampled losses take longer to compose than a round's steps. The accountant keeps what it
        # computed, so that it is there when the attempt is known.
        ahead = self._approved, charged, (step, release, _AHEAD)
        beside = Beside(
            refused=refused,
            keep=lambda write: written.append(self._pool.submit(write)),
            drawing=lambda: self._pool.submit(_epsilon_so_far, *ahead),
            following=lambda: self._begin(index),
        )
        attempt, opened = self._open(step, release, payload, beside)
        self._open_again(opened.left_out)
        totals = unflatten(opened.total, definition)
        noise = noise_std(self._approved, definition)
        own = in_own_units(author, run.state, totals)
        metrics = dict(author.metrics(own)) if author.metrics is not None else {}
        run.state = after_release(self._plan, definition, run.state, totals, noise)
        epsilon = _epsilon_so_far(self._approved, charged, (step, release, attempt))
        run.history.append(
            Progress(
                index=index,
                total=len(self._approved.schedule()),
                step=step,
                release=release,
                attempt=attempt,
                epsilon=epsilon,
                metrics=metrics,
                seconds=opened.seconds,
                sent={n: c.traffic.sent - before[n]["sent"] for n, c in self._nodes.items()},
                received={
                    n: c.traffic.received - before[n]["received"] for n, c in self._nodes.items()
                },
                left_out=opened.left_out,
            )
        )
        self._saved = saved(run.state)
        save_run(run, written, self._saved)
        # So the next release needs no question: who didn't survive has charged no more than this.
        for found in charged.values():
            found["attempts"].append([step, release, attempt, "charged"])

    def _packed(self, step: Step) -> bytes:
        """What a step reads of the state; where that is all of it, as it was kept."""
        state = self._run.state
        if self._saved is not None and {spec.name for spec in step.state} == set(state):
            return self._saved
        return saved({spec.name: state[spec.name] for spec in step.state})

    def _open(self, step: str, release: int, payload: bytes, beside: Beside) -> tuple[int, Release]:
        """The total, from an attempt that enough domains charged if it can still be opened."""
        fresh, self._begun = self._begun, None
        attempts = self._attempts(step, release)
        last = max(attempts, default=-1)
        charged = attempts.get(last, []).count("charged")
        begun = was_begun(self._run.folder, step, release, last)
        if charged >= self._approved.threshold and begun:
            try:
                attempt = self._attempt(step, release, last)
                return last, carried_through(attempt, payload, beside)
            except RoundAborted as aborted:
                if aborted.lost:
                    raise
                self._begun = None
        fresh = fresh or self._attempt(step, release, last + 1)
        return last + 1, carried_through(fresh, payload, beside)

    def _open_again(self, left_out: Iterable[str]) -> None:
        """Ask those who were left out to open the run, should they have begun anew, before more."""
        said = {"plan_hash": self._approved.hash, "approvals": self._approvals}
        within = self._approved.deadline_s
        calls = {name: partial(self._nodes[name].call, "open", within, **said) for name in left_out}
        self._lines.put(calls)

    def _begin(self, index: int) -> Attempt | None:
        """Of the release that comes after the `index`th, unless attempts of it are known."""
        for step, release in self._approved.schedule()[index : index + 1]:
            if not self._attempts(step, release):
                self._begun = self._attempt(step, release, 0)
        return self._begun

    def _attempts(self, step: str, release: int) -> dict[int, list[str]]:
        return charged_attempts(self._charged or {}, step).get(release, {})

    def _attempt(self, step: str, release: int, number: int) -> Attempt:
        where = step, release, number
        return attempt_of(self._nodes, self._approved, *where, self._run.folder, self._lines)


def charged_attempts(
    found: Mapping[str, Mapping[str, Any]], step: str
) -> dict[int, dict[int, list[str]]]:
    """The states of a step's attempts at every domain, by release and attempt.

    Args:
        found: from `progress_of`.

    Raises:
        RunInterrupted: a domain's part of the plan has ended.
    """
    attempts: dict[int, dict[int, list[str]]] = {}
    for name, progress in found.items():
        if progress["status"] == "closed":
            # Others could go on without this domain, but its owner's partners should know first.
            raise RunInterrupted(f"{name}'s part of this plan has ended: {progress['reason']}")
        for s, release, number, state in progress["attempts"]:
            if s == step:
                attempts.setdefault(release, {}).setdefault(number, []).append(state)
    return attempts


def progress_of(
    nodes: Mapping[str, NodeClient], approved: ApprovablePlan, lines: Lines | None = None
) -> dict[str, dict[str, Any]]:
    """What the domains have charged; up to N - tau of them may be down."""
    found: dict[str, dict[str, Any]] = {}
    down: list[NodeUnreachable] = []
    ask = {
        name: partial(node.stream, "progress", approved.deadline_s, plan_hash=approved.hash)
        for name, node in nodes.items()
    }
    with nullcontext(lines) if lines is not None else Lines() as line:
        calls = line.ask(ask, approved.deadline_s)
    for name, call in calls.items():
        try:
            if call is None:
                raise nodes[name].too_late(approved.deadline_s)
            found[name] = json.loads(call.result())
        except NodeUnreachable as error:
            down.append(error)
    if len(found) < approved.threshold:
        raise down[0]
    return found


def _epsilon_so_far(
    approved: ApprovablePlan,
    before: Mapping[str, Mapping[str, Any]],
    opened: tuple[str, int, int],
) -> float | None:
    """The largest epsilon any domain's ledger has charged for this plan.

    Args:
        before: what was charged before this release.
        opened: its step, number and attempt.
    """
    if approved.public:
        return None
    last = opened[:2] == approved.schedule()[-1]
    epsilon_of = plan_epsilon if last else running_epsilon
    spent = []
    for progress in before.values():
        charged = {(s, r, a) for s, r, a, state in progress["attempts"] if state == "charged"}
        steps = [step for step, _, _ in charged | {opened}]
        events = [approved.step(name).event(steps.count(name)) for name in sorted(set(steps))]
        spent.append(epsilon_of(events, approved.delta))
    return max(spent)


def epsilon_everywhere(approved: ApprovablePlan, history: Iterable[Progress]) -> float | None:
    """Epsilon of a run's releases for a person who is a user at every partner; None without noise.

    Each attempt before the one that was released counts, also one that was voided: at most.
    """
    if approved.public:
        return None
    counts: Counter[str] = Counter()
    for each in history:
        counts[each.step] += each.attempt + 1
    events = [approved.step(name).event(count) for name, count in sorted(counts.items())]
    return epsilon_at_every_partner(events, approved.delta, len(approved.roster))


def _finish(nodes: Mapping[str, NodeClient], approved: ApprovablePlan, run: Run) -> None:
    model = model_of(approved, run.state)
    for node in nodes.values():
        if node.read("progress", plan_hash=run.plan_hash)["status"] == "approved":
            end_run(partial(node.stream, plan_hash=run.plan_hash), model)
    run.finished = True
    save_run(run)


def unflatten(total: NDArray[np.int64], step: Step) -> dict[str, Tensor]:
    """A released total as float32 tensors in the step's own units and shapes."""
    return unflatten_values(torch.from_numpy(total.astype(np.float64) / step.scale), step)


def unflatten_values(values: Tensor, step: Step) -> dict[str, Tensor]:
    """A flat vector of what a step releases, shape [P], as float32 tensors by name."""
    parts = torch.split(values.to(torch.float32), [spec.count for spec in step.released])
    return {s.name: part.reshape(s.shape) for s, part in zip(step.released, parts, strict=True)}


def _interruption(aborted: RoundAborted, run: Run, approved: ApprovablePlan) -> str:
    step, release = approved.schedule()[len(run.history)]
    what = "lost" if aborted.lost else "refused"
    restart = f"Start it again: coterie domain up {aborted.domain}\n" if aborted.lost else ""
    return (
        f"{aborted.domain} was {what} in {step} {release} ({aborted.phase}): {aborted}\n"
        "The attempt ended without a total; nothing of it can be opened. What was released "
        f"before is kept.\n{restart}Go on with: coterie run resume {run.folder}"
    )
