"""Graphs that read or write past a table, or fail by their numbers: each is refused by a rule."""

from collections.abc import Callable

import pytest

from tests.policies.plans_of_attackers import (
    ITEMS,
    ITEMS_INPUT,
    LOOKED_UP,
    MASK,
    POSITIONS,
    SUM,
    TABLE,
    TARGET,
    WIDTH,
    I,
    M,
    R,
    T,
    V,
    as_integers,
    graph,
    looked_up,
    one,
    ref,
    text_of,
    verdict,
    with_graph,
)

GRAPHS: dict[str, tuple[str, Callable[[], R]]] = {
    # Ways around the check of indices.
    "an index called a pick": (
        "operation",
        lambda: graph(
            [ITEMS_INPUT, TABLE],
            ("aten.mul.Tensor", I, 1_000),
            ("getitem", V, ref("n0")),
            (*SUM, ref("n1")),
        ),
    ),
    "copies called a pick": (
        "operation",
        lambda: graph(
            [MASK],
            ("aten.unsqueeze.default", M, 0),
            ("getitem", ref("n0"), [0] * 1_000),
            (*SUM, ref("n1")),
        ),
    ),
    "a pick of nothing": ("operation", lambda: one("getitem", M, None)),
    "a pick by a user's number": (
        "operation",
        lambda: graph(
            [MASK, TARGET],
            ("aten.split.Tensor", M, 1),
            ("getitem", ref("n0"), T),
            (*SUM, ref("n1")),
        ),
    ),
    "a pick past the results": (
        "shape",
        lambda: graph(
            [MASK],
            ("aten.split.Tensor", M, 1),
            ("getitem", ref("n0"), 2**50),
            (*SUM, ref("n1")),
        ),
    ),
    "a bound that is a user's number": (
        "shape",
        lambda: graph(
            [ITEMS_INPUT, TARGET, TABLE],
            ("aten.mul.Tensor", I, 99),
            ("aten.clamp.default", ref("n0"), 0, T),
            (LOOKED_UP, V, [ref("n1")]),
            (*SUM, ref("n2")),
        ),
    ),
    "a bound by tensors": (
        "index",
        lambda: graph(
            [ITEMS_INPUT, TARGET, TABLE],
            ("aten.mul.Tensor", I, 99),
            ("aten.clamp.Tensor", ref("n0"), T, T),
            (LOOKED_UP, V, [ref("n1")]),
            (*SUM, ref("n2")),
        ),
    ),
    "bounds that are truth values": (
        "index",
        lambda: looked_up(
            ("aten.mul.Tensor", I, 99), ("aten.clamp.default", ref("n0"), False, True)
        ),
    ),
    "a fraction made whole": (
        "index",
        lambda: looked_up(
            ("aten.div.Tensor_mode", I, 0.5, {"rounding_mode": "floor"}), as_integers(ref("n0"))
        ),
    ),
    "a fraction to fill whole numbers with": (
        "index",
        lambda: looked_up(("aten.full_like.default", I, 11.9)),
    ),
    "a fraction in a mask's place": (
        "index",
        lambda: looked_up(
            ("aten.gt.Scalar", I, 3), ("aten.masked_fill.Scalar", I, ref("n0"), 1e6 + 0.5)
        ),
    ),
    "a factor that wraps around": (
        "index",
        lambda: looked_up(("aten.add.Tensor", I, I, {"alpha": 2**52})),
    ),
    "counted truth values": (
        "index",
        lambda: looked_up(
            ("aten.gt.Scalar", I, -1),
            ("aten.sum.default", ref("n0")),
            ("aten.mul.Tensor", ref("n1"), 2),
        ),
    ),
    "an index in another table's range": (
        "index",
        lambda: graph([ITEMS_INPUT, TABLE], (LOOKED_UP, V, [I, I]), (*SUM, ref("n0"))),
    ),
    "an index of one number's place": (
        "index",
        lambda: graph(
            [TARGET, MASK], (*SUM, M), ("aten.gather.default", ref("n0"), 0, T), (*SUM, ref("n1"))
        ),
    ),
    "a keyword for a user's number": (
        "shape",
        lambda: graph([MASK, TARGET], ("aten.add.Tensor", M, M, {"alpha": T}), (*SUM, ref("n0"))),
    ),
    "a divisor that is a truth value": (
        "division",
        lambda: graph(
            [ITEMS_INPUT],
            ("aten.gt.Scalar", I, 5),
            ("aten.floor_divide.default", I, ref("n0")),
            ("aten.sum.default", ref("n1"), {"dtype": {"dtype": "float32"}}),
        ),
    ),
    # Indices.
    "an index past the table": ("index", lambda: looked_up(("aten.add.Tensor", I, 1))),
    "an index before the table": (
        "index",
        lambda: looked_up(("aten.sub.Tensor", I, ITEMS + 1)),
    ),
    "a negative row of an embedding": (
        "index",
        lambda: graph(
            [ITEMS_INPUT, TABLE],
            ("aten.sub.Tensor", I, 1),
            ("aten.embedding.default", V, ref("n0")),
            ("aten.sum.default", ref("n1")),
        ),
    ),
    "an index out of a float": (
        "index",
        lambda: looked_up(as_integers(M), inputs=[MASK, TABLE]),
    ),
    "an index out of NaN": (
        "index",
        lambda: looked_up(("aten.div.Tensor", M, M), as_integers(ref("n0")), inputs=[MASK, TABLE]),
    ),
    "an index from the state": (
        "index",
        lambda: graph(
            [MASK, TABLE, POSITIONS],
            (LOOKED_UP, V, [ref("where")]),
            ("aten.mul.Tensor", ref("n0"), ref("mask")),
            ("aten.sum.default", ref("n0")),
        ),
    ),
    "a boolean index": (
        "index",
        lambda: graph(
            [MASK], ("aten.gt.Scalar", M, 0), (LOOKED_UP, M, [ref("n0")]), (*SUM, ref("n1"))
        ),
    ),
    "a smaller table than the catalogue": (
        "index",
        lambda: graph([ITEMS_INPUT, MASK], (LOOKED_UP, M, [I]), ("aten.sum.default", ref("n0"))),
    ),
    "an index that overflows into range": (
        "index",
        lambda: looked_up(
            ("aten.mul.Tensor", I, 2**52),
            ("aten.mul.Tensor", ref("n0"), 2**52),
            ("aten.add.Tensor", ref("n1"), ITEMS),
        ),
    ),
    "a clamp with its ends exchanged": (
        "index",
        lambda: looked_up(("aten.clamp.default", I, 100, 50)),
    ),
    "an index hidden in a scatter": (
        "index",
        lambda: looked_up(("aten.scatter.value", I, 0, I, 10**6)),
    ),
    "an index hidden in a padding": (
        "index",
        lambda: looked_up(("aten.constant_pad_nd.default", I, [0, 1], 10**6)),
    ),
    "an index hidden in a slice": (
        "index",
        lambda: looked_up(
            ("aten.full.default", [WIDTH], 10**6), ("aten.slice_scatter.default", I, ref("n0"), 0)
        ),
    ),
    "an index hidden in a copy": (
        "index",
        lambda: looked_up(
            ("aten.full.default", [WIDTH], 10**6), ("aten.copy.default", I, ref("n0"))
        ),
    ),
    "an index hidden in a concatenation": (
        "index",
        lambda: looked_up(
            ("aten.full.default", [WIDTH], 10**6), ("aten.cat.default", [I, ref("n0")])
        ),
    ),
    "an index counted up": (
        "index",
        lambda: looked_up(("aten.cumsum.default", I, 0)),
    ),
    "equal indices that compete": (
        "operation",
        lambda: graph(
            [ITEMS_INPUT, MASK],
            ("aten.zeros.default", [ITEMS]),
            ("aten.index_put.default", ref("n0"), [I], M, False),
            ("aten.sum.default", ref("n1")),
        ),
    ),
    "an index that isn't a list": (
        "shape",
        lambda: graph([ITEMS_INPUT, TABLE], (LOOKED_UP, V, 3), (*SUM, ref("n0"))),
    ),
    "a sparse gradient": (
        "operation",
        lambda: graph(
            [ITEMS_INPUT, TABLE],
            ("aten.embedding.default", V, I, -1, False, True),
            ("aten.sum.default", ref("n0")),
        ),
    ),
    # Crashes that depend on data.
    "division by a count": (
        "division",
        lambda: graph(
            [ITEMS_INPUT],
            ("aten.floor_divide.default", I, I),
            ("aten.sum.default", ref("n0"), {"dtype": {"dtype": "float32"}}),
        ),
    ),
    "the one division that traps": (
        "division",
        lambda: graph(
            [ITEMS_INPUT],
            ("aten.mul.Tensor", I, -(2**52)),
            ("aten.mul.Tensor", ref("n0"), 2**11),
            ("aten.div.Tensor_mode", ref("n1"), -1, {"rounding_mode": "trunc"}),
            ("aten.sum.default", ref("n2"), {"dtype": {"dtype": "float32"}}),
        ),
    ),
    "a remainder by nothing": (
        "division",
        lambda: graph(
            [ITEMS_INPUT],
            ("aten.remainder.Scalar", I, 0),
            ("aten.sum.default", ref("n0"), {"dtype": {"dtype": "float32"}}),
        ),
    ),
}


@pytest.mark.parametrize("trick", GRAPHS)
def test_hostile_indices_and_divisions_are_refused_by_a_named_rule(trick: str) -> None:
    rule, made = GRAPHS[trick]
    assert verdict(text_of(with_graph(made()))) == rule
