"""Everything said in one attempt under CKKS, and what of it anyone can check again.

Unlike under masks, the total can't be recomputed from the ciphertexts without the key, and the key
would open every single domain's. What can be checked is that the key holder signed this total as
what it decrypted, and that it decrypted the sum of exactly the ciphertexts that the domains signed.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from network.smpc import ring
from network.smpc.attempt import Agreement
from network.smpc.ckks import seal
from network.smpc.ckks.messages import (
    Joining,
    KeyAdvert,
    Opening,
    TaggedConfirmation,
    challenge_of,
    ciphertexts_bytes,
    key_holder,
    opening_message,
    read_residues,
    set_message,
    shape_of,
    transcript_hash,
)
from network.smpc.ckks.tags import tag_of
from network.smpc.ckks.verification import (
    verify_adverts,
    verify_confirmations,
    verify_joined,
    verify_sum,
)
from network.smpc.inputs import ComingInput, arriving, cut_receipt
from network.smpc.masks import digest_of
from network.smpc.messages import (
    MalformedMessage,
    Receipt,
    SharingRefused,
    is_signed,
)
from network.smpc.transcript import write_messages
from network.smpc.verification import verify_receipts

_MESSAGES = "messages.json"
_TOTAL = "total.ring"


@dataclass(frozen=True)
class CkksTranscript:
    """The messages of one attempt, without ciphertexts."""

    adverts: Sequence[KeyAdvert]
    joined: Sequence[Joining]
    receipts: Sequence[Receipt]
    confirmations: Sequence[TaggedConfirmation]
    opening: Opening


@dataclass(frozen=True)
class KeptCiphertexts:
    """A domain's ciphertexts in a file, read when they are needed: one domain's at a time."""

    agreement: Agreement
    path: Path

    def read(self) -> seal.Residues:
        """A new array [K, 2, 4096].

        Raises:
            MalformedMessage: not exactly the agreed ciphertexts, or beyond their modulus.
            OSError: the file can't be read.
        """
        return read_residues(self.agreement, self.path.read_bytes())


Ciphertexts = seal.Residues | KeptCiphertexts


def residues_of(ciphertexts: Ciphertexts) -> seal.Residues:
    """The ciphertexts themselves."""
    return ciphertexts.read() if isinstance(ciphertexts, KeptCiphertexts) else ciphertexts


def ciphertexts_file(folder: Path, agreement: Agreement, name: str) -> Path:
    """Where an attempt's folder keeps a domain's ciphertexts, as words."""
    # By number: a domain's name may hold what a file's may not.
    return folder / f"ciphertexts-{agreement.holder(name):02d}.residues"


def coming_ciphertexts(folder: Path, agreement: Agreement, name: str) -> ComingInput:
    """A domain's ciphertexts (`pack_ciphertexts`), on their way to their `ciphertexts_file`."""
    kept = ciphertexts_file(folder, agreement, name)
    return ComingInput(kept, 0, ciphertexts_bytes(agreement))


def take_ciphertexts(agreement: Agreement, coming: ComingInput) -> tuple[Receipt, KeptCiphertexts]:
    """Check what has come for a domain's ciphertexts, and move it to its place.

    Raises:
        MalformedMessage: it isn't exactly the agreed ciphertexts and a receipt.
        SharingRefused: the ciphertexts aren't those of the receipt.
    """
    came = arriving(coming.kept)
    receipt = cut_receipt(coming)
    KeptCiphertexts(agreement, came).read()
    if coming.digest != receipt.digest:
        raise SharingRefused(receipt.domain, "its ciphertexts aren't those that it signed")
    os.replace(came, coming.kept)
    return receipt, KeptCiphertexts(agreement, coming.kept)


def sum_of(
    agreement: Agreement, ciphertexts: Mapping[str, Ciphertexts]
) -> tuple[seal.Residues, bytes]:
    """The sum of all domains' ciphertexts, and its digest."""
    total = np.zeros(shape_of(agreement), dtype=np.uint64)
    for name in sorted(ciphertexts):
        seal.add(total, residues_of(ciphertexts[name]))
    return total, digest_of(total.ravel())


