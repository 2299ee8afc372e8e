"""What an owner approves in advance, and what never gets through."""

import math
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from policies.approvals import Approval, owner_key_hex, read_statement, sign_approval
from policies.clipping import Adaptive
from policies.envelopes import (
    Envelope,
    EnvelopeError,
    read_consent,
    sign_envelope,
    why_not_approved,
)
from policies.nearest import nearest_plans
from policies.plan import Plan
from tests.policies.test_explanation import PLAN, with_plan, with_step

KEY = Ed25519PrivateKey.generate()
OWNER = owner_key_hex(KEY)
VOTES = Adaptive(quantile=0.5, norm=0.9, vote_norm=0.3)  # released beside what the plan released


def around(**made: Any) -> Envelope:
    known: dict[str, Any] = {"plans": 3, "days": 7, "explanation": "e" * 64}
    return Envelope.around(PLAN, "a", **(known | made))


def test_repetitions_that_differ_in_their_labels_are_within() -> None:
    again = with_plan(name="again", purpose="seed 2", population_note="seed 2")
    text = sign_envelope(KEY, around())
    assert why_not_approved(again, OWNER, "a", text) is None
    assert why_not_approved(PLAN, OWNER, "a", text) is None


@pytest.mark.parametrize(
    ("plan", "why"),
    [
        (with_step(noise_multiplier=40.0), "differs in more than"),
        (with_step(releases=3), "differs in more than"),
        (with_plan(scientist="f" * 64), "another scientist"),
        (with_plan(dataset="other"), "is on 'other'"),
        (with_plan(roster=PLAN.roster[:2]), "other partners"),
        (with_plan(steps=PLAN.steps[:1]), "computes something else"),
    ],
)
def test_everything_else_is_outside(plan: Plan, why: str) -> None:
    said = why_not_approved(plan, OWNER, "a", sign_envelope(KEY, around()))
    assert said is not None
    assert why in said


@pytest.mark.parametrize(
    ("plan", "why"),
    [
        (with_step(releases=5), "releases, at most"),
        (with_step(noise_multiplier=0.6), "noise multiplier"),
        (with_plan(delta=1e-4), "delta is"),
        (with_step(clipping=VOTES), "computes something else"),
    ],
)
def test_within_the_same_computation_the_numbers_are_limited(plan: Plan, why: str) -> None:
    envelope = around(identical=False)
    assert envelope.misses(with_step(releases=3)) == []
    assert why in envelope.misses(plan)[0]


@pytest.mark.parametrize(
    ("limit", "why"),
    [({"collusion": 2}, "t is 1, at least 2"), ({"epsilon": 0.01}, "at most 0.010")],
    ids=["collusion", "epsilon"],
)
def test_one_limit_alone_keeps_a_plan_out(limit: dict[str, Any], why: str) -> None:
    for identical in (True, False):
        envelope = around(identical=identical)
        assert envelope.misses(PLAN) == []
        (said,) = envelope.model_copy(update=limit).misses(PLAN)
        assert why in said


def test_a_plan_that_costs_exactly_what_an_envelope_allows_is_within() -> None:
    exact = around().epsilon
    below = around().model_copy(update={"epsilon": math.nextafter(exact, 0.0)})
    assert around().model_copy(update={"epsilon": exact}).misses(PLAN) == []
    assert below.misses(PLAN) != []


def test_an_envelope_holds_for_its_domain_its_key_and_its_time() -> None:
    text = sign_envelope(KEY, around())
    assert why_not_approved(PLAN, OWNER, "b", text) is not None
    other = owner_key_hex(Ed25519PrivateKey.generate())
    assert why_not_approved(PLAN, other, "a", text) is not None
    later = datetime.now(UTC) + timedelta(days=8)
    assert "expired" in str(why_not_approved(PLAN, OWNER, "a", text, later))
    assert "expired" in str(
        why_not_approved(PLAN, OWNER, "a", sign_approval(KEY, PLAN.hash, "a", days=7), later)
    )


def test_an_envelope_is_no_approval_and_neither_can_be_edited() -> None:
    text = sign_envelope(KEY, around())
    assert read_statement(Approval, OWNER, "a", text) is None
    assert read_consent(OWNER, "a", text.replace('\\"plans\\":3', '\\"plans\\":9')) is None
    signed = sign_approval(KEY, PLAN.hash, "a", by="owner", reason="fine", explanation="e" * 64)
    found = read_consent(OWNER, "a", signed)
    assert isinstance(found, Approval)
    assert (found.by, found.reason, found.explanation) == ("owner", "fine", "e" * 64)
    assert read_consent(OWNER, "a", signed.replace("fine", "fike")) is None


def test_a_plan_without_noise_is_never_approved_in_advance() -> None:
    with pytest.raises(EnvelopeError, match="without noise"):
        Envelope.around(with_plan(public=True), "a", plans=1, days=1, explanation="e" * 64)


def test_the_nearest_plans_fit_and_nothing_nearer_does() -> None:
    def fits(plan: Plan) -> bool:
        train = plan.step("train")
        return train.releases / train.noise_multiplier**2 <= 0.5 * limit

    first = PLAN.step("train")
    limit = first.releases / first.noise_multiplier**2
    noisier, shorter = nearest_plans(PLAN, fits)
    assert fits(noisier.plan)
    assert fits(shorter.plan)
    assert noisier.plan.step("train").noise_multiplier == pytest.approx(
        first.noise_multiplier * 2**0.5, rel=2e-3
    )
    assert (first.releases, shorter.plan.step("train").releases) == (4, 2)
    assert "2 instead of 4 in 'train'" in shorter.text
    for offer in (noisier, shorter):
        assert offer.plan.hash != PLAN.hash, "it is a plan of its own"
        assert Plan.from_json(offer.plan.to_json()) == offer.plan


def test_where_neither_is_enough_both_are_offered_together() -> None:
    def fits(plan: Plan) -> bool:
        train = plan.step("train")
        return train.releases <= 2 and train.noise_multiplier >= 2 * first.noise_multiplier

    first = PLAN.step("train")
    (offer,) = nearest_plans(PLAN, fits)
    assert fits(offer.plan)
    assert offer.plan.step("train").releases == 2
    assert offer.plan.step("train").noise_multiplier <= 2.01 * first.noise_multiplier
    assert offer.how == "fewer releases and more noise"
    assert "releases 2 instead of 4 in 'train', with noise multiplier" in offer.text


def test_a_plan_that_the_platform_would_not_take_is_not_offered() -> None:
    def fits(plan: Plan) -> bool:
        return plan.step("train").noise_multiplier >= 100 * first.noise_multiplier

    def admits(plan: Plan) -> bool:
        return plan.step("train").ring >= needed

    first, narrow = PLAN.step("train"), with_step(ring=32)
    needed = 64
    (wider,) = nearest_plans(narrow, fits, admits)
    assert wider.plan.step("train").ring == 64
    assert "with bits of the ring 64 instead of 32 in" in wider.text
    needed = 65
    assert nearest_plans(narrow, fits, admits) == []


def test_where_nothing_fits_nothing_is_offered() -> None:
    assert nearest_plans(PLAN, lambda plan: False) == []
