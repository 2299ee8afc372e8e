"""Tampering that hides behind honest rows: planted objects, other spellings, what peers know."""

import dataclasses
import json
import shutil
import sqlite3
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from policies.canonical import canonical, sha256_hex
from policies.ledger import Entry
from policies.verify import verify, verify_proof
from tests.policies import test_tampering, test_tampering_bundle, test_tampering_signed
from tests.policies.ledgers_of_domains import Domain
from tests.policies.tampering import Kind, Scene, found, masked

DOCS = Path(__file__).parents[2] / "docs" / "ledger.md"
TENTH = 'WHERE "index" = 10'


def planted(*changes: str) -> Callable[[Scene], object]:
    """SQL that needs no guard taken off."""

    def tamper(scene: Scene) -> None:
        with sqlite3.connect(scene.file) as connection:
            for change in changes:
                connection.execute(change)
        connection.close()

    return tamper


def changed(*changes: str) -> Callable[[Scene], object]:
    return lambda scene: scene.change(*changes)


def made_anew(table: str, columns: str) -> Callable[[Scene], object]:
    return changed(
        f"ALTER TABLE {table} RENAME TO was",
        f"CREATE TABLE {table} ({columns})",
        f"INSERT INTO {table} SELECT * FROM was",
        "DROP TABLE was",
    )


def in_the_log(scene: Scene) -> None:
    """The file is as it was; what is beside it says something else."""
    honest, log = scene.file.read_bytes(), scene.file.with_name(scene.file.name + "-wal")
    connection = sqlite3.connect(scene.file)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA wal_autocheckpoint=0")
    in_wal_mode = scene.file.read_bytes()
    connection.execute("DROP TRIGGER ledgerentry_no_update")
    connection.execute(f"UPDATE ledgerentry SET kind = 'void' {TENTH}")
    connection.commit()
    left = log.read_bytes()
    connection.close()
    assert honest[100:] == in_wal_mode[100:]
    scene.file.write_bytes(in_wal_mode)
    log.write_bytes(left)


def entry_part(position: int, part: int, value: Any) -> Callable[[Scene], object]:
    def tamper(scene: Scene) -> None:
        scene.bundle["entries"][position][part] = value

    return tamper


def sealed(act: Callable[[list[dict[str, Any]]], object]) -> Callable[[Scene], object]:
    """Change the bundle's co-signatures and sign it anew with the node's key."""

    def tamper(scene: Scene) -> None:
        act(scene.bundle["cosignatures"])
        scene.seal(scene.north.key)

    return tamper


def dated(scene: Scene) -> None:
    time = {"time": "2026-01-01T00:00:00+00:00"}
    bodies = [canonical(json.loads(e.body) | time).decode() for e in scene.entries]
    pairs = zip(scene.entries, bodies, strict=True)
    scene.resign([dataclasses.replace(entry, body=body) for entry, body in pairs])


def early_bundle(scene: Scene) -> None:
    scene.bundle["exported"] = "2026-01-01T00:00:00+00:00"
    scene.seal(scene.north.key)


def kept_rate(scene: Scene) -> None:
    entry = scene.bundle["entries"][scene.place("reservation")]
    entry[3] = entry[3].replace('"sampling_rate":1', '"sampling_rate":0.5')


def last_voided(scene: Scene) -> None:
    """Back to the newest head that peers hold, and the share that they opened never left."""
    last = [entry for entry in scene.entries if entry.kind == "reservation"][-1]
    body = {k: v for k, v in json.loads(last.body).items() if k != "event"}
    void = canonical({**body, "reason": "a peer went away"}).decode()
    scene.resign([*scene.entries[:13], dataclasses.replace(last, kind="void", body=void)])


def other_share(scene: Scene) -> None:
    """The last charge and release anew, over another masked input than was sent."""
    charge, release = (json.loads(entry.body) for entry in scene.entries[-2:])
    opened = release["opened"] | {"north": "9" * 64}
    charge["share"] = sha256_hex(bytes.fromhex("9" * 64))
    release |= {"opened": opened, "inputs": sha256_hex(canonical(opened))}
    pairs = zip(scene.entries[-2:], (charge, release), strict=True)
    ends = [dataclasses.replace(e, body=canonical(body).decode()) for e, body in pairs]
    scene.resign([*scene.entries[:-2], *ends])


