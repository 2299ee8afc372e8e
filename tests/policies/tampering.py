"""A ledger after three rounds with two peers, to be tampered with; and what one kind of it is."""

import dataclasses
import json
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from policies.accounting import Event
from policies.approvals import owner_key_hex, sign_approval
from policies.canonical import canonical, sha256_hex
from policies.ledger import GENESIS, Entry, Ledger
from policies.ledger.heads import Note
from policies.merkle import Tree
from policies.verify import Verdict, verify
from tests.policies.ledgers_of_domains import Domain, cosign, release, shown

PLAN, SECOND = "a" * 64, "b" * 64
OWNER, OTHER = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
ROUND = Event(4.0, 1.0, 1)
DOCS = Path(__file__).parents[2] / "docs" / "ledger.md"


def approve(ledger: Ledger, *plans: str, noise: float = 4.0) -> None:
    ledger.open_budget("shoppers", 8.0, 1e-5)
    for plan in plans:
        events = [Event(noise, 1.0, 10)]
        ledger.submit(plan, "plan", "s", "shoppers", events, {}, spare_attempts=2)
        signature = sign_approval(OWNER, plan, ledger.domain)
        ledger.approve(plan, "owner", owner_key_hex(OWNER), signature, "e" * 64)


def masked(domain: str, number: int) -> str:
    """The digest of a domain's masked input in a round."""
    return sha256_hex(f"{domain} {number}".encode())


def finish_round(ledger: Ledger, number: int) -> None:
    where = (PLAN, "train", number, 0)
    opened = {name: masked(name, number) for name in ("east", "north", "south")}
    ledger.charge(*where, sha256_hex(bytes.fromhex(opened[ledger.domain])))
    ledger.settle(*where, sha256_hex(canonical(opened)), opened)


@dataclass
class Scene:
    """North's ledger after three rounds with south and east, and all that is kept of it."""

    folder: Path
    north: Domain
    entries: list[Entry]
    bundle: dict[str, Any]

    @property
    def file(self) -> Path:
        return self.folder / "tampered.db"

    @property
    def old(self) -> Path:
        return self.folder / "old.db"

    @property
    def heads(self) -> Path:
        return self.folder / "peers"

    def verify_file(self, with_heads: bool, key: str | None = None) -> Verdict:
        heads = self.heads if with_heads else None
        return verify(self.file, key or self.north.node_key, owner_key_hex(OWNER), heads)

    def verify_bundle(self, with_heads: bool) -> Verdict:
        path = self.folder / "tampered.json"
        path.write_text(json.dumps(self.bundle))
        heads = self.heads if with_heads else None
        return verify(path, self.north.node_key, owner_key_hex(OWNER), heads)

    def change(self, *changes: str, guards: bool = True) -> None:
        """Take the guards off, change rows, put the guards back."""
        with sqlite3.connect(self.file) as connection:
            found = "SELECT name, sql FROM sqlite_master WHERE type = 'trigger'"
            kept = connection.execute(found).fetchall()
            for name, _ in kept:
                connection.execute(f"DROP TRIGGER {name}")
            for change in changes:
                connection.execute(change)
            for _, sql in kept if guards else ():
                connection.execute(sql)
        connection.close()

    def rewrite(self, history: Callable[[Ledger], None]) -> None:
        """Another history, written by the node's own code under its own key."""
        self.file.unlink()
        ledger = Ledger(f"sqlite:///{self.file}", "north", self.north.key)
        history(ledger)
        ledger.dispose()

    def resign(self, entries: list[Entry], key: Ed25519PrivateKey | None = None) -> None:
        """A bundle of these kinds and bodies, chained and signed anew, without co-signatures."""
        key, chain, tree = key or self.north.key, [], Tree()
        for number, entry in enumerate(entries, start=1):
            previous = chain[-1].hash if chain else GENESIS
            head = f"coterie-ledger-entry-v1\n{number}\n{previous}\n{entry.kind}\n"
            digest = sha256_hex((head + entry.body).encode())
            signature = key.sign(f"coterie-ledger-v1:{digest}".encode()).hex()
            chain.append(Entry(number, previous, entry.kind, entry.body, digest, signature))
            tree.append(bytes.fromhex(digest))
        root = tree.root(len(tree)).hex()
        self.bundle |= {"size": len(tree), "root": root, "cosignatures": []}
        self.bundle["entries"] = [dataclasses.astuple(entry) for entry in chain]
        self.seal(key)

    def seal(self, key: Ed25519PrivateKey) -> None:
        said = self.bundle
        beside = sha256_hex(json.dumps(said["cosignatures"], sort_keys=True).encode())
        text = f"{said['size']}\n{said['root']}\n{said['exported']}\n{beside}"
        said["signature"] = key.sign(f"coterie-bundle-v1\n{text}".encode()).hex()

    def place(self, kind: str, nth: int = 0) -> int:
        return [i for i, entry in enumerate(self.entries) if entry.kind == kind][nth]

    def edited(self, kind: str, nth: int = 0, **changes: Any) -> list[Entry]:
        entries, place = list(self.entries), self.place(kind, nth)
        body = canonical(json.loads(entries[place].body) | changes).decode()
        entries[place] = dataclasses.replace(entries[place], body=body)
        return entries

    def again(self, entry: Entry, **changes: Any) -> Entry:
        """A copy of an entry with the last one's time, so that only its place or text is wrong."""
        changes["time"] = json.loads(self.entries[-1].body)["time"]
        body = canonical(json.loads(entry.body) | changes).decode()
        return dataclasses.replace(entry, body=body)

    def respelled(self, kind: str, old: str, new: str) -> list[Entry]:
        """The entries with a piece of one's text written another way."""
        entries, place = list(self.entries), self.place(kind)
        assert old in entries[place].body
        body = entries[place].body.replace(old, new, 1)
        entries[place] = dataclasses.replace(entries[place], body=body)
        return entries

    def without(self, kind: str, nth: int = 0) -> list[Entry]:
        place = self.place(kind, nth)
        return self.entries[:place] + self.entries[place + 1 :]


