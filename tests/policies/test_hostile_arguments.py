"""Allowed operations with arguments that nobody means: each is refused by a rule, or harmless.

Axes that aren't there or come twice, sizes of nothing, positions past the end, numbers that no type
holds. What is admitted runs, and one user moves the sum by at most the clip norm.
"""

import pytest

from policies.mapping import check_runs
from policies.plan import Plan as ApprovablePlan
from policies.refusals import PlanRefused
from tests.policies.plans_of_attackers import (
    BOUNDS,
    HAS_TARGET,
    ITEMS,
    ITEMS_INPUT,
    MASK,
    SUM,
    TARGET,
    VALUES_INPUT,
    H,
    I,
    M,
    R,
    T,
    as_integers,
    graph,
    ref,
    text_of,
    verdict,
    with_graph,
)
from tests.policies.test_harmless_plans import bound_of, largest_change, people

VALUES, N0, N1 = ref("values"), ref("n0"), ref("n1")
WHOLE, TRUE = {"dtype": {"dtype": "int64"}}, {"dtype": {"dtype": "bool"}}
SIXTH = ("aten.remainder.Scalar", I, 6)


def summed(*nodes: tuple) -> R:
    """A graph of these nodes, whose last result is added up as floats."""
    last = len(nodes) - 1
    asked = str(nodes)
    inputs = [spec for spec in (ITEMS_INPUT, MASK, VALUES_INPUT, HAS_TARGET, TARGET)
              if str(ref(spec["name"])) in asked]  # fmt: skip
    as_floats = ("aten._to_copy.default", ref(f"n{last}"), {"dtype": {"dtype": "float32"}})
    return graph(inputs, *nodes, as_floats, (*SUM, ref(f"n{last + 1}")))


REFUSED: dict[str, tuple[str, R]] = {
    "a position before the first": ("shape", summed(("aten.select.int", M, 0, -7))),
    "a position past 2^51": ("shape", summed(("aten.select.int", M, 0, 2**52))),
    "an axis far away": ("shape", summed(("aten.select.int", M, -9, 0))),
    "a slice that stands still": ("shape", summed(("aten.slice.Tensor", M, 0, 0, 6, 0))),
    "a slice backwards": ("shape", summed(("aten.slice.Tensor", M, 0, 0, 6, -1))),
    "a slice of nothing": ("dtype", summed(("aten.slice.Tensor", M, 0, 5, 2, 1))),
    "an axis expanded to what it is": ("shape", summed(("aten.expand.default", H, [-1]))),
    "an axis expanded away": ("dtype", summed(("aten.expand.default", H, [0]))),
    "an axis in two places": ("shape", summed(("aten.permute.default", M, [0, 0]))),
    "a flip of one axis twice": ("shape", summed(("aten.flip.default", M, [-1, 0]))),
    "a sum over one axis twice": ("shape", summed(("aten.logsumexp.default", VALUES, [0, 0]))),
    "two sizes to be guessed": ("shape", summed(("aten.reshape.default", M, [-1, -1]))),
    "less than no copies": ("shape", summed(("aten.repeat.default", M, [-1]))),
    "parts of no size": ("shape", summed(("aten.split.Tensor", M, 0), ("getitem", N0, 0))),
    "parts of one number": ("size", summed(("aten.unbind.int", H, 0), ("getitem", N0, 0))),
    "a diagonal on one axis": ("shape", summed(("aten.diag_embed.default", M, 0, 0, 0))),
    "a diagonal beyond the corner": (
        "dtype", summed(("aten.diag_embed.default", M), ("aten.diagonal.default", N0, 50)),
    ),
    "more axes than there are": ("shape", summed(("aten.reshape.default", M, [1] * 70 + [6]))),
    "more indices than axes": ("index", summed(SIXTH, ("aten.index.Tensor", M, [N0, N0]))),
    "one number read at many places": (
        "mapping",
        summed(("aten.remainder.Scalar", I, 1), ("aten.index_select.default", H, 0, N0)),
    ),
    "fewer numbers than places": (
        "shape",
        summed(
            SIXTH,
            ("aten.slice.Tensor", M, 0, 0, 2, 1),
            ("aten.scatter_add.default", VALUES, 0, N0, N1),
        ),
    ),
    "less than nothing padded": ("shape", summed(("aten.constant_pad_nd.default", M, [-20, 1]))),
    "a side without padding": ("shape", summed(("aten.constant_pad_nd.default", M, [1]))),
    "a difference of truths": (
        "shape", summed(("aten.gt.Scalar", M, 0), ("aten.sub.Tensor", N0, N0)),
    ),
    "a product of unlike lengths": (
        "shape", summed(("aten.slice.Tensor", M, 0, 0, 3, 1), ("aten.dot.default", N0, M)),
    ),
    "a matrix of one axis": ("shape", summed(("aten.tril.default", M))),
    "steps without end": ("shape", summed(("aten.arange.start_step", 0, 1, 1e-300),
                                          ("aten.mul.Tensor", N0, H))),
    "a rounding nobody knows": (
        "shape", summed(("aten.div.Tensor_mode", VALUES, M, {"rounding_mode": "evil"})),
    ),
    "a divisor below one": ("division", summed(("aten.remainder.Scalar", I, -1))),
    "a divisor of fractions cut off": (
        "division", summed(("aten.full.default", [6], 0.5, WHOLE),
                           ("aten.floor_divide.default", I, N0)),
    ),
    "a divisor counted down": (
        "division", summed(("aten.arange.start_step", 6, 0, -1),
                           ("aten.floor_divide.default", I, N0)),
    ),
    "a divisor that only looks bounded": (
        "division", summed(("aten.clamp.Tensor", I, T, T), ("aten.floor_divide.default", I, N0)),
    ),
    "a divisor of signs": (
        "division", summed(("aten.sign.default", I), ("aten.floor_divide.default", I, N0)),
    ),
    "a divisor that may have wrapped": (
        "division",
        summed(
            ("aten.add.Tensor", I, 2**52),
            ("aten.mul.Tensor", N0, 2**11),
            ("aten.floor_divide.default", I, N1),
        ),
    ),
}  # fmt: skip


