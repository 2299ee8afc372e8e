"""The coordinator's side of a round over the network; the steps are `network.smpc.coordination`.

The coordinator only carries messages. It holds no key: it sees signed public keys, shares sealed
between domains, masked inputs, heads of ledgers, and in the end what opens the sum and nothing
else. It may drop or garble messages; then no total opens. What it carried is kept with the run, so
that anyone can recompute the total (`verify_rounds`).
"""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from network.begun import BEGUN, read_begun, write_begun
from network.client import NodeClient, NodeRefused, NodeUnreachable
from network.heads import Heads
from network.lines import Lines
from network.smpc.agreement import agreement_of
from network.smpc.attempt import Agreement
from network.smpc.ckks.coordination import CkksBegun, CkksCoordinator
from network.smpc.ckks.messages import (
    Joining,
    KeyAdvert,
    TaggedConfirmation,
    ciphertexts_bytes,
    residues_bytes,
    unpack_opening,
)
from network.smpc.ckks.transcript import (
    ciphertexts_file,
    take_ciphertexts,
    verify_ckks_transcript,
    write_ckks_transcript,
)
from network.smpc.coordination import Begun, Coordinator, SumAborted
from network.smpc.inputs import arriving, forget_inputs, masked_bytes, masked_file, take_masked
from network.smpc.messages import (
    PART_BYTES,
    RECEIPT_BYTES,
    Advert,
    Confirmation,
    MalformedMessage,
    Receipt,
    SealedShares,
    SharingRefused,
    Unmasking,
)
from network.smpc.transcript import verify_transcript, write_transcript
from network.states import send_in_parts
from policies.plan import Plan

_TENSOR = "tensor"
"""In it, the name of the tensor that an attempt revealed."""
_GRACE_S = 0.5
"""After the plan's deadline, for what was answered just in time."""


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
    kept = attempt_folder(folder, step, release, attempt)
    agreement = agreement_of(plan, step, release, attempt, tensor)
    kind = _Call if plan.aggregation == "smpc" else _CkksCall
    with Lines() as lines:
        call = kind(nodes, lines, agreement, state, plan.deadline_s, kept)
        try:
            total, survivors = call.open_total()
        except SumAborted as aborted:
            forget_inputs(kept)
            raise RoundAborted(
                aborted.domain, aborted.phase, str(aborted), lost=aborted.domain in call.lost
            ) from None
    return Release(total, survivors, call.seconds)


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


