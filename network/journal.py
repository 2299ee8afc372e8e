"""The journal of a run: its state and what it released, from which it can be resumed.

It lies with the data scientist and holds nothing private.
"""

import json
import os
from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path

import safetensors.torch
from torch import Tensor

from network.program import Plan
from network.states import saved
from policies.plan import Plan as ApprovablePlan


class RunInterrupted(Exception):
    """The run stopped in the middle; the text says which domain, where, and how to go on."""


@dataclass(frozen=True)
class Progress:
    """One release, done.

    Attributes:
        index, total: position in the plan's schedule, from 1.
        epsilon: of everything released so far in this run, None without noise.
        seconds: per phase.
        sent, received: bytes between the scientist and each domain in this release.
        left_out: the domains that fell silent or were refused in it, and why.
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
    left_out: Mapping[str, str] = field(default_factory=dict)


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


def save_run(run: Run, first: Iterable[Future[object]] = (), state: bytes | None = None) -> None:
    """Write state and journal durably; a crash leaves the previous ones.

    Args:
        first: what is being written, and must be done before the journal tells of the release.
        state: the run's as safetensors, if it was made.
    """
    name = f"state-{len(run.history):05d}.safetensors"
    journal = {
        "plan_hash": run.plan_hash,
        "state": name,
        "finished": run.finished,
        "history": [vars(progress) for progress in run.history],
    }
    # Both are on the disk before the one that names the other is in its place.
    place, said = run.folder / name, run.folder / "journal.json"
    _write(place, saved(run.state) if state is None else state)
    _write(said, json.dumps(journal).encode())
    for each in first:
        each.result()
    for path in (place, said):
        os.replace(_new(path), path)
    for old in run.folder.glob("state-*.safetensors"):
        if old.name != name:
            old.unlink()


def _replace(path: Path, content: bytes) -> None:
    _write(path, content)
    os.replace(_new(path), path)


def _write(path: Path, content: bytes) -> None:
    """Write what will replace a file, durably, beside it."""
    with _new(path).open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _new(path: Path) -> Path:
    return path.with_name(path.name + ".new")
