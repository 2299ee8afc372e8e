"""Dropping digits in shares: right for every number within its bounds, and only with true bits."""

import numpy as np
import pytest
from scipy.stats import chisquare

from network.smpc.dealing import DealerLied
from network.smpc.truncation import Truncation
from tests.network.domains_with_dealer import WithDealer, shares_of

CASES = [(62, 22), (62, 62), (62, 1), (40, 13), (1, 1), (7, 7)]


def truncating(
    values: np.ndarray, bound: int, dropped: int, seed: int = 1, **more: object
) -> WithDealer:
    random = np.random.default_rng(seed)
    inputs = shares_of(values.view(np.uint64), random)
    return WithDealer(Truncation(values.size, bound, dropped), [inputs], **more)  # type: ignore[arg-type]


def edges(bound: int) -> np.ndarray:
    """The ends of the range, around 0, and numbers of every size, both signs."""
    most = 2**bound - 1
    some = [0, 1, most, most - 1, most // 2, *(1 << i for i in range(bound))]
    return np.array([*some, *(-each for each in some)] * 4, np.int64)


@pytest.mark.parametrize(("bound", "dropped"), CASES)
def test_every_number_within_the_bound_is_off_by_less_than_one(bound: int, dropped: int) -> None:
    values = edges(bound)
    together = truncating(values, bound, dropped)
    together.open(*together.deal())
    found = together.result().view(np.int64)
    for value, result in zip(values.tolist(), found.tolist(), strict=True):
        assert result in (value >> dropped, (value >> dropped) + 1)
        if value % 2**dropped == 0:
            assert result == value >> dropped


def test_it_rounds_by_a_public_number_that_is_independent_of_the_values() -> None:
    """floor((x + d) / 2^f), d from what was opened; so the mean over d is x / 2^f."""
    bound, dropped = 30, 5
    values = np.random.default_rng(4).integers(-(2**30) + 1, 2**30, 2000)
    together = truncating(values, bound, dropped)
    together.open(*together.deal())
    result = together.result().view(np.int64)
    party = together.parties["east"]
    c = party._opened >> np.uint64(64 - together.work.width)
    d = 2**dropped - 1 - (c % np.uint64(2**dropped)).astype(np.int64)
    assert np.array_equal(result, (values + d) >> dropped)
    # Fails by chance once in a thousand million runs.
    assert chisquare(np.bincount(d, minlength=2**dropped)).pvalue > 1e-9


def test_what_is_opened_is_uniform_whatever_the_values() -> None:
    found = []
    for value in (0, 2**62 - 1, -(2**62) + 1):
        values = np.full(1000, value, np.int64)
        together = truncating(values, 62, 20, abs(value) % 7)
        together.open(*together.deal())
        found += together.said["opening"]
        found.append(together.parties["east"]._opened)
    octets = np.concatenate(found).view(np.uint8)
    # Fails by chance once in a thousand million runs.
    assert chisquare(np.bincount(octets, minlength=256)).pvalue > 1e-9


def test_narrow_bounds_show_no_bits_beyond_them() -> None:
    together = truncating(np.arange(50), 10, 4)
    together.open(*together.deal())
    assert not (together.parties["east"]._opened % np.uint64(2**52)).any()
    for words in together.said["opening"]:
        assert not (words[2 * together.work.masked :] % np.uint64(2**52)).any()


@pytest.mark.parametrize("bit", [0, 1, 31, 62, 63])
@pytest.mark.parametrize("how", ["bit", "square", "both", "two bits"])
def test_a_dealer_of_what_are_no_bits_is_caught(bit: int, how: str) -> None:
    """Also where a check modulo 2^64 would be blind, and where two lies cancel in a sum."""
    for seed in range(5):
        together = truncating(np.arange(4), 20, 8, seed)
        dealt, corrections = together.deal()
        lied = corrections.copy()
        lie = np.full(2, 1 << bit, np.uint64)
        if how in ("bit", "both"):
            lied[0, 3:4, 0] += lie[:1]
        if how in ("square", "both"):
            lied[1, 3:4, 0] += lie[:1]
        if how == "two bits":
            lied[0, 3:5, 0] += lie * np.array([1, 2**64 - 1], np.uint64)
        together.open(together.resigned(dealt, lied), lied)
        for party in together.parties.values():
            with pytest.raises(DealerLied):
                party.result()


@pytest.mark.parametrize("names", [("a", "b"), tuple(f"domain-{i:02}" for i in range(16))])
def test_any_number_of_domains_truncates(names: tuple[str, ...]) -> None:
    values = np.array([-(2**61) + 5, -1, 0, 1, 2**61 - 9], np.int64)
    shares = shares_of(values.view(np.uint64), np.random.default_rng(0), names)
    together = WithDealer(Truncation(5, 61, 30), [shares])
    together.open(*together.deal())
    found = together.result().view(np.int64)
    assert np.abs(found - values / 2**30).max() < 1
