"""Everything said in one attempt, and the total that it opens; anyone can check it again.

A transcript holds only signed messages, so whoever keeps it can recompute the total and, where
messages contradict each other, say who signed what. It holds nothing that the opened total doesn't
tell already: masked inputs, seeds of survivors' self-masks, mask keys of those dropped.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from network.smpc import ring, shamir
from network.smpc.aggregation import (
    KEY,
    SEED,
    verify_adverts,
    verify_confirmations,
    verify_masked,
    verify_sealed,
)
from network.smpc.keys import EphemeralKey
from network.smpc.masks import Mask, apply, digest_of, mask_key
from network.smpc.messages import (
    Advert,
    Agreement,
    Confirmation,
    MalformedMessage,
    Receipt,
    SealedShares,
    SharingRefused,
    Unmasking,
    confirmation_message,
    is_signed,
    members_of,
    seed_digest,
    self_info,
    share_digest,
    transcript_hash,
    unmasking_message,
)
from network.smpc.sharing import pair_masks

_MESSAGES = "messages.json"
_TOTAL = "total.ring"


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


def open_total(
    agreement: Agreement, transcript: Transcript, masked: Mapping[str, ring.Elements]
) -> NDArray[np.int64]:
    """Check every message and open the sum of the survivors' vectors.

    sum_u y_u - sum_u PRG(b_u) - the pairwise masks between survivors and dropped members.

    Args:
        masked: the survivors' masked elements, [P] each.

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
    total = _sum_of(agreement, survivors, masked)
    dealt = _dealt(agreement, heard, transcript.sealed)
    answers = _answers(agreement, message, survivors, members, transcript.unmaskings)
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
    apply(total, masks)
    return ring.from_ring(total)


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
            receipt.domain: ring.unpack(
                _masked_file(folder, agreement, receipt.domain).read_bytes(),
                agreement.length,
                agreement.bits,
            )
            for receipt in transcript.receipts
        }
        published = ring.unpack((folder / _TOTAL).read_bytes(), agreement.length)
    except (OSError, KeyError, TypeError, ValueError) as error:
        what = str(error) if isinstance(error, MalformedMessage) else type(error).__name__
        raise SharingRefused("the coordinator", f"its transcript is unreadable: {what}") from None
    total = open_total(agreement, transcript, masked)
    if not np.array_equal(ring.from_ring(published), total):
        raise SharingRefused(
            "the coordinator",
            "the total it published isn't the one that the domains' messages open",
        )
    return total


def write_transcript(
    folder: Path,
    agreement: Agreement,
    transcript: Transcript,
    masked: Mapping[str, ring.Elements],
    total: NDArray[np.int64],
) -> None:
    """Keep an attempt: messages as JSON, masked inputs and total as frames of ring elements."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, elements in masked.items():
        _write_elements(_masked_file(folder, agreement, name), elements)
    _write_elements(folder / _TOTAL, ring.to_ring(total))
    lists = {
        name: [message.to_dict() for message in getattr(transcript, name)]
        for name in ("adverts", "sealed", "receipts", "confirmations", "unmaskings")
    }
    (folder / _MESSAGES).write_text(json.dumps(lists))


def _write_elements(path: Path, elements: ring.Elements) -> None:
    # As `ring.pack`, without joining millions of words to their header in memory first.
    with path.open("wb") as file:
        file.write(ring.header(elements))
        file.write(elements.data)


def _masked_file(folder: Path, agreement: Agreement, name: str) -> Path:
    # By number: a domain's name may hold what a file's may not.
    return folder / f"masked-{agreement.holder(name):02d}.ring"


def _sum_of(
    agreement: Agreement, survivors: Mapping[str, Receipt], masked: Mapping[str, ring.Elements]
) -> ring.Elements:
    total = np.zeros(agreement.length, dtype=ring.word(agreement.bits))
    for name, receipt in survivors.items():
        elements = masked.get(name)
        if elements is None or elements.shape != total.shape or elements.dtype != total.dtype:
            raise SharingRefused(name, "its masked input is missing or of another shape or ring")
        if digest_of(elements) != receipt.digest:
            raise SharingRefused(name, "its masked input isn't the one it signed")
        total += elements
    return total


def _dealt(
    agreement: Agreement, heard: bytes, sealed: Sequence[SealedShares]
) -> dict[tuple[str, str], SealedShares]:
    for each in sealed:
        if each.sender not in agreement.roster:
            raise SharingRefused(each.sender, "dealt shares but isn't on the roster")
        verify_sealed(agreement, heard, each)
    return {(each.sender, each.receiver): each for each in sealed}


def _answers(
    agreement: Agreement,
    message: bytes,
    survivors: Mapping[str, Receipt],
    members: tuple[str, ...],
    unmaskings: Sequence[Unmasking],
) -> dict[str, Unmasking]:
    answers = {answer.domain: answer for answer in unmaskings}
    dropped = set(members) - set(survivors)
    for name, answer in answers.items():
        if name not in survivors:
            raise SharingRefused(name, "sent shares but isn't among the survivors")
        said = unmasking_message(message, name, answer.seed_shares, answer.key_shares)
        if not is_signed(said, answer.signature, agreement.roster[name]):
            raise SharingRefused(name, "its shares aren't signed for this set of survivors")
        around = set(agreement.neighbourhood(name))
        asked = set(survivors) & around, dropped & around
        if (set(answer.seed_shares), set(answer.key_shares)) != asked:
            raise SharingRefused(name, "it signed shares of other domains than those asked for")
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
