"""A wrong argument of a plan is told its author at once: what is wrong, and what to write."""

from typing import Any

import numpy as np
import pytest
import torch

import coterie as ct
from tests.network.test_program import AUTHOR, count, loss, plan, roster


def test_a_kept_step_refuses_what_would_never_be_called() -> None:
    for given in ({"update": lambda state, totals, noise: state}, {"metrics": lambda totals: {}}):
        (name,) = given
        with pytest.raises(ValueError, match=rf"{name} is never called: leave it out, and compute"):
            ct.Sum("s", count, 1.0, kept=True, **given)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=f"{name} is never called"):
            ct.Gradient("g", loss, ["table"], kept=True, **given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"aggregation": "he"}, "aggregation is 'he'; expected 'smpc' or 'ckks'"),
        ({"aggregation": None}, "aggregation is None; expected 'smpc' or 'ckks'"),
        ({"comparisons": "mpc"}, "comparisons is 'mpc'; expected 'spu' or None"),
        ({"comparisons": True}, "comparisons is True; expected 'spu' or None"),
        ({"dealer": "notary"}, "dealer is 'notary'; expected None, or ct.Dealer"),
        ({"steps": ct.Sum("s", count, 1.0)}, r"steps is one Sum; put it in a list: steps=\[...\]"),
        ({"steps": []}, "steps is empty; expected a list"),
        ({"steps": [count]}, "steps has a function; expected ct.Sum"),
        ({"steps": [ct.Sum("s", count, 1.0)] * 2}, "Two steps are named 's'"),
        ({"steps": [ct.Sum("s", count, 1.0, after="t", every=1)]}, "after 't', which isn't before"),
        ({"epsilon": 0}, "epsilon is 0; expected a positive number; None on public data"),
        ({"epsilon": "8"}, "epsilon is '8'; expected a positive number"),
        ({"epsilon": float("nan")}, "epsilon is nan"),
        ({"delta": 1.0}, "delta is 1.0; expected a probability"),
        ({"threshold": 2.5}, "threshold is 2.5; expected a whole number"),
        ({"collusion": True}, "collusion is True; expected a whole number"),
        ({"spare_attempts": -1}, "spare_attempts is -1; expected a whole number .int. from 0"),
        ({"deadline_s": 0.5}, "deadline_s is 0.5; expected a whole number .int. from 1 to 86400"),
        ({"two_domains": "yes"}, "two_domains is 'yes'; expected True or False"),
        ({"name": "a/b"}, "name is 'a/b'; expected 1 to 64 letters"),
        ({"purpose": None}, "purpose is None; expected a sentence"),
        ({"state": [1]}, "state is a list; expected tensors by name"),
        ({"state": {"w": np.zeros(3)}}, r"state\['w'\] is a ndarray; expected a tensor"),
        ({"data": "clicks"}, r"data is 'clicks'; expected a data set: fed.data\('clicks'\)"),
        ({"model": torch.nn.Linear}, "model is the class Linear; expected a torch.nn.Module"),
        ({"memory": 3}, "memory is 3; expected a function or None"),
        ({"memory_size": 3}, "memory_size is given, but no memory"),
        ({"scores": lambda state, memory: memory}, "scores is given, but no memory"),
    ],
    ids=lambda given: next(iter(given)) if isinstance(given, dict) else "",
)
def test_a_plan_says_what_is_wrong_in_it(given: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        plan(**given)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"name": ""}, "name is ''; expected 1 to 64 letters"),
        ({"contribution": None}, "contribution is None; expected a function of"),
        ({"clip_norm": 0}, "clip_norm is 0; expected a positive number"),
        ({"clip_norm": "1"}, "clip_norm is '1'; expected a positive number"),
        ({"clip_norm": float("inf")}, "clip_norm is inf; expected a positive number"),
        ({"clip_norm": {"counts": -1.0}}, "clip_norm is a dict; expected a positive number"),
        ({"releases": 0}, "releases is 0; expected a whole number .int. of at least 1"),
        ({"releases": 1.5}, "releases is 1.5; expected a whole number"),
        ({"releases": np.int64(3)}, r"releases is a int64; expected a whole number \(int\)"),
        ({"weight": -1.0}, "weight is -1.0; expected a positive number"),
        ({"sampling_rate": 2}, "sampling_rate is 2; expected a number above 0, up to 1"),
        ({"every": 2}, "after is None and every is 2; give both"),
        ({"after": "t", "every": 0}, "every is 0; expected a whole number"),
        ({"update": 3}, "update is 3; expected a function or None"),
        ({"metrics": 3}, "metrics is 3; expected a function or None"),
        ({"kept": "yes"}, "kept is 'yes'; expected True or False"),
    ],
    ids=lambda given: next(iter(given)) if isinstance(given, dict) else "",
)
def test_a_step_says_what_is_wrong_in_it(given: dict[str, Any], told: str) -> None:
    facts: dict[str, Any] = {"name": "s", "contribution": count, "clip_norm": 1.0, **given}
    with pytest.raises(ValueError, match=told):
        ct.Sum(**facts)


def test_names_to_train_come_in_a_list() -> None:
    with pytest.raises(ValueError, match=r"parameters is 'table'; expected names in a list"):
        ct.Gradient("train", loss, "table")


@pytest.mark.parametrize("given", [{"collusion": 3}, {"threshold": 1}, {"threshold": 4}], ids=str)
def test_a_threshold_that_fits_no_roster_is_told_with_the_number_of_partners(
    given: dict[str, int],
) -> None:
    with pytest.raises(ValueError, match=r"for 3 partners; expected collusion < threshold <= 3"):
        plan(**given).bind(roster(), AUTHOR)


def test_numbers_of_numpy_and_torch_are_numbers() -> None:
    step = ct.Sum("s", count, torch.tensor(2.0), releases=3, weight=np.float32(1))  # type: ignore[arg-type]
    assert plan(steps=[step], epsilon=np.float64(4.0)).bind(roster(), AUTHOR).steps[0].releases == 3
