"""Plans made by hand to break a node: each is refused by a named rule, or shown to be harmless.

A hostile author writes the text of a plan herself, without Coterie's tracer. `admit` and
`Plan.from_json` are all that stand between her text and private data.
"""

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from domains.engine import private_sum
from domains.interactions import Interactions
from domains.users import UserTensors
from network.program import DataSet, Gradient, Plan, Sum
from policies.admission import Bounds, PlanRefused, admit
from policies.canonical import canonical
from policies.plan import Plan as ApprovablePlan
from policies.plan import PlanUnreadable, RosterEntry, Step
from tests.domains.test_engine import people as drawn_people

ITEMS, WIDTH, SIZE = 12, 6, 3
BOUNDS = Bounds(ITEMS, WIDTH, 100)
DATA = DataSet("clicks", ITEMS, WIDTH, 300, "0" * 64, False)
ROSTER = [
    RosterEntry(name=n, server_uid=n * 32, node_key=k * 64, owner_key=k * 64)
    for n, k in (("a", "1"), ("b", "2"), ("c", "3"))
]
VECTORS = torch.randn(ITEMS, SIZE, generator=torch.Generator().manual_seed(0))


def honest() -> dict[str, Any]:
    """An honest plan as JSON values: popularity, then a gradient step."""

    def count(state: Any, user: Any) -> dict[str, torch.Tensor]:
        return {"counts": torch.zeros(ITEMS).scatter_add(0, user.items, user.mask)}

    def loss(state: Any, user: Any) -> torch.Tensor:
        return ((state["v"][user.items] * user.mask[:, None]).sum(0) ** 2).sum()

    steps = [Sum("count", count, 2.0), Gradient("train", loss, ["v"], 1.0, releases=4)]
    plan = Plan("honest", "to learn", DATA, steps, {"v": VECTORS})
    found: dict[str, Any] = json.loads(plan.bind(ROSTER, "0" * 64).to_json())
    return found


HONEST = honest()


def verdict(text: str) -> str:
    """The rule that refuses a plan's text; "" if it would be put to the owner."""
    try:
        admit(ApprovablePlan.from_json(text), BOUNDS, public=False)
    except PlanUnreadable:
        return "unreadable"
    except PlanRefused as refused:
        return refused.rule
    return ""


def test_the_honest_plan_is_admitted() -> None:
    assert verdict(canonical(HONEST).decode()) == ""


# --- Texts ---

TEXTS: dict[str, Callable[[str], str]] = {
    "a key twice": lambda t: t.replace('"delta":', '"delta":0.5,"delta":', 1),
    "a key twice deep inside": lambda t: t.replace(
        '"clip_norm":2,', '"clip_norm":1,"clip_norm":2,', 1
    ),
    "a key spelled with an escape": lambda t: t.replace('"delta"', '"d\\u0065lta"', 1),
    "a key with a Cyrillic letter": lambda t: t.replace('"delta"', '"dеlta"', 1),
    "both spellings": lambda t: t.replace('"delta":', '"d\\u0065lta":0.5,"delta":', 1),
    "a byte order mark": lambda t: "\ufeff" + t,
    "something behind the plan": lambda t: t + "{}",
    "spaces": lambda t: t.replace(",", ", ", 1),
    "keys in another order": lambda t: json.dumps(dict(reversed(json.loads(t).items()))),
    "NaN as noise": lambda t: t.replace('"clip_norm":2,', '"clip_norm":NaN,', 1),
    "infinite clip norm": lambda t: t.replace('"clip_norm":2,', '"clip_norm":Infinity,', 1),
    "a number beyond doubles": lambda t: t.replace('"clip_norm":2,', '"clip_norm":1e999,', 1),
    "a number written longer": lambda t: t.replace('"clip_norm":2,', '"clip_norm":2.0,', 1),
    "minus zero": lambda t: t.replace('"spare_attempts":2', '"spare_attempts":-0', 1),
    "a hundred thousand brackets": lambda t: "[" * 100_000,
    "a lone surrogate": lambda t: t.replace("to learn", "\\ud800", 1),
    "not an object": lambda t: "[]",
    "a field for pickles": lambda t: t.replace('"delta":', '"a":"gASVI","delta":', 1),
    "text beyond the limit": lambda t: t + " " * 2**26,
}


