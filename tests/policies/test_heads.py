"""Heads that domains show each other: what was shown can't be taken back."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from policies.accounting import Event
from policies.ledger import HeadRefused
from policies.ledger.heads import Cosignature, Note, Shown
from tests.policies.ledgers_of_domains import (
    PLAN,
    ROUND,
    Domain,
    a_round,
    cosign,
    release,
    shown,
)


@pytest.fixture
def north(tmp_path: Path) -> Iterator[Domain]:
    domain = Domain.create("north", tmp_path)
    yield domain
    domain.ledger.dispose()


@pytest.fixture
def south(tmp_path: Path) -> Iterator[Domain]:
    domain = Domain.create("south", tmp_path)
    yield domain
    domain.ledger.dispose()


def test_each_round_the_peer_holds_the_newest_head_and_its_signature_returns(
    north: Domain, south: Domain
) -> None:
    for number in range(3):
        note = a_round(north, south, number)
        assert south.held_of(north) == [note.head.size]
        (signed,) = south.ledger.heads.cosignatures([north.node_key])
        north.ledger.heads.keep(signed, "south", south.node_key)
    kept = north.ledger.heads.kept()
    assert [row["root"] for row in kept][-1] == note.head.root
    assert [row["size"] for row in kept] == [5, 6, 7]
    exported = south.ledger.heads.export()
    assert [head["size"] for head in exported["heads"]] == [5, 6, 7]
    assert exported["witness"] == "south"


def test_what_is_held_outlives_a_restart(north: Domain, south: Domain) -> None:
    note = a_round(north, south, 0)
    south.reopen()
    assert south.held_of(north) == [note.head.size]


def test_a_rolled_back_ledger_is_refused_with_a_sentence(
    north: Domain, south: Domain, tmp_path: Path
) -> None:
    a_round(north, south, 0)
    north.copy(tmp_path / "old.db")
    for number in (1, 2, 3):
        a_round(north, south, number)
    north.restore(tmp_path / "old.db")
    held = south.held_of(north)
    with pytest.raises(
        HeadRefused, match=r"north: its ledger has 6 entries, but it showed 8 .* back"
    ):
        cosign(south, north, shown(north, 1, held), held, 1)
    assert south.held_of(north) == held


def test_a_rolled_back_ledger_that_has_grown_again_is_refused_too(
    north: Domain, south: Domain, tmp_path: Path
) -> None:
    a_round(north, south, 0)
    north.copy(tmp_path / "old.db")
    a_round(north, south, 1)
    north.restore(tmp_path / "old.db")
    held = south.held_of(north)
    north.ledger.refuse("f" * 64, "rule", "another history")
    with pytest.raises(HeadRefused, match="isn't a continuation of the 6 entries"):
        cosign(south, north, shown(north, 1, held), held, 1)
    north.ledger.charge(PLAN, "train", 1, 0, "5" * 64)
    with pytest.raises(HeadRefused, match="isn't a continuation"):
        cosign(south, north, shown(north, 2, held), held, 2)


def test_another_history_of_the_same_length_is_refused(
    north: Domain, south: Domain, tmp_path: Path
) -> None:
    north.copy(tmp_path / "old.db")
    a_round(north, south, 0)
    north.restore(tmp_path / "old.db")
    held = south.held_of(north)
    with pytest.raises(HeadRefused, match="isn't a continuation of the 5 entries"):
        cosign(south, north, shown(north, 9, held), held, 9)


def test_heads_of_two_rounds_at_once_must_both_be_extended_by_the_next(
    north: Domain, south: Domain
) -> None:
    a_round(north, south, 0)
    held = south.held_of(north)
    first, second = shown(north, 1, held), shown(north, 2, held)
    cosign(south, north, second, held, 2)
    cosign(south, north, first, held, 1)
    assert south.held_of(north) == [first.head.size, second.head.size]
    a_round(north, south, 3)
    assert south.held_of(north) == [8]


def test_a_fork_shown_in_two_rounds_at_once_is_refused_in_the_next(
    north: Domain, south: Domain, tmp_path: Path
) -> None:
    a_round(north, south, 0)
    held = south.held_of(north)
    north.copy(tmp_path / "fork.db")
    note = shown(north, 1, held)
    north.restore(tmp_path / "fork.db")
    north.ledger.refuse("f" * 64, "rule", "the other branch")
    other = shown(north, 2, held)
    cosign(south, north, note, held, 1)
    cosign(south, north, other, held, 2)
    with pytest.raises(HeadRefused, match="isn't a continuation"):
        a_round(north, south, 3)


@pytest.mark.parametrize(
    "changes",
    [
        {"plan": "b" * 64},
        {"step": "other"},
        {"release": 1},
        {"attempt": 1},
        {"event": Event(8.0, 1.0, 1)},
    ],
)
def test_a_peer_that_has_not_set_this_very_release_aside_gets_nothing(
    north: Domain, south: Domain, changes: dict[str, Any]
) -> None:
    note = shown(north, 0, [])
    with pytest.raises(HeadRefused, match="doesn't show that its ledger has set"):
        south.ledger.heads.cosign(note, "north", north.node_key, [], release(0, **changes))
    assert south.held_of(north) == []


def test_a_reservation_that_is_in_no_head_does_not_count(north: Domain, south: Domain) -> None:
    note = shown(north, 0, [])
    body = note.reservation.body.replace('"release":0', '"release":1')
    forged = note.model_copy(
        update={"reservation": note.reservation.model_copy(update={"body": body})}
    )
    with pytest.raises(HeadRefused, match="doesn't show"):
        cosign(south, north, forged, [], 1)


def test_a_head_counts_under_the_pinned_key_and_name_only(north: Domain, south: Domain) -> None:
    note = shown(north, 0, [])
    for name, key in (("east", north.node_key), ("north", south.node_key)):
        with pytest.raises(HeadRefused, match="isn't signed by its node key"):
            south.ledger.heads.cosign(note, name, key, [], release(0))


def test_a_cosignature_is_kept_only_if_it_is_the_peers_under_our_head(
    north: Domain, south: Domain, tmp_path: Path
) -> None:
    north.copy(tmp_path / "old.db")
    a_round(north, south, 0)
    (signed,) = south.ledger.heads.cosignatures([north.node_key])
    for forged in (
        signed.model_copy(update={"signature": "0" * 128}),
        signed.model_copy(update={"time": "2020-01-01T00:00:00+00:00"}),
        signed.model_copy(update={"node_key": south.node_key}),
    ):
        with pytest.raises(HeadRefused, match="isn't under this ledger's head"):
            north.ledger.heads.keep(forged, "south", south.node_key)
    north.restore(tmp_path / "old.db")
    with pytest.raises(HeadRefused, match="rolled back to an older copy"):
        north.ledger.heads.keep(signed, "south", south.node_key)
    assert north.ledger.heads.kept() == []


@pytest.mark.parametrize(
    "message",
    [
        None,
        [],
        {},
        {"head": 1},
        {"head": {"domain": "north", "size": -1, "root": "0", "signature": ""}},
        {"node_key": "0" * 64, "size": 2**70, "root": "0" * 64, "time": "", "signature": "0" * 128},
    ],
)
def test_a_message_of_any_shape_is_a_refusal(message: object) -> None:
    for kind in (Note, Cosignature):
        with pytest.raises(HeadRefused, match="malformed"):
            kind.read(message, "north")


def test_what_peers_signed_can_not_be_changed_by_mistake(north: Domain, south: Domain) -> None:
    a_round(north, south, 0)
    with sqlite3.connect(south.path) as connection:
        for change in (
            "DELETE FROM ledgerpeerhead",
            "UPDATE ledgerpeerhead SET root = ''",
            "DELETE FROM ledgerentry",
            "UPDATE ledgerentry SET body = ''",
        ):
            with pytest.raises(sqlite3.IntegrityError, match="only grows"):
                connection.execute(change)
    connection.close()


def test_a_charge_and_what_was_shown_for_it_are_kept_together(
    north: Domain, south: Domain, tmp_path: Path
) -> None:
    held = south.held_of(north)
    note = shown(north, 0, held)
    south.ledger.reserve(PLAN, "train", 0, 0, ROUND)
    seen = [Shown(note, "north", north.node_key, held)]
    south.ledger.heads.check(seen, release(0))
    assert south.held_of(north) == [], "checked, and not yet kept"
    south.ledger.charge(PLAN, "train", 0, 0, "5" * 64, seen)
    assert south.held_of(north) == [note.head.size]
    (signed,) = south.ledger.heads.cosignatures([north.node_key])
    north.ledger.heads.keep(signed, "south", south.node_key)


def test_nothing_is_charged_for_a_head_that_was_contradicted_meanwhile(
    north: Domain, south: Domain, tmp_path: Path
) -> None:
    north.copy(tmp_path / "old.db")
    note = shown(north, 0, [])
    south.ledger.reserve(PLAN, "train", 0, 0, ROUND)
    seen = [Shown(note, "north", north.node_key, [])]
    south.ledger.heads.check(seen, release(0))
    north.restore(tmp_path / "old.db")
    other = shown(north, 1, [])  # of the same size, from another round at the same time
    cosign(south, north, other, [], 1)
    with pytest.raises(HeadRefused, match="rewritten"):
        south.ledger.charge(PLAN, "train", 0, 0, "5" * 64, seen)
    assert south.ledger.attempt(PLAN, "train", 0, 0) == "reserved"
    assert south.held_of(north) == [other.head.size]
