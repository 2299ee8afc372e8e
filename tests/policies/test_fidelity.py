"""A graph is compared with the function it was traced from, at whatever scale its numbers are."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from network.program import Gradient, Plan, Sum
from policies.trace import TraceError
from tests.policies.one_user_alone import DATA, ITEMS, ROSTER, SIZE, WIDTH, normal

SCALES = [1e-9, 1.0, 1e9]
STATE = {"v": normal(ITEMS, SIZE)}


def bound(step: Gradient | Sum, state: Any = STATE, model: nn.Module | None = None) -> None:
    Plan("m", "t", DATA, [step], {} if model else state, None, model=model).bind(ROSTER, "0" * 64)


@pytest.mark.parametrize("scale", SCALES)
def test_a_counter_is_found_at_every_scale(scale: float) -> None:
    calls: list[int] = []

    def loss(state: Any, user: Any) -> Tensor:
        calls.append(1)
        return scale * state["v"][user.items].sum() * len(calls)

    with pytest.raises(TraceError, match="another output 'loss' than the graph"):
        bound(Gradient("s", loss, ["v"]))


def test_a_counter_is_found_in_a_small_output_beside_a_large_one() -> None:
    calls: list[int] = []

    def contribution(state: Any, user: Any) -> dict[str, Tensor]:
        calls.append(1)
        return {"large": 1e9 * user.mask, "small": 1e-6 * user.mask * len(calls)}

    with pytest.raises(TraceError, match="another output 'small' than the graph"):
        bound(Sum("s", contribution, 1.0), {})


@pytest.mark.parametrize("zeros", [lambda: torch.full((WIDTH,), -0.0), lambda: -torch.zeros(WIDTH)])
def test_a_zero_below_zero_which_no_plan_can_say_is_found(zeros: Callable[[], Tensor]) -> None:
    minus = zeros()

    def turned(state: Any, user: Any) -> dict[str, Tensor]:
        return {"angle": torch.atan2(minus * user.mask, -user.mask)}

    with pytest.raises(TraceError, match="another output 'angle' than the graph"):
        bound(Sum("s", turned, 1.0), {})


def mean_squares(v: Tensor, user: Any) -> Tensor:
    return v[user.items].square().mean()


def normalised(v: Tensor, user: Any) -> Tensor:
    """Hangs on nothing: its gradient is rounding alone."""
    return nn.functional.layer_norm(v[user.items], (SIZE,)).square().sum()


def cancelled(v: Tensor, user: Any) -> Tensor:
    return ((v[user.items] + 1e4).var(0, unbiased=False) * user.mask.sum()).sum()


def chaotic(v: Tensor, user: Any) -> Tensor:
    x = (v[user.items] * user.mask[:, None]).sum(0)
    for _ in range(12):
        x = torch.sin(50 * x)
    return x.sum()


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("function", [mean_squares, normalised, cancelled, chaotic])
def test_rounding_is_taken_for_rounding_at_every_scale(
    function: Callable[[Tensor, Any], Tensor], scale: float
) -> None:
    bound(Gradient("s", lambda state, user: scale * function(state["v"], user), ["v"]))


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.items = nn.Embedding(ITEMS, 8)
        self.norm = nn.LayerNorm(8)
        self.parts = nn.ModuleList(nn.Linear(8, 8) for _ in range(3))

    def forward(self, items: Tensor) -> Tensor:
        x = self.items(items)
        heads = [part(self.norm(x)).view(1, WIDTH, 2, 4).transpose(1, 2) for part in self.parts]
        y = nn.functional.scaled_dot_product_attention(*heads, is_causal=True)
        return x + y.transpose(1, 2).reshape(WIDTH, 8)


@pytest.mark.parametrize("scale", SCALES)
def test_a_gradient_that_cancels_out_among_others_is_taken_for_nothing(scale: float) -> None:
    """The made-up user's loss looks at one item alone, where attention has no choice."""
    torch.manual_seed(0)

    def loss(model: Any, user: Any) -> Tensor:
        scores = model(user.items)[:-1] @ model.items.weight.T
        each = nn.functional.cross_entropy(scores, user.items[1:], reduction="none")
        return scale * (each * user.mask[1:]).sum()

    bound(Gradient("s", loss), model=Attention())


class Tables(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.items = nn.Embedding(ITEMS, SIZE)
        self.out = nn.Linear(SIZE, 1)


def score(model: Any, user: Any) -> Tensor:
    return model.out(model.items(user.items)).sum()


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (Tables().double(), r"'items.weight' is torch.float64.*model.float\(\)"),
        (Tables().bfloat16(), r"bfloat16.*model.float\(\)"),
    ],
    ids=["double", "bfloat16"],
)
def test_other_floats_than_single_ones_are_refused_with_line_and_remedy(
    model: nn.Module, says: str
) -> None:
    with pytest.raises(TraceError, match=rf"(?s)test_fidelity\.py, line \d+.*{says}"):
        bound(Gradient("s", score), model=model)


@pytest.mark.parametrize(
    ("loss", "says"),
    [
        (lambda s, u: s["v"][u.items].sum(1), r"shape \[8\]; expected one number.*\.sum\(\)"),
        (lambda s, u: s["v"].sum(), "nothing here hangs on a user"),
        (lambda s, u: torch.tensor([u.values[0], 1.0]).sum() * s["v"].sum(), r"torch\.stack"),
        (lambda s, u: (s["v"][u.items] - 1).long()[:, 0].sum() // u.items.sum(), "divisor"),
    ],
    ids=["a vector", "nobody's", "numbers taken out", "divided by a count"],
)
def test_what_no_node_would_take_is_told_with_line_and_remedy(loss: Any, says: str) -> None:
    with pytest.raises(TraceError, match=rf"(?s)test_fidelity\.py, line \d+.*{says}"):
        bound(Gradient("s", loss, ["v"]))


def test_a_lazy_layer_is_refused_with_line_and_remedy() -> None:
    model = nn.ModuleDict({"table": nn.Embedding(ITEMS, SIZE), "out": nn.LazyLinear(1)})
    with pytest.raises(TraceError, match=r"test_fidelity\.py, line \d+.*write nn\.Linear"):
        bound(Gradient("s", lambda m, u: m["out"](m["table"](u.items)).sum()), model=model)


@pytest.mark.parametrize("layout", [torch.sparse_coo, torch.sparse_csr])
def test_a_sparse_matrix_is_refused_with_line_and_remedy(layout: torch.layout) -> None:
    state = {**STATE, "a": torch.eye(ITEMS).to_sparse(layout=layout)}
    with pytest.raises(TraceError, match=r"test_fidelity\.py, line \d+.*write a\.to_dense"):
        bound(Gradient("s", lambda s, u: (s["a"] @ s["v"])[u.items].sum(), ["v"]), state)
