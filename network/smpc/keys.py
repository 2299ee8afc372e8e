"""A domain's X25519 key pairs for one attempt (RFC 7748), erased when they have done their work."""

import os
from functools import lru_cache
from typing import NoReturn, Self

from nacl import bindings
from nacl.exceptions import CryptoError

_KEY_BYTES = 32
_NONCE_BYTES = bindings.crypto_box_NONCEBYTES
_ANY_SECRET = bytes(range(1, 33))
_FIELD_PRIME = 2**255 - 19


class UnusableKey(ValueError):
    """A public key of low order, which would agree on a secret that everyone knows, or one that
    isn't in its one canonical encoding."""


class EphemeralKey:
    """An X25519 key pair for one attempt. It can't be copied, pickled or printed.

    Erasing overwrites our copy; copies that libraries made live until their memory is reused.
    """

    def __init__(self, secret: bytes | bytearray) -> None:
        if len(secret) != _KEY_BYTES:
            raise ValueError(f"an X25519 secret key has {_KEY_BYTES} bytes, got {len(secret)}")
        self._secret = bytearray(secret)
        self._erased = False
        self.public_key: bytes = bindings.crypto_scalarmult_base(bytes(secret))

    @classmethod
    def generate(cls) -> Self:
        """A fresh key from the operating system's random source."""
        return cls(os.urandom(_KEY_BYTES))

    def seal(self, message: bytes, receiver_key: bytes) -> bytes:
        """Encrypt to a peer's key: nonce, then NaCl crypto_box."""
        nonce = os.urandom(_NONCE_BYTES)
        box: bytes = bindings.crypto_box(message, nonce, receiver_key, self.secret)
        return nonce + box

    def open(self, sealed: bytes, sender_key: bytes) -> bytes:
        """Decrypt what `seal` made.

        Raises:
            nacl.exceptions.CryptoError: it wasn't made by the holder of `sender_key` for us.
        """
        nonce, box = sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:]
        opened: bytes = bindings.crypto_box_open(box, nonce, sender_key, self.secret)
        return opened

    def agree(self, public_key: bytes) -> bytes:
        """The secret that only this key's and `public_key`'s holders know, 32 bytes.

        Raises:
            UnusableKey: see `check_public_key`.
        """
        return _agreed(self.secret, public_key)

    @property
    def secret(self) -> bytes:
        """The secret half, 32 bytes; to be split among the roster, never sent as it is."""
        if self._erased:
            raise ValueError("this ephemeral key was erased; start a new attempt with a fresh key")
        return bytes(self._secret)

    def erase(self) -> None:
        """Overwrite the secret with zeros. The key can't be used any more."""
        self._secret[:] = bytes(_KEY_BYTES)
        self._erased = True

    def __repr__(self) -> str:
        return f"EphemeralKey(public_key={self.public_key.hex()})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("an ephemeral key must not leave its process")


@lru_cache(maxsize=1024)  # checked when it comes and again with the whole attempt
def check_public_key(public_key: bytes) -> None:
    """Nothing, if the key is usable.

    Raises:
        UnusableKey: it is of low order (RFC 7748, section 6.1), or another encoding of a key:
            X25519 takes numbers beyond the field and any top bit, so equal keys could look
            different.
    """
    if int.from_bytes(public_key, "little") >= _FIELD_PRIME:
        raise UnusableKey("the public key isn't encoded canonically")
    _agreed(_ANY_SECRET, public_key)


def _agreed(secret: bytes, public_key: bytes) -> bytes:
    try:
        # libsodium fails on points that would make the shared secret zero for any key.
        agreed: bytes = bindings.crypto_scalarmult(secret, public_key)
    except (CryptoError, TypeError, ValueError):
        raise UnusableKey("the public key isn't a usable X25519 key") from None
    return agreed
