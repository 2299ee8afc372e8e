"""What of one user a graph may read, and the declared sizes that fix its shapes."""

from dataclasses import dataclass

import torch
from torch import Tensor

from policies.graph import NEGATIVES, TensorSpec


@dataclass(frozen=True)
class Bounds:
    """The declared sizes that fix all shapes.

    Attributes:
        items: N, number of items in the catalogue.
        interactions: M, the most interactions of one user.
        users: the most users of one domain; None while tracing, where it doesn't matter.
    """

    items: int
    interactions: int
    users: int | None = None

    def __post_init__(self) -> None:
        if self.items < 1 or self.interactions < 1 or (self.users is not None and self.users < 1):
            raise ValueError("Bounds need at least one item, one interaction and one user.")


@dataclass(frozen=True)
class User:
    """One user's tensors, as a function sees them.

    Attributes:
        items: int64 [M], item positions in 0..N-1, padded with 0.
        mask: float32 [M], 1 for an interaction, 0 for padding.
        values: float32 [M], the declared value of each interaction, padded with 0.
        target: int64 [], her held-out item in evaluation steps, 0 if she has none.
        has_target: float32 [], 1 if she has a held-out item.
        negatives: int64 [99], items she never interacted with.
        memory: float32 [d], her private memory; in `scores` functions only.
    """

    items: Tensor
    mask: Tensor
    values: Tensor
    target: Tensor
    has_target: Tensor
    negatives: Tensor
    memory: Tensor | None = None


def user_specs(bounds: Bounds, memory: int | None = None) -> dict[str, TensorSpec]:
    """Specs of the user tensors by name, in their fixed order; `memory` is its length d."""
    m = bounds.interactions
    specs = [
        TensorSpec(name="items", shape=(m,), dtype="int64"),
        TensorSpec(name="mask", shape=(m,), dtype="float32"),
        TensorSpec(name="values", shape=(m,), dtype="float32"),
        TensorSpec(name="target", shape=(), dtype="int64"),
        TensorSpec(name="has_target", shape=(), dtype="float32"),
        TensorSpec(name="negatives", shape=(NEGATIVES,), dtype="int64"),
    ]
    if memory is not None:
        specs.append(TensorSpec(name="memory", shape=(memory,), dtype="float32"))
    return {spec.name: spec for spec in specs}


def mock_user(bounds: Bounds, memory: int | None = None) -> User:
    """One made-up user within the bounds; always the same."""
    items = torch.arange(bounds.interactions) % bounds.items
    mask = (torch.arange(bounds.interactions) * 2 <= bounds.interactions).float()
    return User(
        items=items * mask.long(),
        mask=mask,
        values=mask.clone(),
        target=torch.tensor(bounds.items - 1),
        has_target=torch.tensor(1.0),
        negatives=torch.arange(NEGATIVES) % bounds.items,
        memory=None if memory is None else torch.full((memory,), 0.1),
    )
