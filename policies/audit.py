"""What one run says about its own privacy: a lower bound on epsilon, from guesses about canaries.

Steinke, Nasr and Jagielski 2023, "Privacy Auditing with One (1) Training Run" (arXiv:2305.08846).
Of m canaries each takes part with probability 1/2, by independent coins. Whoever sees only what was
released guesses, for some of them, whether they took part. Under (epsilon, delta)-differential
privacy many right guesses are unlikely; a number of right guesses that would be too unlikely rules
that epsilon out. It is a lower bound, with a stated confidence, on this one run: a small one proves
nothing, and one above the accounted epsilon shows that the accounting or the engine is wrong.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr
from scipy.stats import binom

_LARGEST = 64.0
_CANDIDATES = 40


@dataclass(frozen=True)
class Guesses:
    """What was guessed of m canaries.

    Attributes:
        canaries: m, how many there were.
        made: how many of them were guessed at.
        correct: how many of the guesses were right.
    """

    canaries: int
    made: int
    correct: int

    def __post_init__(self) -> None:
        if not 0 <= self.correct <= self.made <= self.canaries or self.canaries < 1:
            raise ValueError(
                f"{self.correct} right of {self.made} guesses on {self.canaries} canaries; "
                "expected 0 <= right <= guesses <= canaries, and a canary"
            )


def p_value(guesses: Guesses, epsilon: float, delta: float) -> float:
    """How likely at least so many right guesses are under (epsilon, delta)-DP: Theorem 5.2.

    With B ~ Binomial(r, e^eps / (1 + e^eps)) and v right guesses of r:
    P[B >= v] + 2 m delta max_i P[v - i <= B < v] / i.
    """
    r, v = guesses.made, guesses.correct
    rate = 1 / (1 + math.exp(-epsilon))
    below = np.cumsum(binom.pmf(np.arange(v - 1, -1, -1), r, rate))
    steepest = float((below / np.arange(1, v + 1)).max(initial=0.0))
    return min(1.0, float(binom.sf(v - 1, r, rate)) + 2 * guesses.canaries * delta * steepest)


def lower_bound(guesses: Guesses, delta: float, confidence: float) -> float:
    """The largest epsilon that these guesses rule out at `delta`, 0.0 if none; at most 64.

    Args:
        confidence: in (0, 1); a true epsilon is ruled out with probability at most 1 - confidence.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}; expected between 0 and 1, such as 0.95")
    low, high = 0.0, _LARGEST
    if p_value(guesses, 0.0, delta) > 1 - confidence:
        return 0.0
    for _ in range(40):
        middle = (low + high) / 2
        ruled_out = p_value(guesses, middle, delta) <= 1 - confidence
        low, high = (middle, high) if ruled_out else (low, middle)
    return low


def guess_count(canaries: int, separation: float, delta: float, confidence: float) -> int:
    """How many guesses promise the largest bound, chosen before looking.

    Args:
        separation: by how many standard deviations the scores of canaries that took part and of
            those that didn't are expected to differ. A wrong one costs power, never validity.
    """

    def promised(made: int) -> float:
        chance = _right(made / canaries, separation)
        return lower_bound(Guesses(canaries, made, math.floor(made * chance)), delta, confidence)

    counts = np.unique(np.geomspace(1, canaries, _CANDIDATES).astype(int))
    # Where nothing is promised, every guess may as well be made: it would show a broken engine.
    return int(max(counts, key=lambda count: (promised(int(count)), count)))


def guess(scores: NDArray[np.float64], took_part: NDArray[np.bool_], made: int) -> Guesses:
    """Guess at the `made` scores furthest from 1/2: above it took part, below it didn't.

    Args:
        scores: float64 [m]; took_part: bool [m], the truth to count right guesses by.
    """
    furthest = np.argsort(-np.abs(scores - 0.5), kind="stable")[:made]
    right = (scores[furthest] > 0.5) == took_part[furthest]
    return Guesses(len(scores), made, int(np.count_nonzero(right)))


def _right(part: float, separation: float) -> float:
    """The chance of a right guess on the outermost `part` of scores N(+-separation / 2, 1)."""
    low, high = 0.0, separation / 2 + 40.0
    for _ in range(60):
        middle = (low + high) / 2
        outside = (ndtr(separation / 2 - middle) + ndtr(-separation / 2 - middle)) / 2
        low, high = (middle, high) if outside > part / 2 else (low, middle)
    near, far = ndtr(separation / 2 - low), ndtr(-separation / 2 - low)
    return float(near / (near + far)) if near > 0 else 1.0