@pytest.mark.parametrize("trick", TEXTS)
def test_texts_that_could_be_read_in_two_ways_are_unreadable(trick: str) -> None:
    text = TEXTS[trick](canonical(HONEST).decode())
    assert text != canonical(HONEST).decode()
    assert verdict(text) == "unreadable"


# --- Values of the plan and its steps ---


def with_plan(**changes: Any) -> dict[str, Any]:
    return {**copy.deepcopy(HONEST), **changes}


def with_step(index: int = 0, **changes: Any) -> dict[str, Any]:
    plan = copy.deepcopy(HONEST)
    plan["steps"][index].update(changes)
    return plan


def same_partner_twice() -> dict[str, Any]:
    entry = {**HONEST["roster"][0], "name": "d", "server_uid": "d" * 32}
    return with_plan(roster=[*HONEST["roster"], entry], threshold=4)


VALUES: dict[str, tuple[str, Callable[[], dict[str, Any]]]] = {
    "no noise": ("noise", lambda: with_step(noise_multiplier=0)),
    "noise too narrow": ("noise", lambda: with_step(noise_multiplier=1e-6)),
    "negative noise": ("unreadable", lambda: with_step(noise_multiplier=-1)),
    "a clip norm beyond the ring": ("ring", lambda: with_step(clip_norm=2**20, scale=2**11)),
    "a clip norm of nothing": ("unreadable", lambda: with_step(clip_norm=0)),
    "a clip norm that no double can divide by": ("noise", lambda: with_step(clip_norm=5e-324)),
    "noise that no double can divide by": ("noise", lambda: with_step(noise_multiplier=1e-310)),
    "a layer's norm that squares to nothing": (
        "ring",
        lambda: with_step(clipping={"kind": "per-layer", "norms": [5e-324]}),
    ),
    "votes that weigh nothing": (
        "ring",
        lambda: with_step(
            clipping={"kind": "adaptive", "quantile": 0.5, "norm": 0.5, "vote_norm": 5e-324}
        ),
    ),
    "a quantile that nobody reaches": (
        "unreadable",
        lambda: with_step(
            clipping={"kind": "adaptive", "quantile": 1.0, "norm": 0.5, "vote_norm": 0.1}
        ),
    ),
    "norms that together exceed the bound by a hair": (
        "unreadable",
        lambda: with_step(
            clip_norm=1.0,
            clipping={"kind": "adaptive", "quantile": 0.5, "norm": 1.0, "vote_norm": 1e-9},
        ),
    ),
    "a clip norm as text": ("unreadable", lambda: with_step(clip_norm="1")),
    "a clip norm below one unit": (
        "ring",
        lambda: with_step(clip_norm=2**-12, scale=2**10, noise_multiplier=1000),
    ),
    "a scale that isn't a power of two": ("unreadable", lambda: with_step(scale=3)),
    "negative releases": ("unreadable", lambda: with_step(releases=-1)),
    "releases without end": ("unreadable", lambda: with_step(releases=10**9)),
    "releases as a truth value": ("unreadable", lambda: with_step(releases=True)),
    "sampling above one": ("unreadable", lambda: with_step(sampling_rate=1.5)),
    "a step after itself": ("unreadable", lambda: with_step(after="count", every=1)),
    "a step after a later one": ("unreadable", lambda: with_step(after="train", every=1)),
    "two steps of one name": ("unreadable", lambda: with_step(name="train")),
    "a name with a space behind it": ("unreadable", lambda: with_step(name="train ")),
    "a name with a line break": ("unreadable", lambda: with_step(name="train\n")),
    "a name in full-width letters": ("unreadable", lambda: with_step(name="ｔrain")),
    "a name with a slash": ("unreadable", lambda: with_plan(name="../../ledger")),
    "public by claim": ("public", lambda: with_plan(public=True)),
    "nobody colludes": ("threshold", lambda: with_plan(collusion=0)),
    "everybody colludes": ("threshold", lambda: with_plan(collusion=3)),
    "a threshold too low": ("threshold", lambda: with_plan(threshold=2)),
    "one partner under two names": ("roster", same_partner_twice),
    "text that turns around": ("text", lambda: with_plan(purpose="noise \u202e001 =")),
    "text that isn't seen": ("text", lambda: with_step(source="clip\u200b(10)")),
    "text that moves the cursor": ("text", lambda: with_step(source="\x1b[2Jall good")),
    "a carriage return": ("text", lambda: with_step(source="releases = 1\rreleases = 9")),
    "no steps": ("unreadable", lambda: with_plan(steps=[])),
    "negative spare attempts": ("unreadable", lambda: with_plan(spare_attempts=-1)),
    "an announcement of less than leaves": (
        "outputs",
        lambda: with_step(outputs=[{"name": "counts", "shape": [1], "dtype": "float32"}]),
    ),
    "an announcement under another name": (
        "outputs",
        lambda: with_step(outputs=[{"name": "x", "shape": [ITEMS], "dtype": "float32"}]),
    ),
    "a gradient of what isn't there": (
        "outputs",
        lambda: with_step(1, outputs=[{"name": "w", "shape": [3], "dtype": "float32"}]),
    ),
    "a state the graph doesn't read": ("state", lambda: with_step(1, state=[])),
    "a gradient step with the graph of a sum": (
        "outputs",
        lambda: with_step(1, graph=HONEST["steps"][0]["graph"], state=[]),
    ),
}


