"""Recommenders written as modules, as plans: trained, frozen, tied and adapted layers."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as fn

from network.program import Gradient, Plan, Sum
from policies.modules import aliases, state_of, trainable
from policies.trace import TraceError
from policies.users import User
from tests.policies.one_user_alone import (
    DATA,
    FEATURES,
    ITEMS,
    ROSTER,
    SIZE,
    TOKENS,
    WIDTH,
    WORDS,
    Case,
    approved,
    check,
    normal,
    pairs,
    trained,
    users,
)


class Perceptron(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("features", normal(ITEMS, FEATURES))
        self.hidden = nn.Linear(3 * FEATURES, 64)
        self.out = nn.Linear(64, 1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.out(torch.relu(self.hidden(x)))).squeeze(-1)


def perceptron() -> Case:
    def loss(model, user):
        x, labels, weights = pairs(model.features, user)
        return (fn.binary_cross_entropy(model(x), labels, reduction="none") * weights).sum()

    return trained(loss, Perceptron())


class NeuMF(nn.Module):
    """He et al. 2017, with the user's two vectors in her private memory."""

    def __init__(self) -> None:
        super().__init__()
        self.factors = nn.Embedding(ITEMS, SIZE)
        self.items = nn.Embedding(ITEMS, SIZE)
        self.layers = nn.Sequential(nn.Linear(2 * SIZE, 16), nn.ReLU(inplace=True))
        self.out = nn.Linear(SIZE + 16, 1)

    def forward(self, memory: Tensor, items: Tensor) -> Tensor:
        general = memory[:SIZE] * self.factors(items)
        hers = memory[SIZE:].expand(len(items), SIZE)
        deep = self.layers(torch.cat([hers, self.items(items)], dim=1))
        return self.out(torch.cat([general, deep], dim=1)).squeeze(1)


def neumf() -> Case:
    def loss(model, user):
        good, bad = model(user.memory, user.items), model(user.memory, user.negatives[:WIDTH])
        return (-user.mask * (fn.logsigmoid(good) + fn.logsigmoid(-bad))).sum()

    def pooled(model, user):
        both = torch.cat([model.factors(user.items), model.items(user.items)], dim=1)
        return (user.mask[:, None] * both).sum(0) / user.mask.sum()

    def with_memory(model, user):
        return loss(model, replace(user, memory=pooled(model, user).detach()))

    return replace(trained(loss, NeuMF(), memory=pooled), function=with_memory)


class SASRec(nn.Module):
    """Kang and McAuley 2018; the item table is also the output layer."""

    def __init__(self) -> None:
        super().__init__()
        self.items = nn.Embedding(ITEMS, 8)
        self.positions = nn.Embedding(WIDTH, 8)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(8, 2, 16, 0.2, batch_first=True, norm_first=True)
            for _ in range(2)
        )
        self.norm = nn.LayerNorm(8)
        self.out = nn.Linear(8, ITEMS, bias=False)
        self.out.weight = self.items.weight
        self.register_buffer("order", torch.arange(WIDTH))
        self.register_buffer("causal", torch.ones(WIDTH, WIDTH).triu(1).bool())

    def forward(self, items: Tensor) -> Tensor:
        hidden = (self.items(items) + self.positions(self.order))[None]
        for layer in self.layers:
            hidden = layer(hidden, src_mask=self.causal)
        return self.norm(hidden[0])


def sasrec_with_sampled_softmax() -> Case:
    def loss(model, user):
        hidden = model(user.items)[:-1]
        candidates = torch.cat([user.items[1:, None], user.negatives[:14].reshape(7, 2)], dim=1)
        logits = (hidden[:, None] * model.items(candidates)).sum(-1)
        return -(user.mask[1:] * fn.log_softmax(logits, dim=1)[:, 0]).sum()

    return trained(loss, SASRec().eval())


def sasrec_with_full_softmax() -> Case:
    def loss(model, user):
        logits = model.out(model(user.items))[:-1]
        each = fn.cross_entropy(logits, user.items[1:], reduction="none")
        return (user.mask[1:] * each).sum()

    return trained(loss, SASRec().eval())


class TwoTowers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.items = nn.Embedding(ITEMS, SIZE, padding_idx=0)
        self.register_buffer("features", normal(ITEMS, FEATURES))
        self.user = nn.Sequential(nn.Linear(SIZE, 16), nn.GELU(), nn.Linear(16, SIZE))
        self.item = nn.Sequential(nn.Linear(SIZE + FEATURES, 16), nn.SiLU(), nn.Linear(16, SIZE))

    def tower(self, items: Tensor) -> Tensor:
        both = torch.cat([self.items(items), self.features[items]], dim=-1)
        return fn.normalize(self.item(both), dim=-1)

    def forward(self, user: User, items: Tensor) -> Tensor:
        pooled = (self.items(user.items) * user.mask[:, None]).sum(0) / user.mask.sum()
        return self.tower(items) @ fn.normalize(self.user(pooled), dim=-1) / 0.1


def two_towers() -> Case:
    def loss(model, user):
        candidates = torch.cat([user.target[None], user.negatives[:10]])
        logits = model(user, candidates)
        return user.has_target * fn.cross_entropy(logits[None], torch.zeros(1, dtype=torch.long))

    return trained(loss, TwoTowers())


class Adapted(nn.Module):
    """A frozen linear layer with a trained low-rank addition (LoRA, Hu et al. 2021)."""

    def __init__(self, frozen: nn.Linear, rank: int) -> None:
        super().__init__()
        self.frozen = frozen.requires_grad_(False)
        self.down = nn.Parameter(normal(rank, frozen.in_features))
        self.up = nn.Parameter(normal(frozen.out_features, rank, seed=1))

    def forward(self, x: Tensor) -> Tensor:
        return self.frozen(x) + x @ self.down.T @ self.up.T


