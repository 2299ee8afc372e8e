"""Masks: keystreams added to ring elements, chunk by chunk.

A mask is the AES-256-CTR keystream (NIST SP 800-38A, section 6.5) under a key that HKDF-SHA256
(RFC 5869) derives from a secret and from what the mask is good for. One key masks one vector of
one attempt, so the counter starts at zero.

What is masked is digested with BLAKE3 (O'Connor, Aumasson, Neves and Wilcox-O'Hearn 2020), a third
of SHA-256's cost, which would be more than all the masks together.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from blake3 import blake3
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from network.smpc.ring import Elements, FramedFile, pieces

CHUNK_BYTES = 2**18
"""Worked on at a time: small enough to stay in a core's cache, so that each pass is cheap."""

DIGESTED_AT_A_TIME = 2**17
"""Elements, at most 1 MiB."""

_ZEROS = bytes(CHUNK_BYTES)
_BLOCK = 16


@dataclass(frozen=True)
class Mask:
    """One keystream and whether it is added or subtracted.

    Attributes:
        key: 32 bytes, used for this one mask only.
    """

    key: bytes = field(repr=False)
    subtract: bool = False


def mask_key(secret: bytes | bytearray, info: bytes) -> bytes:
    """The AES-256 key of the mask that `info` describes: HKDF-SHA256(secret, info), 32 bytes."""
    return HKDF(hashes.SHA256(), length=32, salt=None, info=info).derive(bytes(secret))


class Masking:
    """Several masks at work on one vector, piece by piece.

    Args:
        begin: where in the vector, in bytes; whole blocks of the cipher.
    """

    def __init__(self, masks: Sequence[Mask], begin: int = 0) -> None:
        self._streams = [(_stream(mask.key, begin), mask.subtract) for mask in masks]
        self._buffer = bytearray(CHUNK_BYTES + _BLOCK - 1)

    def apply(self, part: Elements) -> None:
        """Add or subtract all masks on the next elements, in place.

        Args:
            part: uint32 or uint64, contiguous, at most `CHUNK_BYTES`; changed.
        """
        zeros = _ZEROS if part.nbytes == CHUNK_BYTES else _ZEROS[: part.nbytes]
        keystream = np.frombuffer(self._buffer, dtype=part.dtype, count=part.size)
        for stream, subtract in self._streams:
            stream.update_into(zeros, self._buffer)
            (np.subtract if subtract else np.add)(part, keystream, out=part)


def apply(elements: Elements, masks: Sequence[Mask]) -> bytes:
    """Add or subtract all masks, in place.

    Args:
        elements: uint32 or uint64 [P], contiguous; changed.

    Returns:
        `digest_of` the elements afterwards: taken in the same pass, while a chunk is cached.
    """
    masking, digest = Masking(masks), blake3()
    for part in pieces(elements, CHUNK_BYTES // elements.dtype.itemsize):
        masking.apply(part)
        digest.update(part.view(np.uint8).data)
    return digest.digest()


def keystream(key: bytes, words: int) -> Elements:
    """The first words of a mask's keystream: uint64 [words]. The key is used for this alone."""
    found: Elements = np.frombuffer(_stream(key).update(bytes(8 * words)), "<u8")
    return found


def digest_of(elements: Elements | FramedFile) -> bytes:
    """BLAKE3 of the elements' little-endian words, 32 bytes."""
    digest = blake3()
    for part in pieces(elements, DIGESTED_AT_A_TIME):
        digest.update(np.ascontiguousarray(part).view(np.uint8).data)
    return digest.digest()


def _stream(key: bytes, begin: int = 0):  # type: ignore[no-untyped-def]
    if begin % _BLOCK:
        raise ValueError("a keystream is begun at a whole block")
    counter = (begin // _BLOCK).to_bytes(_BLOCK, "big")
    return Cipher(algorithms.AES(key), modes.CTR(counter)).encryptor()
