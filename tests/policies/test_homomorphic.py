"""A plan may ask for CKKS: what that changes in its text, its noise, its meaning and admission."""

import json

import pytest

from policies.admission import Bounds, PlanRefused, admit
from policies.canonical import canonical
from policies.changes import changes
from policies.envelopes import Envelope
from policies.explanation import explain
from policies.homomorphic import MAX_CIPHERTEXTS, NUMBERS, layout_of
from policies.likeness import likeness_of, model_of
from policies.mechanism import noise_share_sigma
from policies.plan import Plan, PlanUnreadable
from tests.domains.test_engine import ITEMS, WIDTH, bound, plan
from tests.policies.test_plan import changed

BOUNDS = Bounds(ITEMS, WIDTH, 100)
DEFAULT = bound(plan())
CKKS = changed(aggregation="ckks")


def test_a_plan_without_it_has_the_text_and_hash_it_always_had() -> None:
    assert "aggregation" not in json.loads(DEFAULT.to_json())
    written = {**json.loads(DEFAULT.to_json()), "aggregation": "smpc"}
    with pytest.raises(PlanUnreadable):
        Plan.from_json(canonical(written).decode())
    assert Plan.from_json(DEFAULT.to_json()).aggregation == "smpc"


def test_a_plan_with_it_says_so_in_what_is_signed() -> None:
    assert json.loads(CKKS.to_json())["aggregation"] == "ckks"
    assert CKKS.hash != DEFAULT.hash
    assert Plan.from_json(CKKS.to_json()) == CKKS
    with pytest.raises(PlanUnreadable):
        Plan.from_json(CKKS.to_json().replace('"ckks"', '"plain"'))


def test_every_domain_adds_the_whole_noise_and_pays_as_before() -> None:
    step = CKKS.steps[0]
    whole = step.noise_multiplier * step.clip_norm * step.scale
    share = noise_share_sigma(
        step.noise_multiplier, step.clip_norm, step.scale, CKKS.noise_shares, 0
    )
    assert share == pytest.approx(whole)
    assert share >= whole
    assert DEFAULT.noise_shares == DEFAULT.threshold - DEFAULT.collusion > 1
    assert CKKS.events() == DEFAULT.events()


def test_owners_read_it_and_see_the_change() -> None:
    text = explain(CKKS)
    assert "homomorphic encryption (CKKS)" in text
    assert "adds the full noise itself and is accounted alone" in text
    assert "sees no less noise than accounted" not in text
    assert changes(DEFAULT, CKKS) == ["aggregation: smpc -> ckks"]


def test_what_was_approved_for_masks_covers_no_ckks() -> None:
    assert model_of(CKKS) != model_of(DEFAULT)
    assert likeness_of(CKKS) != likeness_of(DEFAULT)
    envelope = Envelope.around(DEFAULT, "a", plans=2, days=1, explanation="0" * 64, identical=False)
    assert envelope.misses(DEFAULT) == []
    assert envelope.misses(CKKS) == ["the plan computes something else"]


def test_an_honest_plan_is_admitted() -> None:
    admit(CKKS, BOUNDS, public=False)


@pytest.mark.parametrize("ring", [32, 64])
def test_more_numbers_than_pass_in_one_message_are_refused(ring: int) -> None:
    layout = layout_of(len(CKKS.roster), ring)
    assert layout is not None
    width = MAX_CIPHERTEXTS * NUMBERS // layout.limbs
    assert layout.ciphertexts(width) <= MAX_CIPHERTEXTS < layout.ciphertexts(width + NUMBERS)
    assert MAX_CIPHERTEXTS * 2 * NUMBERS * 8 < 16 * 2**20


def test_a_release_too_wide_is_refused_and_told_what_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("policies.protection.MAX_CIPHERTEXTS", 0)
    with pytest.raises(PlanRefused, match="aggregation 'smpc'") as caught:
        admit(CKKS, BOUNDS, public=False)
    assert caught.value.rule == "ckks"


def test_a_roster_too_long_for_exact_sums_is_refused() -> None:
    entry = json.loads(CKKS.to_json())["roster"][0]
    roster = tuple(
        {**entry, "name": f"n{i}", "server_uid": f"{i:032x}", "node_key": f"{i + 900:064x}",
         "owner_key": f"{i + 100:064x}"} for i in range(65)
    )  # fmt: skip
    wide = {**CKKS.steps[0].model_dump(), "ring": 64}
    with pytest.raises(PlanRefused, match="expected 3 to 64"):
        admit(
            changed(aggregation="ckks", roster=roster, threshold=65, steps=(wide,)),
            BOUNDS,
            public=False,
        )


@pytest.mark.parametrize("key", ["node_key", "owner_key"])
def test_a_scientist_who_is_a_domain_is_refused(key: str) -> None:
    scientist = getattr(CKKS.roster[0], key)
    with pytest.raises(PlanRefused, match="scientist"):
        admit(changed(aggregation="ckks", scientist=scientist), BOUNDS, public=False)
