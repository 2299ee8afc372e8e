"""Tracing: equal functions give equal hashes anywhere, and what can't be traced says what to do."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as fn

from policies.graph import Graph
from policies.modules import of_state, state_of
from policies.trace import TraceError, trace
from policies.users import Bounds
from tests.policies.one_user_alone import ROSTER
from tests.policies.test_modules import sasrec_with_full_softmax

ITEMS, WIDTH = 12, 6
BOUNDS = Bounds(ITEMS, WIDTH)
STATE = {"table": torch.ones(ITEMS, 3), "bias": torch.ones(3)}
HASH_OF_A_PLAN = """
from tests.policies.one_user_alone import ROSTER
from tests.policies.test_modules import sasrec_with_full_softmax
print(sasrec_with_full_softmax().plan.bind(ROSTER, "0" * 64).hash)
"""


def traced(function: Callable[[Any, Any], Any]) -> Graph:
    return trace(function, STATE, BOUNDS)


def of_model(model: nn.Module, function: Callable[[Any, Any], Any]) -> Graph:
    return trace(of_state(model, function), state_of(model), BOUNDS)


def test_another_process_with_other_hash_seed_and_threads_gives_the_same_plan() -> None:
    elsewhere = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", HASH_OF_A_PLAN],
        env={**os.environ, "PYTHONHASHSEED": "2", "OMP_NUM_THREADS": "2"},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    assert sasrec_with_full_softmax().plan.bind(ROSTER, "0" * 64).hash == elsewhere


def test_the_values_of_state_are_not_part_of_the_graph() -> None:
    def loss(state, user):
        return state["table"][user.items].sum()

    other = {name: tensor + 1 for name, tensor in STATE.items()}
    assert trace(loss, STATE, BOUNDS) == trace(loss, other, BOUNDS)


def test_in_place_writes_views_and_unused_work_leave_pure_operations() -> None:
    def loss(state, user):
        state["table"].exp()
        rows = user.mask.clone().view(2, -1)
        rows += 1
        return rows.sum()

    ops = [node.op for node in traced(loss).nodes]
    assert "aten.add.Tensor" in ops
    assert not {"aten.exp.default", "aten.add_.Tensor", "aten.view.default"} & set(ops)


def test_a_graph_computes_what_the_function_computes() -> None:
    def loss(state, user):
        hidden = torch.relu(state["table"][user.items] + state["bias"])
        hidden[0] = 0.5
        return fn.softplus(hidden.mean(0)).sum()

    graph, user = traced(loss), type("User", (), {"items": torch.arange(WIDTH)})
    [found] = graph.run({**STATE, "items": user.items}).values()
    assert torch.equal(found, loss(STATE, user))


def test_small_whole_buffers_become_constants_that_admission_can_see() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(WIDTH, 2)
            self.register_buffer("order", torch.arange(WIDTH))

    graph = of_model(Model(), lambda m, u: (m.table(m.order) * u.mask[:, None]).sum())
    assert [constant.data for constant in graph.constants] == [tuple(range(WIDTH))]
    assert [spec.name for spec in graph.state] == ["table.weight"]


# --- What can't be traced: the author's line, the operation, what to write instead. ---


def data_dependent_if(state, user):
    if user.mask.sum() > 1:  # here
        return state["bias"].sum()
    return state["table"].sum()


def item(state, user):
    return state["bias"].sum() * user.mask.sum().item()  # here


def whole_number(state, user):
    return sum(state["table"][i].sum() for i in range(int(user.mask.sum())))  # here


def to_list(state, user):
    return state["bias"].sum() * len(user.items.tolist())  # here


def in_place_on_state(state, user):
    state["bias"] += 1  # here
    return state["bias"].sum() * user.mask.sum()


def in_place_on_a_user_tensor(state, user):
    user.mask[0] = 1  # here
    return user.mask.sum()


def in_place_through_a_view(state, user):
    state["table"].T[0].add_(1)  # here
    return state["table"].sum() * user.mask.sum()


def dropout(state, user):
    return fn.dropout(state["bias"], 0.5).sum() * user.mask.sum()  # here


def random_numbers(state, user):
    return (state["bias"] + torch.randn(3)).sum()  # here


def boolean_index(state, user):
    return state["table"][user.items[user.mask > 0]].sum()  # here


def competing_writes(state, user):
    seen = torch.zeros(ITEMS)
    seen[user.items] = user.mask  # here
    return seen.sum()


def sorting(state, user):
    return state["table"][user.items].sort().values[0].sum()  # here


def half_precision(state, user):
    return state["bias"].half().sum() * user.mask.sum()  # here


def uninitialised(state, user):
    return torch.empty(3).fill_(1).sum() * user.mask.sum()  # here


def unequal_shapes(state, user):
    return (state["table"] @ state["table"]).sum()  # here


@pytest.mark.parametrize(
    ("function", "operation", "advice"),
    [
        (data_dependent_if, "`if`", "torch.where"),
        (item, ".item()", "keep the value as a tensor"),
        (whole_number, "int()", "torch.where"),
        (to_list, ".tolist()", "keep the value as a tensor"),
        (in_place_on_state, "add_", "clone"),
        (in_place_on_a_user_tensor, "__setitem__", "torch.where"),
        (in_place_through_a_view, "add_", "clone"),
        (dropout, "dropout", "model.eval()"),
        (random_numbers, "randn", "pass it as state"),
        (boolean_index, "x[condition]", "Multiply by the condition"),
        (competing_writes, "index_put", "scatter_add"),
        (sorting, "sort", "rank by comparing"),
        (half_precision, "float16", "float32"),
        (uninitialised, "empty", "use zeros"),
        (unequal_shapes, "mat1 and mat2", "12x3"),
    ],
)
def test_the_error_names_line_operation_and_remedy(function, operation, advice) -> None:
    with pytest.raises(TraceError) as caught:
        traced(function)
    assert operation in str(caught.value)
    assert advice in str(caught.value)
    assert f"test_trace.py, line {marked_line(function)} " in str(caught.value)


def marked_line(function: Callable) -> int:
    lines = Path(__file__).read_text().splitlines()
    start = function.__code__.co_firstlineno
    return next(n for n in range(start, len(lines)) if lines[n - 1].endswith("# here"))


class Layers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(ITEMS, 4)
        self.gru = nn.GRU(4, 4)
        self.lstm = nn.LSTM(4, 4)
        self.norm = nn.BatchNorm1d(4)
        self.drop = nn.Dropout(0.5)

    def run(self, layer: str, user: Any) -> Any:
        found = getattr(self, layer)(self.table(user.items))
        return (found if isinstance(found, torch.Tensor) else found[0]).sum()


@pytest.mark.parametrize(
    ("layer", "says"),
    [
        ("gru", "loop over the interactions with nn.GRUCell"),
        ("lstm", "nn.LSTMCell"),
        ("norm", "BatchNorm mixes users.*LayerNorm"),
        ("drop", r"call model.eval\(\)"),
    ],
)
def test_layers_that_no_graph_has_say_what_to_use(layer: str, says: str) -> None:
    with pytest.raises(TraceError, match=f"(?s)test_trace.py, line .*{says}"):
        of_model(Layers(), lambda model, user: model.run(layer, user))


def test_frozen_batch_norm_is_refused_and_dropout_is_nothing_in_eval_mode() -> None:
    with pytest.raises(TraceError, match="fold a frozen BatchNorm"):
        of_model(Layers().eval(), lambda model, user: model.run("norm", user))
    of_model(Layers().eval(), lambda model, user: model.run("drop", user))


def test_tied_state_is_refused_because_it_would_be_trained_as_two() -> None:
    table = torch.ones(ITEMS, 3)
    with pytest.raises(TraceError, match=r"'a' and 'b' are one tensor.*keep 'a' alone"):
        trace(lambda s, u: s["a"].sum(), {"a": table, "b": table}, BOUNDS)


def test_writing_into_a_captured_tensor_is_refused_too() -> None:
    seen = torch.zeros(1)

    def remember(state, user):
        seen.add_(1)
        return state["bias"].sum() * seen.sum() * user.mask.sum()

    with pytest.raises(TraceError, match="read-only"):
        traced(remember)


@pytest.mark.parametrize(
    ("result", "says"), [(3.0, "scalar loss or a dict"), ({"a": 1}, "isn't a tensor")]
)
def test_other_results_than_tensors_are_refused(result: Any, says: str) -> None:
    with pytest.raises(TraceError, match=says):
        traced(lambda state, user: result)


def test_state_cannot_take_the_name_of_a_users_tensor() -> None:
    with pytest.raises(TraceError, match="users have one of it"):
        trace(lambda s, u: s["items"].sum(), {"items": torch.ones(3)}, BOUNDS)
