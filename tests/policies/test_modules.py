"""Recommenders as plans: what the admitted graph computes for each user is what PyTorch computes.

Every model is written as its author would write it, traced, admitted, and mapped over users as a
node does it (`vmap` of `grad`); each user's result is compared with plain autograd on her alone.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as fn

from network.program import DataSet, Gradient, Plan, Sum
from policies.admission import Bounds, admit
from policies.graph import NEGATIVES
from policies.modules import aliases, state_of, trainable
from policies.plan import Plan as ApprovablePlan
from policies.plan import RosterEntry
from policies.trace import TraceError
from policies.users import User, user_specs

ITEMS, WIDTH, SIZE, FEATURES, WORDS, TOKENS = 30, 8, 6, 5, 20, 4
DATA = DataSet("clicks", ITEMS, WIDTH, 300, "0" * 64, True)
ROSTER = [
    RosterEntry(name=n, server_uid=n * 32, node_key=k * 64, owner_key=k * 64)
    for n, k in (("a", "1"), ("b", "2"), ("c", "3"))
]
PRECISION = 1e-5


@dataclass(frozen=True)
class Case:
    """A step in its plan, and its function for PyTorch alone."""

    plan: Plan
    function: Callable[[Any, Any], Any]


def users(memory: int | None = None) -> list[User]:
    """Six users: with one interaction, with all, with repeated items, without a target."""
    random = torch.Generator().manual_seed(3)
    found = []
    for length in (1, 2, 4, 5, WIDTH, WIDTH):
        mask = (torch.arange(WIDTH) < length).float()
        items = torch.randint(0, ITEMS, (WIDTH,), generator=random)
        values = torch.randint(1, 6, (WIDTH,), generator=random) / 5
        found.append(
            User(
                items=items * mask.long(),
                mask=mask,
                values=values * mask,
                target=torch.randint(0, ITEMS, (), generator=random),
                has_target=torch.tensor(float(length != 2)),
                negatives=torch.randint(0, ITEMS, (NEGATIVES,), generator=random),
                memory=None if memory is None else torch.randn(memory, generator=random),
            )
        )
    return found


def approved(plan: Plan) -> ApprovablePlan:
    bound = plan.bind(ROSTER, "0" * 64)
    admit(bound, Bounds(ITEMS, WIDTH, 100), public=True)
    return bound


def mapped(plan: Plan, people: list[User]) -> dict[str, Tensor]:
    """The contributions of all users at once, from the plan's text alone, as a node gets it."""
    [step] = ApprovablePlan.from_json(approved(plan).to_json()).steps
    names = [name for name in user_specs(Bounds(ITEMS, WIDTH), 1) if name in step.graph.user]
    batch = {name: torch.stack([getattr(user, name) for user in people]) for name in names}
    state = {spec.name: plan.state[spec.name] for spec in step.state}

    def contribution(user: dict[str, Tensor]) -> dict[str, Tensor]:
        if step.kind == "sum":
            return step.graph.run({**state, **user})
        chosen = {spec.name: state[spec.name] for spec in step.outputs}
        return torch.func.grad(lambda part: step.graph.run({**state, **part, **user})["loss"])(
            chosen
        )

    return torch.func.vmap(contribution)(batch)


def alone(case: Case, user: User) -> dict[str, Tensor]:
    """One user's contribution by plain PyTorch, without functorch or graphs."""
    [step] = case.plan.steps
    if isinstance(step, Sum):
        with torch.enable_grad():
            found = case.function(case.plan.model or case.plan.state, user)
        return {name: tensor.detach() for name, tensor in found.items()}
    if case.plan.model is not None:
        model = case.plan.model
        model.zero_grad()
        case.function(model, user).backward()
        return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    leaves = {name: t.clone() for name, t in case.plan.state.items()}
    for name in step.parameters or ():
        leaves[name].requires_grad_()
    case.function(leaves, user).backward()
    return {name: t.grad for name, t in leaves.items() if t.grad is not None}


def flat(tensors: dict[str, Tensor], names: list[str]) -> Tensor:
    return torch.cat([tensors[name].double().flatten() for name in names])


def normal(*shape: int, seed: int = 0) -> Tensor:
    return 0.3 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def gradient(loss: Callable, state: dict[str, Tensor], *names: str, **more: Any) -> Case:
    return Case(Plan("m", "test", DATA, [Gradient("s", loss, names)], state, None, **more), loss)


def trained(loss: Callable, model: nn.Module, **more: Any) -> Case:
    plan = Plan("m", "test", DATA, [Gradient("s", loss)], epsilon=None, model=model, **more)
    return Case(plan, loss)


