"""Partners differ in size and in taste, and nobody is lost or doubled."""

import numpy as np
import pandas as pd
import pytest
import scipy.spatial.distance
from pandas import DataFrame

from recommenders.splits import popularity_distance, split_by_taste

PARTNERS = ("north", "east", "south")
PAIRS = (("north", "east"), ("north", "south"), ("east", "south"))


@pytest.fixture(scope="module")
def interactions() -> DataFrame:
    """600 users with 20 items each of 200, drawn by popularity and one of four hidden genres."""
    random = np.random.default_rng(7)
    popular = 1.0 / np.arange(1, 201)
    rows = []
    for user in range(600):
        genre = np.where(np.arange(200) % 4 == user % 4, 6.0, 1.0)
        weights = popular * genre
        for item in random.choice(200, 20, replace=False, p=weights / weights.sum()):
            rows.append((user * 3 + 1, int(item) * 2))
    return DataFrame(rows, columns=["user", "item"])


def random_split(interactions: DataFrame, sizes: list[int]) -> dict[str, DataFrame]:
    users = np.random.default_rng(1).permutation(interactions["user"].unique())
    groups = np.split(users, np.cumsum(sizes)[:-1])
    return {
        name: interactions[interactions["user"].isin(group)]
        for name, group in zip(PARTNERS, groups, strict=True)
    }


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_tastes_differ_far_more_than_in_a_random_split(interactions: DataFrame, seed: int) -> None:
    split = split_by_taste(interactions, seed=seed)
    by_chance = random_split(interactions, [300, 180, 120])
    for left, right in PAIRS:
        distance = popularity_distance(split[left], split[right])
        assert distance > 1.5 * popularity_distance(by_chance[left], by_chance[right])


def test_sizes_are_the_shares_of_the_users(interactions: DataFrame) -> None:
    split = split_by_taste(interactions)
    assert list(split) == list(PARTNERS)
    assert [part["user"].nunique() for part in split.values()] == [300, 180, 120]


def test_every_user_is_with_exactly_one_partner_and_no_row_is_lost(
    interactions: DataFrame,
) -> None:
    split = split_by_taste(interactions)
    homes = [set(part["user"]) for part in split.values()]
    assert sum(map(len, homes)) == len(set.union(*homes)) == interactions["user"].nunique()
    together = pd.concat(split.values()).sort_values(["user", "item"], ignore_index=True)
    expected = interactions.sort_values(["user", "item"], ignore_index=True)
    pd.testing.assert_frame_equal(together, expected)


def test_the_seed_decides(interactions: DataFrame) -> None:
    first, again, other = (split_by_taste(interactions, seed=seed) for seed in (5, 5, 6))
    for name in PARTNERS:
        pd.testing.assert_frame_equal(first[name], again[name])
    assert set(first["north"]["user"]) != set(other["north"]["user"])


def test_other_columns_and_the_order_of_rows_are_kept() -> None:
    rows = [(1, 5, 3.0), (2, 6, 1.0), (1, 6, 2.0), (3, 5, 4.0)]
    table = DataFrame(rows, columns=["user", "item", "value"])
    split = split_by_taste(table, ("a", "b"), (0.5, 0.5))
    home = next(part for part in split.values() if 1 in set(part["user"]))
    assert home[home["user"] == 1]["value"].tolist() == [3.0, 2.0]


def test_every_partner_gets_a_user_even_with_a_tiny_share() -> None:
    table = DataFrame({"user": range(5), "item": [0, 1, 0, 1, 0]})
    split = split_by_taste(table, ("a", "b", "c"), (0.98, 0.01, 0.01))
    assert [len(part) for part in split.values()] == [3, 1, 1]


def test_more_partners_than_tastes_still_divide_everyone() -> None:
    table = DataFrame({"user": range(6), "item": [0, 1, 0, 1, 0, 1]})
    split = split_by_taste(table, ("a", "b", "c", "d"), (0.25,) * 4)
    assert sorted(user for part in split.values() for user in part["user"]) == list(range(6))


@pytest.mark.parametrize(
    ("partners", "shares", "said"),
    [
        (("a",), (1.0,), "at least two"),
        (("a", "a"), (0.5, 0.5), "once"),
        (("a", "b"), (1.0,), "one positive share"),
        (("a", "b"), (1.5, -0.5), "one positive share"),
        (("a", "b"), (0.5, 0.4), "adding up to 1"),
        (("a", "b", "c", "d"), (0.25,) * 4, "can't be divided"),
    ],
)
def test_an_impossible_division_is_refused(
    partners: tuple[str, ...], shares: tuple[float, ...], said: str
) -> None:
    table = DataFrame({"user": [1, 2, 3], "item": [1, 2, 1]})
    with pytest.raises(ValueError, match=said):
        split_by_taste(table, partners, shares)


def test_the_distance_is_jensen_shannons() -> None:
    left = DataFrame({"item": [1, 1, 1, 2]})
    right = DataFrame({"item": [2, 2, 3, 3]})
    expected = scipy.spatial.distance.jensenshannon([0.75, 0.25, 0], [0, 0.5, 0.5], base=2)
    assert popularity_distance(left, right) == pytest.approx(float(expected))
    assert popularity_distance(left, left) == 0.0
    assert popularity_distance(left, DataFrame({"item": [9]})) == pytest.approx(1.0)
