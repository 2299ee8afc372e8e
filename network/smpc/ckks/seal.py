"""The seam to TenSEAL (Microsoft SEAL): keys, encryption, decryption on plain arrays of residues.

SEAL's own format is read by C++ code and is compressed; no byte of it comes from outside. What
travels are residues, checked here for shape and range; what SEAL reads is built here around them.
"""

import os
import struct
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import pyarrow
from numpy.typing import NDArray
from tenseal import sealapi

from policies.homomorphic import DEGREE, MODULUS_BITS

Residues = NDArray[np.uint64]
"""Polynomials modulo the ciphertext modulus, in SEAL's transformed order."""

SLOTS = DEGREE // 2
PUBLIC_KEY_BYTES = 2 * len(MODULUS_BITS) * DEGREE * 8
SECRET_KEY_BYTES = len(MODULUS_BITS) * DEGREE * 8
CIPHERTEXT_BYTES = 2 * DEGREE * 8

_HEADER_BYTES = 16


class NotResidues(ValueError):
    """What was received isn't a key or ciphertexts; the text says what was expected."""


@cache
def modulus() -> int:
    """The prime modulo which ciphertexts live."""
    return _moduli()[0]


def generate() -> tuple[bytes, bytes]:
    """A fresh key pair: (secret, public) as little-endian residues."""
    maker = sealapi.KeyGenerator(_context())
    public = sealapi.PublicKey()
    maker.create_public_key(public)
    return (
        _saved(maker.secret_key())[-SECRET_KEY_BYTES:],
        _saved(public)[-PUBLIC_KEY_BYTES:],
    )


def encrypt(public: bytes, slots: NDArray[np.complex128], scale_bits: int) -> Residues:
    """Encrypt integers times 2^scale_bits.

    Args:
        public: a public key, from `generate` of whoever made it.
        slots: [K, 2048], the parts of each an integer.

    Returns:
        [K, 2, 4096].

    Raises:
        NotResidues: the key isn't one.
    """
    encryptor = sealapi.Encryptor(_context(), _public_key(public))
    encoder = sealapi.CKKSEncoder(_context())
    found = np.empty((len(slots), 2, DEGREE), dtype=np.uint64)
    plain, cipher = sealapi.Plaintext(), sealapi.Ciphertext()
    for row, values in zip(found, slots, strict=True):
        encoder.encode(values.tolist(), 2.0**scale_bits, plain)
        encryptor.encrypt(plain, cipher)
        row[:] = np.frombuffer(_saved(cipher)[-CIPHERTEXT_BYTES:], dtype="<u8").reshape(2, DEGREE)
    return found


def decrypt(secret: bytes, ciphertexts: Residues, scale_bits: int) -> NDArray[np.complex128]:
    """What is in the slots, with the scheme's error: [K, 2048] from [K, 2, 4096].

    Raises:
        NotResidues: not ciphertexts.
    """
    check(ciphertexts)
    decryptor = sealapi.Decryptor(_context(), _secret_key(secret))
    encoder = sealapi.CKKSEncoder(_context())
    found = np.empty((len(ciphertexts), SLOTS), dtype=np.complex128)
    plain = sealapi.Plaintext()
    head = _ciphertext_head(_context().first_parms_id(), 1, 2.0**scale_bits)
    for row, residues in zip(found, ciphertexts, strict=True):
        decryptor.decrypt(_loaded(sealapi.Ciphertext(), head, residues.tobytes()), plain)
        row[:] = encoder.decode_complex(plain)
    return found


def add(total: Residues, ciphertexts: Residues) -> None:
    """Add ciphertexts [K, 2, 4096] to `total`, in place."""
    np.add(total, ciphertexts, out=total)  # below 2^61
    np.subtract(total, np.uint64(modulus()), out=total, where=total >= np.uint64(modulus()))


def check(ciphertexts: Any) -> None:
    """Nothing, if these are ciphertexts: uint64 [K, 2, 4096] below the modulus.

    Raises:
        NotResidues: they aren't.
    """
    if not isinstance(ciphertexts, np.ndarray) or ciphertexts.dtype != np.uint64:
        raise NotResidues("ciphertexts are an array of uint64")
    if ciphertexts.ndim != 3 or ciphertexts.shape[1:] != (2, DEGREE):
        raise NotResidues(f"ciphertexts have shape [K, 2, {DEGREE}], not {ciphertexts.shape}")
    if ciphertexts.size and int(ciphertexts.max()) >= modulus():
        raise NotResidues("a ciphertext has residues beyond its modulus")


