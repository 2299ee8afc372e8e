"""Domains that keep tensors, in one process: the nodes' own code on vectors given by hand."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from numpy.typing import NDArray

from domains.kept import Memory
from domains.tensors import KeptTensors
from network.program import DataSet, Plan, Sum
from network.smpc.tensors import Operation, digest_of_matrix
from policies.plan import Dealer, RosterEntry
from policies.plan import Plan as ApprovablePlan

NAMES = ("east", "north", "south")
ITEMS, USERS, CLIP_NORM = 6, 40, 4.0


def kept_plan(
    keys: dict[str, Ed25519PrivateKey],
    purpose: str = "test",
    dealer: Dealer | None = None,
    comparisons: Literal["spu"] | None = None,
) -> ApprovablePlan:
    """Two kept steps of six numbers each, one of them shared up to three times."""

    def count(state, user):  # type: ignore[no-untyped-def]
        return {"counts": torch.zeros(ITEMS).scatter_add(0, user.items, user.mask)}

    data = DataSet("clicks", ITEMS, 4, 3 * USERS, "0" * 64, False, USERS)
    steps = [Sum(n, count, CLIP_NORM, releases=r, kept=True) for n, r in (("x", 3), ("y", 1))]
    roster = [
        RosterEntry(
            name=name,
            server_uid=name,
            node_key=key.public_key().public_bytes_raw().hex(),
            owner_key=f"{index}" * 64,
        )
        for index, (name, key) in enumerate(keys.items())
    ]
    plan = Plan("kept", purpose, data, steps, dealer=dealer, comparisons=comparisons, epsilon=4.0)
    return plan.bind(roster, "f" * 64)


@dataclass
class Domains:
    """Three domains with tensors of one run.

    Attributes:
        values: by step and domain, the sum that its engine would give, int64 [6].
    """

    plan: ApprovablePlan
    keys: dict[str, Ed25519PrivateKey]
    values: dict[str, dict[str, NDArray[np.int64]]] = field(default_factory=dict)
    kept: dict[str, KeptTensors] = field(default_factory=dict)
    memory: Memory = field(default_factory=Memory)
    spu: dict[str, Path] = field(default_factory=dict)

    @classmethod
    def create(
        cls,
        purpose: str = "test",
        dealer: Dealer | None = None,
        comparisons: Literal["spu"] | None = None,
    ) -> "Domains":
        keys = {name: Ed25519PrivateKey.generate() for name in NAMES}
        found = cls(kept_plan(keys, purpose, dealer, comparisons), keys)
        random = np.random.default_rng(7)
        for step in found.plan.steps:
            largest = USERS * int(step.clip_norm * step.scale) // ITEMS
            found.values[step.name] = {n: random.integers(-largest, largest, ITEMS) for n in NAMES}
        for name in NAMES:
            found.restart(name)
        return found

    def restart(self, name: str) -> None:
        self.kept[name] = KeptTensors(
            name,
            self.plan,
            self.keys[name],
            lambda step, _: self.values[step.name][name].copy(),
            self.memory,
            self.spu.get(name),
        )

    def share(self, step: str, number: int = 0) -> str:
        """The name of the step's one output, shared by all."""
        keys = [self.kept[name].key(step, number) for name in NAMES]
        (found,) = {self.kept[name].share(step, number, keys, b"")[0] for name in NAMES}
        return found

    def apply(self, do: str, *of: str, public: NDArray[np.int64] | None = None, **more: Any) -> str:
        """The name of the tensor that all domains make, maybe with a public matrix."""
        if public is not None:
            more |= {"shape": public.shape, "matrix": digest_of_matrix(public)}
        operation = Operation.from_dict({"do": do, "of": of, **more})
        (found,) = {self.kept[name].apply(operation, public) for name in NAMES}
        return found

    def shares(self, tensor: str) -> dict[str, NDArray[np.uint64]]:
        return {name: self.kept[name].tensor(tensor).share for name in NAMES}

    def opened(self, tensor: str) -> NDArray[np.float64]:
        """The tensor itself: what no caller of a node can see."""
        proven = self.kept["east"].tensor(tensor).proven
        total = sum(self.shares(tensor).values(), np.zeros(proven.length, np.uint64))
        return (total.view(np.int64).astype(float) * float(proven.unit)).reshape(proven.shape)

    def value(self, step: str) -> NDArray[np.float64]:
        """What the step's tensor must be."""
        total = np.sum(list(self.values[step].values()), axis=0)
        return total / float(self.plan.step(step).scale)
