"""Layers that PyTorch computes in one operation, written out: each user's gradient is right."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as fn

from tests.policies.one_user_alone import ITEMS, SIZE, WIDTH, check, trained, users

Loss = Callable[[Any, Any], Tensor]


class Layers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.items = nn.Embedding(ITEMS, SIZE)
        self.convolutions = nn.ModuleList(
            [
                nn.Conv1d(SIZE, 4, 3, padding=1),
                nn.Conv1d(SIZE, 4, 2, stride=2, dilation=2, groups=2, bias=False),
                nn.Conv1d(SIZE, SIZE, 3, padding="same", padding_mode="circular"),
            ]
        )
        self.windows = nn.Conv2d(1, 3, (2, SIZE))
        self.bags = nn.ModuleList(
            [
                nn.EmbeddingBag(ITEMS, SIZE),
                nn.EmbeddingBag(ITEMS, SIZE, mode="sum", padding_idx=-ITEMS),
                nn.EmbeddingBag(ITEMS, SIZE, mode="mean", padding_idx=0),
            ]
        )
        self.group = nn.GroupNorm(2, SIZE)
        self.pairs = nn.Bilinear(SIZE, SIZE, 2)
        self.decoder = nn.TransformerDecoderLayer(SIZE, 2, 8, batch_first=True).eval()
        self.out = nn.Linear(SIZE, ITEMS)


def convolutions_along_a_sequence(model: Any, user: Any) -> Tensor:
    x = (model.items(user.items) * user.mask[:, None]).T[None]
    return sum((layer(x).tanh().sum() ** 2 for layer in model.convolutions), torch.zeros(()))


def windows_of_a_sequence(model: Any, user: Any) -> Tensor:
    """Caser's horizontal filters (Tang and Wang 2018)."""
    x = model.items(user.items)[None, None]
    return model.windows(x).squeeze(3).sigmoid().amax(2).sum() ** 2


def bags(model: Any, user: Any) -> Tensor:
    both = torch.stack([user.items, user.negatives[:WIDTH]])
    found = [model.bags[0](both), model.bags[2](both)]
    found.append(model.bags[1](both, per_sample_weights=torch.stack([user.mask, user.values])))
    return torch.cat(found).pow(2).sum()


def a_bag_of_padding(model: Any, user: Any) -> Tensor:
    return model.bags[2](torch.zeros_like(user.items)[None]).sum() + model.items(user.items).sum()


def groups(model: Any, user: Any) -> Tensor:
    return (model.group(model.items(user.items)) * user.mask[:, None]).exp().sum()


def both_sides(model: Any, user: Any) -> Tensor:
    x = model.items(user.items)
    return model.pairs(x, x.roll(1, 0)).pow(2).sum()


def windows(model: Any, user: Any) -> Tensor:
    x = model.items(user.items)
    return (x.unfold(0, 3, 2).mean(-1) * x.unfold(-2, 3, 2).amax(-1)).sum() + x.roll(5).diff().sum()


def classes(model: Any, user: Any) -> Tensor:
    chosen = fn.one_hot(user.items, ITEMS).float() * user.mask[:, None]
    return (chosen @ model.items.weight).pow(2).sum()


def not_numbers(model: Any, user: Any) -> Tensor:
    return torch.nan_to_num(model.items(user.items).log(), 1.0).sum()


def ignored_labels(model: Any, user: Any) -> Tensor:
    labels = user.items.masked_fill(user.mask == 0, -100)
    logits = model.out(model.items(user.items))
    weighted = fn.cross_entropy(logits, labels, torch.linspace(0.5, 2, ITEMS))
    smooth = fn.cross_entropy(logits, labels, label_smoothing=0.1)
    return weighted + smooth + fn.cross_entropy(logits.T[None], labels[None], reduction="sum")


def one_sequence_decoded_by_another(model: Any, user: Any) -> Tensor:
    x, y = model.items(user.items)[None], model.items(user.negatives[:3])[None]
    return (model.decoder(y, x) * torch.linspace(0, 1, SIZE)).pow(2).sum()


def rivals_in_the_sequence(model: Any, user: Any) -> Tensor:
    """Others' next items as negatives, among her own."""
    x = model.items(user.items)
    each = fn.cross_entropy(x[:-1] @ x[1:].T, torch.arange(WIDTH - 1), reduction="none")
    return (user.mask[1:] * each).sum()


LOSSES: dict[str, Loss] = {
    loss.__name__: loss
    for loss in (
        convolutions_along_a_sequence,
        windows_of_a_sequence,
        bags,
        a_bag_of_padding,
        groups,
        both_sides,
        windows,
        classes,
        not_numbers,
        ignored_labels,
        one_sequence_decoded_by_another,
        rivals_in_the_sequence,
    )
}


@pytest.mark.parametrize("name", LOSSES)
def test_each_users_gradient_is_that_of_plain_autograd(name: str) -> None:
    torch.manual_seed(0)
    check(trained(LOSSES[name], Layers()), users())