def summed(contribution: Callable, state: dict[str, Tensor], **more: Any) -> Case:
    step = Sum("s", contribution, 1.0)
    return Case(Plan("m", "test", DATA, [step], state, None, **more), contribution)


def pairs(features: Tensor, user: User) -> tuple[Tensor, Tensor, Tensor]:
    """(user, item) features, labels and weights of her items and as many negatives."""
    items = torch.cat([user.items, user.negatives[:WIDTH]])
    liking = (user.values[:, None] * features[user.items]).sum(0) / user.mask.sum()
    x = torch.cat([features[items], features[items] * liking, liking.expand(2 * WIDTH, -1)], 1)
    labels = torch.cat([torch.ones(WIDTH), torch.zeros(WIDTH)])
    return x, labels, torch.cat([user.mask, user.mask])


def logistic_regression() -> Case:
    def loss(state, user):
        x, labels, weights = pairs(state["features"], user)
        logits = x @ state["weights"] + state["bias"]
        each = fn.binary_cross_entropy_with_logits(logits, labels, reduction="none")
        return (each * weights).sum()

    state = {
        "features": normal(ITEMS, FEATURES),
        "weights": normal(3 * FEATURES, seed=1),
        "bias": normal(1, seed=2),
    }
    return gradient(loss, state, "weights", "bias")


def linear_regression() -> Case:
    def statistics(state, user):
        x = state["features"][user.items] * user.mask[:, None]
        return {"xx": x.T @ x, "xy": x.T @ user.values, "yy": user.values @ user.values}

    return summed(statistics, {"features": normal(ITEMS, FEATURES)})


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


def squared_error(vectors: Tensor, mine: Tensor, user: User) -> Tensor:
    predicted = vectors[user.items] @ mine
    return (user.mask * (user.values - predicted) ** 2).sum() + 0.1 * (vectors**2).sum()


def factorisation_with_stored_memory() -> Case:
    def loss(state, user):
        return squared_error(state["vectors"], user.memory, user)

    def descend(state, user):
        mine = torch.where((user.memory == 0).all(), 0.1, user.memory)
        hers = state["vectors"][user.items] * user.mask[:, None]
        return mine - 0.1 * hers.T @ (hers @ mine - user.values)

    return gradient(
        loss, {"vectors": normal(ITEMS, SIZE)}, "vectors", memory=descend, memory_size=SIZE
    )


def factorisation_with_solved_memory() -> Case:
    def solved(state, user):
        hers = state["vectors"][user.items] * user.mask[:, None]
        gram = hers.T @ hers + 0.5 * torch.eye(SIZE)
        return torch.linalg.solve(gram, hers.T @ user.values)

    def loss(state, user):
        return squared_error(state["vectors"], solved(state, user), user)

    return gradient(loss, {"vectors": normal(ITEMS, SIZE)}, "vectors", memory=solved)


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


def local_steps() -> Case:
    """User-level FedAvg (McMahan et al. 2018): the change after three local steps."""

    def loss(model, weights, user):
        tensors = {f"layers.{name}": value for name, value in weights.items()}
        x, labels, mask = pairs(model.features, user)
        hidden = torch.relu(fn.linear(x, tensors["layers.0.weight"], tensors["layers.0.bias"]))
        logits = fn.linear(hidden, tensors["layers.2.weight"], tensors["layers.2.bias"]).squeeze(1)
        each = fn.binary_cross_entropy_with_logits(logits, labels, reduction="none")
        return (each * mask).sum()

    def change(model, user):
        first = {"0.weight": model.hidden.weight, "0.bias": model.hidden.bias}
        first |= {"2.weight": model.out.weight, "2.bias": model.out.bias}
        weights = first
        for _ in range(3):
            found = torch.func.grad(lambda w: loss(model, w, user))(weights)
            weights = {name: value - 0.1 * found[name] for name, value in weights.items()}
        return {name.replace(".", "_"): weights[name] - first[name] for name in first}

    def by_autograd(model, user):
        names = ("0.weight", "0.bias", "2.weight", "2.bias")
        first = [model.hidden.weight, model.hidden.bias, model.out.weight, model.out.bias]
        weights = [tensor.detach().clone().requires_grad_() for tensor in first]
        for _ in range(3):
            named = dict(zip(names, weights, strict=True))
            found = torch.autograd.grad(loss(model, named, user), weights)
            weights = [
                (w - 0.1 * g).detach().requires_grad_() for w, g in zip(weights, found, strict=True)
            ]
        ends = zip(names, weights, first, strict=True)
        return {"layers." + n: w - f for n, w, f in ends}

    def renamed(model, user):
        return {"w_" + name: value for name, value in change(model, user).items()}

    def expected(model, user):
        found = by_autograd(model, user)
        return {"w_" + n[len("layers.") :].replace(".", "_"): t for n, t in found.items()}

    plan = Plan("m", "t", DATA, [Sum("s", renamed, 1.0)], epsilon=None, model=Perceptron())
    return Case(plan, expected)


