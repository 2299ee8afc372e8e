"""The hub's side of one attempt: carry each step's messages, go on without those who fall silent.

Whoever coordinates holds no key. A domain that doesn't answer, or answers with what can't be used,
is left out from there on; so is one whose shares, ledger or co-signatures the others refuse, where
tau of them go on without it. With fewer than tau left, the attempt ends without a total, and names
who ended it.
"""

from collections.abc import Callable, Iterable, Mapping, Sized
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from network.smpc.attempt import Agreement
from network.smpc.blame import blamed_by, culprit_of, forgive, would_go_on
from network.smpc.messages import (
    Advert,
    Confirmation,
    Receipt,
    SealedShares,
    SharingRefused,
    Unmasking,
    confirmation_message,
    dealt_digest,
    is_signed,
    receipt_message,
    transcript_hash,
)
from network.smpc.transcript import Masked, Transcript, add_inputs, open_total
from network.smpc.verification import (
    verify_advert,
    verify_adverts,
    verify_confirmation,
    verify_sealed,
    verify_unmasking,
)

Exchange = Callable[[str, Mapping[str, Any]], Mapping[str, Any]]
"""(step, argument by domain) -> answers of those that answered, in time and readable."""


class SumAborted(Exception):
    """The attempt ended without a total; nothing of it can be opened.

    Attributes:
        domain: who fell silent or was refused.
        phase: in which step too few were left.
    """

    def __init__(self, domain: str, phase: str, reason: str) -> None:
        super().__init__(reason)
        self.domain = domain
        self.phase = phase


@dataclass(frozen=True)
class Opened:
    """What an attempt opened.

    Attributes:
        total: int64 [P], over `survivors`.
        survivors: whose vectors are in the total, sorted.
        left_out: what was wrong with the others, by name.
        masked: the survivors' masked elements.
    """

    total: NDArray[np.int64]
    survivors: tuple[str, ...]
    left_out: Mapping[str, str]
    transcript: Transcript
    masked: Mapping[str, Masked]


@dataclass(frozen=True)
class Begun:
    """What was said before any input was masked.

    Attributes:
        sealed: what `members` dealt.
        members: who dealt shares, sorted.
    """

    adverts: tuple[Advert, ...]
    sealed: tuple[SealedShares, ...]
    members: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """As JSON-able values."""
        return {
            "adverts": [advert.to_dict() for advert in self.adverts],
            "sealed": [sealed.to_dict() for sealed in self.sealed],
            "members": list(self.members),
        }

    @classmethod
    def from_dict(cls, kept: Mapping[str, Any]) -> "Begun":
        """Read what `to_dict` wrote."""
        return cls(
            tuple(Advert.from_dict(advert) for advert in kept["adverts"]),
            tuple(SealedShares.from_dict(sealed) for sealed in kept["sealed"]),
            tuple(kept["members"]),
        )


