"""Tampering with the database file, by whoever has it and by the node itself: found, and named.

docs/ledger.md lists the same kinds and says which only the peers' heads show. Whoever has the file
can take its guards off; the node also has its signing key, and can write any history it likes.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from policies.accounting import Event
from policies.approvals import owner_key_hex
from policies.canonical import sha256_hex
from policies.ledger import Ledger
from tests.policies.tampering import (
    OTHER,
    PLAN,
    ROUND,
    SECOND,
    Kind,
    Scene,
    approve,
    finish_round,
    found,
)

DOCS = Path(__file__).parents[2] / "docs" / "ledger.md"


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


def late_clock(scene: Scene) -> None:
    """South signed hours before the entries that it signed were written, it says."""
    (scene.heads / "east.json").unlink()
    for file in scene.heads.iterdir():
        said = json.loads(file.read_text())
        said |= {"witness_key": owner_key_hex(OTHER), "opened": []}
        for head in said["heads"]:
            head["time"] = "2026-01-01T00:00:00+00:00"
            parts = (head["node_key"], head["size"], head["root"], head["time"])
            text = "\n".join(map(str, ("coterie-cosignature-v1", *parts)))
            head["cosignature"] = OTHER.sign(text.encode()).hex()
        file.write_text(json.dumps(said))


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
    Kind("take the guards off", sql("SELECT 1", guards=False), "was taken away"),
    Kind("weaken a guard", lambda s: s.change(
        *(f"CREATE TRIGGER {t} BEFORE DELETE ON ledgerentry BEGIN SELECT 1; END" for t in ("x",))),
        "'x' doesn't belong there"),
    Kind("put a table behind a view", sql(
        "ALTER TABLE ledgerbudget RENAME TO b", "CREATE VIEW ledgerbudget AS SELECT * FROM b"),
        "'b' doesn't belong there"),
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
    Kind("set the clock ahead while writing", late_clock, "dated after", needs_heads=True),
    Kind("hide an entry from the auditor's questions", sql(
        "DELETE FROM ledgermention WHERE kind = 'charge'"), "table ledgermention"),
    Kind("date an attempt into another month", sql(
        "UPDATE ledgerattempt SET reserved = '2020-01-01T00:00:00+00:00'"), "table ledgerattempt"),
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_tampering_is_found_and_named(scene: Scene, kind: Kind) -> None:
    found(scene, kind)