class TextEncoder(nn.Module):
    """A small frozen transformer over the words of item titles, with adapters on q and v."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        titles = torch.randint(0, WORDS, (ITEMS, TOKENS))
        self.register_buffer("titles", titles)
        self.words = nn.Embedding(WORDS, 8).requires_grad_(False)
        self.q, self.v = Adapted(nn.Linear(8, 8), 2), Adapted(nn.Linear(8, 8), 2)
        self.k = nn.Linear(8, 8).requires_grad_(False)
        self.norm = nn.LayerNorm(8).requires_grad_(False)

    def forward(self, items: Tensor) -> Tensor:
        x = self.words(self.titles[items])
        y = fn.scaled_dot_product_attention(self.q(x), self.k(x), self.v(x))
        return self.norm(x + y).mean(-2)


def adapters_on_a_frozen_text_encoder() -> Case:
    def loss(model, user):
        mine = (model(user.items) * user.mask[:, None]).sum(0) / user.mask.sum()
        logits = model(torch.cat([user.target[None], user.negatives[:5]])) @ mine
        return user.has_target * -fn.log_softmax(logits, dim=0)[0]

    return trained(loss, TextEncoder())


class Recurrent(nn.Module):
    """GRU4Rec (Hidasi et al. 2016) as a loop over cells."""

    def __init__(self) -> None:
        super().__init__()
        self.items = nn.Embedding(ITEMS, SIZE)
        self.cell = nn.GRUCell(SIZE, SIZE)

    def forward(self, items: Tensor) -> Tensor:
        hidden, steps = torch.zeros(1, SIZE), []
        for x in self.items(items).split(1):
            hidden = self.cell(x, hidden)
            steps.append(hidden)
        return torch.cat(steps)


def recurrent() -> Case:
    def loss(model, user):
        logits = model(user.items)[:-1] @ model.items.weight.T
        each = fn.cross_entropy(logits, user.items[1:], reduction="none")
        return (user.mask[1:] * each).sum()

    return trained(loss, Recurrent())


CASES: dict[str, Callable[[], Case]] = {
    case.__name__: case
    for case in (
        perceptron,
        neumf,
        sasrec_with_sampled_softmax,
        sasrec_with_full_softmax,
        two_towers,
        adapters_on_a_frozen_text_encoder,
        recurrent,
    )
}


@pytest.mark.parametrize("name", CASES)
def test_each_user_contributes_what_plain_pytorch_computes(name: str) -> None:
    torch.manual_seed(0)
    check(CASES[name](), users())


def test_frozen_parameters_never_leave_and_never_change() -> None:
    plan = adapters_on_a_frozen_text_encoder().plan
    [step] = approved(plan).steps
    assert {spec.name for spec in step.outputs} == {"q.down", "q.up", "v.down", "v.up"}
    assert {"words.weight", "k.weight", "q.frozen.weight"} <= {s.name for s in step.state}


def test_tied_weights_are_one_tensor_whose_gradient_has_both_uses() -> None:
    plan = sasrec_with_full_softmax().plan
    assert plan.model is not None
    assert aliases(plan.model) == {"out.weight": "items.weight"}
    assert "out.weight" not in plan.state
    names = [spec.name for spec in approved(plan).steps[0].outputs]
    assert names.count("items.weight") == 1


def test_training_the_second_name_of_a_tied_weight_says_which_to_write() -> None:
    case = sasrec_with_full_softmax()
    plan = replace(
        case.plan, state={}, steps=[Gradient("s", case.function, ["out.weight"])], _bound={}
    )
    with pytest.raises(TraceError, match=r"'out.weight' is tied to 'items.weight'"):
        plan.bind(ROSTER, "0" * 64)


@pytest.mark.parametrize("names", [["nowhere"], ["titles"], ["k.absent"]])
def test_only_float_tensors_that_the_loss_uses_can_be_trained(names: list[str]) -> None:
    case = adapters_on_a_frozen_text_encoder()
    plan = replace(case.plan, state={}, steps=[Gradient("s", case.function, names)], _bound={})
    with pytest.raises(TraceError, match="can't train"):
        plan.bind(ROSTER, "0" * 64)


def test_a_model_with_nothing_to_train_is_told_so() -> None:
    case = perceptron()
    assert case.plan.model is not None
    case.plan.model.requires_grad_(False)
    with pytest.raises(TraceError, match="trains nothing"):
        case.plan.bind(ROSTER, "0" * 64)


def test_a_plan_has_a_state_or_a_model() -> None:
    step = Sum("s", lambda state, user: {"n": user.mask.sum()}, 1.0)
    with pytest.raises(ValueError, match="a state or a model"):
        Plan("m", "t", DATA, [step], {"a": torch.zeros(1)}, model=Perceptron())


def test_tracing_leaves_the_module_as_it_was() -> None:
    model = SASRec().eval()
    before = {name: tensor.clone() for name, tensor in state_of(model).items()}
    approved(trained(lambda m, u: m(u.items).sum() * u.mask.sum(), model).plan)
    assert all(torch.equal(tensor, before[name]) for name, tensor in state_of(model).items())
    assert trainable(model) == tuple(name for name, _ in model.named_parameters())
    assert math.prod(model.out.weight.shape) == ITEMS * 8


def test_the_source_for_the_owner_has_the_loss_and_the_models_classes() -> None:
    [step] = approved(perceptron().plan).steps
    assert "binary_cross_entropy" in step.source
    assert "class Perceptron" in step.source
