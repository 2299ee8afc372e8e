"""What domains show each other of their ledgers, as messages, and what is checked of them."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from policies.accounting import Event
from policies.canonical import canonical
from policies.ledger.budgets import event_json
from policies.ledger.chain import entry_hash
from policies.ledger.errors import HeadRefused
from policies.ledger.tables import Row
from policies.merkle import verify_consistency, verify_inclusion

Hash = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Signature = Annotated[str, Field(pattern="^[0-9a-f]{128}$")]
Size = Annotated[int, Field(ge=1, le=2**31 - 1)]
Path = Annotated[tuple[Hash, ...], Field(max_length=64)]


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    def read(cls, message: object, sender: str) -> Self:
        """Parse what a peer sent.

        Raises:
            HeadRefused: it isn't well-formed.
        """
        try:
            return cls.model_validate(message)
        except ValidationError as error:
            where = ".".join(str(part) for part in error.errors()[0]["loc"])
            raise HeadRefused(
                sender, f"the {cls.__name__.lower()} of its ledger is malformed at {where!r}"
            ) from None


class Head(_Message):
    """A signed head: the Merkle root over the first `size` entries' hashes."""

    domain: str
    size: Size
    root: Hash
    signature: Signature


class Extension(_Message):
    """That a head extends an earlier one of `size` entries."""

    size: Size
    path: Path


class LeafEntry(_Message):
    """An entry of the chain and where it stands under a head."""

    index: Size
    previous: Hash
    kind: str
    body: Annotated[str, Field(max_length=2**20)]
    path: Path


class Note(_Message):
    """What a domain shows one peer in a round."""

    head: Head
    extends: Annotated[tuple[Extension, ...], Field(max_length=64)]
    reservation: LeafEntry
    opened: LeafEntry | None = None
    """About the last total of this plan that it helped to open; see `policies.ledger.opened`."""


class Opened(_Message):
    """The body of a release entry. `opened`: by domain, the digest of its masked input, hex."""

    plan: Hash
    step: Annotated[str, Field(max_length=200)]
    release: int
    attempt: int
    inputs: Hash
    opened: dict[str, Hash] = {}
    time: str


class Cosignature(_Message):
    """A peer's signature under a head of the ledger whose node has `node_key`."""

    node_key: Hash
    size: Size
    root: Hash
    time: Annotated[str, Field(max_length=32)]
    signature: Signature


@dataclass(frozen=True)
class Release:
    """One attempt at one release, as its reservation must name it."""

    plan: str
    step: str
    release: int
    attempt: int
    event: Event


@dataclass(frozen=True)
class Shown:
    """What a peer showed, its node key, and what was held of it (see `Heads.cosign`).

    Attributes:
        expected: (plan hash, step, release, attempt) of each total of the plan that its ledger may
            name as the last one; empty if it isn't known to have confirmed any.
    """

    note: Note
    domain: str
    node_key: str
    held: Sequence[int]
    expected: Collection[tuple[str, str, int, int]] = ()


def cosignature_message(said: Cosignature) -> str:
    """What a co-signature covers."""
    return cosignature_words(said.node_key, said.size, said.root, said.time)


def head_words(domain: str, size: int, root: str) -> str:
    return f"coterie-head-v1\n{size}\n{root}\n{domain}"


def cosignature_words(node_key: str, size: int, root: str, time: str) -> str:
    return f"coterie-cosignature-v1\n{node_key}\n{size}\n{root}\n{time}"


def check_signed(head: Head, domain: str, node_key: str) -> None:
    message = head_words(head.domain, head.size, head.root)
    if head.domain != domain or not holds(node_key, message, head.signature):
        raise HeadRefused(domain, "its ledger's head isn't signed by its node key")


def check_extends(note: Note, held: Row) -> None:
    head = note.head
    if head.size < held.size:
        raise HeadRefused(
            head.domain,
            f"its ledger has {head.size} entries, but it showed {held.size} on"
            f" {held.time}: it was rolled back to an older copy. No round goes on with it before"
            " its owner restores the newest copy",
        )
    if head.size == held.size:
        if head.root != held.root:
            raise rewritten(head.domain, held.size)
        return
    paths = [each.path for each in note.extends if each.size == held.size]
    proof = [bytes.fromhex(each) for each in paths[0]] if paths else []
    roots = bytes.fromhex(held.root), bytes.fromhex(head.root)
    if not verify_consistency(held.size, head.size, *roots, proof):
        raise rewritten(head.domain, held.size)


def check_reservation(note: Note, domain: str, release: Release) -> None:
    said, head = note.reservation, note.head
    body = {
        "plan": release.plan,
        "step": release.step,
        "release": release.release,
        "attempt": release.attempt,
        "event": event_json(release.event),
    }
    digest = entry_hash(said.index, said.previous, said.kind, said.body)
    proof = [bytes.fromhex(each) for each in said.path]
    under = verify_inclusion(
        bytes.fromhex(digest), said.index - 1, head.size, proof, bytes.fromhex(head.root)
    )
    if not under or said.kind != "reservation" or not _says(said.body, body):
        raise HeadRefused(
            domain,
            f"it doesn't show that its ledger has set attempt {release.attempt} of"
            f" {release.step}/{release.release} aside; nothing is sent",
        )


def _says(text: str, body: Mapping[str, Any]) -> bool:
    """Whether an entry's body is this one, at whatever time."""
    time = text.rpartition('"time":"')[2].removesuffix('"}')
    return len(time) < 40 and canonical({**body, "time": time}).decode() == text


def rewritten(domain: str, size: int) -> HeadRefused:
    return HeadRefused(
        domain,
        f"its ledger isn't a continuation of the {size} entries that it showed before: its"
        " past was rewritten, or it shows different ledgers to different partners. No round goes"
        " on with it; compare `coterie ledger heads` of all partners",
    )


def holds(key: str, message: str, signature: str) -> bool:
    try:
        public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(key))
        public.verify(bytes.fromhex(signature), message.encode())
    except (ValueError, InvalidSignature):
        return False
    return True
