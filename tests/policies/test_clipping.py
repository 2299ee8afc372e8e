"""However a clip norm is divided, one user's integers stay within it, part by part and together."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from torch import Tensor

from network.clip_norms import AdaptiveClip
from network.program import (
    DataSet,
    Gradient,
    Plan,
    Sum,
)
from network.updates import after_release
from policies.accounting import plan_epsilon
from policies.admission import Bounds, PlanRefused, admit
from policies.changes import changes
from policies.clipping import Adaptive, Clipping, Flat, PerLayer, clipped_units, fits, parts_of
from policies.explanation import explain
from policies.plan import VOTES, RosterEntry, Step
from policies.plan import Plan as ApprovablePlan

torch.set_num_threads(1)

ITEMS, WIDTH, USERS = 20, 4, 1000
DATA = DataSet("d", ITEMS, WIDTH, USERS, "0" * 64, False)
ROSTER = [
    RosterEntry(name=n, server_uid=n * 32, node_key=k * 64, owner_key=k * 64)
    for n, k in (("a", "1"), ("b", "2"), ("c", "3"))
]

any_float32 = arrays(
    np.float32, (3, 7), elements=st.floats(width=32, allow_nan=True, allow_infinity=True)
)
norms = st.floats(1e-3, 100)
scales = st.integers(0, 19).map(lambda bits: 2**bits)


def squares(units: Tensor) -> list[int]:
    assert torch.equal(units, units.trunc())
    return [sum(int(value) ** 2 for value in user) for user in units.tolist()]


def whole_of(clipping: Clipping) -> float:
    whole = math.hypot(*parts_of(clipping, 0.0))
    while not fits(clipping, whole):
        whole = math.nextafter(whole, math.inf)
    return whole


@given(any_float32, norms, norms, scales)
@settings(max_examples=200, deadline=None)
def test_every_layer_keeps_its_norm_and_all_together_theirs(
    values: NDArray[np.float32], first: float, second: float, scale: int
) -> None:
    clipping = PerLayer(norms=(first, second))
    whole = whole_of(clipping)
    tensor = torch.from_numpy(values)
    found = clipped_units(clipping, [tensor[:, :3], tensor[:, 3:]], whole, scale)
    for part, norm in ((found[:, :3], first), (found[:, 3:], second), (found, whole)):
        assert all(square <= (Fraction(norm) * scale) ** 2 for square in squares(part))


@given(any_float32, norms, norms, st.floats(0.01, 0.99), scales)
@settings(max_examples=200, deadline=None)
def test_a_vote_is_bounded_with_the_contribution(
    values: NDArray[np.float32], norm: float, vote_norm: float, quantile: float, scale: int
) -> None:
    clipping = Adaptive(quantile=quantile, norm=norm, vote_norm=vote_norm)
    whole = whole_of(clipping)
    found = clipped_units(clipping, [torch.from_numpy(values)], whole, scale)
    assert found.shape == (3, 8)
    for part, limit in ((found[:, :7], norm), (found[:, 7:], vote_norm), (found, whole)):
        assert all(square <= (Fraction(limit) * scale) ** 2 for square in squares(part))


def test_each_layer_is_clipped_by_itself() -> None:
    layers = [torch.tensor([[3.0, 4.0], [0.3, 0.4]]), torch.tensor([[0.1], [-6.0]])]
    found = clipped_units(PerLayer(norms=(1.0, 2.0)), layers, 3.0, 2**16) / 2**16
    assert found[0].tolist() == pytest.approx([0.6, 0.8, 0.1], abs=1e-4)
    assert found[1].tolist() == pytest.approx([0.3, 0.4, -2.0], abs=1e-4)


def test_truncation_is_toward_zero_in_layers_and_votes() -> None:
    layers = [torch.tensor([[0.99, -0.99]]), torch.tensor([[-0.5]])]
    assert clipped_units(PerLayer(norms=(2.0, 2.0)), layers, 3.0, 2).tolist() == [[1, -1, -1]]
    vote = Adaptive(quantile=0.25, norm=1.0, vote_norm=0.99)
    outside = clipped_units(vote, [torch.tensor([[2.0]])], 1.5, 8)
    assert outside[0, -1] == -2, "-1/3 of 0.99 * 8 = -2.64 units"


def test_users_vote_by_their_own_norm_alone() -> None:
    clipping = Adaptive(quantile=0.75, norm=1.0, vote_norm=0.5)
    rows = torch.tensor([[0.6, 0.7], [0.8, 0.7], [math.nan, 0.2], [math.inf, 0.0]])
    votes = clipped_units(clipping, [rows], 2.0, 2**20)[:, -1] / 2**20
    within, outside = 0.5 / 3, -0.5
    assert votes.tolist() == pytest.approx([within, outside, within, within], abs=1e-5)


def loss(state, user):  # type: ignore[no-untyped-def]
    return (user.mask * (state["v"][user.items].sum(1) - state["b"]) ** 2).sum()


def plan(clip_norm: object, **more: object) -> Plan:
    step = Gradient("train", loss, ["v", "b"], clip_norm, releases=4)  # type: ignore[arg-type]
    state = {"v": torch.ones(ITEMS, 2), "b": torch.zeros(1)}
    return Plan("p", "t", DATA, [step], state, **more)  # type: ignore[arg-type]


def bound(clip_norm: object, **more: object) -> ApprovablePlan:
    return plan(clip_norm, **more).bind(ROSTER, "0" * 64)


WAYS = {
    "flat": 0.7,
    "per-layer": {"v": 0.3, "b": 0.1},
    "adaptive": AdaptiveClip(start=5.0, quantile=0.6),
}


@pytest.mark.parametrize("way", WAYS)
def test_every_way_is_admitted_read_back_and_costs_the_same(way: str) -> None:
    approved = bound(WAYS[way])
    assert approved.steps[0].clipping.kind == way
    admit(approved, Bounds(ITEMS, WIDTH, USERS), public=False)
    assert ApprovablePlan.from_json(approved.to_json()) == approved
    assert plan_epsilon(approved.events(), approved.delta) == pytest.approx(8.0, rel=2e-3)
    assert approved.events() == bound(1.0).events(), "the clip norm doesn't change the cost"


def test_an_owner_reads_how_the_norm_is_divided_and_what_changed() -> None:
    flat, layers, adaptive = (bound(way) for way in WAYS.values())
    assert "of it v 0.3, b 0.1" in explain(layers)
    text = explain(adaptive)
    assert "votes_on_clip_norm []" in text
    assert "until 60% of users are" in text
    assert "unit_of.train" in text, "the graph divides by it"
    assert any("flat -> per-layer: v 0.3, b 0.1" in line for line in changes(flat, layers))
    assert any("-> adaptive" in line for line in changes(layers, adaptive))


def test_votes_are_one_more_number_that_leaves() -> None:
    step = bound(WAYS["adaptive"]).steps[0]
    assert step.width == 2 * ITEMS + 1 + 1
    assert [spec.name for spec in step.released] == ["v", "b", VOTES]


def with_clipping(clipping: Clipping, **more: object) -> Step:
    step = bound(0.7).steps[0]
    return Step.model_validate(dict(step) | {"clipping": clipping} | more)


@pytest.mark.parametrize(
    ("clipping", "why"),
    [
        (PerLayer(norms=(0.7, 1e-9)), "add up to more"),
        (PerLayer(norms=(0.7,)), "1 norms for 2 outputs"),
        (PerLayer(norms=(0.1, 0.1, 0.1)), "3 norms for 2 outputs"),
        (Adaptive(quantile=0.5, norm=0.7, vote_norm=1e-9), "add up to more"),
    ],
)
def test_parts_that_are_more_than_the_whole_are_no_plan(clipping: Clipping, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        with_clipping(clipping)


def test_a_part_below_one_integer_unit_is_refused() -> None:
    step = with_clipping(PerLayer(norms=(0.5, 1e-8)))
    approved = bound(0.7).model_copy(update={"steps": (step,)})
    with pytest.raises(PlanRefused, match="less than one integer unit"):
        admit(approved, Bounds(ITEMS, WIDTH, USERS), public=False)


def test_norms_must_be_those_of_the_outputs() -> None:
    with pytest.raises(ValueError, match="give one for each of its outputs: v, b"):
        bound({"v": 1.0})


@pytest.mark.parametrize("bad", [{"start": 0.0}, {"quantile": 1.0}, {"share": 0.0}, {"rate": -1}])
def test_an_adaptive_norm_out_of_range_is_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="AdaptiveClip"):
        AdaptiveClip(**bad)


@pytest.mark.parametrize(("start", "quantile"), [(0.01, 0.5), (300.0, 0.5), (1.0, 0.9)])
def test_the_norm_finds_the_quantile_and_sums_stay_in_the_author_s_units(
    start: float, quantile: float
) -> None:
    def give(state, user):  # type: ignore[no-untyped-def]
        return {"sum": user.values[:1]}

    clip_norm = AdaptiveClip(start, quantile, rate=1.0)
    written = Plan("p", "t", DATA, [Sum("s", give, clip_norm)])
    step = written.bind(ROSTER, "0" * 64).steps[0]
    values = torch.linspace(0.1, 10, USERS).unsqueeze(1)
    state = dict(written.state)
    for _ in range(100):
        divided = values / state["unit_of.s"]
        whole = clipped_units(step.clipping, [divided], step.clip_norm, step.scale)
        total = whole.sum(0, dtype=torch.int64) / step.scale
        state = after_release(written, step, state, {"sum": total[:1], VOTES: total[1]}, 0.0)
    assert isinstance(step.clipping, Adaptive)
    norm = float(state["unit_of.s"]) * step.clipping.norm
    assert norm == pytest.approx(float(values.quantile(quantile)), rel=0.05)


def test_updates_see_an_adaptive_step_s_totals_and_noise_undivided() -> None:
    seen: list[tuple[float, float]] = []

    def give(state, user):  # type: ignore[no-untyped-def]
        return {"sum": user.values[:1]}

    def update(state, totals, noise):  # type: ignore[no-untyped-def]
        seen.append((float(totals["sum"]), noise))
        assert set(totals) == {"sum"}
        return {}

    written = Plan("p", "t", DATA, [Sum("s", give, AdaptiveClip(start=4.0), update=update)])
    step = written.bind(ROSTER, "0" * 64).steps[0]
    totals = {"sum": torch.tensor([3.0]), VOTES: torch.tensor(0.0)}
    state = after_release(written, step, written.state, totals, 0.5)
    unit = float(written.state["unit_of.s"])
    assert unit == pytest.approx(4.0 / math.sqrt(0.99))
    assert seen == [(pytest.approx(3 * unit), pytest.approx(0.5 * unit))]
    assert state == {"unit_of.s": written.state["unit_of.s"]}, "the unit outlives the update"


def test_flat_plans_are_read_as_such() -> None:
    assert bound(1.0).steps[0].clipping == Flat()
