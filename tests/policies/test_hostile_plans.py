"""Plans made by hand to break a node: each is refused by a named rule.

A hostile author writes the text of a plan herself, without Coterie's tracer. `admit` and
`Plan.from_json` are all that stand between her text and private data.
"""

import json
from collections.abc import Callable
from typing import Any

import pytest

from policies.admission import Limits, PlanRefused, admit
from policies.canonical import canonical
from policies.plan import Plan as ApprovablePlan
from tests.policies.plans_of_attackers import (
    BOUNDS,
    HONEST,
    ITEMS,
    ITEMS_INPUT,
    MASK,
    MEMORY,
    SIZE,
    I,
    M,
    R,
    chain,
    graph,
    ref,
    text_of,
    verdict,
    with_graph,
    with_plan,
    with_step,
)


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
    "noise too wide to be drawn": (
        "noise",
        lambda: with_step(noise_multiplier=1e6, clip_norm=2.0**20, scale=64),
    ),
    "releases by the million": ("size", lambda: with_step(releases=1_000_000)),
    "sampling so rare that a double can't be halved": (
        "noise",
        lambda: with_step(sampling_rate=5e-324, noise_multiplier=1e-6),
    ),
    "sampling as text": ("unreadable", lambda: with_step(sampling_rate="NaN")),
    "sampling of nobody": ("unreadable", lambda: with_step(sampling_rate=0)),
    "a delta of one": ("unreadable", lambda: with_plan(delta=1)),
    "letters that are drawn as nothing": ("text", lambda: with_plan(purpose="a\u3164b")),
    "a joiner of letters": ("text", lambda: with_step(source="clip\u034f = 1")),
    "a variation of a letter": ("text", lambda: with_plan(purpose="noise\U000e0101")),
    "an empty braille cell": ("text", lambda: with_plan(population_note="all\u2800")),
    "marks that cover a line": ("text", lambda: with_plan(purpose="a" + "\u0336" * 20)),
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
    "memories that fill a node": (
        "memory",
        lambda: with_plan(memory=remembering([MASK], ("aten.repeat.default", M, [500_000]))),
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
    steps = [with_graph(chain(100))["steps"][0] for _ in range(6)]
    steps = [{**step, "name": f"s{index}"} for index, step in enumerate(steps)]
    plan, limits = ApprovablePlan.from_json(text_of(with_plan(steps=steps))), Limits(plan_nodes=500)
    with pytest.raises(PlanRefused, match="600 operations in the plan, at most 500"):
        admit(plan, BOUNDS, public=False, limits=limits)


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
