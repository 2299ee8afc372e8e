"""Heads: what domains show each other of their ledgers every round, co-sign and keep.

A head is the Merkle root (`policies.merkle`) over the hashes of a ledger's entries. Before a domain
sends anything masked, every other one in the round shows it a head that extends the last it showed
and that contains the reservation of this very release. Both then hold each other's: a ledger that
is rolled back or rewritten no longer fits what the peers hold, and they refuse it.
"""

import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple
from datetime import UTC, datetime
from typing import Any

from sqlmodel import Session, col, select

from policies.ledger.chain import Chain, Entry, read_entry
from policies.ledger.database import Database
from policies.ledger.errors import HeadRefused, LedgerError
from policies.ledger.shown import (
    Cosignature,
    Extension,
    Head,
    LeafEntry,
    Note,
    Release,
    Shown,
    check_extends,
    check_reservation,
    check_signed,
    cosignature_message,
    cosignature_words,
    head_words,
    holds,
    rewritten,
)
from policies.ledger.tables import LedgerCosignature, LedgerEntry, LedgerPeerHead
from policies.merkle import Tree

__all__ = ["Cosignature", "Head", "Heads", "Note", "Release", "Shown"]


class Heads:
    """What this node shows of its own ledger, and what it holds of its peers'."""

    def __init__(self, database: Database, chain: Chain) -> None:
        self._database = database
        self._chain = chain
        self._tree = Tree()
        self._last = ""
        self._lock = threading.Lock()

    def head(self, size: int | None = None) -> Head:
        """This ledger's head, signed: over the first `size` entries, or over all.

        Raises:
            LedgerError: there aren't so many.
        """
        with self._lock, self._database.reading() as session:
            return self._head(self._grown(session), size)

    def prove(self, index: int, size: int | None = None) -> tuple[Head, LeafEntry]:
        """A head, and that the entry of that index (from 1) is under it.

        Raises:
            LedgerError: there is no such entry or head.
        """
        with self._lock, self._database.reading() as session:
            tree = self._grown(session)
            head = self._head(tree, size)
            row = session.get(LedgerEntry, index)
            if row is None or index > head.size:
                raise LedgerError(f"There is no entry {index} among the first {head.size}")
            return head, _leaf(read_entry(row), tree, head.size)

    def note(self, reservation: Entry, held: Mapping[str, Sequence[int]]) -> dict[str, Any]:
        """What to show: the head now, that `reservation` is in it, and what it extends.

        Args:
            held: by peer, the sizes of the heads of this ledger that it holds.

        Returns:
            Head and reservation, and `extends` by peer.
        """
        with self._lock, self._database.reading() as session:
            tree = self._grown(session)
            known = {
                peer: [
                    Extension(size=size, path=_hex(tree.consistency(size, len(tree))))
                    for size in sizes
                    if 0 < size <= len(tree)
                ]
                for peer, sizes in held.items()
            }
            return {
                "head": self._head(tree).model_dump(),
                "reservation": _leaf(reservation, tree, len(tree)).model_dump(mode="json"),
                "extends": {
                    peer: [each.model_dump(mode="json") for each in found]
                    for peer, found in known.items()
                },
            }

    def held(self, node_keys: Iterable[str]) -> dict[str, list[int]]:
        """By node key, the sizes of the heads that this node holds and no later one covers."""
        with self._database.reading() as session:
            return {key: [row.size for row in _uncovered(session, key)] for key in node_keys}

    def cosign(
        self, note: Note, domain: str, node_key: str, held: Sequence[int], release: Release
    ) -> None:
        """Check a peer's head against what is held of it, then sign and keep it, durably.

        Args:
            held: what `held` gave when this round began; the peer was told. A head that another
                round brought meanwhile is kept beside this one, and the next must extend both.

        Raises:
            HeadRefused: it isn't signed, is older than one held, doesn't extend it, or doesn't
                contain the release's reservation.
        """
        self.cosign_all([Shown(note, domain, node_key, held)], release)

    def cosign_all(self, shown: Sequence["Shown"], release: Release) -> None:
        """The same for several peers in one transaction: all of them or none.

        Raises:
            HeadRefused: see `cosign`.
        """
        for each in shown:
            check_signed(each.note.head, each.domain, each.node_key)
            check_reservation(each.note, each.domain, release)
        with self._database.writing() as session:
            for each in shown:
                head = each.note.head
                for size in each.held:
                    row = session.get_one(LedgerPeerHead, (each.node_key, size))
                    check_extends(each.note, row)
                    row.covered = row.covered or head.size > size
                self._keep_peer(session, head, each.node_key)

    def cosignatures(self, node_keys: Iterable[str]) -> list[Cosignature]:
        """Our signatures under the newest heads held of these ledgers."""
        with self._database.reading() as session:
            rows = [row for key in node_keys for row in _uncovered(session, key)]
            return [_cosignature(row) for row in rows]

    def keep(self, cosignature: Cosignature, witness: str, node_key: str) -> None:
        """Keep a peer's signature under a head of ours.

        Raises:
            HeadRefused: it isn't the peer's, or not under a head of this ledger.
        """
        self.keep_all([(cosignature, witness, node_key)])

    def keep_all(self, signed: Sequence[tuple[Cosignature, str, str]]) -> None:
        """The same for several, in one transaction: (co-signature, witness, its node key).

        Raises:
            HeadRefused: see `keep`.
        """
        for cosignature, witness, node_key in signed:
            said = cosignature_message(cosignature)
            mine = cosignature.node_key == self._chain.node_key
            if not mine or not holds(node_key, said, cosignature.signature):
                raise HeadRefused(f"{witness}: its co-signature isn't under this ledger's head")
        with self._lock, self._database.writing() as session:
            tree = self._grown(session)
            for cosignature, witness, node_key in signed:
                self._keep(session, tree, cosignature, witness, node_key)

    def _keep(
        self, session: Session, tree: Tree, cosignature: Cosignature, witness: str, node_key: str
    ) -> None:
        size = cosignature.size
        if size > len(tree) or tree.root(size).hex() != cosignature.root:
            raise HeadRefused(
                f"{witness} co-signed a head of {size} entries that this ledger doesn't have:"
                " this node was rolled back to an older copy. Restore the newest one"
            )
        if session.get(LedgerCosignature, (size, node_key)) is None:
            session.add(
                LedgerCosignature(
                    size=size,
                    node_key=node_key,
                    witness=witness,
                    root=cosignature.root,
                    time=cosignature.time,
                    signature=cosignature.signature,
                )
            )

    def kept(self) -> list[dict[str, Any]]:
        """The peers' co-signatures under this ledger's heads, oldest first."""
        query = select(LedgerCosignature).order_by(
            col(LedgerCosignature.size), col(LedgerCosignature.witness)
        )
        with self._database.reading() as session:
            return [row.model_dump() for row in session.exec(query)]

    def export(self) -> dict[str, Any]:
        """All that this node can testify of its peers, for an auditor: the heads that it co-signed,
        and its own entries of what it helped to open."""
        released = select(LedgerEntry).where(LedgerEntry.kind == "release")
        query = select(LedgerPeerHead).order_by(
            col(LedgerPeerHead.domain), col(LedgerPeerHead.size)
        )
        with self._database.reading() as session:
            rows = [row.model_dump(exclude={"covered"}) for row in session.exec(query)]
            opened = session.exec(released.order_by(col(LedgerEntry.index)))
            entries = [astuple(read_entry(row)) for row in opened]
        return {
            "format": "coterie-heads-v1",
            "witness": self._chain.domain,
            "witness_key": self._chain.node_key,
            "heads": rows,
            "opened": entries,
        }

    def _keep_peer(self, session: Session, head: Head, node_key: str) -> None:
        row = session.get(LedgerPeerHead, (node_key, head.size))
        if row is not None:
            if row.root != head.root:
                raise rewritten(head.domain, head.size)
            return
        time = datetime.now(UTC).isoformat(timespec="seconds")
        signed: dict[str, Any] = {
            "node_key": node_key,
            "size": head.size,
            "root": head.root,
            "time": time,
        }
        session.add(
            LedgerPeerHead(
                domain=head.domain,
                signature=head.signature,
                cosignature=self._chain.sign(cosignature_words(**signed)),
                covered=False,
                **signed,
            )
        )

    def _head(self, tree: Tree, size: int | None = None) -> Head:
        size = len(tree) if size is None else size
        if not 0 < size <= len(tree):
            raise LedgerError(f"There is no head of {size} entries; the ledger has {len(tree)}")
        fields: dict[str, Any] = {
            "domain": self._chain.domain,
            "size": size,
            "root": tree.root(size).hex(),
        }
        return Head(**fields, signature=self._chain.sign(head_words(**fields)))

    def _grown(self, session: Session) -> Tree:
        """The tree over all entries; those seen before aren't read again."""
        size = len(self._tree)
        if size:
            last = session.get(LedgerEntry, size)
            if last is None or last.hash != self._last:
                self._tree, size = Tree(), 0  # another copy of the file was put in its place
        query = select(LedgerEntry.hash).where(LedgerEntry.index > size)
        for found in session.exec(query.order_by(col(LedgerEntry.index))):
            self._tree.append(bytes.fromhex(found))
            self._last = found
        return self._tree


def _cosignature(row: LedgerPeerHead) -> Cosignature:
    return Cosignature(
        node_key=row.node_key,
        size=row.size,
        root=row.root,
        time=row.time,
        signature=row.cosignature,
    )


def _uncovered(session: Session, node_key: str) -> Sequence[LedgerPeerHead]:
    query = select(LedgerPeerHead).where(
        LedgerPeerHead.node_key == node_key, col(LedgerPeerHead.covered).is_(False)
    )
    return session.exec(query.order_by(col(LedgerPeerHead.size))).all()


def _leaf(entry: Entry, tree: Tree, size: int) -> LeafEntry:
    return LeafEntry(
        index=entry.index,
        previous=entry.previous,
        kind=entry.kind,
        body=entry.body,
        path=_hex(tree.inclusion(entry.index - 1, size)),
    )


def _hex(proof: Iterable[bytes]) -> tuple[str, ...]:
    return tuple(each.hex() for each in proof)
