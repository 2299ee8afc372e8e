"""One attempt over the network, as its coordinator sees it: what is asked of whom, and when.

Answers are parsed here and judged by `network.smpc.coordination`; `network.rounds` begins attempts
and checks them afterwards.
"""

import json
import time
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from network.begun import read_begun, write_begun
from network.client import NodeClient, NodeRefused, NodeUnreachable
from network.heads import Heads
from network.lines import Lines
from network.smpc.attempt import Agreement
from network.smpc.ckks.coordination import CkksBegun, CkksCoordinator
from network.smpc.ckks.messages import (
    Joining,
    KeyAdvert,
    TaggedConfirmation,
    residues_bytes,
    unpack_opening,
)
from network.smpc.ckks.transcript import (
    coming_ciphertexts,
    take_ciphertexts,
    write_ckks_transcript,
)
from network.smpc.coordination import Begun, Coordinator
from network.smpc.inputs import ComingInput, coming_masked, take_masked
from network.smpc.messages import (
    PART_BYTES,
    RECEIPT_BYTES,
    Advert,
    Confirmation,
    Digested,
    MalformedMessage,
    Receipt,
    SealedShares,
    SharingRefused,
    Unmasking,
)
from network.smpc.transcript import write_transcript
from network.states import send_in_parts
from network.streams import MAX_OCTETS_BYTES

TENSOR = "tensor"
"""A file in an attempt's folder: the name of the tensor that it revealed."""
_MOST_SAID = 2000
"""Characters of a refusal that are kept, in a run's journal too; a node may say up to 16 MiB."""
_GRACE_S = 0.5
"""After the plan's deadline, for what was answered just in time."""


@dataclass(frozen=True)
class Beside:
    """What goes on beside an attempt's steps; by default, nothing.

    Attributes:
        refused: called when a domain refuses to begin; what it raises ends the attempt.
        keep: given what writes the attempt's transcript; by default it is written at once.
        drawing: called once the domains have begun, who draw their noise then.
        following: gives the attempt that the domains may begin once they have revealed their
            inputs, if there is one: none has anything to draw or to sum in this one after that.
    """

    refused: Callable[[], object] = lambda: None
    keep: Callable[[Callable[[], object]], object] = lambda write: write()
    drawing: Callable[[], object] = lambda: None
    following: Callable[[], "Attempt | None"] = lambda: None


