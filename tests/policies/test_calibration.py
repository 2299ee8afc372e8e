"""The noise that an epsilon takes, against dp-accounting called directly."""

import pytest
from dp_accounting.dp_event import GaussianDpEvent, PoissonSampledDpEvent
from dp_accounting.pld import PLDAccountant

from policies.calibration import calibrate


def direct(noise: float, rate: float, count: int, delta: float) -> float:
    accountant = PLDAccountant(value_discretization_interval=1e-3)
    event = GaussianDpEvent(noise)
    accountant.compose(event if rate == 1 else PoissonSampledDpEvent(rate, event), count)
    return float(accountant.get_epsilon(delta))


@pytest.mark.parametrize(
    ("epsilon", "rounds", "users_per_round"), [(0.5, 1, None), (2.0, 30, None), (8.0, 50, 500)]
)
def test_the_noise_meets_the_epsilon_and_no_less_would(
    epsilon: float, rounds: int, users_per_round: int | None
) -> None:
    found = calibrate(epsilon=epsilon, rounds=rounds, users=5000, users_per_round=users_per_round)
    assert (found.rounds, found.delta) == (rounds + 2, 1e-5)
    assert found.sampling_rate == (1.0 if users_per_round is None else 0.1)
    there = direct(found.noise_multiplier, found.sampling_rate, found.rounds, found.delta)
    assert there == pytest.approx(found.epsilon, abs=1e-6)
    assert epsilon - 1e-6 <= there <= epsilon
    less = direct(found.noise_multiplier * (1 - 1e-5), found.sampling_rate, found.rounds, 1e-5)
    assert less > epsilon


def test_what_makes_no_sense_is_refused() -> None:
    for rounds in (1.5, True, "3", float("nan")):
        with pytest.raises(ValueError, match="expected a whole number"):
            calibrate(epsilon=1.0, rounds=rounds, users=10)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="must be positive"):
        calibrate(epsilon=0.0, rounds=1, users=10)
    with pytest.raises(ValueError, match="users_per_round"):
        calibrate(epsilon=1.0, rounds=1, users=10, users_per_round=11)
