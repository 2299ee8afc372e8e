"""The sparse graph of large rosters stays good whoever lies and whoever falls silent."""

from collections.abc import Callable, Mapping
from itertools import combinations
from typing import Any

import networkx
import numpy as np
import pytest

from network.smpc.attempt import Agreement
from network.smpc.coordination import Coordinator, SumAborted
from network.smpc.messages import receipt_message, sealed_message, transcript_hash
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


# Lies where each domain masks with few others: 18 domains, 2 of them lie, 2 may fall silent

Lie = Callable[[Domains, str, Any], Any]
VICTIM = "domain-0"


def around(domains: Domains, name: str) -> list[str]:
    return [other for other in domains.agreement.neighbourhood(name) if other != name]


def heard(domains: Domains) -> bytes:
    adverts = {said.domain: said for said in domains.said if hasattr(said, "seed_digest")}
    return transcript_hash(domains.agreement, adverts)


def all_neighbours_but_the_liars_hidden(domains: Domains, name: str, sealed: Any) -> Any:
    """The victim would be masked with two domains that lie, and its vector would lie open."""
    return sealed[:2] if name == VICTIM else sealed


def as_many_hidden_as_may_be_silent(domains: Domains, name: str, sealed: Any) -> Any:
    """The victim is told that two neighbours fell silent; everybody else, that they are there."""
    return sealed[2:] if name == VICTIM else sealed


def fewer_survivors_than_tau(domains: Domains, name: str, receipts: Any) -> Any:
    return receipts[:15]


def two_camps(domains: Domains, name: str, receipts: Any) -> Any:
    """Two sets of tau survivors each; only one can get tau confirmations."""
    return receipts[:16] if int(name.split("-")[1]) % 2 else receipts[2:]


def shares_of_no_neighbour(domains: Domains, name: str, sealed: Any) -> Any:
    """A domain is handed what another one's neighbour was dealt."""
    if name != VICTIM:
        return sealed
    stranger = next(o for o in domains.keys if o != VICTIM and o not in around(domains, VICTIM))
    fields = dict(sealed[0]) | {"sender": stranger, "receiver": VICTIM}
    signature = domains.keys[stranger].sign(sealed_message(heard(domains), fields))
    return [*sealed, type(sealed[0])(**{**fields, "signature": signature})]


HUB: list[tuple[str, Lie]] = [
    ("reveal", all_neighbours_but_the_liars_hidden),
    ("reveal", as_many_hidden_as_may_be_silent),
    ("reveal", shares_of_no_neighbour),
    ("confirm", fewer_survivors_than_tau),
    ("confirm", two_camps),
]


@pytest.mark.parametrize(("phase", "lie"), HUB, ids=[lie.__name__ for _, lie in HUB])
def test_a_hub_that_lies_about_neighbours_learns_nothing(phase: str, lie: Lie) -> None:
    domains = Domains(18, 16, 2, length=3)
    assert degree(18, 16, 2) == 5

    def exchange(asked: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        if asked == phase:
            arguments = {name: lie(domains, name, told) for name, told in arguments.items()}
        return domains.exchange(asked, arguments)

    coordinator = Coordinator(domains.agreement, exchange)
    try:
        opened = coordinator.finish(coordinator.begin())
        np.testing.assert_array_equal(opened.total, domains.sum_of(opened.survivors))
        assert VICTIM not in opened.survivors
    except SumAborted:
        assert not domains.unmaskings()
    assert domains.refusals or VICTIM in coordinator.left_out, "the lie was taken"
    assert_neither_secret_opens_twice(domains)


def assert_neither_secret_opens_twice(domains: Domains) -> None:
    enough, colluding = domains.agreement.share_threshold, domains.collusion
    answers = domains.unmaskings()
    for name in domains.keys:
        seeds = sum(name in answer.seed_shares for answer in answers) + colluding
        keys = sum(name in answer.key_shares for answer in answers) + colluding
        assert seeds < enough or keys < enough


def deals_to_strangers(domains: Domains, name: str, sealed: Any) -> Any:
    stranger = next(o for o in domains.keys if o != name and o not in around(domains, name))
    fields = dict(sealed[0]) | {"receiver": stranger}
    signature = domains.keys[name].sign(sealed_message(heard(domains), fields))
    return [type(sealed[0])(**{**fields, "signature": signature}), *sealed[1:]]


def masks_with_fewer(domains: Domains, name: str, answer: Any) -> Any:
    """As a domain would whom the hub had told of a smaller k."""
    receipt, elements = answer
    members = tuple(other for other in receipt.members if other != around(domains, name)[0])
    message = receipt_message(heard(domains), dict(receipt) | {"members": members})
    changed = {"members": members, "signature": domains.keys[name].sign(message)}
    return receipt.model_copy(update=changed), elements


@pytest.mark.parametrize(
    ("phase", "lie"), [("share", deals_to_strangers), ("reveal", masks_with_fewer)]
)
def test_a_domain_that_takes_other_neighbours_is_left_out_and_named(phase: str, lie: Lie) -> None:
    domains = Domains(18, 16, 2, length=3)

    def exchange(asked: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        answers = domains.exchange(asked, arguments)
        if asked == phase:
            answers[VICTIM] = lie(domains, VICTIM, answers[VICTIM])
        return answers

    opened = domains.run(exchange)
    assert VICTIM in opened.left_out
    np.testing.assert_array_equal(opened.total, domains.sum_of(opened.survivors))
    assert_neither_secret_opens_twice(domains)


def test_nobody_is_told_how_many_neighbours_to_have() -> None:
    """k follows from the plan's own numbers on every node; a plan that makes it small is none."""
    agreement = Domains(18, 16, 2, length=3).agreement
    assert len(agreement.neighbourhood(VICTIM)) == 1 + 2 + (18 - 16) + 1
    for tau in range(1, 11):
        with pytest.raises(ValueError, match="2 tau > N"):
            Agreement(agreement.context, agreement.roster, tau, 2, 3, 64)
