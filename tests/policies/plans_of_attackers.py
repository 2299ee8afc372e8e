"""How a hostile author writes: an honest plan as JSON values, and what can be put in its place."""

import copy
import json
from typing import Any

import torch

from network.program import DataSet, Gradient, Plan, Sum
from policies.admission import Bounds, PlanRefused, admit
from policies.canonical import canonical
from policies.plan import Plan as ApprovablePlan
from policies.plan import PlanUnreadable, RosterEntry

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


def text_of(plan: dict[str, Any]) -> str:
    return canonical(plan).decode()


def with_plan(**changes: Any) -> dict[str, Any]:
    return {**copy.deepcopy(HONEST), **changes}


def with_step(index: int = 0, **changes: Any) -> dict[str, Any]:
    plan = copy.deepcopy(HONEST)
    plan["steps"][index].update(changes)
    return plan


R = dict[str, Any]
ITEMS_INPUT = {"name": "items", "shape": [WIDTH], "dtype": "int64"}
MASK = {"name": "mask", "shape": [WIDTH], "dtype": "float32"}
VALUES_INPUT = {"name": "values", "shape": [WIDTH], "dtype": "float32"}
TARGET = {"name": "target", "shape": [], "dtype": "int64"}
TABLE = {"name": "v", "shape": [ITEMS, SIZE], "dtype": "float32"}
HAS_TARGET = {"name": "has_target", "shape": [], "dtype": "float32"}
POSITIONS = {"name": "where", "shape": [WIDTH], "dtype": "int64"}
STATE = ("v", "where", "w", "big")
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
    state = [spec for spec in made["inputs"] if spec["name"] in STATE]
    outputs = [{"name": "counts", "shape": list(shape), "dtype": dtype}]
    return with_step(graph=made, state=state, outputs=outputs)


def constant(name: str, dtype: str, *data: Any) -> R:
    return {"spec": {"name": name, "shape": [len(data)], "dtype": dtype}, "data": list(data)}


SUM = ("aten.sum.default",)
M, I, V, T = ref("mask"), ref("items"), ref("v"), ref("target")  # noqa: E741
H = ref("has_target")
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
