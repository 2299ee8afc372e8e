"""The integers of a step, added up over its users, exactly."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from domains.contributions import Part
from policies.mechanism import sum_users
from policies.plan import Step

_ROWS = 4096


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

    Rows are added in float64, which is faster and just as exact while no sum passes 2^53.

    Args:
        users: at most so many will be added.

    Raises:
        ValueError: the sum of so many users could pass 2^53.
    """

    def __init__(self, step: Step, users: int) -> None:
        if users * step.clip_norm * step.scale >= 2**53:
            raise ValueError("The sum of so many users could pass 2^53; lower the step's scale.")
        self._step = step
        self._sums = torch.zeros(step.width, dtype=torch.int64)
        ends = np.cumsum([spec.count for spec in step.released]).tolist()
        self._places = [
            slice(end - s.count, end) for end, s in zip(ends, step.released, strict=True)
        ]
        self._in_doubles: set[int] = set()

    def add(self, units: Tensor, parts: Sequence[Part]) -> None:
        """Add a batch: int32 [B, ...], the parts' units side by side."""
        widths = [part.values[0].numel() for part in parts]
        columns = units.split(widths, dim=1)
        for output, (part, mine) in enumerate(zip(parts, columns, strict=True)):
            if part.ids is None:
                total = self._sums[self._places[output]]
                total += sum_users(mine, self._step.clip_norm, self._step.scale)
            else:
                self._scatter(output, part, mine)

    def _scatter(self, output: int, part: Part, units: Tensor) -> None:
        assert part.ids is not None
        self._in_doubles.add(output)
        rows, ids = units.reshape(*part.ids.shape, -1).flatten(0, 1), part.ids.flatten()
        if part.real is not None:
            rows, ids = rows.index_select(0, part.real), ids.index_select(0, part.real)
        doubles = self._sums[self._places[output]].view(torch.float64)
        table = doubles.view(-1, rows.shape[1])
        for some, their_ids in zip(rows.split(_ROWS), ids.split(_ROWS), strict=True):
            table.index_add_(0, their_ids, some.to(torch.float64))

    def integers(self) -> NDArray[np.int64]:
        """The sums; nothing may be added afterwards."""
        for output in self._in_doubles:
            for block in self._sums[self._places[output]].split(2**20):
                block.copy_(block.view(torch.float64).to(torch.int64))
        summed: NDArray[np.int64] = self._sums.numpy()
        return summed
