"""Layers and losses that PyTorch computes in one operation, written with those that graphs have.

Where PyTorch has an expansion of its own that graphs can have, `policies.expansion` names it.
"""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as fn

_ATEN = torch.ops.aten


def convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
) -> Tensor:
    """One product of matrices, of all windows side by side; x [B, C, ...], weight [O, C / G, ...].

    A transposed one is refused before (`policies.untraceable`).
    """
    batch, outputs, kernel = x.shape[0], weight.shape[0], weight.shape[2:]
    if any(padding):
        x = fn.pad(x, [side for size in reversed(padding) for side in (size, size)])
    reach = [step * (size - 1) for step, size in zip(dilation, kernel, strict=True)]
    windows = [
        (size - far - 1) // step + 1
        for size, far, step in zip(x.shape[2:], reach, stride, strict=True)
    ]
    moved = []
    for place in itertools.product(*(range(size) for size in kernel)):
        part = x
        for axis, (at, count) in enumerate(zip(place, windows, strict=True)):
            begin, step = at * dilation[axis], stride[axis]
            part = _ATEN.slice.Tensor(part, axis + 2, begin, begin + (count - 1) * step + 1, step)
        moved.append(part)
    # [B, C, ..., K] -> [G, B P, C / G K]
    columns = torch.stack(moved, -1).reshape(batch, groups, -1, math.prod(windows), len(moved))
    columns = columns.permute(1, 0, 3, 2, 4).reshape(groups, batch * math.prod(windows), -1)
    rows = weight.reshape(groups, outputs // groups, -1).transpose(1, 2)
    found = (columns[0] @ rows[0])[None] if groups == 1 else torch.bmm(columns, rows)
    found = found.reshape(groups, batch, math.prod(windows), -1).permute(1, 0, 3, 2)
    found = found.reshape(batch, outputs, *windows)
    return found if bias is None else found + bias.reshape(-1, *[1] * len(windows))


def group_norm(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    batch: int,
    channels: int,
    each: int,
    groups: int,
    epsilon: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Wu and He 2018; x [batch, channels, ...]. Also gives each group's mean and 1 / deviation."""
    rows = x.reshape(batch, groups, -1)
    mean = rows.mean(-1, keepdim=True)
    scale = torch.rsqrt(rows.var(-1, unbiased=False, keepdim=True) + epsilon)
    found, ones = ((rows - mean) * scale).reshape(x.shape), [1] * (x.dim() - 2)
    if weight is not None:
        found = found * weight.reshape(channels, *ones)
    if bias is not None:
        found = found + bias.reshape(channels, *ones)
    return found, mean.squeeze(-1), scale.squeeze(-1)


def nll_loss(
    likely: Tensor, target: Tensor, weight: Tensor | None, reduction: int, ignored: int
) -> tuple[Tensor, Tensor]:
    """Minus the log-likelihood of each target class; and the weight of all of them.

    A class that there isn't is an error in PyTorch. No graph may fail by its numbers: here it
    counts as the nearest that there is.
    """
    axis = 0 if likely.dim() < 2 else 1
    index = target.clamp(0, likely.shape[axis] - 1)
    each = -likely.gather(axis, index.unsqueeze(axis)).squeeze(axis)
    weights = torch.ones_like(each) if weight is None else weight[index.reshape(-1)]
    weights = weights.reshape(each.shape)
    kept = target != ignored
    each = torch.where(kept, each * weights if weight is not None else each, 0.0)
    if reduction == 0:
        return each, each.new_zeros(())
    whole = torch.where(kept, weights, 0.0).sum()
    return (each.sum() / whole if reduction == 1 else each.sum()), whole


def nan_to_num(
    x: Tensor, nan: float | None = None, high: float | None = None, low: float | None = None
) -> Tensor:
    limits = torch.finfo(x.dtype) if x.is_floating_point() else None
    if limits is None:
        return x.clone()
    found = torch.where(x == math.inf, limits.max if high is None else high, x)
    found = torch.where(x == -math.inf, limits.min if low is None else low, found)
    return torch.where(torch.isnan(x), nan or 0.0, found)


def roll(x: Tensor, shifts: Sequence[int], dims: Sequence[int] = ()) -> Tensor:
    if not dims:
        return roll(x.reshape(-1), shifts, [0]).reshape(x.shape)
    for shift, axis in zip(shifts, dims, strict=True):
        size = x.shape[axis]
        cut = -shift % size
        x = torch.cat([x.narrow(axis, cut, size - cut), x.narrow(axis, 0, cut)], axis) if cut else x
    return x


def split(x: Tensor, sizes: Sequence[int], axis: int = 0) -> list[Tensor]:
    ends = list(itertools.accumulate(sizes))
    return [x.narrow(axis, end - size, size) for size, end in zip(sizes, ends, strict=True)]


def unfold(x: Tensor, axis: int, size: int, step: int) -> Tensor:
    """Every window along an axis, in a new last axis."""
    axis %= x.dim()
    starts = range(0, x.shape[axis] - size + 1, step)
    windows = torch.stack([x.narrow(axis, start, size) for start in starts], axis)
    return windows.movedim(axis + 1, -1)


def embedding_gradient(
    gradient: Tensor, index: Tensor, rows: int, padding: int, scaled: bool
) -> Tensor:
    """PyTorch's own expansion indexes with a mask, which admission couldn't follow."""
    width = gradient.shape[-1]
    each, index = gradient.reshape(-1, width), index.reshape(-1)
    if padding >= 0:
        each = torch.where((index != padding).unsqueeze(1), each, 0.0)
    return gradient.new_zeros((rows, width)).index_add(0, index, each)


def x_log_y(x: Tensor, y: Tensor) -> Tensor:
    """PyTorch's own expansion writes NaN, which graphs don't have, where y has it already."""
    return torch.where(x == 0, 0.0, x * torch.log(y))


EXPANSIONS: Mapping[Any, Callable[..., Any]] = {
    _ATEN.convolution.default: convolution,
    _ATEN.embedding_dense_backward.default: embedding_gradient,
    _ATEN.nan_to_num.default: nan_to_num,
    _ATEN.native_group_norm.default: group_norm,
    _ATEN.nll_loss_forward.default: nll_loss,
    _ATEN.nll_loss2d_forward.default: nll_loss,
    _ATEN.roll.default: roll,
    _ATEN.split_with_sizes.default: split,
    _ATEN.unfold.default: unfold,
    _ATEN.xlogy.Tensor: x_log_y,
}
"""Of operators, while they are traced."""


def one_hot(index: Tensor, classes: int) -> Tensor:
    """int64 [..., classes]: 1 where the class is the index; PyTorch's own looks at values."""
    return (index.unsqueeze(-1) == torch.arange(classes)).long()


def bilinear(x: Tensor, y: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x [..., m], y [..., n], weight [k, m, n] -> [..., k]."""
    found = torch.einsum("...m,kmn,...n->...k", x, weight, y)
    return found if bias is None else found + bias


def bag(
    index: Tensor, table: Tensor, mode: str, weights: Tensor | None, padding: int | None
) -> Tensor:
    """The sum or mean of the rows of each bag: index [B, L] -> [B, w]."""
    padding = None if padding is None else padding % len(table)
    rows = fn.embedding(index, table, padding)
    kept = torch.ones_like(index, dtype=table.dtype) if weights is None else weights
    if padding is not None:
        kept = torch.where(index == padding, 0.0, kept)
    total = (rows * kept.unsqueeze(-1)).sum(1)
    return total if mode == "sum" else total / kept.sum(1, keepdim=True).clamp(min=1)
