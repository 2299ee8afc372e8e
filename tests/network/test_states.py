"""A state goes to a node in one message, or in parts where it is longer than one."""

from typing import Any

import numpy as np
import pytest
from blake3 import blake3

from network.smpc.messages import PART_BYTES
from network.states import end_run


@pytest.mark.parametrize("size", [0, 10, PART_BYTES])
def test_a_run_ends_in_one_message_where_its_state_fits(size: int) -> None:
    asked: list[tuple[str, dict[str, Any]]] = []
    model = np.ones(size, dtype=np.uint8)
    end_run(lambda method, **told: asked.append((method, told)), model)
    ((method, told),) = asked
    assert method == "finish"
    assert told["state"] is model


def test_a_longer_one_comes_before_in_parts_of_one_message_each() -> None:
    asked: list[tuple[str, dict[str, Any]]] = []
    model = np.arange(2 * PART_BYTES + 5, dtype=np.uint8)
    end_run(lambda method, **told: asked.append((method, told)), model)
    *parts, (method, told) = asked
    assert [name for name, _ in parts] == ["hold"] * 3
    np.testing.assert_array_equal(np.concatenate([each["part"] for _, each in parts]), model)
    assert [each["begin"] for _, each in parts] == [0, PART_BYTES, 2 * PART_BYTES]
    assert (method, told["state"].size) == ("finish", 0)
    digest = blake3(model.data).hexdigest()
    assert {each["state_digest"] for _, each in asked} == {digest}
