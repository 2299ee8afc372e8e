"""HR@k and NDCG@k against values worked out by hand."""

import math

import numpy as np
import pytest
import torch

from recommenders.evaluation import hit_ratio_and_ndcg


def test_values_worked_out_by_hand() -> None:
    scores = np.array(
        [
            [9.0, 1.0, 2.0, 3.0],  # first: gain 1
            [2.5, 1.0, 2.0, 3.0],  # second: gain 1 / log2(3)
            [1.5, 1.0, 2.0, 3.0],  # third: not among 2
            [0.0, 1.0, 2.0, 3.0],  # last
        ]
    )
    hit_ratio, ndcg = hit_ratio_and_ndcg(scores, k=2)
    assert hit_ratio == 0.5
    assert ndcg == pytest.approx((1 + 1 / math.log2(3)) / 4, abs=1e-15)


@pytest.mark.parametrize("above", range(12))
def test_the_list_ends_after_k_items(above: int) -> None:
    scores = np.concatenate(([0.0], np.ones(above), -np.ones(99 - above)))[np.newaxis]
    hit_ratio, ndcg = hit_ratio_and_ndcg(scores, k=10)
    assert hit_ratio == (1.0 if above < 10 else 0.0)
    assert ndcg == pytest.approx(1 / math.log2(above + 2) if above < 10 else 0.0)


def test_ties_count_against_the_model() -> None:
    assert hit_ratio_and_ndcg(np.zeros((5, 100)), k=10) == (0.0, 0.0)
    one_tie = np.array([[1.0, 1.0, 0.0]])
    assert hit_ratio_and_ndcg(one_tie, k=1).hit_ratio == 0.0
    assert hit_ratio_and_ndcg(one_tie, k=2).ndcg == pytest.approx(1 / math.log2(3))


def test_nan_counts_against_the_model() -> None:
    nan = float("nan")
    assert hit_ratio_and_ndcg(np.array([[nan, 0.0, 0.0]]), k=1).hit_ratio == 0.0
    assert hit_ratio_and_ndcg(np.array([[1.0, nan, 0.0]]), k=1).hit_ratio == 0.0


def test_tensors_and_arrays_give_the_same() -> None:
    scores = np.random.default_rng(0).standard_normal((50, 100)).astype(np.float32)
    tensor = torch.from_numpy(scores).requires_grad_()
    assert hit_ratio_and_ndcg(tensor) == hit_ratio_and_ndcg(scores)


def test_random_scores_hit_a_tenth_of_the_time() -> None:
    """4,000 users: HR@10 is binomial(4000, 0.1); 5 standard errors fail 6e-7 of the time."""
    scores = np.random.default_rng().random((4000, 100))
    assert hit_ratio_and_ndcg(scores).hit_ratio == pytest.approx(0.1, abs=5 * 0.00475)


@pytest.mark.parametrize("shape", [(0, 100), (3, 1), (100,), (2, 2, 2)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="expected scores of shape"):
        hit_ratio_and_ndcg(np.zeros(shape))


def test_an_empty_list_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        hit_ratio_and_ndcg(np.zeros((1, 2)), k=0)
