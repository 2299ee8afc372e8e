"""Every kind of tampering we know, on the database file and on the bundle: found, and named.

docs/ledger.md lists the same kinds and says which only the peers' heads show. `OUTSIDER` has the
file, `NODE` also its signing key: it can write any history it likes, guards and indexes in order.
"""

import dataclasses
import json
import shutil
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from policies.accounting import Event
from policies.approvals import owner_key_hex, sign_approval
from policies.canonical import canonical, sha256_hex
from policies.ledger import GENESIS, Entry, Ledger
from policies.merkle import Tree
from policies.verify import Verdict, verify, verify_proof
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


def finish_round(ledger: Ledger, number: int) -> None:
    ledger.charge(PLAN, "train", number, 0, sha256_hex(bytes([number])))
    ledger.settle(PLAN, "train", number, 0, sha256_hex(bytes([100 + number])))


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


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    folder = tmp_path_factory.mktemp("honest")
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
        finish_round(north.ledger, number)
        if number == 0:
            north.copy(folder / "old.db")
    north.copy(folder / "tampered.db")
    (folder / "peers").mkdir()
    for peer in domains:
        text = json.dumps(peer.ledger.heads.export())
        (folder / "peers" / f"{peer.name}.json").write_text(text)
    return Scene(folder, north, north.ledger.entries(), north.ledger.export())


def shown_to(north: Domain, entry: Entry, held: list[int], peer: Domain) -> Any:
    from policies.ledger.heads import Note

    note = north.ledger.heads.note(entry, {peer.name: held})
    return Note.read({**note, "extends": note["extends"][peer.name]}, "north")


def south_head(north: Domain, south: Domain, number: int) -> None:
    """North holds a head of south's in turn."""
    held = north.held_of(south)
    note = shown(south, number, held, "north")
    north.ledger.heads.cosign(note, "south", south.node_key, held, release(number))


@pytest.fixture
def scene(honest: Scene, tmp_path: Path) -> Scene:
    shutil.copytree(honest.folder, tmp_path / "scene")
    bundle = json.loads(json.dumps(honest.bundle))
    return Scene(tmp_path / "scene", honest.north, list(honest.entries), bundle)


def test_the_honest_ledger_is_complete_with_the_heads_and_not_proven_without(scene: Scene) -> None:
    for check in (scene.verify_file, scene.verify_bundle):
        alone, witnessed = check(False), check(True)
        assert alone.ok, alone.text
        assert not alone.complete
        assert "consistent, not proven complete" in alone.text
        assert witnessed.ok, witnessed.text
        assert witnessed.complete
        assert "complete (" in witnessed.text
        assert "Co-signed up to entry 13 by south" in witnessed.text
        assert "Entries 14 to 15 came after" in witnessed.text


@dataclass(frozen=True)
class Kind:
    """One kind of tampering: its name as in docs/ledger.md, and what the verdict must say."""

    name: str
    tamper: Callable[[Scene], object]
    says: str
    of: str = "file"
    needs_heads: bool = False


def sql(*changes: str, guards: bool = True) -> Callable[[Scene], object]:
    return lambda scene: scene.change(*changes, guards=guards)


def entry_sql(what: str, where: str) -> Callable[[Scene], object]:
    return sql(f'UPDATE ledgerentry SET {what} WHERE "index" = {where}')


CHARGE = "(SELECT min(\"index\") FROM ledgerentry WHERE kind = 'charge')"
CUT = (
    'DELETE FROM ledgerentry WHERE "index" > 12',
    'UPDATE ledgerhead SET "index" = 12, hash = (SELECT hash FROM ledgerentry WHERE "index" = 12)',
    'DELETE FROM ledgerattempt WHERE "release" = 2',
    "UPDATE ledgeruse SET count = 2",
    "DELETE FROM ledgercosignature WHERE size > 12",
    'DELETE FROM ledgermention WHERE "index" > 12',
)