@pytest.mark.parametrize("trick", REFUSED)
def test_arguments_that_nobody_means_are_refused_by_a_named_rule(trick: str) -> None:
    rule, made = REFUSED[trick]
    assert verdict(text_of(with_graph(made))) == rule


HARMLESS: dict[str, R] = {
    "a fraction over nothing made whole": summed(("aten.div.Tensor", M, M), as_integers(N0)),
    "infinity made a truth": summed(("aten.div.Scalar", I, 0), ("aten._to_copy.default", N0, TRUE)),
    "whole numbers that wrap": summed(
        ("aten.mul.Tensor", I, 2**52), ("aten.mul.Tensor", N0, 2**52), ("aten.abs.default", N1)
    ),
    "the root of nothing, inverted": summed(("aten.pow.Tensor_Scalar", M, -3.5)),
    "whole numbers to powers below nothing": summed(
        ("aten.sub.Tensor", I, 6), ("aten.pow.Tensor_Tensor", I, N0)
    ),
    "smaller than any normal number": summed(
        ("aten.mul.Tensor", VALUES, 1e-45), ("aten.div.Tensor", N0, 1e-45)
    ),
    "places that compete": summed(
        ("aten.zeros.default", [ITEMS]), ("aten.index_put.default", N0, [I], M, True)
    ),
    "a product of everything": summed(("aten.add.Tensor", I, 2**40), ("aten.prod.default", N0)),
    "a singular matrix": summed(
        ("aten.diag_embed.default", M), ("aten.linalg_inv_ex.default", N0), ("getitem", N1, 0)
    ),
    "a number on many axes": summed(("aten.reshape.default", M, [1] * 60 + [6])),
    "a deviation of one too few": summed(("aten.var.correction", M, [], {"correction": 6})),
}


@pytest.mark.parametrize("trick", HARMLESS)
def test_what_is_admitted_moves_the_sum_by_at_most_the_clip_norm(trick: str) -> None:
    text = text_of(with_graph(HARMLESS[trick]))
    assert verdict(text) == ""
    plan = ApprovablePlan.from_json(text)
    [step, _] = plan.steps
    check_runs(plan.model_copy(update={"steps": (step,)}), BOUNDS)
    assert largest_change(step, {}, people(4)) <= bound_of(step)


UNKNOWN: dict[str, R] = {
    "a power of whole numbers below one": summed(("aten.pow.Tensor_Scalar", I, -1)),
    "a running sum of truths": summed(("aten.cumsum.default", M, 0, TRUE)),
    "fractions, bit by bit": summed(("aten.bitwise_and.Tensor", M, M)),
}


@pytest.mark.parametrize("trick", UNKNOWN)
def test_what_pytorch_has_not_is_found_on_a_made_up_user(trick: str) -> None:
    text = text_of(with_graph(UNKNOWN[trick]))
    assert verdict(text) == ""
    with pytest.raises(PlanRefused, match="fails for a made-up user") as caught:
        check_runs(ApprovablePlan.from_json(text), BOUNDS)
    assert caught.value.rule == "examination"