def unlike_its_charge(scene: Scene) -> None:
    opened = {"north": "9" * 64}
    inputs = sha256_hex(canonical(opened))
    scene.resign(scene.edited("release", 2, opened=opened, inputs=inputs))


def of_south(scene: Scene) -> None:
    folder = scene.folder / "other"
    folder.mkdir()
    scene.bundle = json.loads(json.dumps(Domain.create("south", folder).ledger.export()))


def in_souths_file(act: Callable[[dict[str, Any]], object]) -> Callable[[Scene], object]:
    def tamper(scene: Scene) -> None:
        file = scene.heads / "south.json"
        said = json.loads(file.read_text())
        act(said)
        file.write_text(json.dumps(said))

    return tamper


def twice_in_souths_file(scene: Scene) -> None:
    file = scene.heads / "south.json"
    file.write_text(file.read_text().replace("{", '{"witness": "west", ', 1))


KINDS = [
    # In the database file
    Kind("plant a trigger", planted(
        "CREATE TRIGGER zz AFTER INSERT ON ledgerentry BEGIN DELETE FROM ledgermention; END"),
        "'zz' doesn't belong there"),
    Kind("plant a table", planted("CREATE TABLE ledgerentry_2 AS SELECT * FROM ledgerentry"),
         "'ledgerentry_2' doesn't belong there"),
    Kind("plant an index that refuses honest rows", planted(
        'CREATE UNIQUE INDEX zz ON ledgerattempt (plan_hash, step, "release")'),
        "'zz' doesn't belong there"),
    Kind("take an index away", planted("DROP INDEX ix_ledgermention_about"),
         "'ix_ledgermention_about' was taken away"),
    Kind("take a table's key away", made_anew("ledgerhead", 'id INTEGER, "index" INTEGER, hash'),
         "'ledgerhead' was changed"),
    Kind("let names match whatever their case", made_anew(
        "ledgerbudget", "population VARCHAR COLLATE NOCASE PRIMARY KEY, epsilon FLOAT NOT NULL,"
        " delta FLOAT NOT NULL, public BOOLEAN NOT NULL"), "'ledgerbudget' was changed"),
    Kind("say another version of the tables", planted(
        "UPDATE ledgerversion SET version_num = '0001'"), "table ledgerversion"),
    Kind("leave a change in the write-ahead log", in_the_log, "was taken away"),
    Kind("write a signature in capitals", changed(
        f"UPDATE ledgerentry SET signature = upper(signature) {TENTH}"), "isn't the node's"),
    Kind("pad a signature", changed(
        f"UPDATE ledgerentry SET signature = signature || ' ' {TENTH}"), "isn't the node's"),
    Kind("write an entry's text as bytes", changed(
        f"UPDATE ledgerentry SET body = CAST(body AS BLOB) {TENTH}"), "can't be read"),
    Kind("write an entry's hash in capitals", changed(
        f"UPDATE ledgerentry SET hash = upper(hash) {TENTH}"), "was edited"),
    Kind("put an entry before the first", changed(
        "INSERT INTO ledgerentry SELECT -1, previous, kind, body, hash, signature FROM ledgerentry"
        f" {TENTH}"), "missing or moved"),
    Kind("keep two heads of one ledger", changed(
        'INSERT INTO ledgerhead SELECT 2, "index", hash FROM ledgerhead'), "table ledgerhead"),
    Kind("plant a use that counts nothing yet", changed(
        "INSERT INTO ledgeruse SELECT population, plan_hash, 99, 1, 0, 0 FROM ledgerplan LIMIT 1"),
        "table ledgeruse"),
    Kind("count less than nothing as used", changed(
        "INSERT INTO ledgeruse SELECT population, plan_hash, 4, 1, 1, -3 FROM ledgerplan LIMIT 1"),
        "table ledgeruse"),
    Kind("forget a peer's newest head", changed("UPDATE ledgerpeerhead SET covered = 1"),
         "the node would let that peer roll back"),
    Kind("name a co-signature after another peer", changed(
        "UPDATE ledgercosignature SET witness = 'east' WHERE witness = 'south'"),
        "is said to be east's key, it is south's"),
    # In the bundle
    Kind("put a member more into the bundle", lambda s: s.bundle.update(note="audited"),
         "lacks or adds ['note']", "bundle"),
    Kind("put a member more into a co-signature", sealed(lambda rows: rows[0].update(note="seen")),
         "lacks or adds ['note']", "bundle"),
    Kind("re-order the co-signatures", sealed(lambda rows: rows.reverse()), "aren't in order",
         "bundle"),
    Kind("repeat a co-signature", sealed(lambda rows: rows.append(rows[-1])), "stands twice",
         "bundle"),
    Kind("write a co-signature's size as a fraction", sealed(
        lambda rows: rows[0].update(size=float(rows[0]["size"]))), "isn't east's", "bundle"),
    Kind("write an entry's number as a fraction", entry_part(3, 0, 4.0), "found 4.0", "bundle"),
    Kind("write an entry's number as text", entry_part(3, 0, "4"), "found '4'", "bundle"),
    Kind("write true for an entry's number", entry_part(0, 0, True), "found True", "bundle"),
    Kind("put a seventh part to an entry", lambda s: s.bundle["entries"][3].append("more"),
         "the bundle can't be read", "bundle"),
    Kind("nest an entry's text without end", entry_part(3, 3, "[" * 100_000), "was edited",
         "bundle"),
    Kind("change a sampling rate and keep the hash", kept_rate, "was edited", "bundle"),
    Kind("forge the first entry", lambda s: s.resign(s.edited("ledger", domain="nord")),
         "owner's signature doesn't fit", "bundle"),
    Kind("give another domain's bundle", of_south, "it names node key", "bundle"),
    Kind("date the bundle before its entries", early_bundle, "which its entries or the clock",
         "bundle"),
    Kind("open another share than was charged", unlike_its_charge,
         "opened another share than was charged", "bundle"),
    Kind("open inputs that aren't those of the hash", lambda s: s.resign(
        s.edited("release", 2, opened={"north": masked("north", 2)})),
        "inputs' hash isn't of what", "bundle"),
    # By the node, with its key
    Kind("date the whole ledger back", dated, "after it had been recorded", "bundle"),
    Kind("spell a plan's name in other code points", lambda s: s.resign(s.edited(
        "submission", name=unicodedata.normalize("NFD", "Pl\u00e4n"))),
        "rewritten, or this is a fork", "bundle", True),
    Kind("cut back to the newest head that peers hold", lambda s: s.resign(s.entries[:13]),
         "'s ledger says that it opened this domain's share", "bundle", True),
    Kind("void the newest charge", last_voided,
         "'s ledger says that it opened this domain's share", "bundle", True),
    Kind("sign the end anew over another share", other_share,
         "'s ledger says that it opened this domain's share", "bundle", True),
    Kind("say a field of a plan's row twice", changed(
        "UPDATE ledgerplan SET events = replace(events, '{', '{\"count\": 9, ')"),
        "a row that no node wrote: a key stands twice"),
    Kind("put spaces into a plan's row", changed(
        "UPDATE ledgerplan SET summary = summary || ' '"), "a row that no node wrote: spaces"),
    # The peers' heads, on their way to the auditor
    Kind("put a member more into a peer's file", in_souths_file(lambda d: d.update(note="seen")),
         "lacks or adds ['note']", needs_heads=True),
    Kind("give a peer's file another name", in_souths_file(lambda d: d.update(witness="west")),
         "is said to be west's key, it is south's", needs_heads=True),
    Kind("say a member of a peer's file twice", twice_in_souths_file, "a key stands twice",
         needs_heads=True),
    Kind("edit what a peer opened", in_souths_file(
        lambda d: d["opened"][0].__setitem__(3, d["opened"][0][3].replace("0", "1"))),
        "isn't a release that south signed", needs_heads=True),
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_tampering_is_found_and_named(scene: Scene, kind: Kind) -> None:
    found(scene, kind)


def test_the_first_bad_entry_is_named_where_one_is_to_blame(scene: Scene) -> None:
    def bad(tamper: Callable[[Scene], object]) -> int | None:
        tamper(scene)
        return scene.verify_bundle(True).first_bad

    honest = json.loads(json.dumps(scene.bundle))
    for tamper, index in (
        (kept_rate, 7),
        (entry_part(3, 0, 4.0), 4),
        (lambda s: s.resign(s.entries[:13]), 14),
        (last_voided, 14),
        (other_share, 14),
        (unlike_its_charge, 15),
    ):
        scene.bundle = json.loads(json.dumps(honest))
        assert bad(tamper) == index


def test_a_removed_refusal_is_found_from_the_peers_heads(tmp_path: Path) -> None:
    from tests.policies.ledgers_of_domains import cosign, shown

    north, south = (Domain.create(name, tmp_path) for name in ("north", "south"))
    north.ledger.refuse("f" * 64, "max_epsilon_per_plan", "too dear")
    cosign(south, north, shown(north, 0, []), [], 0)
    honest = north.ledger.entries()
    without = [entry for entry in honest if entry.kind != "refusal"]
    heads = [json.loads(json.dumps(south.ledger.heads.export()))]
    assert verify(honest, north.node_key, heads=heads).complete
    scene = Scene(tmp_path, north, honest, north.ledger.export())
    scene.resign(without)
    shutil.rmtree(scene.heads, ignore_errors=True)
    alone = scene.verify_bundle(False)
    assert alone.ok == (alone.problem == "")
    chain = [Entry(*each) for each in scene.bundle["entries"]]
    verdict = verify(chain, north.node_key, heads=heads)
    assert "co-signed 6 entries, here are 5" in verdict.problem


def test_a_proof_says_nothing_more_than_a_proof(scene: Scene, tmp_path: Path) -> None:
    file, proof = tmp_path / "proof.json", scene.north.ledger.prove(8, 13)
    for forged in (
        {**proof, "note": "audited"},
        {**proof, "head": {**proof["head"], "time": "now"}},
        {**proof, "entry": {**proof["entry"], "hash": "0" * 64}},
    ):
        file.write_text(json.dumps(forged))
        assert "lacks or adds" in verify_proof(file, scene.north.node_key).problem


def test_a_peer_of_the_roster_whose_heads_are_missing_is_named(scene: Scene) -> None:
    absent = "7" * 64
    keys = {json.loads(file.read_text())["witness_key"] for file in scene.heads.iterdir()}
    verdict = verify(scene.file, scene.north.node_key, heads=scene.heads, peers=[*keys, absent])
    assert verdict.complete
    assert "Nothing was given of peer 7777777777777777, which may have co-signed" in verdict.text


def test_a_large_submission_can_be_proved(tmp_path: Path) -> None:
    from policies.accounting import Event

    north = Domain.create("north", tmp_path)
    queries = {f"step {number}": "0" * 64 for number in range(200)}
    north.ledger.submit(
        "c" * 64, "wide", "s", "shoppers", [Event(9.0, 1.0, 200)], {"queries": queries}
    )
    file, index = tmp_path / "proof.json", north.ledger.head()[0]
    file.write_text(json.dumps(north.ledger.prove(index)))
    assert verify_proof(file, north.node_key).ok


def test_the_kinds_are_at_least_thirty_and_all_documented() -> None:
    others = (test_tampering, test_tampering_bundle, test_tampering_signed)
    kinds = [*(kind for module in others for kind in module.KINDS), *KINDS]
    assert len({kind.name for kind in kinds}) == len(kinds) >= 30
    rows = [line.strip("| ").split(" | ") for line in DOCS.read_text().splitlines() if "|" in line]
    documented = {row[0]: row[-1] for row in rows}
    for kind in kinds:
        assert documented[kind.name] == ("peers' heads" if kind.needs_heads else "the ledger alone")