class Attempt:
    """Asks all domains at once and keeps who was silent, and why.

    Args:
        kept: the attempt's folder.
    """

    coordinator: type[Any] = Coordinator
    begun: type[Begun] | type[CkksBegun] = Begun
    write: Callable[..., None] = staticmethod(write_transcript)
    advert: type[Advert] | type[KeyAdvert] = Advert
    shared: type[SealedShares] | type[Joining] = SealedShares
    confirmation: type[Confirmation] | type[TaggedConfirmation] = Confirmation
    coming_input = staticmethod(coming_masked)
    take_input: Callable[[Agreement, ComingInput], tuple[Receipt, Any]] = staticmethod(take_masked)

    def __init__(
        self,
        nodes: Mapping[str, NodeClient],
        lines: Lines,
        agreement: Agreement,
        deadline_s: float,
        kept: Path,
    ) -> None:
        self.agreement = agreement
        self.left_out: dict[str, str] = {}
        self.lost: set[str] = set()
        self.seconds: dict[str, float] = {}
        self.heads = Heads(len(agreement.roster))
        self._nodes, self._lines = nodes, lines
        self._deadline_s = deadline_s
        self.kept = kept
        self._ahead: dict[str, Any] = {}
        self._states: dict[str, object] = {}
        self._following: Attempt | None = None

    def open_total(self, state: bytes, beside: Beside) -> tuple[NDArray[np.int64], tuple[str, ...]]:
        """Carry the attempt through and keep it: (total, survivors), or SumAborted."""
        digest = blake3(state).digest()
        self._state, self._state_digest = Digested.of(state, digest), digest.hex()
        self._beside = beside
        coordinator = self.coordinator(self.agreement, self.exchange, self.left_out)
        found = read_begun(self.kept, self.heads)
        begun = coordinator.begin() if found is None else self.begun.from_dict(found)
        if found is None:
            write_begun(self.kept, begun.to_dict(), self.heads)
        if self.agreement.context.tensor:
            (self.kept / TENSOR).write_text(self.agreement.context.tensor)
        opened = coordinator.finish(begun)
        said = opened.transcript, opened.total
        beside.keep(partial(self.write, self.kept, self.agreement, *said))
        return opened.total, opened.survivors

    def exchange(self, phase: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        began = time.monotonic()
        if phase == "share":
            self._beside.drawing()
        if phase == "reveal":
            self.heads.keep_notes_of(arguments)
            self._following = self._beside.following()
        answers = dict(self._ahead) if phase == "advertise" else {}
        questions = {
            name: partial(self._ask, phase, name, argument)
            for name, argument in arguments.items()
            if name not in answers
        }
        calls = self._lines.ask(questions, self._deadline_s + _GRACE_S)
        self.seconds[phase] = round(time.monotonic() - began, 2)
        for name, call in calls.items():
            try:
                if call is None:
                    raise self._nodes[name].too_late(self._deadline_s)
                answers[name] = call.result()
            except NodeUnreachable as error:
                self.lost.add(name)
                self.left_out[name] = str(error)
            except (NodeRefused, MalformedMessage, SharingRefused) as error:
                self.left_out[name] = str(error)[:_MOST_SAID]
        if phase == "advertise" and set(self.left_out) - self.lost:
            self._beside.refused()
        return answers

    def _ask(self, phase: str, name: str, argument: Any) -> Any:
        node, context = self._nodes[name], self.agreement.context
        until = time.monotonic() + self._deadline_s

        def ask(method: str, **arguments: Any) -> Any:
            return node.stream(
                method,
                timeout_s=max(until - time.monotonic(), 0.001),
                most=MAX_OCTETS_BYTES,
                plan_hash=context.plan_hash,
                **arguments,
            )

        attempt = {"step": context.step, "release": context.release, "attempt": context.attempt}
        if phase == "share" and not self._holds(name) and self._state.size > PART_BYTES:
            send_in_parts(ask, self._state, self._state_digest)
            self._states[name] = self._state_digest
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
        with closing(self.coming_input(self.kept, self.agreement, name)) as coming:
            most = coming.size + RECEIPT_BYTES
            held = part = ask("reveal", into=coming, **arguments)
            while part == PART_BYTES and held <= most:
                part = ask("masked", into=coming, **attempt, begin=held)
                held += part
        if held > most:
            raise MalformedMessage(f"{name}: an input has at most {most} bytes")
        return self.take_input(self.agreement, coming)

    def _holds(self, name: str) -> bool:
        """Whether a domain has the state already."""
        return self._states.get(name) == self._state_digest

    def _arguments(self, phase: str, name: str, argument: Any) -> dict[str, Any]:
        if phase == "advertise":
            tensor = self.agreement.context.tensor
            return {"tensor": tensor} if tensor else {}
        said = json.dumps([message.to_dict() for message in argument])
        if phase == "share":
            held = json.dumps(self.heads.held_of(name))
            if self._holds(name):
                return {"adverts": said, "held": held, "state_digest": self._state_digest,
                        "state": self._state[:0]}  # fmt: skip
            return {"adverts": said, "held": held, "state": self._state}
        if phase == "reveal":
            notes = json.dumps(self.heads.notes_for(name))
            return {"seeds": said, "notes": notes, "following": self._named_next()}
        if phase == "confirm":
            return {"receipts": said, "following": self._named_next()}
        confirmed = {message.domain for message in argument}
        signed = self.heads.cosignatures_for(name, self.agreement.roster[name], confirmed)
        return {"confirmations": said, "cosignatures": json.dumps(signed)}

    def _read(self, phase: str, name: str, answer: Any) -> Any:
        try:
            said = json.loads(answer)
        except (TypeError, ValueError, RecursionError):
            raise MalformedMessage(f"the answer to {phase} isn't JSON") from None
        if phase == "unmask":
            return Unmasking.from_dict(said)
        if phase == "advertise":
            return self._begun(name, said)
        if phase == "confirm":
            self.heads.take_cosignatures(name, _part(said, "cosignatures", list))
            if self._following is not None:
                self._following._take_begun(name, said.get("begun"))
            return self.confirmation.from_dict(said.get("confirmation"))
        sealed = _part(said, "sealed", list)
        if len(sealed) > len(self.agreement.roster):
            raise MalformedMessage("expected a list of sealed shares")
        self.heads.take_note(name, _part(said, "note", dict))
        return [self.shared.from_dict(each) for each in sealed]

    def _named_next(self) -> str:
        if self._following is None:
            return ""
        where = self._following.agreement.context
        named = {"step": where.step, "release": where.release, "attempt": where.attempt}
        return json.dumps({**named, "tensor": where.tensor})

    def _begun(self, name: str, said: Any) -> Advert | KeyAdvert:
        """What a domain says as it begins."""
        self.heads.take_held(name, _part(said, "held", dict))
        self._states[name] = said.get("state")
        return self.advert.from_dict(said.get("advert"))

    def _take_begun(self, name: str, said: Any) -> None:
        """The same, ahead of `open_total`; what can't be read is asked for again then."""
        with suppress(MalformedMessage, SharingRefused):
            self._ahead[name] = self._begun(name, said)


class CkksAttempt(Attempt):
    """The same, with the messages of `network.smpc.ckks`."""

    coordinator = CkksCoordinator
    begun = CkksBegun
    write = staticmethod(write_ckks_transcript)
    advert = KeyAdvert
    shared = Joining
    confirmation = TaggedConfirmation
    coming_input = staticmethod(coming_ciphertexts)
    take_input = staticmethod(take_ciphertexts)

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


def _part(said: Any, key: str, kind: type) -> Any:
    """One part of a domain's answer.

    Raises:
        MalformedMessage: it isn't there, or of another kind.
    """
    if not isinstance(said, dict) or not isinstance(said.get(key), kind):
        raise MalformedMessage(f"the answer has no {key!r}")
    return said[key]
