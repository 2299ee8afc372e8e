"""The coordinator's side of a round over the network; the steps are `network.smpc.coordination`.

The coordinator only carries messages. It holds no key: it sees signed public keys, shares sealed
between domains, masked inputs, heads of ledgers, and in the end what opens the sum and nothing
else. It may drop or garble messages; then no total opens. What it carried is kept with the run, so
that anyone can recompute the total (`verify_rounds`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from network.attempts import TENSOR, Attempt, Beside, CkksAttempt
from network.begun import BEGUN
from network.client import NodeClient
from network.lines import Lines
from network.smpc.agreement import agreement_of
from network.smpc.attempt import Agreement
from network.smpc.ckks.transcript import (
    verify_ckks_transcript,
)
from network.smpc.coordination import SumAborted
from network.smpc.inputs import forget_inputs
from network.smpc.messages import (
    SharingRefused,
)
from network.smpc.transcript import verify_transcript
from policies.plan import Plan


class RoundAborted(Exception):
    """An attempt ended without a total; nothing of it can be opened any more.

    Attributes:
        domain: the domain that failed.
        phase: 'advertise', 'share', 'reveal', 'confirm' or 'unmask'.
        lost: it didn't answer (else: it, or what it said, was refused).
    """

    def __init__(self, domain: str, phase: str, reason: str, *, lost: bool) -> None:
        super().__init__(reason)
        self.domain = domain
        self.phase = phase
        self.lost = lost


@dataclass(frozen=True)
class Release:
    """What one round opened.

    Attributes:
        total: int64, shape [P]: the noised sum in the step's integer units.
        survivors: the domains whose vectors are in it, sorted.
        left_out: the domains that fell silent or were refused at some step, and why.
        seconds: wall time per phase, rounded to 10 ms.
    """

    total: NDArray[np.int64]
    survivors: tuple[str, ...]
    left_out: Mapping[str, str]
    seconds: Mapping[str, float]


def attempt_of(
    nodes: Mapping[str, NodeClient],
    plan: Plan,
    step: str,
    release: int,
    attempt: int,
    folder: Path,
    lines: Lines,
    tensor: str = "",
) -> Attempt:
    """An attempt that no domain was asked for yet; see `run_attempt`."""
    kept = attempt_folder(folder, step, release, attempt)
    agreement = agreement_of(plan, step, release, attempt, tensor)
    kind = Attempt if plan.aggregation == "smpc" else CkksAttempt
    return kind(nodes, lines, agreement, plan.deadline_s, kept)


def run_attempt(
    nodes: Mapping[str, NodeClient],
    plan: Plan,
    step: str,
    release: int,
    attempt: int,
    state: bytes,
    folder: Path,
    tensor: str = "",
) -> Release:
    """Run one attempt of one release, or go on with one whose masked inputs were charged.

    Args:
        folder: of the run; the attempt is kept in `attempt_folder`. What was begun there is taken
            up again: every domain gives the answers it gave.
        tensor: what a kept step's release reveals, as in `Context`.

    Raises:
        RoundAborted: too few domains are left. Take the next attempt number.
    """
    with Lines() as lines:
        call = attempt_of(nodes, plan, step, release, attempt, folder, lines, tensor)
        return carried_through(call, state)


def carried_through(attempt: Attempt, state: bytes, beside: Beside = Beside()) -> Release:
    """`run_attempt` for an attempt that `attempt_of` gave, with what goes on beside it."""
    try:
        total, survivors = attempt.open_total(state, beside)
    except SumAborted as aborted:
        forget_inputs(attempt.kept)
        raise RoundAborted(
            aborted.domain, aborted.phase, str(aborted), lost=aborted.domain in attempt.lost
        ) from None
    return Release(total, survivors, attempt.left_out, attempt.seconds)


def was_begun(folder: Path, step: str, release: int, attempt: int) -> bool:
    """Whether the messages are kept without which an attempt can't be taken up again."""
    return (attempt_folder(folder, step, release, attempt) / BEGUN).exists()


def was_opened(folder: Path, step: str, release: int, attempt: int) -> bool:
    """Whether a run's folder keeps the whole transcript of an attempt."""
    return (attempt_folder(folder, step, release, attempt) / "messages.json").exists()


def tensor_of(folder: Path, step: str, release: int, attempt: int) -> str:
    """Which tensor an attempt was begun to reveal, as in `Context`; empty: none."""
    return _tensor_of(attempt_folder(folder, step, release, attempt))


def attempt_folder(folder: Path, step: str, release: int, attempt: int) -> Path:
    """Where a run keeps the transcript of one attempt."""
    return folder / "rounds" / f"{step}-{release}-{attempt}"


def verify_rounds(plan: Plan, folder: Path) -> list[tuple[str, int, int]]:
    """Recompute the total of every opened attempt that a run's folder keeps.

    Returns:
        (step, release, attempt) of each.

    Raises:
        SharingRefused: a message is missing, forged or a lie; names who is to blame.
    """
    checked = []
    for kept in sorted((folder / "rounds").glob("*/messages.json")):
        if not all(each.is_file() for each in kept.parent.iterdir()):
            # A pipe, say, would be read for ever.
            name = kept.parent.name
            raise SharingRefused("the coordinator", f"keeps other things than files in {name}")
        agreement = _agreement_of_folder(plan, kept.parent)
        verify = verify_transcript if plan.aggregation == "smpc" else verify_ckks_transcript
        verify(agreement, kept.parent)
        where = agreement.context
        checked.append((where.step, where.release, where.attempt))
    return checked


def _agreement_of_folder(plan: Plan, kept: Path) -> Agreement:
    """The attempt that a folder of the plan's rounds is named after.

    Raises:
        SharingRefused: it is named after none; whoever keeps the rounds is to blame.
    """
    try:
        step, release, attempt = kept.name.rsplit("-", 2)
        agreement = agreement_of(plan, step, int(release), int(attempt), _tensor_of(kept))
    except (KeyError, ValueError):
        raise SharingRefused(
            "the coordinator", f"keeps a round under a name that is none of the plan's: {kept.name}"
        ) from None
    where = agreement.context
    if kept.name != f"{where.step}-{where.release}-{where.attempt}":
        raise SharingRefused("the coordinator", f"keeps a round twice: {kept.name}")
    return agreement


def _tensor_of(kept: Path) -> str:
    file = kept / TENSOR
    return file.read_text() if file.exists() else ""