@pytest.mark.parametrize("trick", VALUES)
def test_plans_that_promise_too_little_are_refused(trick: str) -> None:
    rule, made = VALUES[trick]
    assert verdict(text_of(made())) == rule


def text_of(plan: dict[str, Any]) -> str:
    return canonical(plan).decode()


# --- Graphs ---

R = dict[str, Any]
ITEMS_INPUT = {"name": "items", "shape": [WIDTH], "dtype": "int64"}
MASK = {"name": "mask", "shape": [WIDTH], "dtype": "float32"}
VALUES_INPUT = {"name": "values", "shape": [WIDTH], "dtype": "float32"}
TARGET = {"name": "target", "shape": [], "dtype": "int64"}
TABLE = {"name": "v", "shape": [ITEMS, SIZE], "dtype": "float32"}
POSITIONS = {"name": "where", "shape": [WIDTH], "dtype": "int64"}
MEMORY = {"name": "memory", "shape": [SIZE], "dtype": "float32"}


def ref(name: str) -> R:
    return {"ref": name}


def graph(inputs: list[R], *nodes: tuple, out: str = "", constants: Any = ()) -> R:
    """A graph from (operation, *arguments[, keyword arguments]); its last node is the output."""
    written = []
    for index, (op, *args) in enumerate(nodes):
        kwargs = args.pop() if args and isinstance(args[-1], dict) and "ref" not in args[-1] else {}
        written.append({"name": f"n{index}", "op": op, "args": args, "kwargs": kwargs})
    return {
        "inputs": inputs,
        "constants": list(constants),
        "nodes": written,
        "outputs": [["counts", out or f"n{len(nodes) - 1}"]],
    }


def with_graph(made: R, shape: tuple[int, ...] = (), dtype: str = "float32") -> R:
    state = [spec for spec in made["inputs"] if spec["name"] in ("v", "where", "w")]
    outputs = [{"name": "counts", "shape": list(shape), "dtype": dtype}]
    return with_step(graph=made, state=state, outputs=outputs)


def constant(name: str, dtype: str, *data: Any) -> R:
    return {"spec": {"name": name, "shape": [len(data)], "dtype": dtype}, "data": list(data)}


SUM = ("aten.sum.default",)
M, I, V, T = ref("mask"), ref("items"), ref("v"), ref("target")  # noqa: E741
LOOKED_UP = "aten.index.Tensor"


def looked_up(*before: tuple, inputs: Any = (ITEMS_INPUT, TABLE), op: str = LOOKED_UP) -> R:
    """A table read at positions that the nodes before compute."""
    last = ref(f"n{len(before) - 1}")
    read = (op, V, [last]) if op == LOOKED_UP else (op, V, last)
    return graph(list(inputs), *before, read, ("aten.sum.default", ref(f"n{len(before)}")))


def doubling(times: int) -> R:
    nodes: list[tuple] = [("aten.cat.default", [M, M])]
    for index in range(times):
        nodes.append(("aten.cat.default", [ref(f"n{index}"), ref(f"n{index}")]))
    return graph([MASK], *nodes, ("aten.sum.default", ref(f"n{times}")))


def chain(length: int) -> R:
    nodes = [("aten.neg.default", M)]
    nodes += [("aten.neg.default", ref(f"n{index}")) for index in range(length - 2)]
    return graph([MASK], *nodes, ("aten.sum.default", ref(f"n{length - 2}")))


