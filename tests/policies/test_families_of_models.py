"""More models as their authors write them: each user's gradient is plain autograd's, or a message
says which line can't be had and what to write."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as fn

from network.program import Gradient, Plan
from policies.trace import TraceError
from tests.policies.one_user_alone import (
    DATA,
    ITEMS,
    PRECISION,
    SIZE,
    WIDTH,
    flat,
    mapped,
    users,
)

Loss = Callable[[Any, Any], Tensor]


class Tables(nn.Module):
    """Two tables and a few layers, as much as most models have."""

    def __init__(self) -> None:
        super().__init__()
        self.items = nn.Embedding(ITEMS, SIZE)
        self.bias = nn.Embedding(ITEMS, 1)
        self.cross = nn.ParameterList([nn.Parameter(torch.randn(SIZE) / 3) for _ in range(2)])
        self.query = nn.Parameter(torch.randn(SIZE))
        self.deep = nn.Sequential(
            nn.Linear(SIZE, 8), nn.LayerNorm(8), nn.PReLU(), nn.Dropout(0.1), nn.Linear(8, 1)
        )


def over(mask: Tensor, each: Tensor) -> Tensor:
    return (mask * each).sum() / mask.sum().clamp(min=1)


def factorisation_machine(model: Any, user: Any) -> Tensor:
    x = model.items(user.items) * user.mask[:, None]
    pairs = 0.5 * (x.sum(0).pow(2) - x.pow(2).sum(0)).sum()
    return fn.softplus(pairs + (model.bias(user.items).squeeze(-1) * user.mask).sum())


def deep_factorisation_machine(model: Any, user: Any) -> Tensor:
    x = model.items(user.items)
    scores = model.deep(x).squeeze(-1) + model.bias(user.items).squeeze(-1)
    return over(user.mask, fn.mse_loss(scores, user.values, reduction="none"))


def cross_network(model: Any, user: Any) -> Tensor:
    first = x = model.items(user.items)
    for weight in model.cross:
        x = first * (x @ weight)[:, None] + x
    wanted = (user.values > 0.5).float()
    each = fn.binary_cross_entropy_with_logits(x.sum(1), wanted, reduction="none")
    return over(user.mask, each)


def attention_pooling(model: Any, user: Any) -> Tensor:
    x = model.items(user.items)
    weights = (x @ model.query).masked_fill(user.mask == 0, -1e9).softmax(0)
    logits = (weights @ x) @ model.items.weight.T
    return fn.cross_entropy(logits[None], user.target[None], label_smoothing=0.1)


def cosine_towers(model: Any, user: Any) -> Tensor:
    mine = (model.items(user.items) * user.mask[:, None]).sum(0)
    scores = fn.cosine_similarity(mine[None], model.items.weight, dim=-1) / 0.1
    return fn.cross_entropy(scores[None], user.target[None])


def pairwise_ranking(model: Any, user: Any) -> Tensor:
    mine = (model.items(user.items) * user.mask[:, None]).mean(0)
    better = model.items(user.target) @ mine - model.items(user.negatives) @ mine
    return -fn.logsigmoid(better).mean()


def metric_learning(model: Any, user: Any) -> Tensor:
    near = model.items(user.target).expand(len(user.negatives), -1)
    here = model.items(user.items[0]).expand(len(user.negatives), -1)
    return fn.triplet_margin_loss(here, near, model.items(user.negatives))


def focal_loss(model: Any, user: Any) -> Tensor:
    chance = model.items(user.items).sum(1).sigmoid()
    right = torch.where(user.values > 0.5, chance, 1 - chance)
    return over(user.mask, -((1 - right) ** 2) * torch.log(right + 1e-8))


def contrastive(model: Any, user: Any) -> Tensor:
    x = fn.normalize(model.items(user.items), dim=-1)
    same = torch.eye(WIDTH, dtype=torch.bool)
    logits = (x @ x.T / 0.2).masked_fill(same, float("-inf"))
    return -(logits.log_softmax(-1).diagonal(1) * user.mask[1:]).sum()


def variational_autoencoder(model: Any, user: Any) -> Tensor:
    seen = torch.zeros(ITEMS).index_add(0, user.items, user.mask).clamp(max=1)
    mean = fn.normalize(seen, dim=0) @ model.items.weight
    spread = fn.normalize(seen, dim=0) @ model.items.weight.flip(0) / 4
    likely = -(fn.log_softmax(model.items.weight @ mean, 0) * seen).sum()
    return likely - 0.1 * (1 + spread - mean**2 - spread.exp()).sum()


def distillation(model: Any, user: Any) -> Tensor:
    scores = model.items.weight @ model.items(user.items).mean(0)
    teacher = torch.zeros(ITEMS).index_add(0, user.items, user.mask)
    teacher = teacher / teacher.sum().clamp(min=1)
    return fn.kl_div(scores.log_softmax(0), teacher, reduction="sum")


def written_in_place_on_a_copy(model: Any, user: Any) -> Tensor:
    x = model.items(user.items).clone()
    x[0] = 0
    x[1:] *= user.mask[1:, None]
    return x.pow(2).sum()


def translated_in_a_loop(model: Any, user: Any) -> Tensor:
    here = torch.zeros(SIZE)
    for step in model.items(user.items):
        here = torch.tanh(here + step) + torch.atan(here)
    return torch.logaddexp(here[0], here[1])


def a_teacher_without_gradient(model: Any, user: Any) -> Tensor:
    with torch.no_grad():
        teacher = model.items(user.items).softmax(-1)
    return fn.kl_div(model.items(user.items).log_softmax(-1), 2 * teacher, reduction="sum")


def frozen_by_data(model: Any, user: Any) -> Tensor:
    return (model.items.weight.data[user.items] * model.query * model.items(user.items)).sum()


def pairs_below_a_diagonal(model: Any, user: Any) -> Tensor:
    """DLRM's interactions."""
    x = model.items(user.items)
    rows, columns = torch.tril_indices(WIDTH, WIDTH, -1)
    return (torch.linspace(0, 1, len(rows)) * (x @ x.T)[rows, columns]).sum() ** 2