class _Call:
    """Asks all domains at once and keeps who was silent, and why.

    Args:
        kept: the attempt's folder.
    """

    advert: type[Advert] | type[KeyAdvert] = Advert
    shared: type[SealedShares] | type[Joining] = SealedShares
    confirmation: type[Confirmation] | type[TaggedConfirmation] = Confirmation
    input_file = staticmethod(masked_file)
    input_bytes = staticmethod(masked_bytes)
    take_input: Callable[[Agreement, Path], tuple[Receipt, Any]] = staticmethod(take_masked)

    def __init__(
        self,
        nodes: Mapping[str, NodeClient],
        lines: Lines,
        agreement: Agreement,
        state: bytes,
        deadline_s: float,
        kept: Path,
    ) -> None:
        self.agreement = agreement
        self.left_out: dict[str, str] = {}
        self.lost: set[str] = set()
        self.seconds: dict[str, float] = {}
        self.heads = Heads()
        self._nodes, self._lines = nodes, lines
        self._state = np.frombuffer(state, dtype=np.uint8)
        self._digest = blake3(state).hexdigest()
        self._deadline_s = deadline_s
        self._kept = kept
        self._holds: dict[str, bool] = {}

    def open_total(self) -> tuple[NDArray[np.int64], tuple[str, ...]]:
        """Carry the attempt through and keep it: (total, survivors), or SumAborted."""
        coordinator = Coordinator(self.agreement, self.exchange, self.left_out)
        found = read_begun(self._kept, self.heads)
        begun = coordinator.begin() if found is None else Begun.from_dict(found)
        if found is None:
            write_begun(self._kept, begun.to_dict(), self.heads)
        if self.agreement.context.tensor:
            (self._kept / _TENSOR).write_text(self.agreement.context.tensor)
        opened = coordinator.finish(begun)
        write_transcript(self._kept, self.agreement, opened.transcript, opened.total)
        return opened.total, opened.survivors

    def exchange(self, phase: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        began = time.monotonic()
        questions = {n: partial(self._ask, phase, n, a) for n, a in arguments.items()}
        calls = self._lines.ask(questions, self._deadline_s + _GRACE_S)
        self.seconds[phase] = round(time.monotonic() - began, 2)
        answers: dict[str, Any] = {}
        for name, call in calls.items():
            try:
                if call is None:
                    raise self._nodes[name].too_late(self._deadline_s)
                answers[name] = call.result()
            except NodeUnreachable as error:
                self.lost.add(name)
                self.left_out[name] = str(error)
            except (NodeRefused, MalformedMessage, SharingRefused) as error:
                self.left_out[name] = str(error)
        return answers

    def _ask(self, phase: str, name: str, argument: Any) -> Any:
        node, context = self._nodes[name], self.agreement.context
        until = time.monotonic() + self._deadline_s

        def ask(method: str, **arguments: Any) -> Any:
            return node.stream(
                method,
                timeout_s=max(until - time.monotonic(), 0.001),
                plan_hash=context.plan_hash,
                **arguments,
            )

        attempt = {"step": context.step, "release": context.release, "attempt": context.attempt}
        if phase == "share" and not self._holds[name] and self._state.size > PART_BYTES:
            send_in_parts(ask, self._state, self._digest)
            self._holds[name] = True
        arguments = {**attempt, **self._arguments(phase, name, argument)}
        if phase == "reveal":
            return self._input(name, ask, arguments, attempt)
        return self._read(phase, name, ask(phase, **arguments))

    def _input(
        self,
        name: str,
        ask: Callable[..., int],
        arguments: Mapping[str, Any],
        attempt: Mapping[str, Any],
    ) -> Any:
        """A domain's input and its receipt, written to the attempt's folder part by part.

        Raises:
            MalformedMessage: there is more than was agreed on, or something else.
            SharingRefused: it isn't what its domain signed.
        """
        kept = self.input_file(self._kept, self.agreement, name)
        most = self.input_bytes(self.agreement) + RECEIPT_BYTES
        with arriving(kept).open("wb") as file:
            held = part = ask("reveal", into=file, **arguments)
            while part == PART_BYTES and held <= most:
                part = ask("masked", into=file, **attempt, begin=held)
                held += part
        if held > most:
            raise MalformedMessage(f"{name}: an input has at most {most} bytes")
        return self.take_input(self.agreement, kept)

    def _arguments(self, phase: str, name: str, argument: Any) -> dict[str, Any]:
        if phase == "advertise":
            tensor = self.agreement.context.tensor
            return {"tensor": tensor} if tensor else {}
        said = json.dumps([message.to_dict() for message in argument])
        if phase == "share":
            held = json.dumps(self.heads.held_of(name))
            if self._holds[name]:
                return {"adverts": said, "held": held, "state_digest": self._digest,
                        "state": self._state[:0]}  # fmt: skip
            return {"adverts": said, "held": held, "state": self._state}
        if phase == "reveal":
            return {"seeds": said, "notes": json.dumps(self.heads.notes_for(name))}
        if phase == "confirm":
            return {"receipts": said}
        signed = self.heads.cosignatures_for(name, self.agreement.roster[name])
        return {"confirmations": said, "cosignatures": json.dumps(signed)}

    def _read(self, phase: str, name: str, answer: Any) -> Any:
        try:
            said = json.loads(answer)
        except (TypeError, ValueError, RecursionError):
            raise MalformedMessage(f"the answer to {phase} isn't JSON") from None
        if phase == "unmask":
            return Unmasking.from_dict(said)
        if phase == "advertise":
            self.heads.held[name] = _part(said, "held", dict)
            self._holds[name] = said.get("state") == self._digest
            return self.advert.from_dict(said.get("advert"))
        if phase == "confirm":
            self.heads.cosignatures[name] = _part(said, "cosignatures", list)
            return self.confirmation.from_dict(said.get("confirmation"))
        sealed, note = _part(said, "sealed", list), _part(said, "note", dict)
        if len(sealed) > len(self.agreement.roster):
            raise MalformedMessage("expected a list of sealed shares")
        _part(note, "extends", dict)
        self.heads.notes[name] = note
        return [self.shared.from_dict(each) for each in sealed]


class _CkksCall(_Call):
    """The same, with the messages of `network.smpc.ckks`."""

    advert = KeyAdvert
    shared = Joining
    confirmation = TaggedConfirmation
    input_file = staticmethod(ciphertexts_file)
    input_bytes = staticmethod(ciphertexts_bytes)
    take_input = staticmethod(take_ciphertexts)

    def open_total(self) -> tuple[NDArray[np.int64], tuple[str, ...]]:
        coordinator = CkksCoordinator(self.agreement, self.exchange, self.left_out)
        found = read_begun(self._kept, self.heads)
        begun = coordinator.begin() if found is None else CkksBegun.from_dict(found)
        if found is None:
            write_begun(self._kept, begun.to_dict(), self.heads)
        opened = coordinator.finish(begun)
        write_ckks_transcript(self._kept, self.agreement, opened.transcript, opened.total)
        return opened.total, opened.survivors

    def _arguments(self, phase: str, name: str, argument: Any) -> dict[str, Any]:
        if phase not in ("confirm", "unmask"):
            return super()._arguments(phase, name, argument)
        messages, total = argument
        arguments = super()._arguments(phase, name, messages)
        if phase == "confirm":
            return {**arguments, "total": total.hex()}
        if total is None:
            return arguments
        return {**arguments, "total": np.frombuffer(residues_bytes(total), dtype=np.uint8)}

    def _read(self, phase: str, name: str, answer: Any) -> Any:
        if phase == "unmask":
            return None if isinstance(answer, str) else unpack_opening(self.agreement, answer)
        return super()._read(phase, name, answer)


def _tensor_of(kept: Path) -> str:
    file = kept / _TENSOR
    return file.read_text() if file.exists() else ""


def _part(said: Any, key: str, kind: type) -> Any:
    """One part of a domain's answer.

    Raises:
        MalformedMessage: it isn't there, or of another kind.
    """
    if not isinstance(said, dict) or not isinstance(said.get(key), kind):
        raise MalformedMessage(f"the answer has no {key!r}")
    return said[key]
