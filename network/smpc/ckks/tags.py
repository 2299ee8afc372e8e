"""Random linear tags: that a sum of ciphertexts is the sum of those that domains signed.

Whoever holds the key must not see single ciphertexts, and must not decrypt anything but the sum of
them all. So each domain answers, for one challenge, tag_u = R c_u (mod q), signed; R has 8 rows of
random 16-bit numbers, one for each residue. Tags add like ciphertexts: the key holder, who sees the
sum c alone, checks R c = sum tag_u. If c isn't the sum, each row misses it with probability at most
2^-16 (q is prime: for one residue in which they differ at most one number fits), all of them with
2^-128: the universal hashing of Carter and Wegman 1979. The challenge is a hash of everything
signed, of c and of all c_u (Fiat and Shamir 1986): each try at another c costs a try at 2^-128.

It binds a hub, not a domain that works with it: a tag that makes up the difference can't be told
from one of other ciphertexts, until someone checks the transcript.
"""

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from network.smpc.ckks.seal import Residues, modulus

ROWS = 8
TAG_BYTES = 8 * ROWS

_CHUNK = 2**15
"""Residues at a time: 2^15 products of 16 and 20 bits add up exactly in a double."""
_LIMB = 20


def tag_of(challenge: bytes, ciphertexts: Residues) -> bytes:
    """R c (mod q) as little-endian words, 64 bytes.

    Args:
        challenge: 32 bytes, from which R is drawn by AES-256-CTR.
        ciphertexts: uint64, below the modulus, any shape.
    """
    stream = Cipher(algorithms.AES(challenge), modes.CTR(bytes(16))).encryptor()
    residues, sums = ciphertexts.reshape(-1), [0] * ROWS
    for start in range(0, residues.size, _CHUNK):
        part = residues[start : start + _CHUNK]
        drawn = np.frombuffer(stream.update(bytes(2 * ROWS * part.size)), dtype="<u2")
        limbs = [(part >> np.uint64(_LIMB * i)) & np.uint64(2**_LIMB - 1) for i in range(3)]
        products = drawn.reshape(ROWS, -1).astype(float) @ np.stack(limbs, axis=1).astype(float)
        for row, found in enumerate(products):
            sums[row] += sum(int(product) << (_LIMB * i) for i, product in enumerate(found))
    return b"".join((total % modulus()).to_bytes(8, "little") for total in sums)


def add_tags(tags: list[bytes]) -> bytes:
    """The tag of the sum of what the tags are of."""
    sums = [0] * ROWS
    for tag in tags:
        for row in range(ROWS):
            sums[row] += int.from_bytes(tag[8 * row : 8 * row + 8], "little")
    return b"".join((total % modulus()).to_bytes(8, "little") for total in sums)
