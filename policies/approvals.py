"""The owner's own signature under a plan.

The key is made on the owner's machine, pinned in every roster by its public half, and never given
to a node: a node that could sign for its owner could approve for its owner. What is signed says
which plan, for which one domain, who decided, when, why, until when, and the hash of the
explanation that was shown. It travels with the run; every node on the roster checks every owner's.
"""

import json
import os
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

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
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from policies.canonical import canonical

APPROVAL_DAYS = 90
"""How long an approval holds if the owner says nothing else."""

CLOCK_SKEW = timedelta(minutes=10)
"""By how much two honest clocks may differ."""

_SIGNED = "coterie-approval-v2"
_SUBMISSION = b"coterie-submission-v1"
_LONGEST = 100_000

Hex64 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Moment = Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00$")]


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


class Statement(BaseModel):
    """What an owner puts her signature under; `Approval` and `policies.envelopes.Envelope`.

    Attributes:
        domain: the one domain it is made for.
        by: who decided.
        signed: when, ISO 8601, UTC, in seconds.
        expires: from then on it no longer holds.
        reason: why.
    """

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)

    domain: Annotated[str, Field(min_length=1, max_length=64)]
    by: Annotated[str, Field(max_length=200)] = ""
    signed: Moment
    expires: Moment
    reason: Annotated[str, Field(max_length=2000)] = ""

    def holds(self, now: datetime | None = None) -> bool:
        """Whether it hasn't expired yet."""
        return moment(now) < self.expires

    def ahead(self) -> bool:
        """Whether it is dated in the future, by more than honest clocks differ."""
        return self.signed > moment(datetime.now(UTC) + CLOCK_SKEW)


class Approval(Statement):
    """A yes to one plan at one domain.

    Attributes:
        plan: the plan's hash.
        explanation: SHA-256 of the text the decider was shown; a node takes no approval without.
    """

    kind: Literal["approval"] = "approval"
    plan: Hex64
    explanation: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")] = ""


class _AnyEnvelope(Statement):
    """What the ledger reads of an envelope, without knowing plans."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")

    kind: Literal["envelope"]


S = TypeVar("S", bound=Statement)


def sign_approval(
    key: Ed25519PrivateKey,
    plan_hash: str,
    domain: str,
    *,
    by: str = "",
    reason: str = "",
    explanation: str = "",
    days: float = APPROVAL_DAYS,
    now: datetime | None = None,
) -> str:
    """The owner's signed approval of the plan for this one domain, as one line of text.

    Args:
        by: who decides, such as an account's email.
        explanation: SHA-256, hex, of the explanation that was shown.
        days: how long it holds from now.

    Raises:
        ValueError: `plan_hash` isn't 64 lower-case hex digits, or the domain's name is empty.
    """
    signed, expires = validity(days, now)
    try:
        approval = Approval(
            plan=plan_hash,
            domain=domain,
            by=by,
            signed=signed,
            expires=expires,
            reason=reason,
            explanation=explanation,
        )
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(
            f"An approval names a plan's hash of 64 lower-case hex digits and a domain; "
            f"{first['loc'][0]}: {first['msg']}"
        ) from None
    return sign_statement(key, approval)


def verify_approval(owner_key: str, plan_hash: str, domain: str, text: str) -> bool:
    """Whether `text` is `owner_key`'s (hex) approval of this plan for this domain.

    Says nothing of its expiry (`Approval.holds`). Never raises: what can't be an approval isn't.
    """
    approval = read_statement(Approval, owner_key, domain, text)
    return approval is not None and approval.plan == plan_hash


def may_approve(owner_key: str, plan_hash: str, domain: str, text: str) -> bool:
    """Whether a ledger may record `text` as the approval of this plan; never raises.

    It is the owner's approval of it, or any envelope of hers for this domain. Whether that covers
    the plan takes the plan itself (`envelopes.why_not_approved`), and is checked by whoever has it:
    the desk before it records it, every node on the roster before the first share.
    """
    if read_statement(_AnyEnvelope, owner_key, domain, text) is not None:
        return True
    return verify_approval(owner_key, plan_hash, domain, text)


def sign_statement(key: Ed25519PrivateKey, statement: Statement) -> str:
    """The statement and the owner's signature under its exact bytes, as one line of JSON."""
    said = canonical(statement.model_dump(mode="json")).decode()
    return _spelled(said, key.sign(_statement_message(said)))


def _spelled(said: str, signature: bytes) -> str:
    return canonical({"said": said, "signature": signature.hex()}).decode()


def read_statement(kind: type[S], owner_key: str, domain: str, text: Any) -> S | None:
    """The statement in `text` if `owner_key` (hex) signed it for this domain, else None.

    A statement has one spelling, `sign_statement`'s, so that who counts texts counts statements.
    """
    try:
        if not isinstance(text, str) or len(text) > _LONGEST:
            return None
        outer = json.loads(text)
        said, signature = outer["said"], bytes.fromhex(outer["signature"])
        public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(owner_key))
        public.verify(signature, _statement_message(said))
        statement = kind.model_validate_json(said)
        if _spelled(said, signature) != text:
            return None
    except (ValueError, TypeError, KeyError, RecursionError, InvalidSignature):
        return None
    return statement if statement.domain == domain else None


def expiry_of(text: str) -> str:
    """Until when a statement holds that was read before."""
    return str(json.loads(json.loads(text)["said"])["expires"])


def validity(days: float, now: datetime | None = None) -> tuple[str, str]:
    """(signed, expires) of a statement that holds for `days` from now."""
    start = now or datetime.now(UTC)
    return moment(start), moment(start + timedelta(days=days))


def moment(time: datetime | None = None) -> str:
    """A time, or now, as statements and the ledger write it: such texts order like their times."""
    return (time or datetime.now(UTC)).astimezone(UTC).isoformat(timespec="seconds")


def _statement_message(said: str) -> bytes:
    # The purpose keeps this signature from being valid under any other protocol.
    return f"{_SIGNED}\n{said}".encode()


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


def _message(purpose: bytes, plan_hash: str, name: str) -> bytes:
    # The purpose keeps this signature from being valid under any other protocol; the hash has a
    # fixed length and stands before the name, so no two (plan, name) pairs share a message.
    if not re.fullmatch(r"[0-9a-f]{64}", plan_hash):
        raise ValueError(f"A plan's hash is 64 lower-case hex digits; got {plan_hash!r}")
    if not name:
        raise ValueError("A submission needs the account's key; got an empty one")
    return b"\n".join((purpose, plan_hash.encode(), name.encode()))


def _encryption(passphrase: str | None) -> KeySerializationEncryption:
    return BestAvailableEncryption(passphrase.encode()) if passphrase else NoEncryption()