def honest_scene(folder: Path) -> Scene:
    """Nothing tampered with: every round reserved, co-signed, charged and opened by all three."""
    domains = [Domain.create(name, folder) for name in ("east", "south")]
    key = Ed25519PrivateKey.generate()
    north = Domain(
        "north", folder / "n.db", key, Ledger(f"sqlite:///{folder / 'n.db'}", "north", key)
    )
    approve(north.ledger, PLAN, SECOND)
    for number in range(3):
        held = {peer.name: peer.held_of(north) for peer in domains}
        entry = north.ledger.reserve(PLAN, "train", number, 0, ROUND)
        for peer in domains:
            note = shown_to(north, entry, held[peer.name], peer)
            cosign(peer, north, note, held[peer.name], number)
            (signed,) = peer.ledger.heads.cosignatures([north.node_key])
            north.ledger.heads.keep(signed, peer.name, peer.node_key)
        south_head(north, domains[1], number)
        domains[0].ledger.reserve(PLAN, "train", number, 0, ROUND)
        for domain in (north, *domains):
            finish_round(domain.ledger, number)
        if number == 0:
            north.copy(folder / "old.db")
    north.copy(folder / "tampered.db")
    (folder / "peers").mkdir()
    for peer in domains:
        text = json.dumps(peer.ledger.heads.export())
        (folder / "peers" / f"{peer.name}.json").write_text(text)
    return Scene(folder, north, north.ledger.entries(), north.ledger.export())


def shown_to(north: Domain, entry: Entry, held: list[int], peer: Domain) -> Any:
    note = north.ledger.heads.note(entry, {peer.name: held})
    return Note.read({**note, "extends": note["extends"][peer.name]}, "north")


def south_head(north: Domain, south: Domain, number: int) -> None:
    """North holds a head of south's in turn."""
    held = north.held_of(south)
    note = shown(south, number, held, "north")
    north.ledger.heads.cosign(note, "south", south.node_key, held, release(number))


@dataclass(frozen=True)
class Kind:
    """One kind of tampering: its name as in docs/ledger.md, and what the verdict must say."""

    name: str
    tamper: Callable[[Scene], object]
    says: str
    of: str = "file"
    needs_heads: bool = False


def found(scene: Scene, kind: Kind) -> None:
    """The tampering is found, without the peers' heads unless it needs them, and named."""
    kind.tamper(scene)
    check = scene.verify_file if kind.of == "file" else scene.verify_bundle
    alone = check(False)
    assert alone.ok == kind.needs_heads, alone.text
    if kind.needs_heads:
        assert not alone.complete
        assert "not proven complete" in alone.text
    found = check(True)
    assert not found.ok
    assert not found.complete
    assert kind.says in found.problem
    if not kind.needs_heads:
        assert kind.says in alone.problem
