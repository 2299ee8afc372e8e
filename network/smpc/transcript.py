"""Everything said in one attempt, and the total that it opens; anyone can check it again.

A transcript holds only signed messages, so whoever keeps it can recompute the total and, where
messages contradict each other, say who signed what. It holds nothing that the opened total doesn't
tell already: masked inputs, seeds of survivors' self-masks, mask keys of those dropped.
"""

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from network.smpc import ring, shamir
from network.smpc.aggregation import KEY, SEED
from network.smpc.attempt import Agreement
from network.smpc.inputs import masked_file
from network.smpc.keys import EphemeralKey
from network.smpc.masks import CHUNK_BYTES, Mask, Masking, mask_key
from network.smpc.messages import (
    Advert,
    Confirmation,
    MalformedMessage,
    Receipt,
    SealedShares,
    SharingRefused,
    Unmasking,
    confirmation_message,
    dealt_digest,
    members_of,
    seed_digest,
    self_info,
    share_digest,
    transcript_hash,
)
from network.smpc.sharing import pair_masks
from network.smpc.verification import (
    verify_adverts,
    verify_confirmations,
    verify_masked,
    verify_sealed,
    verify_unmasking,
)

_MESSAGES = "messages.json"
_TOTAL = "total.ring"
_PIECE = CHUNK_BYTES // 8
"""Elements worked on at a time, of either ring."""

Masked = ring.Elements | ring.FramedFile
"""A domain's masked elements."""


@dataclass(frozen=True)
class Transcript:
    """The messages of one attempt, without the masked elements.

    Attributes:
        sealed: of members only.
    """

    adverts: Sequence[Advert]
    sealed: Sequence[SealedShares]
    receipts: Sequence[Receipt]
    confirmations: Sequence[Confirmation]
    unmaskings: Sequence[Unmasking]


def add_inputs(
    agreement: Agreement, receipts: Sequence[Receipt], masked: Mapping[str, Masked]
) -> NDArray[np.int64]:
    """The survivors' masked elements added, each checked against its receipt.

    Args:
        masked: by domain, [P] each; read once.

    Returns:
        int64 [P], for `open_total` alone: it holds the sum's ring elements at its end.

    Raises:
        SharingRefused: a domain's elements are missing, or aren't those that it signed.
    """
    given = [masked.get(each.domain) for each in receipts]
    sources = [_pieces_of(agreement, r.domain, m) for r, m in zip(receipts, given, strict=True)]
    digests = [_Digest(each) for each in given]
    total = np.empty(agreement.length, dtype=np.int64)
    added = _elements_in(total, agreement.bits)
    for begin in range(0, agreement.length, _PIECE):
        here = added[begin : begin + _PIECE]
        for number, (source, digest) in enumerate(zip(sources, digests, strict=True)):
            part = next(source)
            digest.update(part)
            np.add(here, part, out=here) if number else np.copyto(here, part)
    for receipt, digest in zip(receipts, digests, strict=True):
        if digest.found() != receipt.digest:
            raise SharingRefused(receipt.domain, "its masked input isn't the one it signed")
    return total


class _Digest:
    """`masks.digest_of` masked elements that are read anyway; known, if it was taken before."""

    def __init__(self, masked: Masked | None) -> None:
        self._known = masked.digest if isinstance(masked, ring.FramedFile) else None
        self._words = blake3()

    def update(self, part: ring.Elements) -> None:
        if self._known is None:
            self._words.update(part.view(np.uint8).data)

    def found(self) -> bytes:
        return self._known or self._words.digest()


