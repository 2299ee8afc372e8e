"""What domains gave in an attempt, as files: taken as it comes, then read piece by piece.

A round's masked inputs are as many times larger than its total as there are domains, so whoever
coordinates never holds one whole. It comes into a file beside its place and is moved there once it
is the one that its domain signed: after a crash the folder holds whole inputs and beginnings under
another name, which the next try overwrites.
"""

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from blake3 import blake3

from network.smpc import ring
from network.smpc.attempt import Agreement
from network.smpc.messages import (
    RECEIPT_BYTES,
    MalformedMessage,
    Receipt,
    SharingRefused,
)

_AT_A_TIME = 2**18


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


class ComingInput:
    """What a domain gives, written beside its place as it comes. Close it in the end.

    Args:
        kept: its place, `masked_file` say.
        head, size: its words are bytes `head` to `size`; a receipt follows.

    Attributes:
        came: how many bytes have come.
    """

    def __init__(self, kept: Path, head: int, size: int) -> None:
        self.kept, self.size = kept, size
        self._head, self.came = head, 0
        self._known: bytes | None = None
        self._file = arriving(kept).open("wb")

    @property
    def digest(self) -> bytes:
        """BLAKE3 of the words that came."""
        if self._known is None:
            self._known = _digest_of(arriving(self.kept), self._head, self.size)
        return self._known

    def write(self, part: bytes) -> None:
        """The next part."""
        if not self.came:
            # The disk takes what comes in two thirds of the time then.
            with suppress(AttributeError, OSError):
                os.posix_fallocate(self._file.fileno(), 0, self.size)
        self._file.write(part)
        self.came += len(part)

    def sealed(self, parts: Sequence[tuple[int, bytes]]) -> None:
        """What just came was in parts of these sizes and digests, which were computed here."""
        begin = self.came - sum(size for size, _ in parts)
        for size, digest in parts:
            if (begin, begin + size) == (self._head, self.size):
                self._known = digest
            begin += size

    def close(self) -> None:
        """Nothing more comes."""
        self._file.close()


def _digest_of(file: Path, begin: int, end: int) -> bytes:
    digest = blake3()
    with file.open("rb") as words:
        words.seek(begin)
        while part := words.read(min(_AT_A_TIME, end - words.tell())):
            digest.update(part)
    return digest.digest()


def coming_masked(folder: Path, agreement: Agreement, name: str) -> ComingInput:
    """A domain's masked input (`pack_masked`), on its way to its `masked_file`."""
    kept = masked_file(folder, agreement, name)
    return ComingInput(kept, ring.HEADER_BYTES, masked_bytes(agreement))


def forget_inputs(folder: Path) -> None:
    """Remove the inputs of an attempt that opened nothing: whoever goes on with it asks again."""
    for pattern in ("masked-*.ring*", "ciphertexts-*.residues*"):
        for file in folder.glob(pattern):
            file.unlink()


def take_masked(agreement: Agreement, coming: ComingInput) -> tuple[Receipt, ring.FramedFile]:
    """Check what has come for a domain's masked input, and move it to its place.

    Raises:
        MalformedMessage: it isn't exactly the agreed number of elements and a receipt.
        SharingRefused: the elements aren't those of the receipt.
    """
    came = arriving(coming.kept)
    receipt = cut_receipt(coming)
    try:
        elements = ring.framed_file(came, agreement.length, agreement.bits)
    except ring.RingError as error:
        raise MalformedMessage(f"not a masked input: {error}") from None
    if coming.digest != receipt.digest:
        raise SharingRefused(receipt.domain, "its masked input isn't the one it signed")
    os.replace(came, coming.kept)
    return receipt, replace(elements, path=coming.kept, digest=coming.digest)


def cut_receipt(coming: ComingInput) -> Receipt:
    """Read the receipt that follows the words, and cut it off.

    Raises:
        MalformedMessage: fewer bytes came, or something else follows.
    """
    more = coming.came - coming.size
    if not 0 < more <= RECEIPT_BYTES:
        raise MalformedMessage(
            f"an input of {coming.came} bytes; {coming.size} and a receipt were expected"
        )
    with arriving(coming.kept).open("r+b") as file:
        file.seek(coming.size)
        try:
            receipt = Receipt.from_dict(json.loads(file.read()))
        except MalformedMessage:
            raise
        except (ValueError, RecursionError):
            raise MalformedMessage("an input ends with something else than a receipt") from None
        file.truncate(coming.size)
    return receipt
