"""The owner's own signature under a plan.

The key is made on the owner's machine, pinned in every roster by its public half, and never given
to a node: a node that could sign for its owner could approve for its owner. What is signed names
the plan's hash and the one domain it is approved for, so that it can't be carried elsewhere.
"""

import os
import re
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

_APPROVAL = b"coterie-approval-v1"
_SUBMISSION = b"coterie-submission-v1"


class OwnerKeyError(Exception):
    """The owner's key file can't be made or read; the text says why and what to do."""


def create_owner_key(path: str | Path, passphrase: str | None) -> Ed25519PrivateKey:
    """Make an Ed25519 key and write it to `path` as PEM (PKCS#8), readable by its owner only.

    With a passphrase the file is encrypted; with None it is not. An existing file is never
    overwritten.

    Raises:
        OwnerKeyError: the file exists already or can't be written, or the passphrase is empty.
    """
    if passphrase == "":
        raise OwnerKeyError("The passphrase is empty. Give a longer one, or None for no encryption")
    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, _encryption(passphrase))
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise OwnerKeyError(
            f"{path} exists already and may be a key in use. Load it, or choose another path"
        ) from None
    except OSError as error:
        raise OwnerKeyError(f"Can't create {path}: {error.strerror}") from error
    with os.fdopen(descriptor, "wb") as file:
        file.write(pem)
        file.flush()
        os.fsync(file.fileno())
    return key


def load_owner_key(path: str | Path, passphrase: str | None) -> Ed25519PrivateKey:
    """Read the key that `create_owner_key` wrote.

    Raises:
        OwnerKeyError: no such file, a wrong or missing passphrase, or not an Ed25519 key.
    """
    try:
        pem = Path(path).read_bytes()
    except OSError as error:
        raise OwnerKeyError(f"Can't read the owner's key {path}: {error.strerror}") from error
    try:
        key = load_pem_private_key(pem, passphrase.encode() if passphrase else None)
    except (ValueError, TypeError):
        raise OwnerKeyError(
            f"{path} can't be opened: wrong passphrase, a passphrase where none (or none where one)"
            " is needed, or not a PEM key. Try the passphrase given when the key was made"
        ) from None
    if not isinstance(key, Ed25519PrivateKey):
        raise OwnerKeyError(f"{path} holds another kind of key; expected Ed25519")
    return key


def owner_key_hex(key: Ed25519PrivateKey) -> str:
    """The public half that goes into rosters, as 64 hex digits."""
    return key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw).hex()


def sign_approval(key: Ed25519PrivateKey, plan_hash: str, domain: str) -> str:
    """The owner's signature under the plan for this one domain, as 128 hex digits.

    Raises:
        ValueError: `plan_hash` isn't 64 lower-case hex digits, or the domain's name is empty.
    """
    return key.sign(_message(_APPROVAL, plan_hash, domain)).hex()


def verify_approval(owner_key: str, plan_hash: str, domain: str, signature: str) -> bool:
    """Whether `signature` (hex) is `owner_key`'s (hex) under this plan for this domain.

    Never raises: whatever can't be a signature isn't one.
    """
    return _holds(owner_key, _APPROVAL, plan_hash, domain, signature)


def sign_submission(key: Ed25519PrivateKey, plan_hash: str, account: str) -> str:
    """The author's signature under her plan, for the one Syft account that submits it."""
    return key.sign(_message(_SUBMISSION, plan_hash, account)).hex()


def verify_submission(author: str, plan_hash: str, account: str, signature: str) -> bool:
    """Whether `author` (verify key, hex) signed this plan for this account; never raises."""
    return _holds(author, _SUBMISSION, plan_hash, account, signature)


def _holds(key: str, purpose: bytes, plan_hash: str, name: str, signature: str) -> bool:
    try:
        public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(key))
        public.verify(bytes.fromhex(signature), _message(purpose, plan_hash, name))
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _message(purpose: bytes, plan_hash: str, domain: str) -> bytes:
    # The purpose keeps this signature from being valid under any other protocol; the hash has a
    # fixed length and stands before the name, so no two (plan, domain) pairs share a message.
    if not re.fullmatch(r"[0-9a-f]{64}", plan_hash):
        raise ValueError(f"A plan's hash is 64 lower-case hex digits; got {plan_hash!r}")
    if not domain:
        raise ValueError("An approval needs the domain's name; got an empty one")
    return b"\n".join((purpose, plan_hash.encode(), domain.encode()))


def _encryption(passphrase: str | None) -> KeySerializationEncryption:
    return BestAvailableEncryption(passphrase.encode()) if passphrase else NoEncryption()
