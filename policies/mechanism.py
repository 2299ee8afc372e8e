"""What is done to every user's contribution before it may leave a node: the core to audit.

A round is zero_nonfinite -> clip -> quantise -> sum over users -> add this node's noise share. Its
guarantee rests on one fact, which `quantise` establishes in integer arithmetic: no user moves the
sum by more than clip_norm * scale integer units (L2, all tensors together). With discrete Gaussian
noise of standard deviation z * clip_norm * scale in what is revealed, a release is the Gaussian
mechanism with noise multiplier z (Canonne, Kamath and Steinke 2020, Thm 4; Kairouz, Liu and Steinke
2021 for the sum of several parties' shares).
"""

import math
from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from policies.noise import SecureRandom, discrete_gaussian

MAX_UNITS = 2**26
"""Largest clip_norm * scale: finer than float32, and squared norms stay exact in float64."""

EXACT_SUM = 2**53
"""Sums of whole numbers are exact in float64, in any order, while none passes this."""

# Clipping aims this much lower, so that float32 rounding (2^-24) can't carry a user over the norm.
_HEADROOM = 1e-6


def zero_nonfinite(x: Tensor) -> Tensor:
    """`x` with every NaN and infinity replaced by 0; same shape and dtype."""
    return torch.nan_to_num(x, nan=0.0, posinf=0.0, neginf=0.0)


def clip(contributions: Sequence[Tensor], clip_norm: float) -> Tensor:
    """Each user's tensors, flattened side by side and scaled down to L2 norm `clip_norm`.

    One norm over all tensors: g * min(1, C / ||g||) (Abadi et al. 2016, Algorithm 1). NaN and
    infinity count as 0. Input: float tensors [B, ...], B users. Output: float32 or float64 [B, P].

    Raises:
        ValueError: no tensors, unequal B, tensors that aren't floats, or clip_norm not positive.
    """
    flat, norms = _measured(contributions)
    return flat * clip_factors(norms, clip_norm).to(flat.dtype).unsqueeze(1)


def votes(
    contributions: Sequence[Tensor], clip_norm: float, quantile: float, vote_norm: float
) -> Tensor:
    """Each user's vote on the clip norm: float32 [B, 1], at most `vote_norm` either way.

    (b - quantile) / max(quantile, 1 - quantile) * vote_norm, with b = 1 if her contribution is
    within the norm, else 0. Votes add up to 0 where a `quantile` of the users are within it,
    however many they are (Andrew et al. 2021, Algorithm 1, with b - quantile in place of b - 1/2).
    """
    _, norms = _measured(contributions)
    within = (norms <= clip_norm).to(torch.float64)
    largest = max(quantile, 1 - quantile)
    return ((within - quantile) / largest * (vote_norm * (1 - _HEADROOM))).float().unsqueeze(1)


def clip_factors(norms: Tensor, clip_norm: float) -> Tensor:
    """What each user's contribution is multiplied with: min(1, C / ||g||), float64 [B].

    Args:
        norms: float64 [B], L2 norms; an infinite one gives 0.
    """
    _check_positive("clip_norm", clip_norm)
    return (clip_norm * (1 - _HEADROOM) / norms).clamp(max=1.0)


def quantise(clipped: Tensor, clip_norm: float, scale: int) -> Tensor:
    """The same in integer units, 1.0 = `scale` units, truncated toward zero: like `clipped`.

    They are whole numbers, written as floats. Truncation only shortens a vector. Then the bound is
    checked exactly: sum q_i^2 <= (clip_norm * scale)^2. A user above it, or with NaN, is zeroed
    altogether: never after `clip`, and if it happened, a contribution of zero is within any bound.

    Raises:
        ValueError: `scale` isn't a power of two, or clip_norm * scale is above `MAX_UNITS`.
    """
    limit = unit_limit(clip_norm, scale)
    units = truncate(clipped, scale)
    within = squared_norms(units) <= limit
    return units if within.all() else torch.where(within.unsqueeze(1), units, 0.0)


@lru_cache(maxsize=64)
def unit_limit(clip_norm: float, scale: int) -> int:
    """floor((clip_norm * scale)^2): no user's squared integer norm may be above it.

    Raises:
        ValueError: `scale` isn't a power of two, or clip_norm * scale is above `MAX_UNITS`.
    """
    _check_positive("clip_norm", clip_norm)
    if scale < 1 or scale & (scale - 1):
        raise ValueError(f"scale is {scale}; expected a power of two")
    if clip_norm * scale > MAX_UNITS:
        raise ValueError(f"clip_norm * scale is {clip_norm * scale:g}; expected at most 2^26")
    return math.floor((Fraction(clip_norm) * scale) ** 2)


def truncate(values: Tensor, scale: int) -> Tensor:
    """`values` * `scale`, truncated toward zero: whole numbers, like `values`.

    A float's part before the point is a float as well, so nothing is rounded but by truncation.
    """
    scaled = values.detach() * scale
    np.trunc(scaled.numpy(), out=scaled.numpy())
    return scaled


