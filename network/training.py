"""Running an approved plan release by release, with a journal from which it can be resumed.

The journal lies with the data scientist and holds nothing private: the plan, noised totals turned
into state, and what every release cost. A release that all domains revealed before the scientist's
process died is fetched again under its old attempt number; it is never computed or charged twice.
"""

import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import Tensor

from network.client import NodeClient, NodeRefused, NodeUnreachable
from network.lines import Lines
from network.program import Plan, State
from network.rounds import Release, RoundAborted, run_attempt, was_begun
from network.states import end_run, model_of, saved
from network.updates import after_release, in_own_units, noise_std
from policies.accounting import epsilon_at_every_partner, plan_epsilon
from policies.plan import Plan as ApprovablePlan
from policies.plan import Step


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


class RunInterrupted(Exception):
    """The run stopped in the middle; the text says which domain, where, and how to go on."""


_AHEAD = 2**32
"""No attempt's number: one more than was charged."""


@dataclass(frozen=True)
class Progress:
    """One release, done.

    Attributes:
        index, total: position in the plan's schedule, from 1.
        epsilon: of everything released so far in this run, None without noise.
        seconds: per phase.
        sent, received: bytes between the scientist and each domain in this release.
    """

    index: int
    total: int
    step: str
    release: int
    attempt: int
    epsilon: float | None
    metrics: Mapping[str, float]
    seconds: Mapping[str, float]
    sent: Mapping[str, int]
    received: Mapping[str, int]


@dataclass
class Run:
    """A run and what it released.

    Attributes:
        state: the public state after the last release.
        history: every release so far.
        finished: the plan is done and every domain has computed its users' memories.
    """

    plan_hash: str
    folder: Path
    state: dict[str, Tensor]
    history: list[Progress] = field(default_factory=list)
    finished: bool = False

    @property
    def epsilon(self) -> float | None:
        """Epsilon of everything released in this run; None without noise."""
        return self.history[-1].epsilon if self.history else 0.0


def train(
    nodes: Mapping[str, NodeClient],
    plan: Plan,
    approved: ApprovablePlan,
    folder: Path,
    on_progress: Callable[[Progress], None],
) -> Run:
    """See `Federation.train`."""
    open_run(nodes, approved)
    run = load_run(folder, approved, plan)
    try:
        for index, (step, release) in enumerate(approved.schedule(), start=1):
            if index > len(run.history):
                _release(nodes, plan, approved, run, index, step, release)
                on_progress(run.history[-1])
        if not run.finished:
            _finish(nodes, approved, run)
    except RoundAborted as aborted:
        raise RunInterrupted(_interruption(aborted, run, approved)) from None
    except (NodeUnreachable, NodeRefused) as error:
        raise RunInterrupted(f"{error}\nGo on with: coterie run resume {folder}") from None
    return run


def load_run(folder: Path, approved: ApprovablePlan, plan: Plan) -> Run:
    """The run journalled in `folder`, or a new one.

    Raises:
        RunInterrupted: the folder belongs to another plan.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = folder / "plan.json"
    if not written.exists():
        _replace(written, approved.to_json().encode())
    elif ApprovablePlan.from_json(written.read_text()).hash != approved.hash:
        raise RunInterrupted(
            f"{folder} holds the run of another plan than this one. If the script changed, submit "
            "it as a new plan."
        )
    journal = folder / "journal.json"
    if not journal.exists():
        return Run(approved.hash, folder, dict(plan.state))
    kept = json.loads(journal.read_text())
    state = safetensors.torch.load((folder / kept["state"]).read_bytes())
    history = [Progress(**line) for line in kept["history"]]
    return Run(approved.hash, folder, state, history, kept["finished"])


def open_run(nodes: Mapping[str, NodeClient], approved: ApprovablePlan) -> None:
    """Collect every owner's signature and hand all of them to every node."""
    standing = {name: node.read("plan", plan_hash=approved.hash) for name, node in nodes.items()}
    if any(plan["status"] not in ("approved", "closed") for plan in standing.values()):
        raise NotApproved(standing)
    approvals = json.dumps({name: plan["signature"] for name, plan in standing.items()})
    for name, node in nodes.items():
        if standing[name]["status"] == "approved":
            node.call("open", plan_hash=approved.hash, approvals=approvals)