def swapped(scene: Scene) -> None:
    scene.change(
        'UPDATE ledgerentry SET "index" = -1 WHERE "index" = 5',
        'UPDATE ledgerentry SET "index" = 5 WHERE "index" = 6',
        'UPDATE ledgerentry SET "index" = 6 WHERE "index" = -1',
    )


def rolled_back(scene: Scene) -> None:
    shutil.copy(scene.old, scene.file)


def with_north(scene: Scene, act: Callable[[Ledger], object]) -> None:
    ledger = Ledger(f"sqlite:///{scene.file}", "north", scene.north.key)
    act(ledger)
    ledger.dispose()


def forked(scene: Scene) -> None:
    rolled_back(scene)

    def grow(ledger: Ledger) -> None:
        for number in range(5, 9):
            ledger.reserve(PLAN, "train", number, 0, ROUND)

    with_north(scene, grow)


def fewer_releases(ledger: Ledger) -> None:
    approve(ledger, PLAN, SECOND)
    for number in range(2):
        ledger.reserve(PLAN, "train", number, 0, ROUND)
        finish_round(ledger, number)
    ledger.refuse("f" * 64, "rule", "one")
    ledger.refuse("f" * 64, "rule", "two")


def quieter(ledger: Ledger) -> None:
    approve(ledger, PLAN, SECOND, noise=40.0)
    for number in range(3):
        ledger.reserve(PLAN, "train", number, 0, Event(40.0, 1.0, 1))
        finish_round(ledger, number)


def as_void(scene: Scene) -> None:
    rolled_back(scene)

    def grow(ledger: Ledger) -> None:
        for number in (1, 2):
            ledger.reserve(PLAN, "train", number, 0, ROUND)
            ledger.void(PLAN, "train", number, 0, "nothing left")
        ledger.refuse("f" * 64, "rule", "one")
        ledger.refuse("f" * 64, "rule", "two")

    with_north(scene, grow)


def other_population(ledger: Ledger) -> None:
    ledger.open_budget("strangers", 8.0, 1e-5)
    approve(ledger, PLAN, SECOND)
    for number in range(3):
        ledger.reserve(PLAN, "train", number, 0, ROUND)
        finish_round(ledger, number)


def another_ledger(scene: Scene) -> None:
    scene.file.unlink()
    ledger = Ledger(f"sqlite:///{scene.file}", "north", OTHER)
    approve(ledger, PLAN, SECOND)
    ledger.dispose()


def bundle_entry(position: int, field: int, value: Any) -> Callable[[Scene], object]:
    def tamper(scene: Scene) -> None:
        scene.bundle["entries"][position][field] = value

    return tamper


def bundled(**changes: Any) -> Callable[[Scene], object]:
    return lambda scene: scene.bundle.update(changes)


def swap_approvals(scene: Scene) -> None:
    first, second = scene.place("approval"), scene.place("approval", 1)
    plan = json.loads(scene.entries[second].body)["plan"]
    signature = json.loads(scene.entries[first].body)["signature"]
    scene.resign(scene.edited("approval", 1, plan=plan, signature=signature))


def add(kind: str, **body: Any) -> Callable[[Scene], object]:
    def tamper(scene: Scene) -> None:
        last = scene.entries[-1]
        body["time"] = json.loads(last.body)["time"]
        text = canonical(body).decode()
        scene.resign([*scene.entries, dataclasses.replace(last, kind=kind, body=text)])

    return tamper


def cut_bundle(scene: Scene) -> None:
    scene.resign(scene.entries[:10])


def late_clock(scene: Scene) -> None:
    """The peers signed hours before the entries that they signed were written, it says."""
    for file in scene.heads.iterdir():
        said = json.loads(file.read_text())
        said["witness_key"] = owner_key_hex(OTHER)
        for head in said["heads"]:
            head["time"] = "2026-01-01T00:00:00+00:00"
            parts = (head["node_key"], head["size"], head["root"], head["time"])
            text = "\n".join(map(str, ("coterie-cosignature-v1", *parts)))
            head["cosignature"] = OTHER.sign(text.encode()).hex()
        file.write_text(json.dumps(said))