def open_total(
    agreement: Agreement,
    transcript: Transcript,
    masked: Mapping[str, Masked],
    added: Callable[[], NDArray[np.int64]] | None = None,
) -> NDArray[np.int64]:
    """Check every message and open the sum of the survivors' vectors.

    sum_u y_u - sum_u PRG(b_u) - the pairwise masks between survivors and dropped members.

    Args:
        masked: the survivors' masked elements, [P] each; read once.
        added: gives what `add_inputs` made of them and of the transcript's receipts, if it was
            made already.

    Returns:
        int64 [P].

    Raises:
        SharingRefused: names the domain whose message is missing, forged, or a lie that it signed.
    """
    adverts = verify_adverts(agreement, transcript.adverts)
    heard = transcript_hash(agreement, adverts)
    survivors = verify_masked(agreement, heard, transcript.receipts)
    members = members_of(survivors.values())
    message = confirmation_message(heard, survivors)
    verify_confirmations(agreement, message, survivors, transcript.confirmations)
    dealt = _dealt(agreement, heard, transcript.sealed, survivors)
    answers = _answers(agreement, message, survivors, transcript.unmaskings)
    masks: list[Mask] = []
    for name in survivors:
        shares = {h: a.seed_shares[name] for h, a in answers.items() if name in a.seed_shares}
        seed = _joined(agreement, heard, SEED, name, shares, dealt)
        if seed_digest(agreement, name, seed) != adverts[name].seed_digest:
            raise _dealer_lied(name)
        masks.append(Mask(mask_key(seed, self_info(heard, name)), subtract=True))
    for name in set(members) - set(survivors):
        shares = {h: a.key_shares[name] for h, a in answers.items() if name in a.key_shares}
        key = EphemeralKey(_joined(agreement, heard, KEY, name, shares, dealt))
        if key.public_key != adverts[name].mask_key:
            raise _dealer_lied(name)
        around = [n for n in agreement.neighbourhood(name) if n in survivors]
        masks += _between(heard, name, key, {n: adverts[n].mask_key for n in around})
    found = list(survivors.values())
    total = add_inputs(agreement, found, masked) if added is None else added()
    _unmask(total, agreement.bits, masks)
    return total


def verify_transcript(agreement: Agreement, folder: Path) -> NDArray[np.int64]:
    """Recompute the total of an attempt kept by `write_transcript`: int64 [P].

    Raises:
        SharingRefused: a message is missing, forged, or a lie; or the kept total isn't the one
            that the domains' messages open (then the culprit is 'the coordinator').
    """
    try:
        kept = json.loads((folder / _MESSAGES).read_text())
        transcript = Transcript(
            adverts=[Advert.from_dict(m) for m in kept["adverts"]],
            sealed=[SealedShares.from_dict(m) for m in kept["sealed"]],
            receipts=[Receipt.from_dict(m) for m in kept["receipts"]],
            confirmations=[Confirmation.from_dict(m) for m in kept["confirmations"]],
            unmaskings=[Unmasking.from_dict(m) for m in kept["unmaskings"]],
        )
        masked = {
            receipt.domain: ring.framed_file(
                masked_file(folder, agreement, receipt.domain), agreement.length, agreement.bits
            )
            for receipt in transcript.receipts
        }
        published = ring.framed_file(folder / _TOTAL, agreement.length)
        total = open_total(agreement, transcript, masked)
        if not _same(published, total):
            raise SharingRefused(
                "the coordinator",
                "the total it published isn't the one that the domains' messages open",
            )
    except (OSError, KeyError, TypeError, ValueError, RecursionError) as error:
        what = str(error) if isinstance(error, MalformedMessage) else type(error).__name__
        raise SharingRefused("the coordinator", f"its transcript is unreadable: {what}") from None
    return total


def write_transcript(
    folder: Path, agreement: Agreement, transcript: Transcript, total: NDArray[np.int64]
) -> None:
    """Keep an attempt beside its masked inputs (`network.smpc.inputs`), which are there already.

    The messages come last: where they are, everything is.
    """
    with (folder / _TOTAL).open("wb") as file:
        elements = ring.to_ring(total)
        file.write(ring.header(elements))
        file.write(elements.data)
    lists = {
        name: [message.to_dict() for message in getattr(transcript, name)]
        for name in ("adverts", "sealed", "receipts", "confirmations", "unmaskings")
    }
    write_messages(folder, lists)


def write_messages(folder: Path, messages: Mapping[str, object]) -> None:
    """Keep an attempt's messages as JSON: all of them, or as before after a crash."""
    temporary = folder / (_MESSAGES + ".new")
    with temporary.open("w") as file:
        file.write(json.dumps(messages))
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, folder / _MESSAGES)


def _same(published: ring.FramedFile, total: NDArray[np.int64]) -> bool:
    kept, found = (ring.pieces(each, _PIECE) for each in (published, ring.to_ring(total)))
    return all(np.array_equal(*pair) for pair in zip(kept, found, strict=True))


def _elements_in(total: NDArray[np.int64], bits: int) -> ring.Elements:
    """As many ring elements as the total has numbers, in its memory, up to its end."""
    words = total.view(ring.word(bits))
    return words[words.size - total.size :]