def _release(
    nodes: Mapping[str, NodeClient],
    plan: Plan,
    approved: ApprovablePlan,
    run: Run,
    index: int,
    step_name: str,
    release: int,
) -> None:
    definition, author = approved.step(step_name), plan.step(step_name)
    before = {name: asdict(node.traffic) for name, node in nodes.items()}
    payload = _pack(run.state, definition)
    progress = progress_of(nodes, approved)
    with ThreadPoolExecutor(1) as pool:
        # Losses take longer to compose than most steps of a round; the domains work meanwhile. The
        # accountant keeps what it computed, so that it is there when the attempt is known.
        pool.submit(_epsilon_so_far, approved, progress, (step_name, release, _AHEAD))
        attempt, opened = _open_release(nodes, approved, run, step_name, release, payload, progress)
    totals = unflatten(opened.total, definition)
    noise = noise_std(approved, definition)
    own = in_own_units(author, run.state, totals)
    metrics = dict(author.metrics(own)) if author.metrics is not None else {}
    run.state = after_release(plan, definition, run.state, totals, noise)
    run.history.append(
        Progress(
            index=index,
            total=len(approved.schedule()),
            step=step_name,
            release=release,
            attempt=attempt,
            epsilon=_epsilon_so_far(approved, progress, (step_name, release, attempt)),
            metrics=metrics,
            seconds=opened.seconds,
            sent={n: c.traffic.sent - before[n]["sent"] for n, c in nodes.items()},
            received={n: c.traffic.received - before[n]["received"] for n, c in nodes.items()},
        )
    )
    save_run(run)


def _open_release(
    nodes: Mapping[str, NodeClient],
    approved: ApprovablePlan,
    run: Run,
    step: str,
    release: int,
    payload: bytes,
    found: Mapping[str, Mapping[str, Any]],
) -> tuple[int, Release]:
    """The total, from an attempt that enough domains charged already if it can still be opened.

    Args:
        found: what every domain has charged, from `progress_of`.
    """
    attempts = charged_attempts(found, step).get(release, {})
    last = max(attempts, default=-1)
    charged = attempts.get(last, []).count("charged")
    if charged >= approved.threshold and was_begun(run.folder, step, release, last):
        try:
            return last, run_attempt(nodes, approved, step, release, last, payload, run.folder)
        except RoundAborted as aborted:
            if aborted.lost:
                raise
    number = last + 1
    return number, run_attempt(nodes, approved, step, release, number, payload, run.folder)


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
    nodes: Mapping[str, NodeClient], approved: ApprovablePlan
) -> dict[str, Mapping[str, Any]]:
    """What the domains have charged; up to N - tau of them may be down."""
    found: dict[str, Mapping[str, Any]] = {}
    down: list[NodeUnreachable] = []
    ask = {
        name: partial(node.stream, "progress", approved.deadline_s, plan_hash=approved.hash)
        for name, node in nodes.items()
    }
    with Lines() as lines:
        calls = lines.ask(ask, approved.deadline_s)
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
        before: what was charged before the last release.
        opened: step, release and attempt of that release.
    """
    if approved.public:
        return None
    spent = []
    for progress in before.values():
        charged = {(s, r, a) for s, r, a, state in progress["attempts"] if state == "charged"}
        steps = [step for step, _, _ in charged | {opened}]
        events = [approved.step(name).event(steps.count(name)) for name in sorted(set(steps))]
        spent.append(plan_epsilon(events, approved.delta))
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


def save_run(run: Run) -> None:
    """Write state and journal durably; a crash leaves the previous ones."""
    name = f"state-{len(run.history):05d}.safetensors"
    _replace(run.folder / name, saved(run.state))
    journal = {
        "plan_hash": run.plan_hash,
        "state": name,
        "finished": run.finished,
        "history": [asdict(progress) for progress in run.history],
    }
    _replace(run.folder / "journal.json", json.dumps(journal, indent=1).encode())
    for old in run.folder.glob("state-*.safetensors"):
        if old.name != name:
            old.unlink()


def unflatten(total: NDArray[np.int64], step: Step) -> dict[str, Tensor]:
    """A released total as float32 tensors in the step's own units and shapes."""
    return unflatten_values(torch.from_numpy(total.astype(np.float64) / step.scale), step)


def unflatten_values(values: Tensor, step: Step) -> dict[str, Tensor]:
    """A flat vector of what a step releases, shape [P], as float32 tensors by name."""
    parts = torch.split(values.to(torch.float32), [spec.count for spec in step.released])
    return {s.name: part.reshape(s.shape) for s, part in zip(step.released, parts, strict=True)}


def _pack(state: State, step: Step) -> bytes:
    wanted = {spec.name: state[spec.name] for spec in step.state}
    return saved(wanted)


def _interruption(aborted: RoundAborted, run: Run, approved: ApprovablePlan) -> str:
    step, release = approved.schedule()[len(run.history)]
    what = "lost" if aborted.lost else "refused"
    restart = f"Start it again: coterie domain up {aborted.domain}\n" if aborted.lost else ""
    return (
        f"{aborted.domain} was {what} in {step} {release} ({aborted.phase}): {aborted}\n"
        "The attempt ended without a total; nothing of it can be opened. What was released "
        f"before is kept.\n{restart}Go on with: coterie run resume {run.folder}"
    )


def _replace(path: Path, content: bytes) -> None:
    temporary = path.with_name(path.name + ".new")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
