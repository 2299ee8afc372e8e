"""The auditor's verifier against a node that holds the key: it can't sign what breaks the rules."""

import dataclasses
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from policies.approvals import owner_key_hex, sign_approval
from policies.envelopes import Envelope, sign_envelope
from policies.ledger import Entry
from policies.verify import verify
from tests.policies.edited_entries import (
    DELTA,
    NODE_HEX,
    OWNER,
    OWNER_HEX,
    PLAN,
    SECOND,
    UNSIGNED,
    Tamper,
    edit,
    place,
    resign,
)


def drop(kind: str, nth: int = 0) -> Tamper:
    return lambda entries: entries.pop(place(entries, kind, nth))


def change(kind: str, nth: int = 0, **changes: Any) -> Tamper:
    def apply(entries: list[Entry]) -> None:
        position = place(entries, kind, nth)
        entries[position] = edit(entries[position], **changes)

    return apply


def repeat(kind: str, nth: int = 0, **changes: Any) -> Tamper:
    def apply(entries: list[Entry]) -> None:
        position = place(entries, kind, nth)
        entries.insert(position + 1, edit(entries[position], **changes))

    return apply


def both(first: Tamper, second: Tamper) -> Tamper:
    return lambda entries: (first(entries), second(entries))


ONE_COUNT = [
    {"count": 1, "noise_multiplier": 6, "sampling_rate": 0.2},
    {"count": 4, "noise_multiplier": 4, "sampling_rate": 1},
]
YES = sign_approval(OWNER, PLAN, "alpha")
NO_NOISE = {"count": 1, "noise_multiplier": 0.5, "sampling_rate": 1}
SMALL: dict[str, Any] = {"population": "shoppers", "epsilon": 1.0, "delta": DELTA, "public": False}


@pytest.mark.parametrize(
    ("tamper", "kind", "problem"),
    [
        (drop("approval"), "reservation", "reserved while the plan is pending"),
        (drop("reservation"), "charge", "no open reservation"),
        (drop("submission"), "approval", "never submitted"),
        (drop("budget"), "submission", "no budget"),
        (drop("void"), "closure", "reservation of the plan is open"),
        (change("approval", signature="0" * 128), "approval", "doesn't fit the plan"),
        (change("approval", plan=SECOND), "approval", "doesn't fit the plan"),
        (change("approval", owner_key=NODE_HEX), "approval", "doesn't fit the plan"),
        (change("reservation", event=NO_NOISE), "reservation", "isn't in the approved plan"),
        (change("reservation", plan=UNSIGNED), "reservation", "plan is awaiting signature"),
        (repeat("reservation"), "reservation", "was reserved before"),
        (repeat("reservation", attempt=1), "reservation", "is open"),
        (
            both(change("submission", events=ONE_COUNT), repeat("reservation", step="more")),
            "reservation",
            "more releases",
        ),
        (repeat("charge"), "charge", "no open reservation"),
        (repeat("approval"), "approval", "can't become approved"),
        (repeat("submission"), "submission", "submitted before"),
        (change("charge", share="none"), "charge", "no share's hash"),
        (change("budget", **SMALL), "reservation", "over its budget"),
        (change("budget", epsilon=-1), "budget", "no such budget"),
        (change("budget", time="yesterday"), "budget", "can't be read"),
        (change("submission", events=[]), "submission", "no releases"),
        (change("approval", second_key=NODE_HEX), "approval", "half of a second person's yes"),
        (change("approval", second_key=OWNER_HEX, second=YES), "approval", "signed for two"),
        (change("approval", second_key=NODE_HEX, second=YES), "approval", "second person's"),
    ],
)
def test_the_node_cannot_sign_what_breaks_the_rules(
    entries: list[Entry], tamper: Tamper, kind: str, problem: str
) -> None:
    tamper(entries)
    chain = resign(entries)
    verdict = verify(chain, NODE_HEX)
    assert problem in verdict.text
    assert verdict.first_bad is not None
    assert chain[verdict.first_bad - 1].kind == kind


def test_the_entry_that_went_over_the_budget_is_named_not_the_one_it_showed_at(
    entries: list[Entry],
) -> None:
    position = place(entries, "budget")
    entries[position] = edit(entries[position], epsilon=1.5)
    verdict = verify(resign(entries), NODE_HEX)
    assert verdict.first_bad is not None
    spent_before = verify(resign(entries)[: verdict.first_bad - 1], NODE_HEX)
    spent_with = verify(resign(entries)[: verdict.first_bad], NODE_HEX)
    assert spent_before.ok
    assert not spent_with.ok


def test_an_approval_by_anyone_but_the_pinned_owner_is_found(entries: list[Entry]) -> None:
    impostor = Ed25519PrivateKey.generate()
    position = place(entries, "approval")
    entries[position] = edit(
        entries[position],
        owner_key=owner_key_hex(impostor),
        signature=sign_approval(impostor, PLAN, "alpha"),
    )
    verdict = verify(resign(entries), NODE_HEX, OWNER_HEX)
    assert (verdict.first_bad, "domain's owner" in verdict.problem) == (position + 1, True)


def test_more_plans_than_an_envelope_approves_are_found(entries: list[Entry]) -> None:
    around = Envelope(
        domain="alpha", signed="2026-01-01T00:00:00+00:00", expires="9999-01-01T00:00:00+00:00",
        data_set="d", scientists=("1" * 64,), roster="2" * 64, models=("3" * 64,), plans=2,
        epsilon=9.0, total_epsilon=9.0, delta=DELTA, releases=9, noise_multiplier=1.0, collusion=1,
        explanation="e" * 64,
    )  # fmt: skip
    summary = {
        "dataset": "d", "author": "1" * 64, "roster_hash": "2" * 64, "model": "3" * 64, "like": "",
        "delta": DELTA,
    }  # fmt: skip
    for envelope, ok in ((around, True), (around.model_copy(update={"plans": 1}), False)):
        signed = sign_envelope(OWNER, envelope)
        changed = [
            edit(entry, summary=summary) if entry.kind == "submission"
            else edit(entry, signature=signed) if entry.kind == "approval"
            else entry
            for entry in entries
        ]  # fmt: skip
        verdict = verify(resign(changed), NODE_HEX)
        assert verdict.ok == ok
    assert verdict.first_bad == place(entries, "approval", 1) + 1
    assert "its envelope approves 1 plans, and this is one more" in verdict.problem


@pytest.mark.parametrize(
    "body",
    [
        "",
        "[]",
        "{}",
        "null",
        '{"time":1}',
        '{"plan":{}}',
        '{"a":NaN}',
        '{"a":1,"a":2}',
        "[" * 100_000,
        "\ud800",
    ],
)
def test_a_body_of_any_shape_is_a_finding_not_a_crash(entries: list[Entry], body: str) -> None:
    for kind in ("ledger", "budget", "submission", "approval", "reservation", "charge", "void"):
        position = place(entries, kind)
        changed = [*entries[:position], dataclasses.replace(entries[position], body=body)]
        chain = changed if body == "\ud800" else resign(changed)
        verdict = verify(chain, NODE_HEX)
        assert (verdict.ok, verdict.first_bad) == (False, position + 1)


@pytest.mark.parametrize("number", ["1e999", "-1", "0", '"x"', "[]", "1e400", "{}"])
def test_a_number_of_any_kind_is_a_finding_not_a_crash(entries: list[Entry], number: str) -> None:
    position = place(entries, "submission")
    body = entries[position].body.replace('"count":4', f'"count":{number}')
    entries[position] = dataclasses.replace(entries[position], body=body)
    assert verify(resign(entries), NODE_HEX).first_bad == position + 1