def squared_norms(rows: Tensor) -> Tensor:
    """sum x_i^2 of each row of float [B, P]: float64 [B]. Of float32 it can't overflow.

    Of whole numbers it is exact below 2^53, in any order. One that had to be rounded is at least
    2^53, since rounding keeps the order, and so above any `unit_limit`.
    """
    # One row at a time through one small buffer, which stays in the cache. PyTorch aligns it, so
    # that a row is added up in the same order wherever it lies.
    row = torch.empty(rows.shape[1], dtype=torch.float64).numpy()
    squares = np.empty(len(rows))
    for user, its in enumerate(rows.detach().numpy()):
        row[:] = its
        squares[user] = row.dot(row)
    return torch.from_numpy(squares)


def noise_share_sigma(
    noise_multiplier: float, clip_norm: float, scale: int, threshold: int, collusion: int
) -> float:
    """Standard deviation, in integer units, of the noise one node adds.

    z * C * s / sqrt(tau - t), rounded up: any `threshold` = tau survivors, of which `collusion` = t
    subtract what they know of their own noise, leave (tau - t) shares, whose variances add up to
    (z * C * s)^2, the one that is accounted (Kairouz, Liu and Steinke 2021).

    Raises:
        ValueError: the threshold doesn't exceed the collusion, or a value is out of range.
    """
    _check_positive("clip_norm", clip_norm)
    if not 0 <= noise_multiplier < math.inf or scale < 1 or not 0 <= collusion < threshold:
        raise ValueError(
            "noise_share_sigma needs noise_multiplier >= 0, scale >= 1 and threshold > collusion"
            f" >= 0; got {noise_multiplier}, {scale}, {threshold}, {collusion}"
        )
    sigma = noise_multiplier * clip_norm * scale / math.sqrt(threshold - collusion)
    # Four roundings of at most half a unit each; four units up covers them.
    for _ in range(4 if sigma else 0):
        sigma = math.nextafter(sigma, math.inf)
    return sigma


def noise_share(
    size: int,
    noise_multiplier: float,
    clip_norm: float,
    scale: int,
    threshold: int,
    collusion: int,
    random: SecureRandom,
) -> NDArray[np.int64]:
    """One node's share of discrete Gaussian noise for `size` numbers: int64 [size].

    Canonne, Kamath and Steinke 2020; its width is `noise_share_sigma`. Each number's noise is
    drawn afresh.
    """
    sigma = noise_share_sigma(noise_multiplier, clip_norm, scale, threshold, collusion)
    return discrete_gaussian(sigma, size, random)


def add_noise_share(
    total: NDArray[np.int64],
    noise_multiplier: float,
    clip_norm: float,
    scale: int,
    threshold: int,
    collusion: int,
    random: SecureRandom,
) -> NDArray[np.int64]:
    """`total` with one node's `noise_share` on every number: int64 [P]."""
    noise = noise_share(
        total.size, noise_multiplier, clip_norm, scale, threshold, collusion, random
    )
    noise += total
    return noise


def sample_users(count: int, rate: float, random: SecureRandom) -> NDArray[np.bool_]:
    """Who takes part: each of `count` users independently with probability `rate`: bool [count].

    Poisson sampling, which amplification by sampling needs, with coins nobody else knows. The
    probability is `rate` rounded down to 2^-64, so it is never above the one accounted.

    Raises:
        ValueError: `rate` is not in (0, 1].
    """
    if not 0 < rate <= 1:
        raise ValueError(f"The sampling rate is {rate}; expected (0, 1]")
    if rate == 1:
        return np.ones(count, dtype=bool)
    return random.words(count) < np.uint64(math.floor(Fraction(rate) * 2**64))


def _measured(contributions: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Every user's finite numbers side by side, float [B, P], and their norm, float64 [B]."""
    if len({len(tensor) for tensor in contributions}) != 1:
        raise ValueError("clip needs at least one tensor, and the same number of users in each")
    if not all(tensor.is_floating_point() for tensor in contributions):
        raise ValueError(f"clip needs float tensors; got {[t.dtype for t in contributions]}")
    flat = _side_by_side(contributions)
    norms = squared_norms(flat).sqrt()
    if not norms.isfinite().all():
        flat = zero_nonfinite(flat)
        norms = squared_norms(flat).sqrt()
    return flat, norms


def _side_by_side(tensors: Sequence[Tensor]) -> Tensor:
    rows = [tensor.unsqueeze(-1).flatten(start_dim=1) for tensor in tensors]
    flat = rows[0].contiguous() if len(rows) == 1 else torch.cat(rows, dim=1)
    return flat if flat.dtype in (torch.float32, torch.float64) else flat.float()


def _check_positive(name: str, value: float) -> None:
    if not 0 < value < math.inf:
        raise ValueError(f"{name} is {value}; expected a positive, finite number")
