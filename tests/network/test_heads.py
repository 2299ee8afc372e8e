"""What domains show each other of their ledgers is of bounded form, so that a liar is named."""

import json
from typing import Any

import pytest

from network import heads as carried
from network.heads import Heads
from network.smpc.messages import MalformedMessage
from network.streams import MAX_HEAD_BYTES

NAMES = [f"{'a partner with a long name' * 2}-{number:02d}" for number in range(64)]
SHARES_BYTES = 2**17
"""More than 64 domains' sealed shares take."""


def as_long_as(size: int) -> str:
    """Text that travels in nearly so many bytes: every quote in it becomes four."""
    return '"' * (size // 4 - 64)


def test_what_64_domains_show_one_of_them_fits_a_message() -> None:
    heads = Heads()
    for name in NAMES:
        extends = {peer: [as_long_as(heads.extension_bytes)] for peer in NAMES}
        heads.take_note(name, {"head": as_long_as(carried.MAX_NOTE_BYTES), "extends": extends})
    told = json.dumps({"notes": json.dumps(heads.notes_for(NAMES[0]))})
    assert MAX_HEAD_BYTES / 2 < len(told) < MAX_HEAD_BYTES - SHARES_BYTES


@pytest.mark.parametrize(
    "note",
    [
        {},
        {"extends": []},
        {"extends": {}, "head": as_long_as(2 * carried.MAX_NOTE_BYTES)},
        {"extends": {"south": [as_long_as(2 * Heads().extension_bytes)]}},
    ],
    ids=["nothing", "a list", "too long", "too long for one"],
)
def test_a_note_that_peers_would_refuse_is_its_own_domain_s(note: dict[str, Any]) -> None:
    with pytest.raises(MalformedMessage):
        Heads().take_note("north", note)


def test_few_domains_may_show_each_other_many_heads() -> None:
    """As many as runs go on at once: 64 heads of ledgers of a thousand million entries."""
    shown = [{"size": 2**30, "path": ["4f" * 32] * 31} for _ in range(64)]
    Heads(3).take_note("north", {"extends": {"south": shown}})


@pytest.mark.parametrize(
    "held", [{"south": 1}, {"south": [1.0]}, {"south": [True]}, {"south": list(range(65))},
             {name + "x" * n: [] for n in range(2) for name in NAMES}],
    ids=["no list", "a fraction", "a truth value", "too many", "too many peers"],
)  # fmt: skip
def test_sizes_that_peers_would_refuse_are_their_own_domain_s(held: dict[str, Any]) -> None:
    with pytest.raises(MalformedMessage):
        Heads().take_held("north", held)


@pytest.mark.parametrize(
    "signed", [[1], [{}], [{"node_key": []}], [{"node_key": "4f"}] * 65,
               [{"node_key": "4f", "more": as_long_as(2 * carried.MAX_NOTE_BYTES)}]],
    ids=["a number", "no key", "a list", "too many", "too long"],
)  # fmt: skip
def test_signatures_that_peers_would_refuse_are_their_own_domain_s(signed: list[Any]) -> None:
    heads = Heads()
    with pytest.raises(MalformedMessage):
        heads.take_cosignatures("north", signed)
    heads.take_cosignatures("north", [{"node_key": "4f"}] * 2 + [{"node_key": "5e"}])
    assert heads.cosignatures_for("south", "4f", ["north"]) == {"north": [{"node_key": "4f"}] * 2}