def buckets(model: Any, user: Any) -> Tensor:
    edges = torch.linspace(0.1, 0.9, ITEMS - 1)
    return model.bias((user.values[:, None] > edges).sum(1)).exp().sum()


def attention_by_torch(model: Any, user: Any) -> Tensor:
    x = model.items(user.items).reshape(WIDTH, 2, SIZE // 2).transpose(0, 1)
    y = fn.scaled_dot_product_attention(x, x, x, is_causal=True)
    return torch.einsum("hld,l->", y.tanh(), user.mask)


LOSSES: dict[str, Loss] = {
    loss.__name__: loss
    for loss in (
        factorisation_machine,
        deep_factorisation_machine,
        cross_network,
        attention_pooling,
        cosine_towers,
        pairwise_ranking,
        metric_learning,
        focal_loss,
        contrastive,
        variational_autoencoder,
        distillation,
        written_in_place_on_a_copy,
        translated_in_a_loop,
        a_teacher_without_gradient,
        frozen_by_data,
        pairs_below_a_diagonal,
        buckets,
        attention_by_torch,
    )
}


def check(model: nn.Module, loss: Loss) -> None:
    plan = Plan("m", "t", DATA, [Gradient("train", loss)], model=model.eval(), epsilon=None)
    people = users()
    found = mapped(plan, people)
    for index, user in enumerate(people):
        names = sorted(found)
        leaves = {n: p for n, p in model.named_parameters() if n in found}
        gradients = torch.autograd.grad(loss(model, user), list(leaves.values()))
        wanted = flat(dict(zip(leaves, gradients, strict=True)), names)
        error = flat({name: found[name][index] for name in names}, names) - wanted
        assert float(error.norm()) <= PRECISION * max(float(wanted.norm()), 1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_each_users_gradient_is_that_of_plain_autograd(name: str) -> None:
    torch.manual_seed(0)
    check(Tables(), LOSSES[name])


def test_pytorchs_own_encoder_layers_are_plans() -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(SIZE, 2, 8, batch_first=True, norm_first=True)
    model = nn.ModuleDict({"table": nn.Embedding(ITEMS, SIZE), "layers": layer})

    def loss(model: Any, user: Any) -> Tensor:
        x = model["table"](user.items)[None]
        y = model["layers"](x, src_key_padding_mask=(user.mask == 0)[None])[0]
        return (y * user.mask[:, None]).pow(2).sum()

    check(model, loss)


def test_a_sequence_of_layers_is_a_model_under_its_own_names() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(WIDTH, 4), nn.GELU(), nn.Linear(4, 1))
    check(model, lambda model, user: model(user.values).sum() ** 2)


def test_a_parametrised_weight_is_a_plan() -> None:
    torch.manual_seed(0)
    model = nn.utils.parametrizations.weight_norm(nn.Linear(WIDTH, 4))
    check(model, lambda model, user: model(user.values).sum() ** 2)


class Rounded(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.round()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        return gradient


REFUSED: dict[str, tuple[str, Loss]] = {
    "numpy": (
        "numpy takes numbers out",
        lambda m, u: m.items(u.items).sum() * float(np.asarray(u.values).mean()),
    ),
    "distances": (
        r"\.square\(\)\.sum\(-1\)",
        lambda m, u: torch.cdist(m.items(u.items), m.items.weight).sum(),
    ),
    "a custom gradient": ("detach", lambda m, u: Rounded.apply(m.items(u.items)).sum()),
    "a gradient inside": (
        r"torch\.func\.grad",
        lambda m, u: torch.autograd.grad(m.items(u.items).sum(), m.items.weight)[0].sum(),
    ),
    "bags of unequal length": (
        "F.embedding",
        lambda m, u: fn.embedding_bag(u.items, m.items.weight, torch.tensor([0, 3])).sum(),
    ),
    "transposed convolutions": (
        "a product with a matrix",
        lambda m, u: fn.conv_transpose1d(m.items(u.items)[None], m.items.weight[:8, None]).sum(),
    ),
    "the largest of a window": (
        r"unfold.*amax",
        lambda m, u: fn.max_pool1d(m.items(u.items).T[None], 2).sum(),
    ),
    "a position out of a fraction": (
        r"clamp\(0, 7\)",
        lambda m, u: m.items(u.items)[u.mask.sum().long() - 1].sum(),
    ),
    "sparse gradients": (
        "leave it out",
        lambda m, u: fn.embedding(u.items, m.items.weight, sparse=True).sum(),
    ),
    "sparse matrices": (
        "leave it dense",
        lambda m, u: torch.sparse.mm(torch.eye(ITEMS).to_sparse(), m.items.weight)[u.items].sum(),
    ),
    "classes to be counted": (
        r"one_hot\(index, classes\)",
        lambda m, u: (fn.one_hot(u.items)[:, :1] * m.items(u.items)).sum(),
    ),
    "the best few": ("rank by comparing", lambda m, u: m.items.weight.sum(1).topk(3)[0].sum()),
    "a largest element with its place": ("amax", lambda m, u: m.items(u.items).max(0)[0].sum()),
    "singular values": ("its steps depend", lambda m, u: torch.linalg.svdvals(m.items.weight)[0]),
    "drawn numbers": ("draw it in public", lambda m, u: (m.query * torch.randn(SIZE)).sum()),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_had_says_the_line_and_what_to_write(what: str) -> None:
    advice, loss = REFUSED[what]
    with pytest.raises(TraceError, match=rf"test_families_of_models\.py, line \d+.*{advice}"):
        check(Tables(), loss)


def test_what_changes_from_call_to_call_is_refused() -> None:
    """It would be a constant of the graph, of the one call that was traced."""
    calls = []

    def loss(model: Any, user: Any) -> Tensor:
        calls.append(1)
        return model.items(user.items).sum() * len(calls)

    with pytest.raises(TraceError, match="another output 'loss' than the graph"):
        check(Tables(), loss)


def test_a_name_that_could_be_read_as_a_number_is_refused_in_a_sentence() -> None:
    plan = Plan("m", "t", DATA, [Gradient("train", lambda s, u: s["1.e5"].sum(), ["1.e5"])],
                state={"1.e5": torch.ones(2)})  # fmt: skip
    with pytest.raises(TraceError, match="a name has 1 to 128 letters"):
        mapped(plan, users())