def _unmask(total: NDArray[np.int64], bits: int, masks: Sequence[Mask]) -> None:
    """Take all masks from what `add_inputs` added, in place, and decode it."""
    elements = _elements_in(total, bits)
    half = elements.size // 2 // _PIECE * _PIECE

    def take_off(begin: int, end: int) -> None:
        masking = Masking(masks, begin * elements.itemsize)
        for part in ring.pieces(elements[begin:end], _PIECE):
            masking.apply(part)

    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(take_off, 0, half)
        take_off(half, elements.size)
        first.result()
    if bits != 64:
        # In order, so that no number is written over elements that are yet to be read.
        for begin in range(0, total.size, _PIECE):
            total[begin : begin + _PIECE] = ring.from_ring(elements[begin : begin + _PIECE])


def _pieces_of(agreement: Agreement, name: str, elements: Masked | None) -> Iterator[ring.Elements]:
    if isinstance(elements, np.ndarray):
        fits = elements.ndim == 1 and elements.dtype == ring.word(agreement.bits)
        fits = fits and elements.size == agreement.length
    else:
        wanted = agreement.length, agreement.bits
        fits = elements is not None and (elements.length, elements.bits) == wanted
    if elements is None or not fits:
        raise SharingRefused(name, "its masked input is missing or of another shape or ring")
    return ring.pieces(elements, _PIECE)


def _dealt(
    agreement: Agreement,
    heard: bytes,
    sealed: Sequence[SealedShares],
    survivors: Mapping[str, Receipt],
) -> dict[tuple[str, str], SealedShares]:
    for each in sealed:
        if each.sender not in agreement.roster:
            raise SharingRefused(each.sender, "dealt shares but isn't on the roster")
        verify_sealed(agreement, heard, each)
    for name, receipt in survivors.items():
        carried = [s for s in sealed if s.receiver == name and s.sender in receipt.members]
        if receipt.dealt != dealt_digest(heard, carried):
            raise SharingRefused(
                "the coordinator", f"shows other shares than those that it carried to {name}"
            )
    return {(each.sender, each.receiver): each for each in sealed}


def _answers(
    agreement: Agreement,
    message: bytes,
    survivors: Mapping[str, Receipt],
    unmaskings: Sequence[Unmasking],
) -> dict[str, Unmasking]:
    answers = {answer.domain: answer for answer in unmaskings}
    if len(answers) < len(unmaskings):
        raise SharingRefused("the coordinator", "shows more than one list of a domain's shares")
    for name, answer in answers.items():
        verify_unmasking(agreement, message, survivors, name, answer)
    if len(answers) < agreement.threshold:
        missing = [name for name in survivors if name not in answers]
        raise SharingRefused(
            missing[0] if missing else "the coordinator",
            f"sent no shares; {len(answers)} are fewer than the threshold {agreement.threshold}",
        )
    return answers


def _joined(
    agreement: Agreement,
    heard: bytes,
    kind: bytes,
    dealer: str,
    shares: Mapping[str, bytes],
    dealt: Mapping[tuple[str, str], SealedShares],
) -> bytes:
    """A dealer's secret; every share but its own is checked against what it committed to."""
    good: dict[int, bytes] = {}
    for holder, share in shares.items():
        if holder != dealer:
            sealed = dealt.get((dealer, holder))
            if sealed is None:
                raise SharingRefused(dealer, f"its signed shares for {holder} are missing")
            wanted = sealed.seed_share_digest if kind == SEED else sealed.key_share_digest
            if share_digest(heard, kind, dealer, holder, share) != wanted:
                raise SharingRefused(holder, f"it signed another share than {dealer} dealt to it")
        good[agreement.holder(holder)] = share
    try:
        return shamir.join(good, agreement.share_threshold)
    except shamir.NotShares:
        raise _dealer_lied(dealer) from None


def _dealer_lied(dealer: str) -> SharingRefused:
    return SharingRefused(dealer, "the shares it signed don't belong to the secret it committed to")


def _between(
    heard: bytes, dropped: str, key: EphemeralKey, survivors: Mapping[str, bytes]
) -> list[Mask]:
    """What survivors added for a dropped member, to be taken away."""
    masks = pair_masks(heard, dropped, key, survivors)
    key.erase()
    return masks
