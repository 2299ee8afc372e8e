"""Integers laid into the slots of ciphertexts, and read back exactly."""

import numpy as np
from numpy.typing import NDArray

from policies.homomorphic import MAX_ERROR, NUMBERS, Layout


class NotIntegers(ValueError):
    """What was decrypted isn't a sum of integers laid out as the plan says."""


def to_slots(values: NDArray[np.int64], layout: Layout) -> NDArray[np.complex128]:
    """Lay integers into slots, first all lowest limbs, then the next.

    Args:
        values: int64 [P], each within the layout's ring.

    Returns:
        [K, 2048]; unused slots are zero.

    Raises:
        ValueError: a number is beyond the ring.
    """
    if (values != _within(values, layout.ring)).any():
        raise ValueError(f"a number is beyond {layout.ring} bits")
    numbers = np.zeros(layout.ciphertexts(values.size) * NUMBERS)
    for index, limb in enumerate(_limbs(values, layout)):
        numbers[index * values.size : (index + 1) * values.size] = limb
    return numbers.view(np.complex128).reshape(-1, NUMBERS // 2)


def from_slots(
    slots: NDArray[np.complex128], length: int, layout: Layout
) -> tuple[NDArray[np.int64], float]:
    """The integers whose sum the slots hold, and how far from integers they were at most.

    Args:
        slots: [K, 2048], as decrypted.
        length: P.

    Returns:
        (int64 [P], the largest distance from an integer).

    Raises:
        NotIntegers: further from integers than the scheme's error can be, beyond the layout's
            bounds, or something in slots that hold nothing.
    """
    numbers = np.ascontiguousarray(slots).view(np.float64).ravel()
    whole = np.rint(numbers)
    with np.errstate(invalid="ignore"):  # infinity less infinity
        distance = float(np.abs(numbers - whole).max(initial=0.0))
    # Not "distance > bound": a NaN must not pass.
    if not distance <= float(MAX_ERROR):
        raise NotIntegers("it decrypts to numbers that aren't integers")
    if not np.abs(whole).max(initial=0.0) <= layout.largest:
        raise NotIntegers("it decrypts to numbers beyond the plan's bounds")
    used = layout.limbs * length
    if whole[used:].any():
        raise NotIntegers("it holds more numbers than the plan releases")
    total = np.zeros(length, dtype=np.int64)
    rounded = np.zeros(length)
    for limb in whole[:used].reshape(layout.limbs, length)[::-1]:
        # May wrap in between; if the true total is within 64 bits, it is right in the end.
        total = (total << min(layout.limb_bits, 63)) + limb.astype(np.int64)
        rounded = rounded * 2.0**layout.limb_bits + limb
    wrapped = np.abs(rounded - total) > 2.0**62
    if wrapped.any() or (total != _within(total, layout.ring)).any():
        raise NotIntegers("its total is beyond the plan's ring")
    return total, distance


def _within(values: NDArray[np.int64], ring: int) -> NDArray[np.int64]:
    return values.clip(-(2 ** (ring - 1)), 2 ** (ring - 1) - 1)


def _limbs(values: NDArray[np.int64], layout: Layout) -> list[NDArray[np.int64]]:
    """Signed limbs, the lowest first: values = sum limb_k 2^(k limb_bits)."""
    found, rest = [], values
    half, mask = 2 ** (layout.limb_bits - 1), 2**layout.limb_bits - 1
    for _ in range(layout.limbs - 1):
        low = rest & mask
        carry = low >= half
        found.append(low - (carry.astype(np.int64) << layout.limb_bits))
        rest = (rest >> layout.limb_bits) + carry
    return [*found, rest]
