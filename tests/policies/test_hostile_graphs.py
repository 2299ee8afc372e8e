"""Graphs made by hand to break a node: each is refused by a named rule."""

from collections.abc import Callable

import pytest

from tests.policies.plans_of_attackers import (
    HAS_TARGET,
    ITEMS,
    ITEMS_INPUT,
    LOOKED_UP,
    MASK,
    MEMORY,
    SUM,
    TABLE,
    TARGET,
    VALUES_INPUT,
    WIDTH,
    H,
    I,
    M,
    R,
    T,
    V,
    chain,
    constant,
    doubling,
    graph,
    one,
    ref,
    renamed,
    reordered,
    text_of,
    verdict,
    with_graph,
)

GRAPHS: dict[str, tuple[str, Callable[[], R]]] = {
    # Operations with hidden state, randomness, or a way out.
    "writes in place": ("operation", lambda: one("aten.add_.Tensor", M, M)),
    "draws random numbers": ("operation", lambda: one("aten.rand_like.default", M)),
    "dropout": ("operation", lambda: one("aten.native_dropout.default", M, 0.5, True)),
    "running statistics": ("operation", lambda: one("aten.native_batch_norm.default", M)),
    "a size that depends on data": ("operation", lambda: one("aten.nonzero.default", M)),
    "a number out of a tensor": ("operation", lambda: one("aten._local_scalar_dense.default", M)),
    "memory nobody wrote": ("operation", lambda: one("aten.empty.memory_format", [1000])),
    "memory of another tensor": ("operation", lambda: one("aten.as_strided.default", M, [9], [9])),
    "another tensor's storage": ("operation", lambda: one("aten.set_.source_Tensor", M, M)),
    "a file": ("operation", lambda: one("aten.from_file.default", "/etc/passwd")),
    "Python": ("operation", lambda: one("os.system", "id")),
    "a dunder": ("operation", lambda: one("aten.__class__.default", M)),
    "an operator of another library": ("operation", lambda: one("prims.add.default", M, M)),
    "another device": (
        "operation",
        lambda: one("aten.zeros_like.default", M, {"device": "meta"}),
    ),
    "a result to write to": ("operation", lambda: one("aten.add.Tensor", M, M, {"out": M})),
    "errors that depend on data": (
        "operation",
        lambda: graph(
            [MASK],
            ("aten.diag_embed.default", M),
            ("aten.linalg_cholesky_ex.default", ref("n0"), {"check_errors": True}),
            ("getitem", ref("n1"), 0),
            ("aten.sum.default", ref("n2")),
        ),
    ),
    "a user's number as a size": ("shape", lambda: graph([TARGET], ("aten.ones.default", [T]))),
    "a user's number as a position": (
        "shape",
        lambda: graph([MASK, TARGET], ("aten.select.int", M, 0, T)),
    ),
    "a user's number as a scalar": (
        "shape",
        lambda: graph([MASK, TARGET], ("aten.add.Scalar", M, T), ("aten.sum.default", ref("n0"))),
    ),
    # Users mixed by PyTorch's own mapping, or its process brought down.
    "one user's system solved with everybody's right sides": (
        "mapping",
        lambda: graph(
            [VALUES_INPUT, HAS_TARGET],
            ("aten.reshape.default", H, [1, 1, 1]),
            ("aten.unsqueeze.default", ref("values"), 0),
            ("aten._linalg_solve_ex.default", ref("n0"), ref("n1")),
            ("getitem", ref("n2"), 0),
            (*SUM, ref("n3")),
        ),
    ),
    "as many systems as there are users in a batch": (
        "mapping",
        lambda: graph(
            [VALUES_INPUT, HAS_TARGET],
            ("aten.expand.default", H, [64, 1, 1]),
            ("aten.reshape.default", H, [1, 1]),
            ("aten._linalg_solve_ex.default", ref("n0"), ref("n1")),
            ("getitem", ref("n2"), 0),
            (*SUM, ref("n3")),
            (*SUM, ref("values")),
            ("aten.add.Tensor", ref("n4"), ref("n5")),
        ),
    ),
    "a position that isn't a vector": (
        "index",
        lambda: graph([TARGET, TABLE], ("aten.index_select.default", V, 0, T), (*SUM, ref("n0"))),
    ),
    "an axis that is only there for one user": (
        "mapping",
        lambda: graph([HAS_TARGET], ("aten.flip.default", H, [0])),
    ),
    "a sum over no axis": (
        "mapping",
        lambda: graph(
            [HAS_TARGET],
            ("aten.reshape.default", H, [1]),
            ("aten.logsumexp.default", ref("n0"), []),
            (*SUM, ref("n1")),
        ),
    ),
    "a product of fractions and whole numbers": (
        "dtype",
        lambda: graph(
            [ITEMS_INPUT, VALUES_INPUT],
            ("aten.reshape.default", I, [WIDTH, 1]),
            ("aten.reshape.default", ref("values"), [1, WIDTH]),
            ("aten.mm.default", ref("n0"), ref("n1")),
            (*SUM, ref("n2")),
        ),
    ),
    "more put into a slice than it holds": (
        "shape",
        lambda: graph(
            [MASK, VALUES_INPUT],
            ("aten.slice_scatter.default", M, ref("values"), 0, 0, 2),
            (*SUM, ref("n0")),
        ),
    ),
    "one number added at many places": (
        "shape",
        lambda: graph(
            [ITEMS_INPUT, HAS_TARGET],
            ("aten.zeros.default", [ITEMS]),
            ("aten.index_put.default", ref("n0"), [I], H, True),
            (*SUM, ref("n1")),
        ),
    ),
    "an index without indices": (
        "index",
        lambda: graph([MASK], (LOOKED_UP, M, [None]), (*SUM, ref("n0"))),
    ),
    "a write without indices": (
        "index",
        lambda: graph([MASK], ("aten.index_put.default", M, [None], M, True), (*SUM, ref("n0"))),
    ),
    # Memory and compute.
    "a huge range": ("memory", lambda: one("aten.arange.default", 2**40)),
    "a huge zero": ("memory", lambda: one("aten.zeros.default", [2**30, 2**30])),
    "sizes that overflow": ("shape", lambda: one("aten.zeros.default", [2**40, 2**40])),
    "doubling": ("memory", lambda: doubling(40)),
    "a huge expansion": (
        "memory",
        lambda: graph(
            [MASK],
            ("aten.sum.default", M),
            ("aten.expand.default", ref("n0"), [2**20, 2**20]),
            ("aten.sum.default", ref("n1")),
        ),
    ),
    "an outer product of everything": (
        "memory",
        lambda: graph(
            [MASK],
            ("aten.repeat.default", M, [10_000]),
            ("aten.unsqueeze.default", ref("n0"), 0),
            ("aten.unsqueeze.default", ref("n0"), 1),
            ("aten.mul.Tensor", ref("n1"), ref("n2")),
            ("aten.sum.default", ref("n3")),
        ),
    ),
    "sizes whose product wraps around": (
        "shape",
        lambda: graph(
            [MASK],
            (*SUM, M),
            ("aten.expand.default", ref("n0"), [2**31, 2**31, 4]),
            (*SUM, ref("n1")),
        ),
    ),
    "a shared matrix, copied for every user": (
        "memory",
        lambda: graph(
            [VALUES_INPUT, {"name": "big", "shape": [2, 5_700, 5_700], "dtype": "float32"}],
            (*SUM, ref("values")),
            ("aten.expand.default", ref("n0"), [2, 5_700, 1]),
            ("aten.bmm.default", ref("big"), ref("n1")),
            ("aten.bmm.default", ref("big"), ref("n2")),
            ("aten.linalg_solve_triangular.default", ref("big"), ref("n3"), {"upper": False}),
            (*SUM, ref("n4")),
        ),
    ),
    "a padding without end": (
        "memory",
        lambda: one("aten.constant_pad_nd.default", M, [2**50, 2**50]),
    ),
    "a range in tiny steps": (
        "shape",
        lambda: one("aten.arange.start_step", 0, 1, 1e-300),
    ),
    "a million pieces": (
        "size",
        lambda: graph(
            [MASK],
            ("aten.repeat.default", M, [100_000]),
            ("aten.split.Tensor", ref("n0"), 1),
            ("getitem", ref("n1"), 0),
        ),
    ),
    "too many operations": ("size", lambda: chain(5_001)),
    "too many constants": (
        "constants",
        lambda: graph(
            [MASK],
            ("aten.add.Tensor", M, ref("c0")),
            (*SUM, ref("n0")),
            constants=[constant("c0", "float32", *[0.5] * 20_000)],
        ),
    ),
    # Shapes, dtypes and names.
    "another user's shape": (
        "inputs",
        lambda: graph([{**MASK, "shape": [2 * WIDTH]}], ("aten.sum.default", M)),
    ),
    "whole numbers as floats": (
        "inputs",
        lambda: graph([{**ITEMS_INPUT, "dtype": "float32"}], ("aten.sum.default", I)),
    ),
    "a user's memory without a memory graph": (
        "inputs",
        lambda: graph([MEMORY], ("aten.sum.default", ref("memory"))),
    ),
    "shapes that don't fit": (
        "shape",
        lambda: graph([MASK, TABLE], ("aten.mm.default", V, V), ("aten.mv.default", ref("n0"), M)),
    ),
    "double precision": (
        "outputs",
        lambda: graph([MASK], ("aten.sum.default", M, {"dtype": {"dtype": "float64"}})),
    ),
    "an empty tensor": ("dtype", lambda: one("aten.slice.Tensor", M, 0, 0, 0)),
    "a list for an output": ("dtype", lambda: graph([MASK], ("aten.split.Tensor", M, 2))),
    "nothing of a user": ("mapping", lambda: graph([], ("aten.ones.default", []))),
    "a decoy that nobody reads": (
        "unused",
        lambda: graph([MASK], ("aten.zeros_like.default", M), ("aten.sum.default", M)),
    ),
    "another order under the same names": ("names", reordered),
    "a node named like a promise": (
        "names",
        lambda: renamed(graph([MASK], (*SUM, M)), "n0", "clipped_and_noised"),
    ),
    "one name twice": (
        "unreadable",
        lambda: renamed(one("aten.neg.default", M), "n1", "n0"),
    ),
    "a name before it is made": (
        "unreadable",
        lambda: graph([MASK], ("aten.neg.default", ref("n1")), ("aten.sum.default", M)),
    ),
    "an input named like a node": (
        "unreadable",
        lambda: graph([{**TABLE, "name": "n0"}, MASK], ("aten.sum.default", M)),
    ),
    "a name in another alphabet": (
        "unreadable",
        lambda: renamed(graph([MASK], (*SUM, M)), "counts", "сounts"),
    ),
    "an argument that is code": (
        "unreadable",
        lambda: one("aten.add.Tensor", M, [{"eval": "1"}]),
    ),
    "an argument nested too deeply": (
        "unreadable",
        lambda: one("aten.add.Tensor", M, [[[[[[[1]]]]]]]),
    ),
    "NaN among the constants": (
        "unreadable",
        lambda: one("aten.add.Scalar", M, [{"float": "nan"}]),
    ),
    "constants of another dtype": (
        "unreadable",
        lambda: graph(
            [MASK],
            ("aten.add.Tensor", M, ref("c0")),
            (*SUM, ref("n0")),
            constants=[constant("c0", "int64", 0.5)],
        ),
    ),
    "more constants than said": (
        "unreadable",
        lambda: graph(
            [MASK],
            ("aten.add.Tensor", M, ref("c0")),
            (*SUM, ref("n0")),
            constants=[{**constant("c0", "float32", 0.5), "data": [0.5, 0.5]}],
        ),
    ),
}


@pytest.mark.parametrize("trick", GRAPHS)
def test_hostile_graphs_are_refused_by_a_named_rule(trick: str) -> None:
    rule, made = GRAPHS[trick]
    plan = with_graph(made(), dtype="float64" if trick == "double precision" else "float32")
    assert verdict(text_of(plan)) == rule
