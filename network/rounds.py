"""The coordinator's side of a round over the network; the steps are `network.smpc.coordination`.

The coordinator only carries messages. It holds no key: it sees signed public keys, shares sealed
between domains, masked inputs, and in the end what opens their sum and nothing else. It may drop or
garble messages; then no total opens. What it carried is kept with the run, so that anyone can
recompute the total (`verify_rounds`).
"""

import json
import os
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from network.client import NodeClient, NodeRefused, NodeUnreachable
from network.smpc.agreement import agreement_of
from network.smpc.coordination import Begun, Coordinator, SumAborted
from network.smpc.messages import (
    Advert,
    Agreement,
    Confirmation,
    MalformedMessage,
    SealedShares,
    Unmasking,
    unpack_masked,
)
from network.smpc.transcript import verify_transcript, write_transcript
from policies.plan import Plan

DEADLINE_S: Mapping[str, float] = {"share": 600.0}
"""How long a domain may take to answer a step; `share` is where it computes."""

_DEADLINE_S = 60.0
_BEGUN = "begun.json"


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
        seconds: wall time per phase, rounded to 10 ms.
    """

    total: NDArray[np.int64]
    survivors: tuple[str, ...]
    seconds: Mapping[str, float]


def run_attempt(
    nodes: Mapping[str, NodeClient],
    plan: Plan,
    step: str,
    release: int,
    attempt: int,
    state: bytes,
    folder: Path,
) -> Release:
    """Run one attempt of one release, or go on with one whose masked inputs were charged.

    Args:
        folder: of the run; the attempt is kept in `attempt_folder`. What was begun there is taken
            up again: every domain gives the answers it gave.

    Raises:
        RoundAborted: too few domains are left. Take the next attempt number.
    """
    kept = attempt_folder(folder, step, release, attempt)
    call = _Call(nodes, agreement_of(plan, step, release, attempt), state)
    coordinator = Coordinator(call.agreement, call.exchange, call.left_out)
    try:
        begun = _read_begun(kept)
        if begun is None:
            begun = coordinator.begin()
            _write_begun(kept, begun)
        opened = coordinator.finish(begun)
    except SumAborted as aborted:
        raise RoundAborted(
            aborted.domain, aborted.phase, str(aborted), lost=aborted.domain in call.lost
        ) from None
    write_transcript(kept, call.agreement, opened.transcript, opened.masked, opened.total)
    return Release(opened.total, opened.survivors, call.seconds)


def was_begun(folder: Path, step: str, release: int, attempt: int) -> bool:
    """Whether the messages are kept without which an attempt can't be taken up again."""
    return (attempt_folder(folder, step, release, attempt) / _BEGUN).exists()


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
        step, release, attempt = kept.parent.name.rsplit("-", 2)
        verify_transcript(agreement_of(plan, step, int(release), int(attempt)), kept.parent)
        checked.append((step, int(release), int(attempt)))
    return checked


class _Call:
    """Asks all domains at once and keeps who was silent, and why."""

    def __init__(self, nodes: Mapping[str, NodeClient], agreement: Agreement, state: bytes) -> None:
        self.agreement = agreement
        self.left_out: dict[str, str] = {}
        self.lost: set[str] = set()
        self.seconds: dict[str, float] = {}
        self._nodes = nodes
        self._state = np.frombuffer(state, dtype=np.uint8)

    def exchange(self, phase: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        began = time.monotonic()
        with ThreadPoolExecutor(len(arguments)) as pool:
            calls = {n: pool.submit(self._ask, phase, n, a) for n, a in arguments.items()}
        self.seconds[phase] = round(time.monotonic() - began, 2)
        answers: dict[str, Any] = {}
        for name, call in calls.items():
            try:
                answers[name] = call.result()
            except NodeUnreachable as error:
                self.lost.add(name)
                self.left_out[name] = str(error)
            except (NodeRefused, MalformedMessage) as error:
                self.left_out[name] = str(error)
        return answers

    def _ask(self, phase: str, name: str, argument: Any) -> Any:
        context = self.agreement.context
        answer = self._nodes[name].call(
            phase,
            timeout_s=DEADLINE_S.get(phase, _DEADLINE_S),
            plan_hash=context.plan_hash,
            step=context.step,
            release=context.release,
            attempt=context.attempt,
            **self._arguments(phase, argument),
        )
        return self._read(phase, answer)

    def _arguments(self, phase: str, argument: Any) -> dict[str, Any]:
        if phase == "advertise":
            return {}
        said = json.dumps([message.to_dict() for message in argument])
        if phase == "share":
            return {"adverts": said, "state": self._state}
        return {{"reveal": "seeds", "confirm": "receipts", "unmask": "confirmations"}[phase]: said}

    def _read(self, phase: str, answer: Any) -> Any:
        if phase == "reveal":
            return unpack_masked(self.agreement, answer)
        try:
            said = json.loads(answer)
        except (TypeError, ValueError):
            raise MalformedMessage(f"the answer to {phase} isn't JSON") from None
        if phase == "advertise":
            return Advert.from_dict(said)
        if phase == "confirm":
            return Confirmation.from_dict(said)
        if phase == "unmask":
            return Unmasking.from_dict(said)
        if not isinstance(said, list) or len(said) > len(self.agreement.roster):
            raise MalformedMessage("expected a list of sealed shares")
        return [SealedShares.from_dict(each) for each in said]


def _read_begun(kept: Path) -> Begun | None:
    file = kept / _BEGUN
    return Begun.from_dict(json.loads(file.read_text())) if file.exists() else None


def _write_begun(kept: Path, begun: Begun) -> None:
    kept.mkdir(parents=True, exist_ok=True)
    temporary = kept / (_BEGUN + ".new")
    with temporary.open("w") as file:
        json.dump(begun.to_dict(), file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, kept / _BEGUN)
