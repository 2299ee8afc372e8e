"""A hub and t domains that lie with it, all they saw put together: they learn the total alone.

`coalition.Coalition` has the argument. Statistical tests here fail by chance once in 10^6 runs of a
right program, each.
"""

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import scipy.stats

from network.smpc.coordination import SumAborted
from tests.network.coalition import Coalition
from tests.network.roster_of_domains import Domains

CHANCE = 1e-6
ROSTERS = {"three": (3, 3, 1), "eight": (8, 6, 2), "sparse": (18, 16, 2)}


def run(domains: Domains, members: tuple[str, ...], late: tuple[str, ...] = ()) -> Any:
    """An attempt that a coalition overhears; what `late` domains mask comes, but isn't used."""
    coalition = Coalition(domains, members)

    def exchange(phase: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        answers = coalition.exchange(phase, arguments)
        dropped = late if phase == "reveal" else ()
        return {name: answer for name, answer in answers.items() if name not in dropped}

    return coalition, domains.run(exchange)


@pytest.mark.parametrize("kind", ROSTERS)
def test_what_masks_are_left_is_uniform_but_for_the_total(kind: str) -> None:
    """The vectors are as unlike noise as can be: nearly all of them zeros."""
    size, tau, t = ROSTERS[kind]
    domains = Domains(size, tau, t, length=2**12)
    names = list(domains.keys)
    # The neighbours of whom they want to read, where domains mask with few.
    members, late = (names[1],) if t == 1 else (names[1], names[-1]), names[2 : 2 + size - tau]
    domains.values = {name: np.zeros(2**12, dtype=np.int64) for name in names}
    domains.values[names[0]][:] = 10**6
    coalition, opened = run(domains, members, tuple(late))
    assert set(late).isdisjoint(opened.survivors)
    assert set(late) < set(coalition.inputs)
    coalition.assert_nothing_is_learned()
    left = {name: coalition.peeled(name) for name in coalition.honest()}
    together = [name for name in left if name in opened.survivors]
    pairs = [pair for pair in itertools.pairwise(left) if set(pair) != set(together)]
    seen = [*left.values(), *(left[one] + left[other] for one, other in pairs)]
    for elements in seen:
        counts = np.bincount(elements.view(np.uint8), minlength=256)
        assert scipy.stats.chisquare(counts).pvalue > CHANCE / len(seen)
    total = np.sum([left[name] for name in together], axis=0, dtype=np.uint64)
    wanted = domains.sum_of(tuple(together))
    np.testing.assert_array_equal(total.view(np.int64), wanted)


def test_a_coalition_of_one_more_than_approved_would_read_a_domain() -> None:
    """So the test above can see: two of three domains and the hub know the third one's vector."""
    domains = Domains(3, 3, 1, length=64)
    coalition, _ = run(domains, ("domain-1", "domain-2"))
    found = coalition.peeled("domain-0").view(np.int64)
    np.testing.assert_array_equal(found, domains.values["domain-0"])


def test_an_attempt_that_opens_nothing_leaves_every_mask_on() -> None:
    domains = Domains(8, 6, 2)
    coalition = Coalition(domains, ("domain-6", "domain-7"))

    def exchange(phase: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        answers = coalition.exchange(phase, arguments)
        return dict(list(answers.items())[:5]) if phase == "confirm" else answers

    with pytest.raises(SumAborted):
        domains.run(exchange)
    assert all(coalition.is_hidden(name) for name in coalition.honest())
    coalition.assert_nothing_is_learned()
