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

_BLOCK = 2**17
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

    Whole vectors are added as float64, which holds every integer below 2^53: exact, in any order,
    and made integers in the end; rows are added as integers, since few of a table are touched.
    Admission has refused whatever could pass 2^53.

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
            torch.empty(step.width, dtype=torch.int64)
            if memory is None
            else torch.frombuffer(memory, dtype=torch.int64, count=step.width)
        ).zero_()
        self._outputs = self._sums.split([spec.count for spec in step.released])
        self._doubles: dict[int, Tensor] = {}

    def add(self, units: Tensor, parts: Sequence[Part]) -> None:
        """Add a batch: whole numbers [B, ...], the parts' units side by side."""
        widths = [part.values[0].numel() for part in parts]
        columns = units.split(widths, dim=1)
        for place, (part, mine) in enumerate(zip(parts, columns, strict=True)):
            if part.ids is None:
                self._double(place).add_(mine.sum(0, dtype=torch.float64))
            else:
                _add_rows(self._outputs[place], part, mine)

    def _double(self, place: int) -> Tensor:
        """An output whose vectors are whole, as float64 in the place of its integers."""
        if place not in self._doubles:
            self._doubles[place] = self._outputs[place].view(torch.float64)
        return self._doubles[place]

    def integers(self) -> NDArray[np.int64]:
        """The sums; nothing may be added afterwards."""
        for place, doubles in self._doubles.items():
            pieces = zip(doubles.split(_BLOCK), self._outputs[place].split(_BLOCK), strict=True)
            for found, block in pieces:
                block.copy_(found.to(torch.int64))
        return self._sums.numpy()


def _add_rows(total: Tensor, part: Part, units: Tensor) -> None:
    assert part.ids is not None
    rows, ids = units.reshape(*part.ids.shape, -1).flatten(0, 1), part.ids.flatten()
    if part.real is not None:
        rows, ids = rows.index_select(0, part.real), ids.index_select(0, part.real)
    table = total.view(-1, rows.shape[1])
    for some, their_ids in zip(rows.split(_ROWS), ids.split(_ROWS), strict=True):
        table.index_add_(0, their_ids, some.to(torch.int64))