def local_steps_on_embeddings() -> Case:
    """As above, where gradients reach tables by look-up, indexing and softmax."""

    def change(state, user):
        def loss(weights):
            mine = fn.embedding(user.items, weights["table"], padding_idx=0).sum(0)
            logits = weights["table"] @ torch.tanh(fn.layer_norm(mine, (SIZE,)))
            good = weights["table"][user.items] @ mine
            return -fn.log_softmax(logits, 0)[user.target] - fn.logsigmoid(good).mean()

        found = torch.func.grad(loss)({"table": state["table"]})
        return {"change": -0.1 * found["table"]}

    def by_autograd(state, user):
        leaf = state["table"].clone().requires_grad_()
        mine = fn.embedding(user.items, leaf, padding_idx=0).sum(0)
        logits = leaf @ torch.tanh(fn.layer_norm(mine, (SIZE,)))
        good = leaf[user.items] @ mine
        (-fn.log_softmax(logits, 0)[user.target] - fn.logsigmoid(good).mean()).backward()
        return {"change": -0.1 * leaf.grad}

    return replace(summed(change, {"table": normal(ITEMS, SIZE)}), function=by_autograd)


def als_statistics() -> Case:
    """Hu, Koren and Volinsky 2008: every item's normal equations, with the user solved inside."""

    def contribution(state, user):
        hers = state["vectors"][user.items]
        weights = user.mask * (1 + 10 * user.values)
        gram = state["vectors"].T @ state["vectors"] + 0.1 * torch.eye(SIZE)
        gram = gram + hers.T @ ((weights - user.mask)[:, None] * hers)
        mine = torch.linalg.solve(gram, hers.T @ weights)
        seen = torch.zeros(ITEMS).index_add(0, user.items, weights)
        return {
            "left": seen[:, None, None] * torch.outer(mine, mine),
            "right": seen[:, None] * mine,
        }

    return summed(contribution, {"vectors": normal(ITEMS, SIZE)})


def popularity() -> Case:
    def count(state, user):
        return {"counts": torch.zeros(ITEMS).scatter_add(0, user.items, user.mask)}

    return summed(count, {})


def metrics() -> Case:
    """HR@10, NDCG@10 and AUC against the sampled negatives, and over the whole catalogue."""

    def evaluate(state, user):
        scores = state["vectors"] @ (state["vectors"][user.items] * user.mask[:, None]).sum(0)
        rivals = scores[user.negatives]
        rank = ((rivals >= scores[user.target]) & (user.negatives != user.target)).sum()
        hit = user.has_target * (rank < 10)
        auc = (rivals < scores[user.target]).float().mean()
        full = (scores > scores[user.target]).sum()
        figures = [hit, hit / torch.log2(rank + 2.0), user.has_target * auc, user.has_target]
        return {"quality": torch.stack(figures), "full_hit": user.has_target * (full < 10)}

    return summed(evaluate, {"vectors": normal(ITEMS, SIZE)})


CASES: dict[str, Callable[[], Case]] = {
    case.__name__: case
    for case in (
        logistic_regression,
        linear_regression,
        perceptron,
        factorisation_with_stored_memory,
        factorisation_with_solved_memory,
        neumf,
        sasrec_with_sampled_softmax,
        sasrec_with_full_softmax,
        two_towers,
        adapters_on_a_frozen_text_encoder,
        recurrent,
        local_steps,
        local_steps_on_embeddings,
        als_statistics,
        popularity,
        metrics,
    )
}
MEMORIES = {"factorisation_with_stored_memory": SIZE}


@pytest.mark.parametrize("name", CASES)
def test_each_user_contributes_what_plain_pytorch_computes(name: str) -> None:
    torch.manual_seed(0)
    case, people = CASES[name](), users(MEMORIES.get(name))
    found = mapped(case.plan, people)
    for index, user in enumerate(people):
        expected = alone(case, user)
        hers = {output: tensor[index] for output, tensor in found.items()}
        assert set(hers) == set(expected)
        names = sorted(hers)
        wanted = flat(expected, names)
        error = torch.linalg.vector_norm(flat(hers, names) - wanted)
        assert float(error) <= PRECISION * max(float(wanted.norm()), 1e-6)
        assert bool(torch.isfinite(wanted).all())


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
    with pytest.raises(ValueError, match="a state or a model"):
        Plan("m", "t", DATA, [], {"a": torch.zeros(1)}, model=Perceptron())


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