def as_integers(source: R) -> tuple:
    return ("aten._to_copy.default", source, {"dtype": {"dtype": "int64"}})


def renamed(made: R, old: str, new: str) -> R:
    changed: R = json.loads(json.dumps(made).replace(f'"{old}"', f'"{new}"'))
    return changed


def reordered() -> R:
    """The same sum with its two independent nodes exchanged, under their old names."""
    made = graph(
        [MASK],
        ("aten.exp.default", M),
        ("aten.neg.default", M),
        ("aten.add.Tensor", ref("n0"), ref("n1")),
        ("aten.sum.default", ref("n2")),
    )
    made["nodes"][0], made["nodes"][1] = made["nodes"][1], made["nodes"][0]
    return made


def one(op: str, *args: Any) -> R:
    return graph([MASK], (op, *args), ("aten.sum.default", ref("n0")))


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


# --- Private memory ---


def remembering(inputs: list[R], *nodes: tuple) -> R:
    made = graph(inputs, *nodes)
    made["outputs"] = [["memory", made["outputs"][0][1]]]
    return made


def scoring(inputs: list[R], *nodes: tuple) -> R:
    made = graph(inputs, *nodes)
    made["outputs"] = [["scores", made["outputs"][0][1]]]
    return made


GOOD_MEMORY = remembering([MASK], ("aten.slice.Tensor", M, 0, 0, SIZE))
MEMORIES: dict[str, tuple[str, Callable[[], R]]] = {
    "a memory of another length than it reads": (
        "memory",
        lambda: with_plan(
            memory=remembering([MASK, MEMORY], ("aten.cat.default", [ref("memory"), M]))
        ),
    ),
    "a memory that is a matrix": (
        "memory",
        lambda: with_plan(memory=remembering([MASK], ("aten.diag_embed.default", M))),
    ),
    "a memory of whole numbers": (
        "memory",
        lambda: with_plan(memory=remembering([ITEMS_INPUT], ("aten.neg.default", I))),
    ),
    "a memory of nobody": (
        "mapping",
        lambda: with_plan(memory=remembering([], ("aten.ones.default", [SIZE]))),
    ),
    "a memory with an operation off the list": (
        "operation",
        lambda: with_plan(memory=remembering([MASK], ("aten.bernoulli.default", M))),
    ),
    "a memory that explodes": (
        "memory",
        lambda: with_plan(memory=remembering([MASK], ("aten.repeat.default", M, [2**30]))),
    ),
    "scores that read her interactions": (
        "scores",
        lambda: with_plan(
            memory=GOOD_MEMORY,
            scores=scoring(
                [ITEMS_INPUT, MASK],
                ("aten.zeros.default", [ITEMS]),
                ("aten.scatter_add.default", ref("n0"), 0, I, M),
            ),
        ),
    ),
    "scores of another catalogue": (
        "scores",
        lambda: with_plan(
            memory=GOOD_MEMORY,
            scores=scoring([MEMORY], ("aten.neg.default", ref("memory"))),
        ),
    ),
    "scores without a memory": (
        "inputs",
        lambda: with_plan(scores=scoring([MEMORY], ("aten.repeat.default", ref("memory"), [4]))),
    ),
}


@pytest.mark.parametrize("trick", MEMORIES)
def test_poisoned_memories_are_refused(trick: str) -> None:
    rule, made = MEMORIES[trick]
    assert verdict(text_of(made())) == rule


def test_many_steps_cannot_hide_how_large_a_plan_is() -> None:
    steps = [with_graph(chain(4_000))["steps"][0] for _ in range(6)]
    steps = [{**step, "name": f"s{index}"} for index, step in enumerate(steps)]
    assert verdict(text_of(with_plan(steps=steps))) == "size"


def test_work_without_end_is_refused_with_its_estimate() -> None:
    made = graph(
        [MASK],
        ("aten.repeat.default", M, [1_000, 100]),
        ("aten.transpose.int", ref("n0"), 0, 1),
        *[("aten.mm.default", ref("n0"), ref("n1"))] * 40,
        ("aten.stack.default", [ref(f"n{index}") for index in range(2, 42)]),
        ("aten.sum.default", ref("n42")),
    )
    plan = with_graph(made)
    plan["steps"][0]["releases"] = 1_000
    with pytest.raises(PlanRefused, match=r"about 2\.4e\+15 multiply-adds, at most 1\.0e\+15"):
        admit(ApprovablePlan.from_json(text_of(plan)), BOUNDS, public=False)