class Coordinator:
    """Carries one attempt through.

    Args:
        agreement: what all domains know from the plan.
        exchange: asks domains and gives back the answers it got; reasons for silence are put into
            `left_out` by it.
        left_out: filled with what was wrong with whom.
    """

    def __init__(
        self, agreement: Agreement, exchange: Exchange, left_out: dict[str, str] | None = None
    ) -> None:
        self.agreement = agreement
        self.left_out: dict[str, str] = {} if left_out is None else left_out
        self._exchange = exchange

    def begin(self) -> Begun:
        """The steps before any input is masked. Keep what it gives: `finish` can be repeated.

        Raises:
            SumAborted: fewer than tau domains are left.
        """
        adverts = self._adverts()
        sealed = self._shares(adverts)
        dealt = [each for name in sorted(sealed) for each in sealed[name]]
        return Begun(tuple(adverts.values()), tuple(dealt), tuple(sorted(sealed)))

    def _adverts(self) -> dict[str, Advert]:
        # Alone, each advert is checked for its signature and keys; together, for keys used twice.
        asked = dict.fromkeys(self.agreement.names)
        good = self._enough("advertise", asked, self._check_advert)
        while True:
            try:
                return verify_adverts(self.agreement, list(good.values()))
            except SharingRefused as error:
                del good[error.culprit]
                self.left_out.setdefault(error.culprit, str(error))
                self._require_enough("advertise", asked, good)

    def _shares(self, adverts: Mapping[str, Advert]) -> dict[str, list[SealedShares]]:
        heard = transcript_hash(self.agreement, adverts)

        def check(name: str, dealt: list[SealedShares]) -> None:
            around = set(self.agreement.neighbourhood(name)) & set(adverts)
            if sorted(s.receiver for s in dealt) != sorted(around - {name}):
                raise SharingRefused(name, "dealt shares to others than those who advertised")
            for each in dealt:
                if each.sender != name:
                    raise SharingRefused(name, "dealt shares under another name")
                verify_sealed(self.agreement, heard, each)

        told = list(adverts.values())
        return self._enough("share", dict.fromkeys(adverts, told), check)

    def finish(self, begun: Begun) -> Opened:
        """Collect masked inputs, have one set of them confirmed, unmask and open their sum.

        Raises:
            SumAborted: fewer than tau domains are left, or the answers don't open.
        """
        heard = transcript_hash(self.agreement, {a.domain: a for a in begun.adverts})
        inputs = self._inputs(begun, heard)
        receipts = [inputs[name][0] for name in sorted(inputs)]
        masked = {name: answer[1] for name, answer in inputs.items()}
        survivors = {receipt.domain: receipt for receipt in receipts}
        message = confirmation_message(heard, survivors)
        with ThreadPoolExecutor(1) as pool:
            # The inputs are added while their domains confirm them.
            added = pool.submit(add_inputs, self.agreement, receipts, masked)
            check = partial(verify_confirmation, self.agreement, message)
            confirmed = self._enough("confirm", dict.fromkeys(inputs, receipts), check)
            confirmations: list[Confirmation] = [confirmed[name] for name in sorted(confirmed)]
            unmasked = self._unmaskings(
                confirmations, partial(verify_unmasking, self.agreement, message, survivors)
            )

        def said() -> Transcript:
            answers: list[Unmasking] = [unmasked[name] for name in sorted(unmasked)]
            return Transcript(begun.adverts, begun.sealed, receipts, confirmations, answers)

        while True:
            try:
                total = open_total(self.agreement, said(), masked, added.result)
            except SharingRefused as error:
                # It signed another share than it was dealt: those of tau others open the sum.
                if unmasked.pop(error.culprit, None) is None or not self._are_enough(unmasked):
                    raise SumAborted(error.culprit, "unmask", str(error)) from None
                self.left_out.setdefault(error.culprit, str(error))
            else:
                return Opened(total, tuple(sorted(inputs)), dict(self.left_out), said(), masked)

    def _inputs(self, begun: Begun, heard: bytes) -> dict[str, tuple[Receipt, Masked]]:
        """Inputs of at least tau domains, all masked among the same members.

        Where fewer go on, those who refused and masked nothing yet are asked again without whom an
        honest one of them surely refuses.
        """
        members = begun.members
        while True:
            asked = {
                name: [s for s in begun.sealed if s.receiver == name and s.sender in members]
                for name in members
            }
            inputs = self._usable("reveal", asked, partial(self._check_input, heard, asked))
            if self._are_enough(inputs):
                return inputs
            missing = set(members) - set(inputs)
            again = would_go_on(self.agreement, self.left_out, missing)
            if not self._are_enough(again):
                self._require_enough("reveal", members, inputs)
            forgive(self.agreement, self.left_out, again, missing)
            for name in set(members) - set(again):
                self.left_out.setdefault(name, "masked its input among others than the rest")
            members = tuple(again)

    def _check_input(
        self,
        heard: bytes,
        dealt: Mapping[str, list[SealedShares]],
        name: str,
        answer: tuple[Receipt, Masked],
    ) -> None:
        """Nothing, if this is what a member answers to what was dealt to it; `dealt`: to all."""
        receipt = answer[0]
        around = tuple(n for n in self.agreement.neighbourhood(name) if n in dealt)
        if receipt.domain != name or receipt.members != around:
            raise SharingRefused(name, "signed a masked input for others than the members")
        message = receipt_message(heard, dict(receipt))
        if not is_signed(message, receipt.signature, self.agreement.roster[name]):
            raise SharingRefused(name, "its masked input isn't signed for this attempt")
        if receipt.dealt != dealt_digest(heard, dealt[name]):
            raise SharingRefused(name, "signed for other shares than those carried to it")

    def _unmaskings(
        self, confirmations: list[Confirmation], check: Callable[[str, Any], None]
    ) -> dict[str, Unmasking]:
        """Shares of at least tau domains.

        Where fewer help, who refuses one that confirmed is asked again as if that one hadn't: tau
        others have confirmed and co-signed then.
        """
        confirmed = [each.domain for each in confirmations]
        asked = dict.fromkeys(confirmed, confirmations)
        unmasked: dict[str, Unmasking] = {}
        while asked:
            unmasked |= self._usable("unmask", asked, check)
            if self._are_enough(unmasked):
                return unmasked
            missing = set(asked) - set(unmasked)
            less = {n: self._without_whom_it_refuses(n, asked[n]) for n in missing}
            asked = {n: told for n, told in less.items() if self._are_enough(told)}
            forgive(self.agreement, self.left_out, asked, missing)
        self._require_enough("unmask", confirmed, unmasked)
        return unmasked

    def _without_whom_it_refuses(self, name: str, told: list[Confirmation]) -> list[Confirmation]:
        """Confirmations, as told to a domain, without the one that it refused; else none."""
        who = blamed_by(name, self.left_out, self.agreement.names)
        less = [each for each in told if each.domain != who]
        return less if who != name and len(less) < len(told) else []

    def _enough(
        self, phase: str, asked: Mapping[str, Any], check: Callable[[str, Any], None]
    ) -> dict[str, Any]:
        good = self._usable(phase, asked, check)
        self._require_enough(phase, asked, good)
        return good

    def _usable(
        self, phase: str, asked: Mapping[str, Any], check: Callable[[str, Any], None]
    ) -> dict[str, Any]:
        good: dict[str, Any] = {}
        for name, answer in self._exchange(phase, asked).items():
            try:
                check(name, answer)
                good[name] = answer
            except SharingRefused as error:
                self.left_out.setdefault(name, str(error))
        return good

    def _check_advert(self, name: str, advert: Advert) -> None:
        if advert.domain != name:
            raise SharingRefused(name, "sent an advert under another name")
        verify_advert(self.agreement, advert)

    def _require_enough(self, phase: str, asked: Iterable[str], left: Mapping[str, Any]) -> None:
        if self._are_enough(left):
            return
        culprit, reason = culprit_of(self.agreement, self.left_out, set(asked) - set(left))
        raise SumAborted(culprit, phase, reason)

    def _are_enough(self, left: Sized) -> bool:
        return len(left) >= self.agreement.threshold
