"""Tampering with what an owner signed, by a node that chains and signs the rest anew."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from policies.accounting import RenyiFilter
from policies.approvals import owner_key_hex, sign_approval
from policies.envelopes import Envelope, sign_envelope
from policies.ledger import Entry
from policies.verify import verify
from tests.policies.tampering import OTHER, OWNER, PLAN, ROUND, SECOND, Kind, Scene, found

LATER = datetime.now(UTC) + timedelta(hours=2)


def approved(text: str, nth: int = 0, **more: Any) -> Callable[[Scene], object]:
    """The node writes another signed text into an approval."""
    return lambda scene: scene.resign(scene.edited("approval", nth, signature=text, **more))


def respelled(spell: Callable[[str], str]) -> Callable[[Scene], object]:
    def tamper(scene: Scene) -> None:
        text = json.loads(scene.entries[scene.place("approval")].body)["signature"]
        assert spell(text) != text
        scene.resign(scene.edited("approval", signature=spell(text)))

    return tamper


def by_two(key: Any, text: str) -> Callable[[Scene], object]:
    return lambda scene: scene.resign(
        scene.edited("approval", second_key=owner_key_hex(key), second=text)
    )


KINDS = [
    Kind("record an approval before it was signed",
         approved(sign_approval(OWNER, PLAN, "north", now=LATER)),
         "after it had been recorded", "bundle"),
    Kind("write a space into what an owner signed",
         respelled(lambda text: text.replace('{"said"', '{ "said"')),
         "owner's signature doesn't fit", "bundle"),
    Kind("write an owner's signature in capitals",
         respelled(lambda text: text[:-132] + text[-132:].upper()),
         "owner's signature doesn't fit", "bundle"),
    Kind("put a member more beside what an owner signed",
         respelled(lambda text: text[:-1] + ',"times":2}'),
         "owner's signature doesn't fit", "bundle"),
    Kind("approve after a release", lambda s: s.resign(
        [*s.without("approval"), s.again(s.entries[s.place("approval")])]),
        "reserved while the plan is pending", "bundle"),
    Kind("let one person sign for two", by_two(OWNER, sign_approval(OWNER, PLAN, "north")),
         "the owner signed for two", "bundle"),
    Kind("use a second person's yes to another plan",
         by_two(OTHER, sign_approval(OTHER, SECOND, "north")),
         "second person's signature doesn't fit", "bundle"),
    Kind("go on after a second person's yes expired",
         by_two(OTHER, sign_approval(OTHER, PLAN, "north", days=0.0)),
         "the approval had expired", "bundle"),
    Kind("say that the owner was shown something else",
         lambda s: s.resign(s.edited(
             "approval", signature=sign_approval(OWNER, PLAN, "north", explanation="f" * 64))),
         "shown something else", "bundle"),
    Kind("release what isn't counted from 0",
         lambda s: s.resign(s.edited("reservation", release=-1)), "counted from 0", "bundle"),
    Kind("raise a plan's releases after it was approved", lambda s: s.resign(
        [*s.entries, s.again(s.entries[s.place("submission")])]),
        "was submitted before", "bundle"),
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_tampering_is_found_and_named(scene: Scene, kind: Kind) -> None:
    found(scene, kind)


def test_where_nobody_said_who_the_owner_is_the_verdict_names_who_signed(scene: Scene) -> None:
    other = sign_approval(OTHER, SECOND, "north")
    scene.resign(scene.edited("approval", 1, owner_key=owner_key_hex(OTHER), signature=other))
    entries = [Entry(*each) for each in scene.bundle["entries"]]
    verdict = verify(entries, scene.north.node_key)
    assert verdict.ok, verdict.text
    assert all(owner_key_hex(key) in verdict.text for key in (OWNER, OTHER))
    pinned = verify(entries, scene.north.node_key, owner_key_hex(OWNER))
    assert "not by the domain's owner" in pinned.problem
    assert "No owner's key" not in pinned.text


def test_plans_under_an_envelope_stay_within_its_total(scene: Scene) -> None:
    summary = {
        "dataset": "d", "author": "1" * 64, "roster_hash": "2" * 64, "model": "3" * 64,
        "like": "", "delta": 1e-5,
    }  # fmt: skip
    three = RenyiFilter(1e-5).epsilon([ROUND] * 3)
    for total, ok in ((three * 1.001, True), (three * 0.999, False)):
        envelope = Envelope(
            domain="north", signed="2026-01-01T00:00:00+00:00", plans=9, epsilon=9.0,
            expires="9999-01-01T00:00:00+00:00", data_set="d", scientists=("1" * 64,),
            roster="2" * 64, models=("3" * 64,), total_epsilon=total, delta=1e-5, releases=99,
            noise_multiplier=1.0, collusion=1, explanation="e" * 64,
        )  # fmt: skip
        scene.entries = scene.edited("submission", summary=summary)
        signed = sign_envelope(OWNER, envelope)
        scene.resign(scene.edited("approval", signature=signed))
        verdict = scene.verify_bundle(False)
        assert verdict.ok == ok, verdict.text
    assert "under its envelope are over their limit" in verdict.problem
    assert verdict.first_bad == scene.place("reservation", 2) + 1
