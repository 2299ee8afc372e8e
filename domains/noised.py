"""A domain's share of the noise, added before anything leaves the run."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from domains.coming_noise import MOST, ComingNoise
from domains.frames import Arrays
from domains.refusals import RoundRefused
from domains.runs import OpenRun
from policies.mechanism import add_noise_share, sample_users
from policies.noise import SecureRandom
from policies.plan import Step

_AT_A_TIME = 2**17


def noised_sum(
    run: OpenRun, step: Step, state: Arrays, coming: ComingNoise
) -> Callable[[], NDArray[np.int64]]:
    """The sum over users whom secret coins selected, made now and noised when it is called for.

    Args:
        coming: this attempt's noise, for the first numbers; the others' is drawn at the call.

    Returns:
        What gives it, once: int64 [P]. It waits for the noise, and raises RoundRefused if this or
        the sum is gone.

    Raises:
        EnclosureFailed: the engine failed.
        RoundRefused: see `noised`.
    """
    _require_noise(run, step)
    selected = sample_users(run.dataset.users, step.sampling_rate, SecureRandom())
    total = run.enclosure().private_sum(step.name, state, selected)

    def with_noise() -> NDArray[np.int64]:
        # In this process's own memory: what the engine could read there would undo the noise.
        value = coming.taken()
        total.add_to(value)
        if value.size > MOST:
            noised(run, step, value[MOST:], step.clip_norm, step.scale)
        return value

    return with_noise


def noised(
    run: OpenRun, step: Step, total: NDArray[np.int64], clip_norm: float, scale: int
) -> NDArray[np.int64]:
    """A total with this domain's share of the noise, in the same memory: int64 [P].

    Raises:
        RoundRefused: the plan adds no noise and the data set is private.
    """
    _require_noise(run, step)
    random = SecureRandom()
    # Block by block, so that the noise takes no second vector of memory.
    for begin in range(0, total.size, _AT_A_TIME):
        part = total[begin : begin + _AT_A_TIME]
        part[:] = add_noise_share(
            part, step.noise_multiplier, clip_norm, scale, run.plan.noise_shares, 0, random
        )
    return total


def _require_noise(run: OpenRun, step: Step) -> None:
    if step.noise_multiplier == 0.0 and not run.dataset.public:
        raise RoundRefused("This data set is private; no sum leaves unnoised.")
