"""What domains gave in an attempt, as files: taken as it comes, then read piece by piece.

A round's masked inputs are as many times larger than its total as there are domains, so whoever
coordinates never holds one whole. It comes into a file beside its place and is moved there once it
is the one that its domain signed: after a crash the folder holds whole inputs and beginnings under
another name, which the next try overwrites.
"""

import json
import os
from pathlib import Path

from network.smpc import ring
from network.smpc.attempt import Agreement
from network.smpc.masks import digest_of
from network.smpc.messages import (
    RECEIPT_BYTES,
    MalformedMessage,
    Receipt,
    SharingRefused,
)


def masked_file(folder: Path, agreement: Agreement, name: str) -> Path:
    """Where an attempt's folder keeps a domain's masked input, a frame of ring elements."""
    # By number: a domain's name may hold what a file's may not.
    return folder / f"masked-{agreement.holder(name):02d}.ring"


def masked_bytes(agreement: Agreement) -> int:
    """The size of that file."""
    return ring.HEADER_BYTES + agreement.length * agreement.bits // 8


def arriving(kept: Path) -> Path:
    """Where an input is written until it has come and is checked."""
    return kept.with_name(kept.name + ".new")


def forget_inputs(folder: Path) -> None:
    """Remove the inputs of an attempt that opened nothing: whoever goes on with it asks again."""
    for pattern in ("masked-*.ring*", "ciphertexts-*.residues*"):
        for file in folder.glob(pattern):
            file.unlink()


def take_masked(agreement: Agreement, kept: Path) -> tuple[Receipt, ring.FramedFile]:
    """Check what has come for a domain's masked input (`pack_masked`), and keep it.

    Args:
        kept: its `masked_file`; it has come beside it.

    Raises:
        MalformedMessage: it isn't exactly the agreed number of elements and a receipt.
        SharingRefused: the elements aren't those of the receipt.
    """
    came = arriving(kept)
    receipt = cut_receipt(came, masked_bytes(agreement))
    try:
        elements = ring.framed_file(came, agreement.length, agreement.bits)
    except ring.RingError as error:
        raise MalformedMessage(f"not a masked input: {error}") from None
    if digest_of(elements) != receipt.digest:
        raise SharingRefused(receipt.domain, "its masked input isn't the one it signed")
    os.replace(came, kept)
    return receipt, ring.framed_file(kept, agreement.length, agreement.bits)


def cut_receipt(came: Path, size: int) -> Receipt:
    """Read the receipt that follows the first `size` bytes of a file, and cut it off.

    Raises:
        MalformedMessage: there are fewer bytes, or something else follows.
    """
    with came.open("r+b") as file:
        more = os.fstat(file.fileno()).st_size - size
        if not 0 < more <= RECEIPT_BYTES:
            raise MalformedMessage(
                f"an input of {size + more} bytes; {size} and a receipt were expected"
            )
        file.seek(size)
        try:
            receipt = Receipt.from_dict(json.loads(file.read()))
        except MalformedMessage:
            raise
        except (ValueError, RecursionError):
            raise MalformedMessage("an input ends with something else than a receipt") from None
        file.truncate(size)
    return receipt