def check_public_key(public: bytes) -> None:
    """Nothing, if these are a public key's residues.

    Raises:
        NotResidues: they aren't.
    """
    if not isinstance(public, bytes) or len(public) != PUBLIC_KEY_BYTES:
        raise NotResidues(f"a public key has {PUBLIC_KEY_BYTES} bytes")
    polynomials = np.frombuffer(public, dtype="<u8").reshape(2, len(MODULUS_BITS), DEGREE)
    if (polynomials >= np.array(_moduli(), dtype=np.uint64)[None, :, None]).any():
        raise NotResidues("the public key has residues beyond its moduli")
    # Uniform ones hardly ever meet. It catches what was zeroed or padded, no liar: whoever holds
    # the key can open everything anyway.
    if any(np.unique(each).size < DEGREE // 2 for each in polynomials.reshape(-1, DEGREE)):
        raise NotResidues("the public key isn't random")


@cache
def _context() -> Any:
    parameters = sealapi.EncryptionParameters(sealapi.SCHEME_TYPE.CKKS)
    parameters.set_poly_modulus_degree(DEGREE)
    parameters.set_coeff_modulus(sealapi.CoeffModulus.Create(DEGREE, list(MODULUS_BITS)))
    # SEAL itself refuses parameters of less than 128-bit security.
    return sealapi.SEALContext(parameters, True, sealapi.SEC_LEVEL_TYPE.TC128)


@cache
def _moduli() -> tuple[int, ...]:
    return tuple(
        int(prime.value()) for prime in sealapi.CoeffModulus.Create(DEGREE, list(MODULUS_BITS))
    )


def _public_key(public: bytes) -> Any:
    check_public_key(public)
    head = _ciphertext_head(_context().key_parms_id(), len(MODULUS_BITS), 1.0)
    return _loaded(sealapi.PublicKey(), head, public)


def _secret_key(secret: bytes) -> Any:
    words = len(secret) // 8
    if len(secret) != SECRET_KEY_BYTES:
        raise NotResidues(f"a secret key has {SECRET_KEY_BYTES} bytes")
    head = _identity(_context().key_parms_id()) + struct.pack("<Qd", words, 1.0)
    return _loaded(sealapi.SecretKey(), head, secret)


def _ciphertext_head(parameters: Sequence[int], primes: int, scale: float) -> bytes:
    """What SEAL writes before a ciphertext's residues: transformed, two polynomials, ..."""
    return _identity(parameters) + struct.pack("<?QQQdQ", True, 2, DEGREE, primes, scale, 1)


def _identity(parameters: Sequence[int]) -> bytes:
    return struct.pack("<4Q", *parameters)


def _saved(value: Any) -> bytes:
    """What SEAL writes of its own value, unpacked; the residues are at the end."""
    file = os.memfd_create("seal")
    try:
        value.save(f"/proc/self/fd/{file}")
        packed = os.pread(file, os.fstat(file).st_size, _HEADER_BYTES)
    finally:
        os.close(file)
    unpacked: bytes = pyarrow.CompressedInputStream(pyarrow.BufferReader(packed), "zstd").read()
    return unpacked


def _loaded(value: Any, head: bytes, residues: bytes) -> Any:
    """A SEAL value around checked residues: `head`, then their array, uncompressed."""
    array = _header(_HEADER_BYTES + 8 + len(residues)) + struct.pack("<Q", len(residues) // 8)
    content = head + array + residues
    file = os.memfd_create("seal")
    try:
        os.pwrite(file, _header(_HEADER_BYTES + len(content)) + content, 0)
        value.load(_context(), f"/proc/self/fd/{file}")
    finally:
        os.close(file)
    return value


def _header(size: int) -> bytes:
    return _mark() + struct.pack("<BHQ", 0, 0, size)


@cache
def _mark() -> bytes:
    """Magic, header size and version, as this SEAL writes them."""
    file = os.memfd_create("seal")
    try:
        sealapi.CoeffModulus.Create(DEGREE, list(MODULUS_BITS))[0].save(f"/proc/self/fd/{file}")
        return os.pread(file, 5, 0)
    finally:
        os.close(file)