def head_file(**changes: Any) -> Callable[[Scene], object]:
    def tamper(scene: Scene) -> None:
        file = scene.heads / "south.json"
        said = json.loads(file.read_text())
        for head in said["heads"]:
            head |= changes
        file.write_text(json.dumps(said))

    return tamper


def respell(kind: str, old: str, new: str) -> Callable[[Scene], object]:
    return lambda scene: scene.resign(scene.respelled(kind, old, new))


def own_witness(scene: Scene) -> None:
    """The node signs its own head in a peer's name."""
    file = scene.heads / "south.json"
    said, key = json.loads(file.read_text()), scene.north.key
    said["witness_key"] = owner_key_hex(key)
    for head in said["heads"]:
        parts = (head["node_key"], head["size"], head["root"], head["time"])
        text = "\n".join(map(str, ("coterie-cosignature-v1", *parts)))
        head["cosignature"] = key.sign(text.encode()).hex()
    file.write_text(json.dumps(said))


NO_NOISE = {"count": 1, "noise_multiplier": 0.5, "sampling_rate": 1}
KINDS = [
    # Whoever has the file, and no key
    Kind("edit an entry's text", entry_sql("body = replace(body, '4', '9')", CHARGE), "was edited"),
    Kind("edit a charge's noise", entry_sql(
        "body = replace(body, 'multiplier\":4', 'multiplier\":40')",
        '(SELECT min("index") FROM ledgerentry WHERE kind = \'reservation\')'), "was edited"),
    Kind("change an entry's kind", entry_sql("kind = 'void'", CHARGE), "was edited"),
    Kind("fit the hash to an edited entry", lambda s: s.change(
        "UPDATE ledgerentry SET kind = 'void', hash = '"
        + sha256_hex(f"coterie-ledger-entry-v1\n8\n{s.entries[7].previous}\nvoid\n"
                     f"{s.entries[7].body}".encode())
        + '\' WHERE "index" = 8'), "signature isn't the node's"),
    Kind("take another entry's signature", entry_sql(
        'signature = (SELECT signature FROM ledgerentry WHERE "index" = 2)', CHARGE),
        "signature isn't the node's"),
    Kind("delete an entry", sql('DELETE FROM ledgerentry WHERE "index" = 6'), "missing or moved"),
    Kind("delete the first entry", sql('DELETE FROM ledgerentry WHERE "index" = 1'),
         "missing or moved"),
    Kind("swap two entries", swapped, "isn't chained to the entry before"),
    Kind("repeat an entry at the end", sql(
        'INSERT INTO ledgerentry SELECT 16, previous, kind, body, hash, signature FROM ledgerentry'
        ' WHERE "index" = 15'), "isn't chained"),
    Kind("cut the end off", sql('DELETE FROM ledgerentry WHERE "index" > 12'), "table ledgerhead"),
    Kind("cut the end off, indexes fitted", sql(*CUT), "co-signed 13 entries, here are 12",
         needs_heads=True),
    Kind("mark a charge as void in the index", sql(
        "UPDATE ledgerattempt SET state = 'void' WHERE \"release\" = 1"), "table ledgerattempt"),
    Kind("delete attempts from the index", sql("DELETE FROM ledgerattempt"), "table ledgerattempt"),
    Kind("lower an attempt's cost in the index", sql(
        "UPDATE ledgerattempt SET noise_multiplier = 400"), "table ledgerattempt"),
    Kind("lower what a plan has used in the index", sql("UPDATE ledgeruse SET count = 1"),
         "table ledgeruse"),
    Kind("reopen a plan in the index", sql("UPDATE ledgerplan SET status = 'pending'"),
         "table ledgerplan"),
    Kind("raise a plan's releases in the index", sql(
        "UPDATE ledgerplan SET events = replace(events, '\"count\": 10', '\"count\": 99')"),
        "table ledgerplan"),
    Kind("raise a plan's spare attempts in the index", sql(
        "UPDATE ledgerplan SET spare_attempts = 9"), "table ledgerplan"),
    Kind("change who decided in the index", sql("UPDATE ledgerplan SET decided_by = 'boss'"),
         "table ledgerplan"),
    Kind("raise the cap in the index", sql("UPDATE ledgerbudget SET epsilon = 80"),
         "table ledgerbudget"),
    Kind("move the head in the index", sql('UPDATE ledgerhead SET "index" = 3'),
         "table ledgerhead"),
    Kind("take the guards off", sql("SELECT 1", guards=False), "guards against rewriting"),
    Kind("weaken a guard", lambda s: s.change(
        *(f"CREATE TRIGGER {t} BEFORE DELETE ON ledgerentry BEGIN SELECT 1; END" for t in ("x",))),
        "guards against rewriting"),
    Kind("put a table behind a view", sql(
        "ALTER TABLE ledgerbudget RENAME TO b", "CREATE VIEW ledgerbudget AS SELECT * FROM b"),
        "a table may have been put behind"),
    Kind("change a peer's co-signature", sql(
        "UPDATE ledgercosignature SET root = '" + "0" * 64 + "' WHERE size = 10"), "isn't"),
    Kind("change a head that is kept of a peer", sql("UPDATE ledgerpeerhead SET size = size + 50"),
         "the head of south"),
    # The node itself, with its key
    Kind("roll back to an old copy", rolled_back, "co-signed 10 entries, here are 9",
         needs_heads=True),
    Kind("roll back and go on differently (fork)", forked, "rewritten, or this is a fork",
         needs_heads=True),
    Kind("roll back and void what was sent", as_void, "co-signed", needs_heads=True),
    Kind("rewrite with fewer releases", lambda s: s.rewrite(fewer_releases),
         "co-signed", needs_heads=True),
    Kind("rewrite with more noise", lambda s: s.rewrite(quieter),
         "rewritten, or this is a fork", needs_heads=True),
    Kind("rewrite with another population before", lambda s: s.rewrite(other_population),
         "rewritten, or this is a fork", needs_heads=True),
    Kind("re-sign under another key", another_ledger, "it names node key"),
    Kind("remove the approval", lambda s: s.resign(s.without("approval")),
         "reserved while the plan is pending", "bundle"),
    Kind("swap two approvals", swap_approvals, "owner's signature doesn't fit", "bundle"),
    Kind("approve with another key", lambda s: s.resign(s.edited(
        "approval", owner_key=owner_key_hex(OTHER), signature=sign_approval(OTHER, PLAN, "north"))),
        "not by the domain's owner", "bundle"),
    Kind("charge without a reservation", lambda s: s.resign(s.without("reservation", 1)),
         "no open reservation", "bundle"),
    Kind("open without a charge", lambda s: s.resign(s.without("charge")),
         "opened without a charge", "bundle"),
    Kind("reserve at another noise than approved", lambda s: s.resign(
        s.edited("reservation", event=NO_NOISE)), "isn't in the approved plan", "bundle"),
    Kind("charge an attempt twice", lambda s: s.resign(
        [*s.entries, s.again(s.entries[-2])]),
        "no open reservation", "bundle"),
    Kind("lower the cap afterwards", lambda s: s.resign(s.edited("budget", epsilon=0.5)),
         "over its budget", "bundle"),
    Kind("choose other orders for the filter afterwards", lambda s: s.resign(
        [*s.entries, s.again(s.entries[1], orders=[2.0], shares=[1.0])]),
        "after something was reserved", "bundle"),
    Kind("give the filter's orders more than all of delta", lambda s: s.resign(
        s.edited("budget", orders=[2.0, 3.0], shares=[0.9, 0.9])), "no such filter", "bundle"),
    Kind("date an entry back", lambda s: s.resign(
        s.edited("charge", 1, time="2020-01-01T00:00:00+00:00")), "dated before the entry",
        "bundle"),
    Kind("date an entry ahead", lambda s: s.resign(
        s.edited("release", 2, time="2126-01-01T00:00:00+00:00")), "dated in the future",
        "bundle"),
    Kind("set the clock ahead while writing", late_clock, "dated after", needs_heads=True),
    Kind("add an entry of an unknown kind", add("pardon", plan=PLAN), "unknown kind", "bundle"),
    Kind("use an approval for another domain", lambda s: s.resign(s.edited(
        "approval", signature=sign_approval(OWNER, PLAN, "south"))),
        "owner's signature doesn't fit", "bundle"),
    Kind("open a second ledger inside", lambda s: s.resign([*s.entries, s.again(s.entries[0])]),
         "opened only once", "bundle"),
    # The node writes entries as no honest one does, hashed and signed by its key
    Kind("write a whole number as a fraction",
         respell("reservation", '"noise_multiplier":4,', '"noise_multiplier":4.0,'),
         "RFC 8785", "bundle"),
    Kind("write a number with an exponent",
         respell("budget", '"epsilon":8', '"epsilon":8e0'), "RFC 8785", "bundle"),
    Kind("write a number too large for its type",
         respell("budget", '"epsilon":8', '"epsilon":1e999'), "can't be read", "bundle"),
    Kind("write an integer that no other reader can hold",
         respell("reservation", '"release":0', '"release":90071992547409930'),
         "can't be read", "bundle"),
    Kind("write true for a number", respell("reservation", '"release":0', '"release":true'),
         "its 'release' is bool", "bundle"),
    Kind("say a field twice",
         respell("reservation", '{"attempt":0', '{"attempt":1,"attempt":0'),
         "a key stands twice", "bundle"),
    Kind("put a field more into an entry", lambda s: s.resign(s.edited("charge", refund=True)),
         "says more than its kind may: ['refund']", "bundle"),
    Kind("put a field more into a mechanism", lambda s: s.resign(s.edited("reservation", event={
        "count": 1, "noise_multiplier": 4, "sampling_rate": 1, "clip": 9})),
        "a mechanism says", "bundle"),
    Kind("leave a field out", lambda s: s.resign(s.respelled(
        "release", '"attempt":0,', "")), "it lacks ['attempt']", "bundle"),
    Kind("write spaces into an entry", respell("charge", '{"attempt"', '{ "attempt"'),
         "RFC 8785", "bundle"),
    Kind("write letters as escapes", respell("charge", '"step":"train"',
         '"step":"tr\\u0061in"'), "RFC 8785", "bundle"),
    Kind("date an entry in another time zone",
         respell("charge", '+00:00"', '+05:00"'), "isn't in UTC", "bundle"),
    Kind("date an entry without a time zone", respell("charge", '+00:00"', '"'),
         "isn't in UTC", "bundle"),
    Kind("open a budget under a name that looks alike", add(
        "budget", population="sh\u043eppers", epsilon=8.0, delta=1e-5, public=False),
        "isn't plain ASCII", "bundle"),
    # The exported bundle
    Kind("claim a huge count", bundled(size=10**18), "the bundle says it has 10000", "bundle"),
    Kind("claim a fractional count", bundled(size=15.0), "isn't a whole number", "bundle"),
    Kind("edit an entry of the bundle", bundle_entry(6, 3, "{}"), "was edited", "bundle"),
    Kind("drop the bundle's last entries",
         lambda s: s.bundle.update(entries=s.bundle["entries"][:-2]),
         "the bundle says it has 15 entries, it has 13", "bundle"),
    Kind("date the bundle anew", bundled(exported="2026-06-01T00:00:00+00:00"),
         "bundle isn't signed", "bundle"),
    Kind("drop the bundle's co-signatures", bundled(cosignatures=[]), "bundle isn't signed",
         "bundle"),
    Kind("give the bundle another root", bundled(root="0" * 64), "bundle's head", "bundle"),
    Kind("give the bundle another domain's name", bundled(domain="south"), "bundle's head",
         "bundle"),
    Kind("re-sign the bundle under another key", lambda s: s.resign(s.entries, OTHER),
         "signature isn't the node's", "bundle"),
    Kind("cut the bundle and sign it anew", cut_bundle, "co-signed 13 entries, here are 10",
         "bundle", needs_heads=True),
    Kind("hide an entry from the auditor's questions", sql(
        "DELETE FROM ledgermention WHERE kind = 'charge'"), "table ledgermention"),
    Kind("date an attempt into another month", sql(
        "UPDATE ledgerattempt SET reserved = '2020-01-01T00:00:00+00:00'"), "table ledgerattempt"),
    # The peers' heads, on their way to the auditor
    Kind("change a root in a peer's file", head_file(root="0" * 64), "isn't signed by its node",
         needs_heads=True),
    Kind("change a time in a peer's file", head_file(time="2026-01-01T00:00:00+00:00"),
         "the co-signature at", needs_heads=True),
    Kind("sign one's own head in a peer's name", own_witness,
         "signed by the ledger's own key", needs_heads=True),
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_tampering_is_found_and_named(scene: Scene, kind: Kind) -> None:
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


def test_the_kinds_are_at_least_thirty_and_all_documented() -> None:
    assert len({kind.name for kind in KINDS}) == len(KINDS) >= 30
    rows = [line.strip("| ").split(" | ") for line in DOCS.read_text().splitlines() if "|" in line]
    documented = {row[0]: row[-1] for row in rows}
    for kind in KINDS:
        assert documented[kind.name] == ("peers' heads" if kind.needs_heads else "the ledger alone")


def test_a_proof_of_one_entry_holds_for_that_entry_only(scene: Scene, tmp_path: Path) -> None:
    file = tmp_path / "proof.json"
    proof = scene.north.ledger.prove(8, 13)
    file.write_text(json.dumps(proof))
    good = verify_proof(file, scene.north.node_key, scene.heads)
    assert good.complete, good.text
    assert "Entry 8 is in the ledger of 'north' at 13 entries" in good.text
    assert "south" in good.text
    forgeries = [
        {**proof, "entry": {**proof["entry"], "body": "{}"}},
        {**proof, "entry": {**proof["entry"], "index": 9}},
        {**proof, "entry": {**proof["entry"], "path": proof["entry"]["path"][1:]}},
        {**proof, "head": {**proof["head"], "size": 14}},
        {**proof, "head": {**proof["head"], "root": "0" * 64}},
        {**proof, "head": 3},
        {**proof, "head": scene.north.ledger.prove(8, 12)["head"]},
        {**proof, "head": scene.north.ledger.prove(8)["head"]},
        {**proof, "head": {**proof["head"], "size": 2**63}},
        {**proof, "entry": {**proof["entry"], "index": 8.0}},
        {**proof, "entry": {**proof["entry"], "index": True}},
        {**proof, "entry": {**proof["entry"], "path": proof["entry"]["path"] * 2000}},
    ]
    for forged in forgeries:
        file.write_text(json.dumps(forged))
        assert not verify_proof(file, scene.north.node_key, scene.heads).ok
    assert not verify_proof(file, "0" * 64).ok


def test_heads_of_keys_outside_the_roster_do_not_count(scene: Scene) -> None:
    keys = {each["witness_key"] for each in map(_read, scene.heads.iterdir())}
    check = scene.file, scene.north.node_key, owner_key_hex(OWNER), scene.heads
    pinned = verify(*check, peers=keys)
    assert pinned.complete
    assert "compare them with the roster" not in pinned.text
    assert "peers' keys were taken from their files" in verify(*check).text
    stranger = verify(*check, peers=list(keys)[:1])
    assert "no key of the roster" in stranger.problem


def _read(file: Path) -> Any:
    return json.loads(file.read_text())


@pytest.mark.parametrize("text", ["", "[]", "{", '{"format": 1}', '{"format":"coterie-ledger-v1"}'])
def test_files_of_any_shape_are_findings(scene: Scene, text: str) -> None:
    for name in ("tampered.json", "peers/south.json"):
        (scene.folder / name).write_text(text if text.startswith("{") else "{" + text)
    assert not verify(scene.folder / "tampered.json").ok
    assert not verify(scene.file, heads=scene.heads).ok
    assert not verify_proof(scene.folder / "tampered.json").ok
    with pytest.raises(FileNotFoundError):
        verify(scene.file, heads=scene.folder / "none")
