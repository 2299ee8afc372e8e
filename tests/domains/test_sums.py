"""Sums that an engine leaves: added up exactly, of a size that nobody changes."""

import os

import numpy as np
import pytest

from domains import sums
from domains.refusals import RoundRefused
from tests.domains.participating_domains import left


@pytest.mark.parametrize("mapped", [8, 2**24])
def test_a_sum_is_added_whole_however_much_is_mapped_at_a_time(
    mapped: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sums, "_MAPPED_BYTES", mapped * 4096)
    values = np.random.default_rng(1).integers(-(2**62), 2**62, 3 * 4096 + 5)
    total, found = left(values), np.arange(values.size)
    total.add_to(found)
    assert np.array_equal(found, values + np.arange(values.size))
    shorter = np.zeros(7, np.int64)
    total.add_to(shorter)
    assert np.array_equal(shorter, values[:7])
    total.sums.close()


def test_a_sum_is_gone_once_another_was_asked_for_or_the_engine_ended() -> None:
    first, vector = left(np.arange(8)), np.zeros(8, np.int64)
    second = first.sums.next()
    with pytest.raises(RoundRefused, match="sum is gone"):
        first.add_to(vector)
    second.sums.close()
    with pytest.raises(RoundRefused, match="sum is gone"):
        second.add_to(vector)
    assert not vector.any()


def test_whoever_has_it_open_can_t_change_its_size() -> None:
    total = left(np.arange(8))
    for size in (0, 8, 128):
        with pytest.raises(PermissionError):
            os.ftruncate(total.sums.fileno(), size)
    with pytest.raises(PermissionError):
        os.pwrite(total.sums.fileno(), b"more", 64)
    total.sums.close()
