"""What the demo compares against: the same plan run in the open, on the public file itself.

Nothing here is private or protected; every row computed so is labelled so.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from network.client import NodeClient
from network.program import DataSet, Plan, State
from network.training import unflatten_values
from network.updates import after_release
from policies.clipping import clipped_units
from policies.graph import Graph
from policies.plan import Plan as ApprovablePlan
from policies.plan import Step
from recommenders.datasets import Benchmark, positions
from recommenders.evaluation import hit_ratio_and_ndcg
from recommenders.popularity import popularity

_CHUNK_BYTES = 2**27


@dataclass(frozen=True)
class Row:
    """One line of the comparison.

    Attributes:
        epsilon: per domain; None: not private.
    """

    model: str
    hr: float
    ndcg: float
    epsilon: float | None

    @property
    def epsilon_text(self) -> str:
        return "not private" if self.epsilon is None else f"{self.epsilon:.3f}"


class Offline:
    """Trains and evaluates in this process, on the public file before the split.

    Args:
        benchmark: training pairs, held-out items and sampled negatives.
        write: makes the author's plan for a data set.
        bind: turns it into its approvable form, whose graphs are run here.
        data: the data set as declared.
    """

    def __init__(
        self,
        benchmark: Benchmark,
        write: Callable[[DataSet], Plan],
        bind: Callable[[Plan], ApprovablePlan],
        data: DataSet,
    ) -> None:
        self._benchmark = benchmark
        self._write = write
        self._bound = bind(write(data))
        self._data = data

    def popularity(self, label: str) -> Row:
        """Rank by how many users have an item, over the whole file."""
        catalogue = self._benchmark.catalogue
        counts = popularity(
            positions(self._benchmark.train["item"].to_numpy(), catalogue), len(catalogue)
        )
        return self._judge(label, lambda _: torch.from_numpy(counts), None)

    def train(self, interactions: pd.DataFrame, users: int) -> dict[str, Tensor]:
        """The state after all steps with clipping and without noise; evaluations are skipped."""
        plan = self._write(replace(self._data, users=users))
        people = self._people(interactions)
        state = dict(plan.state)
        for name, _ in self._bound.schedule():
            if plan.step(name).update is not None:
                step = self._bound.step(name)
                totals = unflatten_values(self._clipped_sum(step, state, people), step)
                state = after_release(plan, step, state, totals, 0.0)
        return state

    def row(self, label: str, state: State, epsilon: float | None) -> Row:
        """HR@10 and NDCG@10 of a state: every held-out user's memory, then her scores."""
        people = self._people(self._benchmark.train)
        memory, scores = self._bound.memory, self._bound.scores
        assert memory is not None
        assert scores is not None

        def score(user: dict[str, Tensor]) -> Tensor:
            hers = memory.run({**state, **user})["memory"]
            return scores.run({**state, "memory": hers})["scores"]

        mapped = torch.func.vmap(score)
        return self._judge(label, lambda index: mapped(people.tensors(index)), epsilon)

    def _people(self, interactions: pd.DataFrame) -> "_People":
        return _People.of(interactions, self._benchmark.catalogue, self._data.interactions)

    def _clipped_sum(self, step: Step, state: State, people: "_People") -> Tensor:
        total = torch.zeros(step.width, dtype=torch.float64)
        given = {spec.name: state[spec.name] for spec in step.state}
        contribution = torch.func.vmap(_contribution(step.graph, given))
        chunk = max(1, _CHUNK_BYTES // (8 * step.width))
        for index in _chunks(people.count, chunk):
            found = contribution(people.tensors(index))
            parts = [found[spec.name] for spec in step.outputs]
            total += clipped_units(step.clipping, parts, step.clip_norm, step.scale).sum(0)
        return total / step.scale

    def _judge(
        self, label: str, score: Callable[[NDArray[np.int64]], Tensor], epsilon: float | None
    ) -> Row:
        """Score 1 + 99 candidates of every held-out user; column 0 is her held-out item."""
        test, catalogue = self._benchmark.test, self._benchmark.catalogue
        users = np.unique(self._benchmark.train["user"].to_numpy())
        target = positions(test["item"].to_numpy(), catalogue)
        others = positions(self._benchmark.negatives, catalogue)
        who = np.searchsorted(users, test["user"].to_numpy())
        candidates = torch.from_numpy(np.concatenate([target[:, None], others], axis=1))
        found = []
        for index in _chunks(len(test), 512):
            scores = score(who[index])
            scores = scores.expand(len(index), -1) if scores.dim() == 1 else scores
            picked = scores.gather(1, candidates[index])
            picked[:, 1:][candidates[index, 1:] == candidates[index, :1]] = -torch.inf
            found.append(picked)
        quality = hit_ratio_and_ndcg(torch.cat(found))
        return Row(label, quality.hit_ratio, quality.ndcg, epsilon)


@dataclass(frozen=True)
class _People:
    """Users' padded items; int64 and float32, shape [users, M]."""

    items: Tensor
    mask: Tensor

    @classmethod
    def of(cls, table: pd.DataFrame, catalogue: NDArray[np.int64], width: int) -> "_People":
        if "time" in table:
            table = table.sort_values("time", kind="stable")
        latest = table.groupby("user", sort=True).tail(width)
        users, row = np.unique(latest["user"].to_numpy(), return_inverse=True)
        column = latest.groupby("user", sort=False).cumcount().to_numpy()
        shape = (len(users), int(column.max()) + 1)
        items, mask = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.float32)
        items[row, column] = positions(latest["item"].to_numpy(), catalogue)
        mask[row, column] = 1.0
        return cls(torch.from_numpy(items), torch.from_numpy(mask))

    @property
    def count(self) -> int:
        return len(self.items)

    def tensors(self, index: NDArray[np.int64]) -> dict[str, Tensor]:
        return {"items": self.items[index], "mask": self.mask[index]}


def _contribution(graph: Graph, state: State) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    return lambda user: graph.run({**state, **user})


def _chunks(count: int, size: int) -> Iterator[NDArray[np.int64]]:
    for begin in range(0, count, size):
        yield np.arange(begin, min(begin + size, count))


def read_mock(node: NodeClient, accounts: Path, dataset: str) -> pd.DataFrame:
    """A data set's mock, read the way any Syft client reads it."""
    import syft as sy

    account: dict[str, Any] = json.loads(accounts.read_text())[node.name]
    client = sy.login(url=node.url, email=account["email"], password=account["password"])
    asset = next(d for d in client.datasets.get_all() if d.name == dataset).assets[0]
    mock: pd.DataFrame = asset.mock
    return mock