def test_the_same_graph_in_another_admitted_order_is_another_plan() -> None:
    def made(first: str, second: str) -> str:
        nodes = [(first, M), (second, M), ("aten.add.Tensor", ref("n0"), ref("n1"))]
        return text_of(with_graph(graph([MASK], *nodes, ("aten.sum.default", ref("n2")))))

    one_way = made("aten.exp.default", "aten.neg.default")
    other_way = made("aten.neg.default", "aten.exp.default")
    assert verdict(one_way) == verdict(other_way) == ""
    assert ApprovablePlan.from_json(one_way).hash != ApprovablePlan.from_json(other_way).hash


# --- Harmless: admitted, and one user still moves the sum by at most the clip norm. ---


def people(users: int, seed: int = 0) -> Interactions:
    found = drawn_people(users, seed)
    values = np.random.default_rng(seed).normal(size=len(found.items))
    return replace(found, values=values.astype(np.float32))


def largest_change(step: Step, state: dict[str, torch.Tensor], data: Interactions) -> int:
    """The largest squared integer distance between the sums with and without one user."""
    tensors = UserTensors(data, ITEMS, WIDTH, seed=1)
    everyone = np.arange(data.users)
    total = private_sum(step, state, tensors, everyone)
    changes = (total - private_sum(step, state, tensors, np.delete(everyone, u)) for u in everyone)
    return max(sum(int(x) ** 2 for x in change) for change in changes)


def bound_of(step: Step) -> int:
    return int(step.clip_norm * step.scale) ** 2


def tell_who(state: Any, user: Any) -> dict[str, torch.Tensor]:
    """Her items as digits of one number: a message to the scientist."""
    return {"x": (user.items * 100.0 ** torch.arange(WIDTH)).sum()}


def not_a_number(state: Any, user: Any) -> dict[str, torch.Tensor]:
    return {"x": (user.mask - user.mask) / (user.mask - user.mask), "y": user.values}


def infinite(state: Any, user: Any) -> dict[str, torch.Tensor]:
    return {"x": torch.exp(user.items * 1e9), "y": torch.log(user.mask)}


def almost_infinite(state: Any, user: Any) -> dict[str, torch.Tensor]:
    return {"x": user.mask * 3e38, "y": -user.mask * 3e38}


def denormal(state: Any, user: Any) -> dict[str, torch.Tensor]:
    return {"x": user.mask * 1e-45}


def one_user_only(state: Any, user: Any) -> dict[str, torch.Tensor]:
    """Huge if she has a certain item, nothing for anybody else."""
    return {"x": 1e30 * ((user.items == 7) * user.mask).sum()}


def chaotic(state: Any, user: Any) -> dict[str, torch.Tensor]:
    """Turns a difference in the last bit into another result altogether."""
    x = state["v"].T @ (state["v"] @ (state["v"][user.items] * user.mask[:, None]).sum(0))
    for _ in range(12):
        x = torch.sin(50 * x)
    return {"x": 100 * x}


def logistic_map(state: Any, user: Any) -> dict[str, torch.Tensor]:
    x = torch.softmax((state["v"][user.items] * user.mask[:, None]).sum(0), 0)
    for _ in range(30):
        x = 3.99 * x * (1 - x)
    return {"x": 100 * x}


HARMLESS = {
    f.__name__: f
    for f in (
        tell_who,
        not_a_number,
        infinite,
        almost_infinite,
        denormal,
        one_user_only,
        chaotic,
        logistic_map,
    )
}


@pytest.mark.parametrize("trick", HARMLESS)
@pytest.mark.parametrize("poison", [None, float("nan"), float("inf"), 1e38, -1e-45])
def test_no_contribution_moves_the_sum_by_more_than_the_clip_norm(
    trick: str, poison: float | None
) -> None:
    vectors = 3 * VECTORS if poison is None else torch.full((ITEMS, SIZE), poison)
    plan = Plan("m", "t", DATA, [Sum("s", HARMLESS[trick], 0.7)], {"v": vectors})
    approved = plan.bind(ROSTER, "0" * 64)
    assert verdict(approved.to_json()) == ""
    [step] = approved.steps
    state = {spec.name: plan.state[spec.name] for spec in step.state}
    assert largest_change(step, state, people(7)) <= bound_of(step)


