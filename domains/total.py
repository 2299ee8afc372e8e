"""The integers of a step, added up over its users, exactly."""

from collections.abc import Sequence
from mmap import mmap

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from domains.contributions import Part
from policies.mechanism import EXACT_SUM
from policies.plan import Step

_BLOCK = 2**20
_ROWS = 2**12


def row_positions(step: Step, parts: "Sequence[Part]") -> Tensor:
    """Where each of a batch's units lies in the sum: int64 [B, ...], the parts side by side."""
    begin, found = 0, []
    for spec, part in zip(step.released, parts, strict=True):
        users, each = len(part.values), part.values[0].numel()
        if part.ids is None:
            found.append(torch.arange(begin, begin + each).expand(users, each))
        else:
            width = each // part.ids[0].numel()
            rows = begin + part.ids.reshape(users, -1, 1) * width
            found.append((rows + torch.arange(width)).reshape(users, each))
        begin += spec.count
    return torch.cat(found, dim=1)


class Total:
    """The integers of all users so far: int64 [P], in the order of the step's outputs.

    They are added as float64, which holds every integer below 2^53: exact, in any order. Admission
    has refused whatever could pass that.

    Args:
        users: at most so many will be added.
        memory: where the integers are to lie, from the beginning on.

    Raises:
        ValueError: the sum of so many users could pass 2^53.
    """

    def __init__(self, step: Step, users: int, memory: mmap | None = None) -> None:
        if users * step.clip_norm * step.scale >= EXACT_SUM:
            raise ValueError("The sum of so many users could pass 2^53; lower the step's scale.")
        self._sums = (
            torch.empty(step.width, dtype=torch.float64)
            if memory is None
            else torch.frombuffer(memory, dtype=torch.float64, count=step.width)
        ).zero_()
        self._outputs = self._sums.split([spec.count for spec in step.released])

    def add(self, units: Tensor, parts: Sequence[Part]) -> None:
        """Add a batch: whole numbers [B, ...], the parts' units side by side."""
        widths = [part.values[0].numel() for part in parts]
        columns = units.split(widths, dim=1)
        for total, part, mine in zip(self._outputs, parts, columns, strict=True):
            if part.ids is None:
                total += mine.sum(0, dtype=torch.float64)
            else:
                _add_rows(total, part, mine)

    def integers(self) -> NDArray[np.int64]:
        """The sums; nothing may be added afterwards."""
        summed = self._sums.view(torch.int64)
        for doubles, block in zip(self._sums.split(_BLOCK), summed.split(_BLOCK), strict=True):
            block.copy_(doubles.to(torch.int64))
        return summed.numpy()


def _add_rows(total: Tensor, part: Part, units: Tensor) -> None:
    assert part.ids is not None
    rows, ids = units.reshape(*part.ids.shape, -1).flatten(0, 1), part.ids.flatten()
    if part.real is not None:
        rows, ids = rows.index_select(0, part.real), ids.index_select(0, part.real)
    table = total.view(-1, rows.shape[1])
    for some, their_ids in zip(rows.split(_ROWS), ids.split(_ROWS), strict=True):
        table.index_add_(0, their_ids, some.to(torch.float64))
