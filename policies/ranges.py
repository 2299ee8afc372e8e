"""How large an integer of a graph can get: interval arithmetic, one rule for each operation.

An index must provably lie inside what it indexes, whatever a user's data; these bounds are the
proof. An operation without a rule, or arguments that a rule doesn't expect, give all of int64.
"""

from dataclasses import dataclass
from typing import Any

INT64 = (-(2**63), 2**63 - 1)

Range = tuple[int, int]


@dataclass(frozen=True)
class Integers:
    """What a range rule may look at: arguments, and the ranges of the integer ones."""

    args: list[Any]
    kwargs: dict[str, Any]
    ranges: list[Range]
    result: Any


def union(ranges: list[Range]) -> Range:
    """The smallest range that holds all of these."""
    return min(low for low, _ in ranges), max(high for _, high in ranges)


def _first(known: Integers) -> Range:
    return known.ranges[0]


def _either(*positions: int) -> Any:
    return lambda known: union([known.ranges[position] for position in positions])


def _with_zero(known: Integers) -> Range:
    return union([known.ranges[0], (0, 0)])


def _padded(known: Integers) -> Range:
    fill = known.ranges[2] if len(known.args) > 2 else (0, 0)
    return union([known.ranges[0], fill])


def _sum_of(sign: int) -> Any:
    def rule(known: Integers) -> Range:
        (a, b), (c, d) = known.ranges[0], known.ranges[1]
        alpha = _whole(known.kwargs.get("alpha", argument(known.args, 2, 1))) * sign
        scaled = sorted((alpha * c, alpha * d))
        return a + scaled[0], b + scaled[1]

    return rule


def _product(known: Integers) -> Range:
    (a, b), (c, d) = known.ranges[0], known.ranges[1]
    corners = [a * c, a * d, b * c, b * d]
    return min(corners), max(corners)


def _negated(known: Integers) -> Range:
    low, high = known.ranges[0]
    return -high, -low


def _absolute(known: Integers) -> Range:
    low, high = known.ranges[0]
    if low == INT64[0]:
        raise ValueError  # |-2^63| isn't an int64
    return max(low, -high, 0), max(-low, high)


def _clamped(known: Integers) -> Range:
    low, high = known.ranges[0]
    floor, ceiling = argument(known.args, 1, None), argument(known.args, 2, None)
    # clamp(x, min, max) is min(max(x, min), max), also where min > max.
    if floor is not None:
        low, high = max(low, _whole(floor)), max(high, _whole(floor))
    if ceiling is not None:
        low, high = min(low, _whole(ceiling)), min(high, _whole(ceiling))
    return low, high


def _at_least(known: Integers) -> Range:
    (a, b), (c, d) = known.ranges[0], known.ranges[1]
    return max(a, c), max(b, d)


def _at_most(known: Integers) -> Range:
    (a, b), (c, d) = known.ranges[0], known.ranges[1]
    return min(a, c), min(b, d)


def _remainder(known: Integers) -> Range:
    divisor = _whole(known.args[1])
    return (0, divisor - 1) if divisor > 0 else (divisor + 1, 0)


def _quotient(known: Integers) -> Range:
    divisor = _whole(known.args[1])
    if divisor < 1:
        raise ValueError
    low, high = known.ranges[0]
    return min(low // divisor, 0), max(high // divisor, 0)


def _added_up(known: Integers) -> Range:
    low, high = known.ranges[0]
    count = known.args[0].numel() // known.result.numel()
    return min(count * low, low, 0), max(count * high, high, 0)


def _running_sum(known: Integers) -> Range:
    low, high = known.ranges[0]
    count = known.args[0].numel()
    return min(count * low, low, 0), max(count * high, high, 0)


def _written_out(known: Integers) -> Range:
    start, end, step = [*known.args, None, None][:3]
    begin, end = (0, _whole(start)) if end is None else (_whole(start), _whole(end))
    if begin < end and (step is None or _whole(step) > 0):
        return begin, end - 1
    return min(begin, end), max(begin, end)


def _constant(value: int) -> Any:
    return lambda known: (value, value)


def _filled(known: Integers) -> Range:
    value = known.args[0] if len(known.args) == 1 else known.args[-1]
    return (_whole(value), _whole(value))


def _whole(value: Any) -> int:
    if type(value) is not int:
        raise TypeError
    return value


_KEEPS_RANGE = (
    "reshape permute transpose t unsqueeze squeeze expand slice select flip repeat diagonal alias "
    "clone detach amax amin max min index gather index_select embedding getitem split unbind "
    "_to_copy cat stack"
)
_RANGES: dict[str, Any] = dict.fromkeys(_KEEPS_RANGE.split(), _first) | {
    "tril": _with_zero,
    "triu": _with_zero,
    "diag_embed": _with_zero,
    "constant_pad_nd": _padded,
    "copy": _either(1),
    "fill": _either(1),
    "select_scatter": _either(0, 1),
    "slice_scatter": _either(0, 1),
    "scatter": _either(0, 3),
    "where": _either(1, 2),
    "masked_fill": _either(0, 2),
    "maximum": _at_least,
    "clamp_min": _at_least,
    "minimum": _at_most,
    "clamp_max": _at_most,
    "clamp": _clamped,
    "add": _sum_of(1),
    "sub": _sum_of(-1),
    "mul": _product,
    "neg": _negated,
    "abs": _absolute,
    "remainder": _remainder,
    "floor_divide": _quotient,
    "sum": _added_up,
    "cumsum": _running_sum,
    "arange": _written_out,
    "zeros": _constant(0),
    "zeros_like": _constant(0),
    "new_zeros": _constant(0),
    "ones": _constant(1),
    "ones_like": _constant(1),
    "new_ones": _constant(1),
    "full": _filled,
    "full_like": _filled,
    "new_full": _filled,
    "scalar_tensor": _filled,
    "eye": lambda known: (0, 1),
}


def bounded(op: str, known: Integers) -> Range:
    """Between what an operation's integer result lies; all of int64 where that isn't known."""
    rule = _RANGES.get(op.split(".")[1] if "." in op else op)
    if rule is None:
        return INT64
    try:
        low, high = rule(known)
    except (IndexError, TypeError, ValueError):
        return INT64
    return (low, high) if INT64[0] <= low and high <= INT64[1] else INT64


def argument(args: list[Any], position: int, default: Any) -> Any:
    """An operation's argument, or its default where it isn't given."""
    return args[position] if len(args) > position else default