def check_opened(
    agreement: Agreement,
    transcript: CkksTranscript,
    ciphertexts: Mapping[str, Ciphertexts],
    total: NDArray[np.int64],
) -> None:
    """Check every message, the ciphertexts' sum, each domain's tag, and the total's signature.

    Args:
        ciphertexts: of every domain with a receipt.
        total: int64 [P], as published.

    Raises:
        SharingRefused: names the domain whose message is missing, forged, or a lie that it signed.
    """
    adverts = verify_adverts(agreement, transcript.adverts)
    heard = transcript_hash(agreement, adverts)
    members = verify_joined(agreement, heard, transcript.joined)
    chosen = verify_receipts(agreement, heard, members, transcript.receipts)
    for name, receipt in chosen.items():
        found = ciphertexts.get(name)
        if found is None or digest_of(residues_of(found).ravel()) != receipt.digest:
            raise SharingRefused(name, "its ciphertexts aren't those that it signed")
    added, digest = sum_of(agreement, {name: ciphertexts[name] for name in chosen})
    message = set_message(heard, chosen, digest)
    verify_confirmations(agreement, message, tuple(chosen), digest, transcript.confirmations)
    for each in transcript.confirmations:
        if tag_of(challenge_of(message), residues_of(ciphertexts[each.domain])) != each.tag:
            raise SharingRefused(each.domain, "it signed a tag that isn't its ciphertexts'")
    verify_sum(message, digest, transcript.confirmations, added)
    holder, opening = key_holder(agreement), transcript.opening
    said = opening_message(message, holder, digest_of(ring.to_ring(total)))
    if opening.domain != holder or not is_signed(said, opening.signature, agreement.roster[holder]):
        raise SharingRefused(
            "the coordinator", f"the published total isn't the one that {holder} signed"
        )


def write_ckks_transcript(
    folder: Path, agreement: Agreement, transcript: CkksTranscript, total: NDArray[np.int64]
) -> None:
    """Keep an attempt beside its ciphertexts, which are there already: total, then messages."""
    (folder / _TOTAL).write_bytes(ring.pack(ring.to_ring(total)))
    lists = {
        name: [message.to_dict() for message in getattr(transcript, name)]
        for name in ("adverts", "joined", "receipts", "confirmations")
    }
    write_messages(folder, {**lists, "opening": transcript.opening.to_dict()})


def verify_ckks_transcript(agreement: Agreement, folder: Path) -> NDArray[np.int64]:
    """Check an attempt kept by `write_ckks_transcript`; gives its total, int64 [P].

    Raises:
        SharingRefused: see `check_opened`.
    """
    try:
        kept = json.loads((folder / _MESSAGES).read_text())
        transcript = CkksTranscript(
            adverts=[KeyAdvert.from_dict(m) for m in kept["adverts"]],
            joined=[Joining.from_dict(m) for m in kept["joined"]],
            receipts=[Receipt.from_dict(m) for m in kept["receipts"]],
            confirmations=[TaggedConfirmation.from_dict(m) for m in kept["confirmations"]],
            opening=Opening.from_dict(kept["opening"]),
        )
        ciphertexts = {
            each.domain: KeptCiphertexts(
                agreement, ciphertexts_file(folder, agreement, each.domain)
            )
            for each in transcript.receipts
        }
        total = ring.from_ring(ring.unpack((folder / _TOTAL).read_bytes(), agreement.length))
        check_opened(agreement, transcript, ciphertexts, total)
    except (OSError, KeyError, TypeError, ValueError, RecursionError) as error:
        what = str(error) if isinstance(error, MalformedMessage) else type(error).__name__
        raise SharingRefused("the coordinator", f"its transcript is unreadable: {what}") from None
    return total