# --- Random admitted graphs ---

UNARY: dict[str, Callable[[Any], Any]] = {
    "exp": torch.exp,
    "log": torch.log,
    "sqrt": torch.sqrt,
    "sin": lambda x: torch.sin(1e3 * x),
    "tanh": torch.tanh,
    "reciprocal": torch.reciprocal,
    "square": torch.square,
    "huge": lambda x: 1e30 * x,
    "sign": torch.sign,
    "whole": lambda x: x.long().float(),
    "softmax": lambda x: torch.softmax(x, 0),
    "cumsum": lambda x: torch.cumsum(x, 0),
    "norm": lambda x: x / x.norm(),
    "flip": lambda x: x.flip(0),
    "ranks": lambda x: (x[:, None] > x[None, :]).float().sum(1),
}
BINARY: dict[str, Callable[[Any, Any], Any]] = {
    "add": torch.add,
    "multiply": torch.mul,
    "divide": torch.div,
    "power": torch.pow,
    "maximum": torch.maximum,
    "choose": lambda x, y: torch.where(x > y, x, -y),
}
STEPS = st.lists(
    st.tuples(st.sampled_from([*UNARY, *BINARY]), st.integers(0, 30), st.integers(0, 30)),
    min_size=1,
    max_size=8,
)


def written(steps: list[tuple[str, int, int]]) -> Callable[[Any, Any], dict[str, Any]]:
    """A contribution made of random operations on vectors over a user's interactions."""

    def contribution(state: Any, user: Any) -> dict[str, torch.Tensor]:
        hers = state["v"][user.items] * user.mask[:, None]
        pool = [hers.sum(1), hers @ hers.sum(0), user.values, user.items.float(), user.mask]
        for name, left, right in steps:
            x, y = pool[-1 - left % len(pool)], pool[right % len(pool)]
            pool.append(UNARY[name](x) if name in UNARY else BINARY[name](x, y))
        by_item = torch.zeros(ITEMS).scatter_add(0, user.items, pool[-1])
        return {"by_item": by_item, "last": pool[-1], "before": pool[-2].sum() + hers.sum()}

    return contribution


@settings(max_examples=40, deadline=None, derandomize=True, phases=[Phase.generate])
@given(STEPS, st.booleans(), st.floats(1e-3, 1e3), st.integers(0, 1_000))
def test_no_random_admitted_graph_lets_one_user_move_the_sum_further(
    steps: list[tuple[str, int, int]], as_gradient: bool, clip_norm: float, seed: int
) -> None:
    contribution = written(steps)
    step: Sum | Gradient = Sum("s", contribution, clip_norm)
    if as_gradient:
        step = Gradient(
            "s", lambda s, u: sum(t.sum() for t in contribution(s, u).values()), ["v"], clip_norm
        )
    approved = Plan("m", "t", DATA, [step], {"v": VECTORS}, None).bind(ROSTER, "0" * 64)
    admit(approved, BOUNDS, public=True)
    [admitted] = ApprovablePlan.from_json(approved.to_json()).steps
    state = {spec.name: VECTORS for spec in admitted.state}
    data = people(5, seed)
    assert largest_change(admitted, state, data) <= bound_of(admitted)
    exchanged = with_another_user(data, people(5, seed + 1), seed % 5)
    everyone, sums = np.arange(5), []
    for version in (data, exchanged):
        tensors = UserTensors(version, ITEMS, WIDTH, seed=1)
        sums.append(private_sum(admitted, state, tensors, everyone))
    # Exchanging her data is removing one user and adding another: twice the bound.
    assert sum(int(x) ** 2 for x in sums[0] - sums[1]) <= 4 * bound_of(admitted)


def with_another_user(data: Interactions, other: Interactions, index: int) -> Interactions:
    """The same users, one of them with the interactions of the other data set's."""
    sources = [other if user == index else data for user in range(data.users)]
    parts = [slice(s.indptr[u], s.indptr[u + 1]) for u, s in enumerate(sources)]
    pairs = list(zip(sources, parts, strict=True))
    return replace(
        data,
        indptr=np.concatenate([[0], np.cumsum([len(s.items[part]) for s, part in pairs])]),
        items=np.concatenate([s.items[part] for s, part in pairs]),
        values=np.concatenate([s.values[part] for s, part in pairs]),
        targets=np.array([s.targets[u] for u, s in enumerate(sources)]),
    )
