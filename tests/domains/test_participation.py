"""The public state that a round is asked for with: exactly the step's tensors, and only values."""

import numpy as np
import pytest
import safetensors.numpy
import torch

from domains.refusals import RoundRefused
from domains.states import read_state
from network.program import DataSet, Plan, Sum
from policies.plan import RosterEntry, Step


@pytest.fixture(scope="module")
def step() -> Step:
    def count(state, user):  # type: ignore[no-untyped-def]
        return {"sum": (user.mask * state["on"].float()).sum()}

    data = DataSet("clicks", 12, 6, 300, "0" * 64, False)
    roster = [
        RosterEntry(name=n, server_uid=n * 32, node_key=k * 64, owner_key=k * 64)
        for n, k in (("a", "1"), ("b", "2"), ("c", "3"))
    ]
    state = {"on": torch.ones(6, dtype=torch.bool)}
    return Plan("p", "p", data, [Sum("s", count, 1.0)], state).bind(roster, "0" * 64).steps[0]


def test_the_steps_own_tensors_are_taken(step: Step) -> None:
    given = np.array([1, 0, 1, 1, 0, 0], dtype=bool)
    assert np.array_equal(read_state(step, safetensors.numpy.save({"on": given}))["on"], given)


def test_a_truth_value_is_0_or_1(step: Step) -> None:
    honest = safetensors.numpy.save({"on": np.ones(6, dtype=bool)})
    assert honest.endswith(b"\x01" * 6)
    with pytest.raises(RoundRefused, match="truth values other than 0 and 1"):
        read_state(step, honest[:-1] + b"\xc8")


@pytest.mark.parametrize("content", [b"", b"\x80\x04K\x01.", b"\xff" * 64])
def test_what_is_no_safetensors_is_refused(step: Step, content: bytes) -> None:
    with pytest.raises(RoundRefused, match="not safetensors"):
        read_state(step, content)


def test_another_state_is_refused(step: Step) -> None:
    for given in ({}, {"on": np.ones(5, dtype=bool)}, {"on": np.ones(6, dtype=np.float32)}):
        with pytest.raises(RoundRefused, match="takes the state"):
            read_state(step, safetensors.numpy.save(given))
