"""The sparse graph of large rosters stays good whoever lies and whoever falls silent."""

from itertools import combinations

import networkx
import numpy as np
import pytest

from network.smpc.neighbours import SPARSE_ABOVE, degree, neighbourhood, share_threshold
from tests.network.roster_of_domains import PHASES, Domains


def rosters() -> list[tuple[int, int, int]]:
    """(N, tau, t) with 2 tau > N + t, sparse and dense ones."""
    found = [
        (size, tau, t)
        for size in (17, 18, 23)
        for t in (1, 2, (size - 1) // 4, (size - 1) // 2)
        for tau in ((size + t) // 2 + 1, size - 1, size)
    ]
    return [*found, (64, 64, 1), (64, 62, 4)]


def graph(size: int, each: int) -> networkx.Graph:
    edges = [(i, j) for i in range(size) for j in neighbourhood(i, size, each) if i != j]
    return networkx.Graph(edges)


@pytest.mark.parametrize(("size", "tau", "t"), rosters())
def test_no_choice_of_liars_and_silent_domains_breaks_the_graph(
    size: int, tau: int, t: int
) -> None:
    each, shares = degree(size, tau, t), share_threshold(size, tau, t)
    silent = size - tau
    whole = graph(size, each)
    assert {count for _, count in whole.degree} == {each}, "everyone has as many neighbours"
    assert each == size - 1 or networkx.node_connectivity(whole) > t + silent, "what is left holds"
    assert shares > t, "liars don't hold enough shares"
    assert each + 1 - silent >= shares, "whoever is left does"


def test_neighbours_are_mutual_and_small_rosters_mask_with_everybody() -> None:
    for size in range(3, SPARSE_ABOVE + 1):
        assert neighbourhood(0, size, degree(size, size, 1)) == tuple(range(size))
        assert share_threshold(size, size - 1, 1) == size - 1
    for size, tau, t in rosters():
        each = degree(size, tau, t)
        around = [set(neighbourhood(i, size, each)) for i in range(size)]
        assert all((i in around[j]) == (j in around[i]) for i, j in combinations(range(size), 2))


@pytest.mark.parametrize(("size", "tau", "t"), [(17, 15, 2), (24, 22, 3), (64, 62, 4)])
def test_sparse_rosters_sum_with_as_many_silent_as_the_plan_allows(
    size: int, tau: int, t: int
) -> None:
    domains = Domains(size, tau, t, length=3)
    assert degree(size, tau, t) < size - 1
    names = list(domains.keys)
    # Neighbours fall silent together, where it hurts most: one before masking, the others after.
    lost = dict(zip(names, ("reveal", "confirm"), strict=False))
    lost[names[0]] = "reveal"

    def exchange(phase: str, arguments: dict) -> dict:
        step = PHASES.index(phase)
        alive = {n: a for n, a in arguments.items() if step < PHASES.index(lost.get(n, "unmask"))
                 or n not in lost}  # fmt: skip
        return domains.exchange(phase, alive)

    opened = domains.run(exchange)
    np.testing.assert_array_equal(opened.total, domains.sum_of(opened.survivors))
    assert names[0] not in opened.survivors
    assert all(len(d.seed_shares) < size for d in domains.unmaskings())
