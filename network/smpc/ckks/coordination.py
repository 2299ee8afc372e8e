"""The hub's side of one attempt under CKKS: carry messages, add ciphertexts, ask the key holder.

As under masks, whoever coordinates holds no key, and a domain that falls silent is left out; with
fewer than tau left, or without the key holder, the attempt ends without a total. All who gave
ciphertexts are needed to the end: a domain confirms one set only.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from network.smpc.attempt import Agreement
from network.smpc.blame import culprit_of, forgive, would_go_on
from network.smpc.ckks import seal
from network.smpc.ckks.messages import (
    Joining,
    KeyAdvert,
    Opening,
    TaggedConfirmation,
    key_holder,
    transcript_hash,
)
from network.smpc.ckks.transcript import (
    Ciphertexts,
    CkksTranscript,
    check_opened,
    residues_of,
    sum_of,
)
from network.smpc.ckks.verification import verify_advert, verify_adverts, verify_joining
from network.smpc.coordination import Exchange, SumAborted
from network.smpc.masks import digest_of
from network.smpc.messages import Receipt, SharingRefused
from network.smpc.verification import verify_receipts


@dataclass(frozen=True)
class CkksOpened:
    """What an attempt opened.

    Attributes:
        total: int64 [P], over `survivors`.
        survivors: whose vectors are in the total, sorted.
        left_out: what was wrong with the others, by name.
        ciphertexts: the survivors'.
    """

    total: NDArray[np.int64]
    survivors: tuple[str, ...]
    left_out: Mapping[str, str]
    transcript: CkksTranscript
    ciphertexts: Mapping[str, Ciphertexts]


@dataclass(frozen=True)
class CkksBegun:
    """What was said before any ciphertext left its domain."""

    adverts: tuple[KeyAdvert, ...]
    joined: tuple[Joining, ...]

    def to_dict(self) -> dict[str, Any]:
        """As JSON-able values."""
        return {
            "adverts": [advert.to_dict() for advert in self.adverts],
            "joined": [joining.to_dict() for joining in self.joined],
        }

    @classmethod
    def from_dict(cls, kept: Mapping[str, Any]) -> "CkksBegun":
        """Read what `to_dict` wrote."""
        return cls(
            tuple(KeyAdvert.from_dict(advert) for advert in kept["adverts"]),
            tuple(Joining.from_dict(joining) for joining in kept["joined"]),
        )


class CkksCoordinator:
    """Carries one attempt through; see `network.smpc.coordination.Coordinator`.

    `exchange` is asked for the same steps. Arguments: of `share` adverts, of `reveal` who joined,
    of `confirm` (receipts, digest of the sum), of `unmask` (confirmations, the sum at the key
    holder, else None).
    """

    def __init__(
        self, agreement: Agreement, exchange: Exchange, left_out: dict[str, str] | None = None
    ) -> None:
        self.agreement = agreement
        self.left_out: dict[str, str] = {} if left_out is None else left_out
        self._exchange = exchange
        self._holder = key_holder(agreement)

    def begin(self) -> CkksBegun:
        """The steps before any ciphertext leaves. Keep what it gives: `finish` can be repeated.

        Raises:
            SumAborted: fewer than tau domains are left, or not the key holder.
        """
        good = self._enough("advertise", dict.fromkeys(self.agreement.names), self._check_advert)
        adverts = verify_adverts(self.agreement, list(good.values()))
        heard = transcript_hash(self.agreement, adverts)

        def check(name: str, said: list[Joining]) -> None:
            if [each.domain for each in said] != [name]:
                raise SharingRefused(name, "joined under another name")
            verify_joining(self.agreement, heard, said[0])

        asked = dict.fromkeys(adverts, tuple(adverts.values()))
        members = self._enough("share", asked, check)
        return CkksBegun(tuple(adverts.values()), tuple(members[n][0] for n in sorted(members)))

    def finish(self, begun: CkksBegun) -> CkksOpened:
        """Collect and add ciphertexts, have their sum confirmed and opened.

        Raises:
            SumAborted: somebody who is needed is missing, or an answer is wrong.
        """
        heard = transcript_hash(self.agreement, {a.domain: a for a in begun.adverts})
        joined, inputs = self._inputs(begun)
        members = tuple(each.domain for each in joined)
        receipts = [inputs[name][0] for name in sorted(inputs)]
        self._checked("reveal", lambda: verify_receipts(self.agreement, heard, members, receipts))
        ciphertexts = {name: inputs[name][1] for name in sorted(inputs)}
        added, digest = sum_of(self.agreement, ciphertexts)
        confirmed = self._ask_all("confirm", dict.fromkeys(inputs, (receipts, digest)))
        confirmations: list[TaggedConfirmation] = [confirmed[name] for name in sorted(confirmed)]
        opened = self._opened(inputs, confirmations, added)
        transcript = CkksTranscript(begun.adverts, joined, receipts, confirmations, opened[0])
        total = opened[1]
        self._checked(
            "unmask", lambda: check_opened(self.agreement, transcript, ciphertexts, total)
        )
        return CkksOpened(total, tuple(sorted(inputs)), self.left_out, transcript, ciphertexts)

    def _inputs(
        self, begun: CkksBegun
    ) -> tuple[tuple[Joining, ...], dict[str, tuple[Receipt, Ciphertexts]]]:
        """Who goes on, and the ciphertexts of at least tau of them; see `Coordinator`."""
        members = tuple(each.domain for each in begun.joined)

        def check(name: str, answer: tuple[Receipt, Ciphertexts]) -> None:
            receipt, ciphertexts = answer
            digest = digest_of(residues_of(ciphertexts).ravel())
            if receipt.domain != name or receipt.digest != digest:
                raise SharingRefused(name, "its ciphertexts aren't those that it signed")
            if receipt.members != members:
                raise SharingRefused(name, "gave its ciphertexts among others than the members")

        while True:
            joined = tuple(each for each in begun.joined if each.domain in members)
            inputs = self._usable("reveal", dict.fromkeys(members, joined), check)
            if self._are_enough(inputs):
                return joined, inputs
            missing = set(members) - set(inputs)
            again = would_go_on(self.agreement, self.left_out, missing)
            if not self._are_enough(again):
                self._require_enough("reveal", members, inputs)
            forgive(self.agreement, self.left_out, again, missing)
            members = tuple(again)

    def _opened(
        self,
        inputs: Iterable[str],
        confirmations: list[TaggedConfirmation],
        added: seal.Residues,
    ) -> tuple[Opening, NDArray[np.int64]]:
        asked = {n: (confirmations, added if n == self._holder else None) for n in inputs}
        answers = self._exchange("unmask", asked)
        opened: tuple[Opening, NDArray[np.int64]] | None = answers.get(self._holder)
        if opened is None:
            raise self._aborted(set(asked) - set(answers) or {self._holder}, "unmask")
        return opened

    def _ask_all(self, phase: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        answers = dict(self._exchange(phase, arguments))
        if missing := set(arguments) - set(answers):
            raise self._aborted(missing, phase)
        return answers

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

    def _checked(self, phase: str, check: Callable[[], Any]) -> None:
        try:
            check()
        except SharingRefused as error:
            raise SumAborted(error.culprit, phase, str(error)) from None

    def _check_advert(self, name: str, advert: KeyAdvert) -> None:
        if advert.domain != name:
            raise SharingRefused(name, "sent an advert under another name")
        verify_advert(self.agreement, advert)

    def _require_enough(self, phase: str, asked: Iterable[str], left: Mapping[str, Any]) -> None:
        if not self._are_enough(left):
            missing = set(asked) - set(left)
            few = len(left) < self.agreement.threshold
            raise self._aborted(missing if few else {self._holder}, phase)

    def _are_enough(self, left: Collection[str]) -> bool:
        return self._holder in left and len(left) >= self.agreement.threshold

    def _aborted(self, missing: Iterable[str], phase: str) -> SumAborted:
        culprit, reason = culprit_of(self.agreement, self.left_out, missing)
        return SumAborted(culprit, phase, reason)
