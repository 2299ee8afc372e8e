"""Heads: what domains show each other of their ledgers every round, co-sign and keep.

A head is the Merkle root (`policies.merkle`) over the hashes of a ledger's entries. Before a domain
sends anything masked, every other one in the round shows it a head that extends the last it showed
and that contains the reservation of this very release. Both then hold each other's: a ledger that
is rolled back or rewritten no longer fits what the peers hold, and they refuse it.
"""

import json
import threading
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, bindparam, insert, select

from policies.ledger.chain import Chain, Entry
from policies.ledger.database import Database
from policies.ledger.errors import HeadRefused, LedgerError
from policies.ledger.opened import check_opened, newest, newest_opened
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
from policies.ledger.statements import Statement
from policies.ledger.tables import COSIGNATURES, ENTRIES, PEER_HEADS, Row, change_of, row_of
from policies.merkle import Tree

__all__ = ["Cosignature", "Head", "Heads", "Note", "Release", "Shown"]

_ENTRY = Statement(row_of(ENTRIES))
_HASHES = Statement(
    select(ENTRIES.c.hash).where(ENTRIES.c.index >= bindparam("index")).order_by(ENTRIES.c.index)
)
_PEER_HEAD, _ADD_PEER_HEAD = Statement(row_of(PEER_HEADS)), Statement(insert(PEER_HEADS))
_COVER = Statement(change_of(PEER_HEADS))
_UNCOVERED = Statement(
    select(PEER_HEADS)
    .where(PEER_HEADS.c.node_key == bindparam("node_key"), PEER_HEADS.c.covered.is_(False))
    .order_by(PEER_HEADS.c.size)
)
_OBJECTION = newest("objection").with_only_columns(ENTRIES.c.body)
_COSIGNATURE, _ADD_COSIGNATURE = Statement(row_of(COSIGNATURES)), Statement(insert(COSIGNATURES))


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
        with self._lock, self._database.reading() as connection:
            return self._head(self._grown(connection), size)

    def prove(self, index: int, size: int | None = None) -> tuple[Head, LeafEntry]:
        """A head, and that the entry of that index (from 1) is under it.

        Raises:
            LedgerError: there is no such entry or head.
        """
        with self._lock, self._database.reading() as connection:
            tree = self._grown(connection)
            head = self._head(tree, size)
            row = _ENTRY.first(connection, {"index": index})
            if row is None or index > head.size:
                raise LedgerError(f"There is no entry {index} among the first {head.size}")
            return head, _leaf(Entry(*row), tree, head.size)

    def note(self, reservation: Entry, held: Mapping[str, Sequence[int]]) -> dict[str, Any]:
        """What to show: the head now, that `reservation` is in it, and what it extends.

        Args:
            held: by peer, the sizes of the heads of this ledger that it holds.

        Returns:
            Head and reservation, `extends` by peer, and what was `opened` last in the plan.
        """
        with self._lock, self._database.reading() as connection:
            tree = self._grown(connection)
            last = newest_opened(connection, json.loads(reservation.body)["plan"])
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
                "opened": last and _leaf(last, tree, len(tree)).model_dump(mode="json"),
            }

    def held(self, node_keys: Iterable[str]) -> dict[str, list[int]]:
        """By node key, the sizes of the heads that this node holds and no later one covers."""
        with self._database.reading() as connection:
            return {key: [row.size for row in _uncovered(connection, key)] for key in node_keys}

    def cosign(
        self, note: Note, domain: str, node_key: str, held: Sequence[int], release: Release
    ) -> None:
        """Check a peer's head against what is held of it, then sign and keep it, durably.

        Args:
            held: what `held` gave when this round began; the peer was told. A head that another
                round brought meanwhile is kept beside this one, and the next must extend both.

        Raises:
            HeadRefused: it isn't signed, is older than one held, doesn't extend it, doesn't
                contain the release's reservation, or says that another total was opened.
        """
        self.cosign_all([Shown(note, domain, node_key, held)], release)

    def cosign_all(self, shown: Sequence[Shown], release: Release) -> None:
        """The same for several peers in one transaction: all of them or none.

        Raises:
            HeadRefused: see `cosign`.
        """
        self.check(shown, release)
        with self._database.writing() as connection:
            self.keep_shown(connection, shown)

    def check(self, shown: Sequence[Shown], release: Release) -> None:
        """Nothing, if these heads can be co-signed.

        Raises:
            HeadRefused: see `cosign`.
        """
        for each in shown:
            check_signed(each.note.head, each.domain, each.node_key)
            check_reservation(each.note, each.domain, release)
        with self._database.reading() as connection:
            for each in shown:
                _extended(connection, each)
                check_opened(connection, each, self._chain.domain, release.plan)

    def keep_shown(self, connection: Connection, shown: Sequence[Shown]) -> None:
        """Sign and keep heads that `check` let pass, in the caller's transaction.

        Raises:
            HeadRefused: one doesn't extend what is held by now.
        """
        for each in shown:
            size = each.note.head.size
            for row in _extended(connection, each):
                if size > row.size and not row.covered:
                    at = {"at_node_key": row.node_key, "at_size": row.size}
                    _COVER.run(connection, {**at, "covered": True})
            self._keep_peer(connection, each.note.head, each.node_key)

    def object_to(self, plan_hash: str, reason: str) -> None:
        """Record, for auditors, that what a peer showed was refused; said already, it does nothing.

        Whoever carried it may have changed it, so the entry is a reason to ask.
        """
        with self._database.writing() as connection:
            last = connection.execute(_OBJECTION, {"plan_hash": plan_hash}).scalar()
            if last is None or json.loads(last)["reason"] != reason:
                self._chain.append(connection, "objection", plan=plan_hash, reason=reason)

    def cosignatures(self, node_keys: Iterable[str]) -> list[Cosignature]:
        """Our signatures under the newest heads held of these ledgers."""
        with self._database.reading() as connection:
            rows = [row for key in node_keys for row in _uncovered(connection, key)]
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
                raise HeadRefused(witness, "its co-signature isn't under this ledger's head")
        with self._lock, self._database.writing() as connection:
            tree = self._grown(connection)
            for cosignature, witness, node_key in signed:
                self._keep(connection, tree, cosignature, witness, node_key)

    def _keep(
        self,
        connection: Connection,
        tree: Tree,
        cosignature: Cosignature,
        witness: str,
        node_key: str,
    ) -> None:
        size = cosignature.size
        if size > len(tree) or tree.root(size).hex() != cosignature.root:
            raise HeadRefused(
                witness,
                f"it co-signed a head of {size} entries that {self._chain.domain}'s ledger doesn't"
                " have: that ledger was rolled back to an older copy (restore the newest one), or"
                " the signature is a lie",
            )
        key = {"size": size, "node_key": node_key}
        if _COSIGNATURE.first(connection, key) is None:
            said = cosignature.model_dump(include={"root", "time", "signature"})
            _ADD_COSIGNATURE.run(connection, {**key, "witness": witness, **said})

    def kept(self) -> list[dict[str, Any]]:
        """The peers' co-signatures under this ledger's heads, oldest first."""
        query = select(COSIGNATURES).order_by(COSIGNATURES.c.size, COSIGNATURES.c.witness)
        with self._database.reading() as connection:
            return [row._asdict() for row in connection.execute(query)]

    def export(self) -> dict[str, Any]:
        """All that this node can testify of its peers, for an auditor: the heads that it co-signed,
        and its own entries of what it helped to open."""
        released = select(ENTRIES).where(ENTRIES.c.kind == "release").order_by(ENTRIES.c.index)
        shown = [column for column in PEER_HEADS.c if column.name != "covered"]
        query = select(*shown).order_by(PEER_HEADS.c.domain, PEER_HEADS.c.size)
        with self._database.reading() as connection:
            rows = [row._asdict() for row in connection.execute(query)]
            entries = [tuple(row) for row in connection.execute(released)]
        return {
            "format": "coterie-heads-v1",
            "witness": self._chain.domain,
            "witness_key": self._chain.node_key,
            "heads": rows,
            "opened": entries,
        }

    def _keep_peer(self, connection: Connection, head: Head, node_key: str) -> None:
        key = {"node_key": node_key, "size": head.size}
        row = _PEER_HEAD.first(connection, key)
        if row is not None:
            if row.root != head.root:
                raise rewritten(head.domain, head.size)
            return
        time = datetime.now(UTC).isoformat(timespec="seconds")
        signed: dict[str, Any] = {**key, "root": head.root, "time": time}
        kept = {
            "domain": head.domain,
            "signature": head.signature,
            "cosignature": self._chain.sign(cosignature_words(**signed)),
            "covered": False,
        }
        _ADD_PEER_HEAD.run(connection, {**signed, **kept})

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

    def _grown(self, connection: Connection) -> Tree:
        """The tree over all entries; those seen before aren't read again."""
        hashes = _hashes(connection, max(len(self._tree), 1))
        if self._tree and hashes[:1] != [self._last]:
            self._tree = Tree()  # another copy of the file was put in its place
            hashes = _hashes(connection, 1)
        for found in hashes[1:] if self._tree else hashes:
            self._tree.append(bytes.fromhex(found))
            self._last = found
        return self._tree


def _hashes(connection: Connection, index: int) -> list[str]:
    """The hashes of the entries from `index` on."""
    return [row.hash for row in _HASHES.all(connection, {"index": index})]


def _cosignature(row: Row) -> Cosignature:
    return Cosignature(
        node_key=row.node_key,
        size=row.size,
        root=row.root,
        time=row.time,
        signature=row.cosignature,
    )


def _uncovered(connection: Connection, node_key: str) -> Sequence[Row]:
    return _UNCOVERED.all(connection, {"node_key": node_key})


def _extended(connection: Connection, shown: Shown) -> list[Row]:
    """What was held of the peer; raises HeadRefused unless the head shown extends all of it."""
    keys = ({"node_key": shown.node_key, "size": size} for size in shown.held)
    rows = [_PEER_HEAD.one(connection, key) for key in keys]
    for row in rows:
        check_extends(shown.note, row)
    return rows


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
