"""The clip norm of a step as its author writes it, and as the plan has it."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from policies.clipping import Adaptive, Clipping, Flat, PerLayer, fits
from policies.trace import TraceError

CLIPPED_BITS = 22
"""A clipped contribution has an integer norm near 2^22: fine steps, and exact in float32."""


@dataclass(frozen=True)
class AdaptiveClip:
    """A clip norm that follows a private quantile of users' norms (Andrew et al. 2021).

    After each release it is multiplied by exp(-rate * (noised part of the users that were within
    it - quantile)), with the declared number of users as the divisor.

    Attributes:
        start: the first clip norm.
        quantile: the part of users whose contribution should stay whole.
        rate: how fast it moves.
        share: the part of the squared sensitivity that users' votes get. Their sum's noise is then
            z max(quantile, 1 - quantile) / sqrt(share) users wide; what is left for the
            contributions raises their noise by 1 / sqrt(1 - share).
    """

    start: float = 1.0
    quantile: float = 0.5
    rate: float = 0.2
    share: float = 0.01

    def __post_init__(self) -> None:
        for what, most in (("start", math.inf), ("rate", math.inf), ("quantile", 1), ("share", 1)):
            given = getattr(self, what)
            if (
                isinstance(given, bool)
                or not isinstance(given, Real)
                or not 0 < float(given) < most
            ):
                bound = "a positive number" if most == math.inf else "a number between 0 and 1"
                raise ValueError(f"AdaptiveClip's {what} is {given!r}; expected {bound}.")


ClipNorm = float | Mapping[str, float] | AdaptiveClip


def first_unit(clip_norm: AdaptiveClip) -> Tensor:
    """The first unit: a contribution as long as `start` is then as long as the fixed norm."""
    return torch.tensor(clip_norm.start / _adaptive(clip_norm).norm)


def divided_by(function: Callable, unit: str) -> Callable:
    """`function` in units of the state tensor `unit`."""

    def divided(state: Mapping[str, Tensor], user: Any) -> Any:
        found = function(state, user)
        if isinstance(found, Tensor):
            return found / state[unit]
        return {name: tensor / state[unit] for name, tensor in found.items()}

    return divided


def clipping_of(step: str, asked: ClipNorm, outputs: Sequence[str]) -> tuple[float, Clipping]:
    """The whole bound of a step and how it is divided.

    Raises:
        TraceError: norms by name that aren't those of the outputs.
    """
    if isinstance(asked, AdaptiveClip):
        return 1.0, _adaptive(asked)
    if isinstance(asked, Mapping):
        if set(asked) != set(outputs):
            raise TraceError(
                f"Step {step!r} has clip norms for {', '.join(sorted(asked)) or 'nothing'}; "
                f"give one for each of its outputs: {', '.join(outputs)}."
            )
        divided = PerLayer(norms=tuple(float(asked[name]) for name in outputs))
        whole = math.hypot(*divided.norms)
        while not fits(divided, whole):
            whole = math.nextafter(whole, math.inf)
        return whole, divided
    return float(asked), Flat()


def _adaptive(asked: AdaptiveClip) -> Adaptive:
    norm, vote_norm = math.sqrt(1 - asked.share), math.sqrt(asked.share)
    while True:
        found = Adaptive(quantile=asked.quantile, norm=norm, vote_norm=vote_norm)
        if fits(found, 1.0):
            return found
        norm = math.nextafter(norm, 0.0)


def scale_of(clip_norm: float, bits: int = CLIPPED_BITS) -> int:
    """The power of two for which clip_norm * scale is in (2^(bits - 1), 2^bits]."""
    mantissa, exponent = math.frexp(clip_norm)
    above = exponent - 1 if mantissa == 0.5 else exponent
    return 2 ** max(0, bits - above)


def unit_name(step: str) -> str:
    """The state tensor by which the contributions of an adaptive step of this name are divided."""
    return "unit_of." + re.sub(r"[^A-Za-z0-9_.]", "_", step)
