"""How a step divides its clip norm: over all tensors at once, one part each, or adaptively.

However it is divided, the squares of the parts add up to at most clip_norm^2, checked exactly, and
`quantise` holds every part to its own bound in integers. So a user's whole vector of integers, what
is counted about her included, is never longer than clip_norm * scale: sensitivity, noise, ring and
epsilon are those of flat clipping.
"""

from collections.abc import Sequence
from fractions import Fraction
from typing import Annotated, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from policies.mechanism import clip, quantise, votes

Norm = Annotated[float, Field(gt=0, le=1e9, allow_inf_nan=False)]


class _Value(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")


class Flat(_Value):
    """One norm over all tensors (Abadi et al. 2016)."""

    kind: Literal["flat"] = "flat"


class PerLayer(_Value):
    """A norm for each output (McMahan et al. 2018, section 3.2: "per-layer clipping").

    Attributes:
        norms: in the order of the step's outputs.
    """

    kind: Literal["per-layer"] = "per-layer"
    norms: Annotated[tuple[Norm, ...], Field(min_length=1)]


class Adaptive(_Value):
    """One norm, whose unit follows a quantile of the users' norms (Andrew et al. 2021).

    The node clips at `norm`, always; the author divides contributions by a public state tensor, and
    changes it by what users vote. Each user's vote says whether her contribution was within `norm`.
    Votes are one more number of the release: clipped, summed and noised with the others. Whatever
    unit an author picks, what a user adds is bounded all the same.

    Attributes:
        quantile: the part of users whose contribution should be within the norm.
        norm: bound on a user's contribution.
        vote_norm: bound on her vote.
    """

    kind: Literal["adaptive"] = "adaptive"
    quantile: Annotated[float, Field(gt=0, lt=1)]
    norm: Norm
    vote_norm: Norm


Clipping = Annotated[Flat | PerLayer | Adaptive, Field(discriminator="kind")]


def parts_of(clipping: Flat | PerLayer | Adaptive, clip_norm: float) -> tuple[float, ...]:
    """The bounds whose squares add up to the square of the whole bound."""
    if isinstance(clipping, PerLayer):
        return clipping.norms
    if isinstance(clipping, Adaptive):
        return (clipping.norm, clipping.vote_norm)
    return (clip_norm,)


def fits(clipping: Flat | PerLayer | Adaptive, clip_norm: float) -> bool:
    """Whether the parts together are within `clip_norm`, in exact arithmetic."""
    squares = sum(Fraction(part) ** 2 for part in parts_of(clipping, clip_norm))
    return squares <= Fraction(clip_norm) ** 2


def clipped_units(
    clipping: Flat | PerLayer | Adaptive,
    contributions: Sequence[Tensor],
    clip_norm: float,
    scale: int,
) -> Tensor:
    """Each user's contribution, clipped and in integer units: [B, P], tensors side by side.

    Whole numbers, of which each user's have an L2 norm of at most clip_norm * scale; of float32
    contributions float32.

    With `Adaptive` her vote is one more column at the end.

    Args:
        contributions: a float tensor [B, ...] for each output.
    """
    if isinstance(clipping, PerLayer):
        pairs = zip(contributions, clipping.norms, strict=True)
        return torch.cat([quantise(clip([p], norm), norm, scale) for p, norm in pairs], dim=1)
    if isinstance(clipping, Adaptive):
        voted = votes(contributions, clipping.norm, clipping.quantile, clipping.vote_norm)
        return torch.cat(
            [
                quantise(clip(contributions, clipping.norm), clipping.norm, scale),
                quantise(voted, clipping.vote_norm, scale),
            ],
            dim=1,
        )
    return quantise(clip(contributions, clip_norm), clip_norm, scale)
